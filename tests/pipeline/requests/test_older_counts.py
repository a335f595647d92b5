"""Counts of older events of several tails are added up, in the order of users and items."""

import collections

import numpy as np
import pyarrow as pa
import pytest

from pipeline.requests import tails
from pipeline.requests.tails import COUNT, Tail


@pytest.mark.parametrize("item_type", [pa.large_string(), pa.int64()])
def test_counts_are_those_of_a_loop(item_type):
    rng = np.random.default_rng(0)
    expected, parts = collections.Counter(), []
    for size in (40, 0, 25):
        users = [f"ü{number}" for number in rng.integers(-3, 12, size)]
        numbers = rng.integers(-20, 20, size).tolist()
        items = numbers if item_type == pa.int64() else [f"i{number}" for number in numbers]
        counts = rng.integers(1, 9, size)
        for user, item, count in zip(users, items, counts.tolist(), strict=True):
            expected[user, item] += count
        columns = {"user": pa.array(users, pa.large_string()), "item": pa.array(items, item_type)}
        parts.append(Tail(None, pa.table({**columns, COUNT: pa.array(counts)})))
    older = tails.joined(parts, "user").older
    assert older.column_names == ["user", "item", COUNT]
    rows = list(zip(*(older[name].to_pylist() for name in older.column_names), strict=True))

    def place(row):
        """Texts in the order of their bytes."""
        return tuple(one.encode() if isinstance(one, str) else one for one in row)

    assert rows == sorted(((*key, count) for key, count in expected.items()), key=place)


def test_without_counts_there_are_none():
    assert tails.joined([Tail(None, None)], "user") == Tail(None, None)
