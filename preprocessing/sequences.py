"""Histories: the earlier events of its user that a request sees.

Events are columns sorted by (user, time, row order); a user's events are one block of rows. Time
is the order (timestamp, row order): an event is *before* another of the same user if its timestamp
is smaller, or equal and its row comes earlier in the log. Every rule of this package that says
"before", "earlier" or "most recent" means this order, so that logs with coarse timestamps (whole
days) and logs without any are treated alike.

Shapes: E events, U users, P positives.
"""

import dataclasses
from collections.abc import Iterator

import numpy as np


@dataclasses.dataclass(frozen=True)
class Windows:
    """Histories of several requests as one ragged array of event rows, oldest first.

    Attributes:
        rows: int64, the event rows of all histories, one history after the other.
        row_splits: int64 [P + 1], history i is `rows[row_splits[i]:row_splits[i + 1]]`.
    """

    rows: np.ndarray
    row_splits: np.ndarray

    @property
    def lengths(self) -> np.ndarray:
        """Events per history, int64 [P]."""
        return np.diff(self.row_splits)


def event_order(
    users_E: np.ndarray, timestamps_E: np.ndarray, files_E: np.ndarray, rows_E: np.ndarray
) -> np.ndarray:
    """The permutation that sorts events by (user, timestamp, file, row), int64 [E].

    Args:
        users_E: User of each event, as any integer code.
        timestamps_E: Time of each event; all equal if the log has no time column.
        files_E: Index of the input file of each event.
        rows_E: Row of each event within its file.
    """
    keys = (rows_E, files_E, timestamps_E, users_E)
    return np.lexsort([digit_E for key_E in keys for digit_E in _digits(key_E)])


def _digits(key_E: np.ndarray) -> Iterator[np.ndarray]:
    """Yields 16-bit digits of integers, lowest first, which NumPy sorts in linear time."""
    lowest, highest = (int(key_E.min()), int(key_E.max())) if len(key_E) else (0, 0)
    rest_E = key_E.astype(np.uint64) - np.uint64(lowest % 2**64)
    for shift in range(0, max(1, (highest - lowest).bit_length()), 16):
        yield (rest_E >> np.uint64(shift)).astype(np.uint16)


def positions(starts: np.ndarray) -> np.ndarray:
    """Index of each event within its user's events, int64 [E].

    Args:
        starts: int64 [U + 1], first row of each user, then E.
    """
    return np.arange(starts[-1], dtype=np.int64) - np.repeat(starts[:-1], np.diff(starts))


def history_windows(positives_P: np.ndarray, positions_P: np.ndarray, max_length: int) -> Windows:
    """The `max_length` most recent events before each positive.

    Args:
        positives_P: Row of each positive event.
        positions_P: Index of each positive within its user's events: the number of earlier events.
        max_length: Largest length L; longer histories keep their most recent events.
    """
    lengths_P = np.minimum(positions_P, max_length)
    row_splits = np.zeros(len(positives_P) + 1, np.int64)
    np.cumsum(lengths_P, out=row_splits[1:])
    offsets_P = positives_P - lengths_P - row_splits[:-1]
    rows = np.arange(row_splits[-1], dtype=np.int64) + np.repeat(offsets_P, lengths_P)
    return Windows(rows, row_splits)


def window_counts(
    positives_P: np.ndarray, positions_P: np.ndarray, max_length: int, num_events: int
) -> np.ndarray:
    """Number of the histories of `history_windows` that hold each event, int64 [E].

    Args:
        positives_P: Row of each positive event.
        positions_P: Index of each positive within its user's events.
        max_length: Largest length L of a history.
        num_events: Number E of events.
    """
    starts_P = positives_P - np.minimum(positions_P, max_length)
    opened_E = np.bincount(starts_P, minlength=num_events + 1)
    closed_E = np.bincount(positives_P, minlength=num_events + 1)
    return np.cumsum(opened_E - closed_E)[:num_events]
