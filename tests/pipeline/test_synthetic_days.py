"""A generated log over days: what changes, how often, and what stays."""

import dataclasses

import numpy as np
import pyarrow.csv
import pytest

from pipeline import synthesize
from pipeline.synthetic import days
from pipeline.synthetic.days import DailyArguments
from pipeline.synthetic.truth import SynthesizeArguments
from preprocessing.errors import UserError

ARGUMENTS = SynthesizeArguments(users=400, items=300, interests=5, events_per_user=40)
DAILY = DailyArguments(days=6, drift=0.1)
DAY = 86_400


@pytest.fixture(scope="module")
def log():
    return days.draw(ARGUMENTS, DAILY)


def _day(log):
    return (log.timestamp_E - log.timestamp_E.min() // DAY * DAY) // DAY


def test_files_hold_the_past_and_then_a_day_each(log, tmp_path):
    paths = synthesize.write_days(log, tmp_path / "logs" / "day.csv")
    assert [path.name for path in paths] == [f"day-0{n}.csv" for n in range(1, 7)]
    tables = [pyarrow.csv.read_csv(path) for path in paths]
    assert sum(table.num_rows for table in tables) == len(log.user_E)
    times = [table["timestamp"].to_numpy() for table in tables]
    for earlier, later in zip(times[:-1], times[1:], strict=True):
        assert (np.diff(earlier) >= 0).all()
        assert earlier[-1] < later[0]
    assert {int(time.max() // DAY - time.min() // DAY) for time in times[1:]} == {0}
    assert times[0].max() // DAY - times[0].min() // DAY == DAILY.days - 1
    category = {}
    for table in tables:
        for item, name in zip(
            *(table[c].to_pylist() for c in ("item_id", "category_id")), strict=True
        ):
            assert category.setdefault(item, name) == name


def test_same_seed_gives_the_same_log_and_another_seed_another(log):
    same, other = (
        days.draw(ARGUMENTS, DAILY),
        days.draw(dataclasses.replace(ARGUMENTS, seed=2), DAILY),
    )
    for field in dataclasses.fields(log):
        np.testing.assert_array_equal(getattr(log, field.name), getattr(same, field.name))
    assert len(other.item_E) != len(log.item_E) or (other.item_E != log.item_E).any()


def test_no_user_has_an_item_twice_or_two_events_at_a_time(log):
    for column in (log.item_E, log.timestamp_E):
        pairs = np.stack([log.user_E, column])
        assert np.unique(pairs, axis=1).shape == pairs.shape
    assert (np.diff(log.timestamp_E)[np.diff(log.user_E) == 0] > 0).all()


def test_items_live_on_days_in_a_row_and_as_many_at_a_time(log):
    day_E, num_days = _day(log), 2 * DAILY.days - 1
    items = np.unique(log.item_E)
    first = np.array([day_E[log.item_E == item].min() for item in items])
    last = np.array([day_E[log.item_E == item].max() for item in items])
    for day in range(num_days):
        assert len(np.unique(log.item_E[day_E == day])) <= ARGUMENTS.items
        assert ((first <= day) & (day <= last)).sum() <= ARGUMENTS.items
    # A place has a new item each day with the chance of drift: about 300 (1 + 10 x 0.1) items.
    expected = ARGUMENTS.items * (1 + (num_days - 1) * DAILY.drift)
    assert abs(log.item_E.max() + 1 - expected) < 4 * np.sqrt(expected)
    assert len(np.unique(np.stack([log.item_E, log.interest_E]), axis=1).T) == len(items)


def test_interests_change_with_the_state_of_a_user_and_not_within(log):
    states = np.unique(np.stack([log.user_E, log.state_E]), axis=1)
    assert states.shape[1] == len(np.unique(log.state_E))
    num_states = log.state_E.max() + 1
    expected = ARGUMENTS.users * (1 + (2 * DAILY.days - 2) * DAILY.drift)
    assert abs(num_states - expected) < 4 * np.sqrt(expected)
    pair = np.flatnonzero(np.diff(log.user_E) == 0)
    is_same_interest = log.interest_E[pair] == log.interest_E[pair + 1]
    is_same_state = log.state_E[pair] == log.state_E[pair + 1]
    assert is_same_interest[is_same_state].mean() > 0.6
    assert is_same_interest[~is_same_state].mean() < 0.3


def test_without_drift_nothing_changes():
    log = days.draw(ARGUMENTS, DailyArguments(days=3, drift=0.0))
    assert log.item_E.max() < ARGUMENTS.items
    assert log.state_E.max() == ARGUMENTS.users - 1


@pytest.mark.parametrize("output", ["s3://bucket/day.csv", "day.txt"])
def test_paths_that_cannot_be_written_are_refused(log, output):
    with pytest.raises(UserError, match="--output: "):
        synthesize.write_days(log, output)


def test_a_drift_that_is_no_share_is_refused():
    with pytest.raises(UserError, match=r"Expected --drift in \[0, 1\], found 2"):
        days.draw(ARGUMENTS, DailyArguments(days=3, drift=2.0))
