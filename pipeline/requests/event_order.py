"""The order of a log: the place of an event is its time, then its row, file by file."""

from typing import NamedTuple

import numpy as np
import pyarrow as pa

from pipeline.log.row_checks import FILE, LINE, TIME

_LINE_BITS = 40  # more lines than a file has; the bits above hold the index of the file


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
