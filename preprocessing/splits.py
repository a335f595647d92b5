"""Protocols that assign events to splits as positives.

`leave_last_out` (MISS, section V-A): of a user's events e_1..e_n, e_n is the positive of test,
e_(n-1) of validation, e_(n-2) of train; each has all earlier events as its history.

`time_split` (DemiNet, section 4.1): one global time point divides the log; an event is a positive
of the split that its time falls in. Its history reaches back over the time point, because a
request sees all that its user did before it.

`day`: the same without a test split. What comes next is the test: a model is measured on the next
day before it learns from it (progressive validation).

"Before" is the order of (timestamp, row), see `preprocessing.sequences`.
"""

import dataclasses

import numpy as np

from preprocessing.sequences import positions

TRAIN, VALIDATION, TEST = 0, 1, 2
NONE = 3
"""Marks an event that is no positive, or that no request contains."""

SPLITS = ("train", "validation", "test")
"""Names of the splits, indexed by TRAIN, VALIDATION, TEST."""

PROTOCOLS = ("leave_last_out", "time_split", "day")

BY_TIME = PROTOCOLS[1:]
"""Protocols whose splits follow from `Cutoffs`."""


def measured(protocol: str, validation_fraction: float) -> tuple[str, ...]:
    """The splits beside train that a protocol fills."""
    if protocol != "day":
        return SPLITS[1:]
    return SPLITS[VALIDATION:TEST] if validation_fraction else ()


@dataclasses.dataclass(frozen=True)
class Cutoffs:
    """Time points of `time_split` and `day`: each belongs to the split that it ends.

    Attributes:
        train_end: Last timestamp of train; validation is (train_end, validation_end].
        validation_end: Last timestamp of validation; test is everything later.
    """

    train_end: int
    validation_end: int


def leave_last_out(starts: np.ndarray, train_prefixes: str, min_history: int) -> np.ndarray:
    """Split of which each event is the positive, int8 [E], or NONE.

    Users with fewer than `min_history` + 3 events have no positive at all; with the default of one
    earlier event these are the users with fewer than four events.

    Args:
        starts: int64 [U + 1], first row of each user, then E.
        train_prefixes: `last`: one train positive per user, e_(n-2). `all`: every event up to
            e_(n-2) that has enough history. Validation and test are the same in both.
        min_history: Events that must precede a positive.
    """
    lengths_E = np.repeat(np.diff(starts), np.diff(starts))
    before_E = positions(starts)
    after_E = lengths_E - 1 - before_E
    split_E = np.full(len(before_E), NONE, np.int8)
    enough_E = lengths_E >= min_history + 3
    if train_prefixes == "all":
        split_E[enough_E & (after_E >= 2) & (before_E >= min_history)] = TRAIN
    else:
        split_E[enough_E & (after_E == 2)] = TRAIN
    split_E[enough_E & (after_E == 1)] = VALIDATION
    split_E[enough_E & (after_E == 0)] = TEST
    return split_E


def time_split(
    timestamps_E: np.ndarray, positions_E: np.ndarray, cutoffs: Cutoffs, min_history: int
) -> np.ndarray:
    """Split of which each event is the positive, int8 [E], or NONE.

    Args:
        timestamps_E: Time of each event.
        positions_E: Number of events of its user before each event.
        cutoffs: The global time points.
        min_history: Events that must precede a positive.
    """
    split_E = split_of(timestamps_E, cutoffs)
    split_E[positions_E < min_history] = NONE
    return split_E


def split_of(timestamps: np.ndarray, cutoffs: Cutoffs) -> np.ndarray:
    """Split that each time falls in, int8, same shape."""
    ends = np.array([cutoffs.train_end, cutoffs.validation_end], np.int64)
    return np.searchsorted(ends, timestamps, side="left").astype(np.int8)


def first_use(split_E: np.ndarray, starts: np.ndarray, max_length: int) -> np.ndarray:
    """The first split whose requests contain each event, int8 [E], or NONE.

    An event is contained as the positive, or in the history of one of the next `max_length`
    events of its user. Everything that is fitted on training data uses only the events of first use
    TRAIN: an event that train requests do not contain must not inform them.

    Args:
        split_E: Split of which each event is the positive, or NONE.
        starts: int64 [U + 1], first row of each user, then E.
        max_length: Largest length L of a history.
    """
    first_E = np.full(len(split_E), NONE, np.int8)
    for split in (TEST, VALIDATION, TRAIN):
        first_E[(split_E == split) | in_history(split_E, split, starts, max_length)] = split
    return first_E


def in_history(split_E: np.ndarray, split: int, starts: np.ndarray, max_length: int) -> np.ndarray:
    """Events that are in the history of a positive of a split, bool [E].

    Args:
        split_E: Split of which each event is the positive, or NONE.
        split: TRAIN, VALIDATION or TEST.
        starts: int64 [U + 1], first row of each user, then E.
        max_length: Largest length L of a history.
    """
    num_events = len(split_E)
    rows_E = np.arange(num_events)
    last_E = np.repeat(starts[1:] - 1, np.diff(starts))
    reach_E = np.minimum(rows_E + max_length, last_E)
    marked_E = np.where(split_E == split, rows_E, num_events)
    next_E = np.minimum.accumulate(marked_E[::-1])[::-1]
    in_history_E = np.zeros(num_events, bool)
    in_history_E[:-1] = next_E[1:] <= reach_E[:-1]
    return in_history_E
