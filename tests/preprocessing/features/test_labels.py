"""preprocessing.features.labels: which values of a label are positive."""

import math

import numpy as np
import pyarrow as pa
import pytest

from preprocessing.errors import UserError
from preprocessing.features import labels

VALUES = [-1, 0, 1, 3, 4, 5]


@pytest.mark.parametrize("spaces", ["", " "])
@pytest.mark.parametrize("is_integer", [False, True])
@pytest.mark.parametrize(
    ("comparison", "holds"),
    [
        (">=", lambda value: value >= 3),
        (">", lambda value: value > 3),
        ("<=", lambda value: value <= 3),
        ("<", lambda value: value < 3),
        ("==", lambda value: value == 3),
    ],
)
def test_every_comparison_on_both_types(comparison, holds, is_integer, spaces):
    rule = labels.parse(f"{spaces}{comparison}{spaces}3{spaces}", is_integer, "label")
    values = pa.array([*VALUES, None], pa.int64() if is_integer else pa.float32())
    assert rule.holds(values).to_pylist() == [*map(holds, VALUES), None]
    assert str(rule) == f"{comparison}3"


def test_a_number_with_a_fraction_is_equal_to_itself_as_float32():
    values = pa.array([4.1], pa.float32())
    assert float(np.float32(4.1)) < 4.1
    assert labels.parse(">=4.1", False, "label").holds(values).to_pylist() == [True]
    assert labels.parse("==4.1", False, "label").holds(values).to_pylist() == [True]
    assert labels.parse(">4.1", False, "label").holds(values).to_pylist() == [False]


def test_integers_beyond_double_precision_are_told_apart():
    values = pa.array([2**53, 2**53 + 1], pa.int64())
    assert labels.parse(f">{2**53}", True, "label").holds(values).to_pylist() == [False, True]


@pytest.mark.parametrize(
    ("spellings", "canonical"),
    [
        ((">=4", ">= 4.0", " >=+4 ", ">=4.", ">=.4e1"), ">=4"),
        (("<3.5", "< 3.50", "<35e-1"), "<3.5"),
        (("> -1", ">-1.0"), ">-1"),
    ],
)
def test_a_rule_has_one_spelling(spellings, canonical):
    rules = {labels.parse(text, False, "label") for text in spellings}
    assert {str(rule) for rule in rules} == {canonical}
    assert rules == {labels.parse(canonical, False, "label")}


@pytest.mark.parametrize(
    ("text", "is_integer", "message"),
    [
        ("4", False, "expected >=, >, <=, < or == and a number, found '4'"),
        ("=>4", False, "found '=>4'"),
        ("=4", False, "found '=4'"),
        (">=four", False, "found '>=four'"),
        (">=nan", False, "found '>=nan'"),
        (">=4,5", False, "found '>=4,5'"),
        (">=4 and <6", False, "found '>=4 and <6'"),
        ("", False, "found ''"),
        (4, False, "found 4"),
        (None, False, "found None"),
        (">=3.5", True, "expected a whole number of 64 bits for dtype int64, found '>=3.5'"),
        (f">={2**63}", True, "expected a whole number of 64 bits"),
        (">=3.5e38", False, "expected a number that float32 can hold, found '>=3.5e38'"),
        (">=1e999", False, "expected a number that float32 can hold, found '>=1e999'"),
    ],
)
def test_what_is_no_rule_is_one_line(text, is_integer, message):
    with pytest.raises(UserError) as caught:
        labels.parse(text, is_integer, "s.json: features[3] (rating): positive")
    assert message in str(caught.value)
    assert str(caught.value).startswith("s.json: features[3] (rating): positive: ")
    assert "\n" not in str(caught.value)


def test_the_largest_float32_is_a_threshold():
    largest = float(np.finfo(np.float32).max)
    rule = labels.parse(f"<{largest!r}", False, "label")
    assert rule.holds(pa.array([largest, 1.0], pa.float32())).to_pylist() == [False, True]
    assert math.isfinite(largest)
