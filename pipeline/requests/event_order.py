"""The order of a log: the place of an event is its time, then its row, file by file."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from pipeline.log import tables
from pipeline.log.row_checks import FILE, LINE, TIME

EARLIER = -1
"""Index of the file of events that the base of a build keeps: they come before all files."""

_LINE_BITS = 40  # more lines than a file has; the bits above hold the index of the file


class Sorted(NamedTuple):
    """The rows of one partition of users, in order.

    Attributes:
        rows: The rows, sorted.
        repeats: File of each row that was left out as a repetition, int [repeats].
    """

    rows: pa.Table
    repeats: np.ndarray


def as_is(rows: pa.Table) -> Sorted:
    """All rows, whether or not some repeat others."""
    return Sorted(rows, np.zeros(0, np.int64))


def without_repeats(rows: pa.Table, columns: Sequence[str]) -> Sorted:
    """The rows less those that have the same values in some columns as a row before them.

    Args:
        rows: The rows, in an order that is kept.
        columns: Columns without a missing value that tell events apart.
    """
    keys = [tables.codes(rows[name]) for name in columns]
    files_E = rows[FILE].to_numpy()
    # Stable: of equal rows the base's come first, then the first of the log.
    order = np.lexsort([files_E != EARLIER, *keys])
    is_repeat_E = np.zeros(rows.num_rows, bool)
    is_repeat_E[order[1:]] = np.all([key[order[1:]] == key[order[:-1]] for key in keys], axis=0)
    is_repeat_E &= files_E != EARLIER  # what the base keeps was judged when it was built
    repeats = files_E[is_repeat_E]
    return Sorted(rows.filter(pa.array(~is_repeat_E)) if len(repeats) else rows, repeats)


class Places(NamedTuple):
    """Places of events, compared by time and then by row. D events.

    Attributes:
        times: int64 [D]; 0 if the log has no times.
        rows: int64 [D], number of the row in the whole log; numbers are left out between files.
    """

    times: np.ndarray
    rows: np.ndarray

    @classmethod
    def of(cls, events: pa.Table) -> "Places":
        """The places of events, which have TIME, FILE and LINE."""
        file, line = (events[name].to_numpy().astype(np.int64) for name in (FILE, LINE))
        return cls(events[TIME].to_numpy(), (file << _LINE_BITS) | line)

    def take(self, rows: np.ndarray) -> "Places":
        """The places of some of the events, in the order in which they are named."""
        return Places(self.times[rows], self.rows[rows])

    def order(self) -> np.ndarray:
        """The permutation that sorts the places, int64 [D]."""
        return np.lexsort((self.rows, self.times))

    def up_to(self, wanted: "Places") -> np.ndarray:
        """Number of these places, which are sorted, at or before each wanted place, int64."""
        low = np.searchsorted(self.times, wanted.times, side="left")
        high = np.searchsorted(self.times, wanted.times, side="right")
        while (is_open := low < high).any():
            middle = np.minimum((low + high) // 2, len(self.rows) - 1)
            is_before = self.rows[middle] <= wanted.rows
            low = np.where(is_open & is_before, middle + 1, low)
            high = np.where(is_open & ~is_before, middle, high)
        return low
