"""pipeline.drafting.times: when a row happened, and the unit."""

import numpy as np
import pytest

from pipeline.drafting.times import time, unit_of
from preprocessing.features.feature import DType
from tests.helpers.foreign_logs import column, keys

USER, ITEM = keys()
USERS, ITEMS = column("user", USER), column("item", ITEM)
SECONDS = np.sort(np.random.default_rng(0).integers(1_500_000_000, 1_600_000_000, len(USER)))


def _dates(numbers):
    return [f"{np.datetime64('2020-01-01') + int(number)}" for number in numbers]


@pytest.mark.parametrize(
    ("factor", "unit"),
    [(1, "seconds"), (10**3, "milliseconds"), (10**6, "microseconds"), (10**9, "nanoseconds")],
)
def test_the_size_of_whole_numbers_tells_their_unit(factor, unit):
    assert unit_of(column("ts", SECONDS * factor)) == f"{unit} since 1970"
    chosen = time([column("ts", SECONDS * factor)], USERS, ITEMS)
    assert (chosen.dtype, chosen.reason, chosen.doubt) == (DType.INT64, f"{unit} since 1970", "")


def test_dates_are_datetime_whatever_their_name():
    chosen = time([column("x", _dates(range(len(USER))))], USERS, ITEMS)
    assert (chosen.dtype, chosen.doubt) == (DType.DATETIME, "")
    assert unit_of(column("x", ["25.11.2017"])) is None


def test_whole_numbers_of_an_unknown_unit_are_times_if_the_name_says_nothing_else():
    for name, is_certain in (("timestamp", True), ("event_time", True), ("time_of_day", False)):
        chosen = time([column(name, SECONDS % 1000)], USERS, ITEMS)
        assert "unit that only the log knows" in chosen.reason
        assert (not chosen.doubt) == is_certain
    assert time([column("size", SECONDS % 1000)], USERS, ITEMS) is None


def test_numbers_as_large_as_times_without_such_a_name_are_in_doubt():
    assert "x may be no time" in time([column("x", SECONDS)], USERS, ITEMS).doubt
    assert not time([column("clicked_at", SECONDS)], USERS, ITEMS).doubt


def test_dates_of_users_and_items_are_not_those_of_rows():
    columns = [
        column("signup_date", _dates(USER)),
        column("release_date", _dates(ITEM)),
        column("ts", SECONDS),
    ]
    chosen = time(columns, USERS, ITEMS)
    assert (chosen.column.name, chosen.doubt) == ("ts", "")


def test_the_finest_time_is_taken():
    chosen = time([column("date", SECONDS // 86400 * 86400), column("ts", SECONDS)], USERS, ITEMS)
    assert (chosen.column.name, chosen.doubt) == ("ts", "")
    twice = time([column("ts", SECONDS), column("ts_ms", SECONDS * 1000)], USERS, ITEMS)
    assert (twice.column.name, twice.doubt) == ("ts", "")


def test_two_times_are_in_doubt():
    delays = np.random.default_rng(1).integers(0, 10**6, len(USER))
    columns = [column("created_at", SECONDS), column("updated_at", SECONDS + delays)]
    chosen = time(columns, USERS, ITEMS)
    assert "the time could be created_at or updated_at" in chosen.doubt


def test_position_is_the_time_if_it_orders_the_rows_of_each_user():
    places = [int((USER[:i] == one).sum()) for i, one in enumerate(USER)]
    chosen = time([column("position", places)], USERS, ITEMS)
    assert (chosen.reason, chosen.dtype) == (
        "the place of a row among those of its user",
        DType.INT64,
    )
    assert time([column("position", [place % 3 for place in places])], USERS, ITEMS) is None


def test_a_time_that_cannot_be_read_is_in_doubt():
    texts = [f"{1 + number % 28:02}.11.2017" for number in range(len(USER))]
    chosen = time([column("date", texts)], USERS, ITEMS)
    assert chosen.role is None
    assert chosen.reason == (
        "a time by its name, but values such as '01.11.2017' are neither ISO dates nor whole "
        "numbers"
    )
    assert "rows count in the order of the file" in chosen.doubt
