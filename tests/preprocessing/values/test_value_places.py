"""Places that are searched for are those that Arrow finds."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from preprocessing.values import value_places
from preprocessing.values.value_places import ValuePlaces

TEXTS = st.one_of(st.integers(-9, 9), st.just(-(2**63)), st.just(2**63 - 1)).map(str)
COLUMNS = st.lists(st.one_of(st.none(), TEXTS), max_size=12)


def _expected(column, values):
    return pc.fill_null(pc.index_in(column, values), -1).to_pylist()


@pytest.fixture
def always_sorted(monkeypatch):
    monkeypatch.setattr(value_places, "_FEW", 0)
    monkeypatch.setattr(value_places, "_MANY", 0)


@pytest.mark.usefixtures("always_sorted")
@pytest.mark.parametrize("dtype", [pa.string(), pa.large_string(), pa.int64()])
@given(values=st.lists(TEXTS, unique=True, min_size=1), column=COLUMNS)
def test_sorted_values_are_found(dtype, values, column):
    array, column = pa.array(values).cast(dtype), pa.array(column, pa.string()).cast(dtype)
    places = ValuePlaces(array)
    assert len(places) == len(values)
    assert places.find(column).tolist() == _expected(column, array)
    assert places.find(pa.chunked_array([column, column])).tolist() == 2 * _expected(column, array)
    assert places.find(array).tolist() == list(range(len(values)))


@pytest.mark.usefixtures("always_sorted")
def test_values_that_share_a_fingerprint_are_told_apart(monkeypatch):
    monkeypatch.setattr(
        value_places, "fingerprint64", lambda texts: np.array([len(t.as_py()) for t in texts])
    )
    values = pa.array(["a", "bb", "ccc"])
    column = pa.array(["bb", "xx", "a", "yyyy", None])
    assert ValuePlaces(values).find(column).tolist() == [1, -1, 0, -1, -1]
    values = pa.array(["a", "b", "ccc"])  # two share a key
    assert ValuePlaces(values).find(pa.array(["b", "ccc"])).tolist() == [1, 2]


def test_many_values_of_two_widths_are_found():
    values = pa.array(np.arange(100_000)).cast(pa.large_string())
    column = pa.array(["99999", "none", "0", None])
    assert ValuePlaces(values).find(column).tolist() == [99_999, -1, 0, -1]
