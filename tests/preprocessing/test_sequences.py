import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from preprocessing.sequences import event_order, history_windows, positions

LENGTHS = st.lists(st.integers(0, 9), min_size=1, max_size=8)


def test_events_are_ordered_by_user_then_time_then_file_then_row():
    users = np.array([1, 0, 0, 0, 0, 1])
    times = np.array([5, 7, 7, 7, 3, 5])
    files = np.array([0, 1, 0, 0, 1, 0])
    rows = np.array([9, 1, 4, 2, 8, 3])
    assert event_order(users, times, files, rows).tolist() == [4, 3, 2, 1, 5, 0]


@given(
    st.lists(
        st.tuples(
            st.integers(0, 3),
            st.integers(-(2**63), 2**63 - 1) | st.integers(-2, 2) | st.sampled_from([2**16, 2**32]),
            st.integers(0, 1),
            st.integers(1, 2**40),
        ),
        max_size=20,
    )
)
def test_the_order_of_any_times_is_that_of_python(rows):
    columns = [np.array([row[i] for row in rows], np.int64) for i in range(4)]
    expected = sorted(range(len(rows)), key=lambda i: rows[i])
    assert event_order(*columns).tolist() == expected


@given(LENGTHS)
def test_positions_restart_at_every_user(lengths):
    starts = np.concatenate([[0], np.cumsum(lengths)])
    expected = [i for length in lengths for i in range(length)]
    assert positions(starts).tolist() == expected


@given(LENGTHS, st.integers(1, 5), st.data())
def test_windows_hold_the_most_recent_events_before_the_positive(lengths, max_length, data):
    starts = np.concatenate([[0], np.cumsum(lengths)])
    rows = np.arange(starts[-1])
    positives = np.array(
        sorted(data.draw(st.sets(st.sampled_from(rows.tolist())))) if len(rows) else [], int
    )
    windows = history_windows(positives, positions(starts)[positives], max_length)
    expected = []
    for positive in positives:
        start = max(s for s in starts[:-1] if s <= positive)
        expected.append(list(range(start, positive))[-max_length:])
    got = [
        windows.rows[a:b].tolist()
        for a, b in zip(windows.row_splits[:-1], windows.row_splits[1:], strict=True)
    ]
    assert got == expected
    assert windows.lengths.tolist() == [len(window) for window in expected]
