"""Requests that are shown to people."""

from serving.exporting.sample_requests import known_requests, sample_requests
from tests.helpers import toy_runs


def _unknown(request):
    """Number of values that the vocabularies of the toy data lack."""
    records = [request, *request["history"], *request["candidates"]]
    known = {"user_id": toy_runs.USERS, "item_id": toy_runs.ITEMS,
             "category_id": [c for c in toy_runs.CATEGORIES if c != -1]}  # fmt: skip
    return sum(
        record[name] not in values
        for record in records
        for name, values in known.items()
        if name in record
    )


def test_the_shown_ones_are_those_with_the_fewest_unknown_values(toy_data):
    every = sample_requests(toy_data, "test", 100)
    counts = sorted(map(_unknown, every))
    assert counts[0] < counts[-1]
    shown = known_requests(toy_data, "test", 4)
    assert sorted(map(_unknown, shown)) == counts[:4]
    assert [every.index(request) for request in shown] == sorted(map(every.index, shown))
    assert known_requests(toy_data, "test", 100) == every
