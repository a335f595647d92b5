"""One spelling per value, for columns of any type as for single values."""

import datetime
import decimal

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from preprocessing.values.spelling import INEXACT, MISSING, NOT_UTF8, InexactError, spell, spelled

D = decimal.Decimal

SPELLINGS = [
    (7, "7"),
    (-7, "-7"),
    (2**63 - 1, str(2**63 - 1)),
    (7.0, "7"),
    (-0.0, "0"),
    (1e11, "100000000000"),
    (float(2**53 - 1), "9007199254740991"),
    (7.5, "7.5"),
    (0.1, "0.1"),
    (1e-7, "1e-07"),
    (float("inf"), "inf"),
    (D("7"), "7"),
    (D("12.00"), "12"),
    (D("7.50"), "7.5"),
    (D("0.0000001"), "1e-07"),
    (D("12345678901234567890"), "12345678901234567890"),
    (D("0.12345678901234567890"), "0.1234567890123456789"),
    (True, "true"),
    (False, "false"),
    ("7", "7"),
    ("7.0", "7"),
    ("12.00", "12"),
    ("-3.0", "-3"),
    ("-0.0", "0"),
    ("9007199254740991.0", "9007199254740991"),
    ("9007199254740993", "9007199254740993"),
    ("True", "true"),
    ("FALSE", "false"),
    ("tRue", "tRue"),
    ("007", "007"),
    ("007.0", "007.0"),
    ("7.50", "7.50"),
    ("1.10", "1.10"),
    ("1e5", "1e5"),
    ("+7", "+7"),
    ("i7.0", "i7.0"),
    ("", None),
    (r"\N", None),
    ("NULL", None),
    ("<NA>", None),
    ("nil", "nil"),
    ("NA", "NA"),
    ("Nan", "Nan"),
    (float("nan"), None),
]
LOST = [2.0**53, -(2.0**60), "9007199254740992.0", "1.23457E+11", "1e+16", "123456789012345678.0"]


@pytest.mark.parametrize(("value", "text"), SPELLINGS, ids=map(repr, SPELLINGS))
def test_a_value_and_a_column_of_it_are_spelled_alike(value, text):
    assert spell(value) == text
    column = pa.array([value, None, value])
    for other in (column, column.dictionary_encode(), column[1:]):
        result = spelled(other)
        assert result.texts.to_pylist() == [text if v is not None else v for v in other.to_pylist()]
        assert not any(bad.any() for bad in result.faults.values())


@pytest.mark.parametrize("value", LOST)
def test_a_number_whose_last_digits_are_lost_has_no_spelling(value):
    with pytest.raises(InexactError):
        spell(value)
    texts, faults = spelled(pa.array([value, None]))
    assert texts.to_pylist() == [None, None]
    assert faults[INEXACT].tolist() == [True, False]


def test_single_precision_loses_digits_earlier():
    texts, faults = spelled(pa.array([16777215.0, 16777216.0, 0.1], pa.float32()))
    assert texts.to_pylist() == ["16777215", None, "0.1"]
    assert faults[INEXACT].tolist() == [False, True, False]


@pytest.mark.parametrize(
    "kind",
    [
        pa.string(),
        pa.large_string(),
        pa.string_view(),
        pa.binary(),
        pa.large_binary(),
        pa.binary_view(),
        pa.dictionary(pa.int8(), pa.string()),
    ],
    ids=str,
)
def test_every_type_of_text_has_the_same_spellings(kind):
    texts, _ = spelled(pa.array(["7.0", "x", None, "", "7"]).cast(kind))
    assert texts.to_pylist() == ["7", "x", None, None, "7"]


@pytest.mark.parametrize(
    "kind",
    [pa.int8(), pa.uint64(), pa.float32(), pa.float64(), pa.decimal32(5, 2), pa.decimal256(60, 9)],
    ids=str,
)
def test_every_type_of_number_has_the_same_spellings(kind):
    values = [D(7), None, D(12)] if pa.types.is_decimal(kind) else [7, None, 12]
    texts, _ = spelled(pa.array(values, kind))
    assert texts.to_pylist() == ["7", None, "12"]


def test_days_are_spelled_in_iso_form_and_what_is_all_missing_is_missing():
    assert spelled(pa.array([datetime.date(2017, 11, 25)])).texts.to_pylist() == ["2017-11-25"]
    assert spelled(pa.nulls(2)).texts.to_pylist() == [None, None]
    nothing = pa.DictionaryArray.from_arrays(pa.array([None], pa.int8()), pa.array([], pa.string()))
    assert spelled(nothing).texts.to_pylist() == [None]


def test_bytes_that_are_no_text_are_told():
    texts, faults = spelled(pa.array([b"a", b"\xff", b"7.0"]))
    assert texts.to_pylist() == ["a", None, "7"]
    assert faults[NOT_UTF8].tolist() == [False, True, False]


@given(
    st.lists(
        st.one_of(
            st.none(),
            st.text(),
            st.sampled_from([*MISSING, *(text for text, _ in SPELLINGS if isinstance(text, str))]),
            st.integers(-(2**60), 2**60).map(lambda n: f"{n}.0"),
            st.floats().map(repr),
        )
    )
)
def test_a_text_is_spelled_by_itself_and_never_by_its_neighbours(texts):
    """The look at the ends of the texts of a column overlooks none that has to be respelled."""
    alone, lost = [], []
    for text in texts:
        try:
            alone.append(None if text is None else spell(text))
            lost.append(False)
        except InexactError:
            alone.append(None)
            lost.append(True)
    column = pa.array(texts, pa.string())
    for part in (slice(None), slice(1, None)):
        result = spelled(column[part])
        assert result.texts.to_pylist() == alone[part]
        assert result.faults.get(INEXACT, np.zeros(len(lost[part]), bool)).tolist() == lost[part]


@given(st.lists(st.one_of(st.none(), st.floats(), st.integers(-(2**54), 2**54).map(float))))
def test_a_float_is_spelled_by_itself_and_never_by_its_neighbours(numbers):
    alone = []
    for number in numbers:
        try:
            alone.append(None if number is None else spell(number))
        except InexactError:
            alone.append(None)
    assert spelled(pa.array(numbers, pa.float64())).texts.to_pylist() == alone
