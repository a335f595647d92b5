import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from preprocessing import splits
from preprocessing.sequences import positions
from tests.reference import windows

LOGS = st.lists(st.lists(st.integers(0, 6), min_size=1, max_size=9), min_size=1, max_size=6)


def _sorted_log(times_per_user):
    """Events in sorted order, user starts and timestamps of a list of times per user."""
    events = [
        (f"u{user}", f"i{user}-{row}", time)
        for user, times in enumerate(times_per_user)
        for row, time in enumerate(sorted(times))
    ]
    starts = np.concatenate([[0], np.cumsum([len(times) for times in times_per_user])])
    return events, starts, np.array([time for _, _, time in events])


def _requests_by_split(split, events):
    return {
        name: {events[row] for row in np.flatnonzero(split == number)}
        for number, name in enumerate(splits.SPLITS)
    }


@given(LOGS, st.sampled_from(["last", "all"]), st.integers(0, 3), st.integers(1, 4))
def test_leave_last_out_and_first_use_equal_brute_force(log, prefixes, min_history, max_length):
    events, starts, _ = _sorted_log(log)
    expected = windows.split_requests(
        events, "leave_last_out", max_length, min_history, train_prefixes=prefixes
    )
    split = splits.leave_last_out(starts, prefixes, min_history)
    _assert_same(split, events, starts, expected, max_length)


@given(LOGS, st.integers(0, 5), st.integers(0, 3), st.integers(0, 3), st.integers(1, 4))
def test_time_split_and_first_use_equal_brute_force(log, train_end, more, min_history, max_length):
    events, starts, times = _sorted_log(log)
    cutoffs = (train_end, train_end + more)
    expected = windows.split_requests(
        events, "time_split", max_length, min_history, cutoffs=cutoffs
    )
    split = splits.time_split(times, positions(starts), splits.Cutoffs(*cutoffs), min_history)
    _assert_same(split, events, starts, expected, max_length)


def _assert_same(split, events, starts, expected, max_length):
    positives = {name: {p for p, _ in requests.values()} for name, requests in expected.items()}
    assert _requests_by_split(split, events) == positives
    first_use = splits.first_use(split, starts, max_length)
    for event, use in zip(events, first_use, strict=True):
        containing = [
            n for n, name in enumerate(splits.SPLITS) if event in windows.contained(expected[name])
        ]
        assert use == min(containing, default=splits.NONE)


def test_a_day_has_no_test_split_and_validation_if_wanted():
    times = np.array([10, 20, 30, 40])
    assert splits.split_of(times, splits.Cutoffs(20, 40)).tolist() == [0, 0, 1, 1]
    assert splits.split_of(times, splits.Cutoffs(40, 40)).tolist() == [0, 0, 0, 0]
