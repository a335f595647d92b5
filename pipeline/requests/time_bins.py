"""Counts of times in bins that are narrow where times are many, and the search for ranks in them.

A log may have as many distinct times as events. What one element of a pipeline holds of them is at
most `MAX_BINS` bins; bins that hold a wanted rank are then counted again, more finely, until they
are single times. Ranks are found exactly, because counts of bins are.

All bins of one count have a width of 2^scale and begin at its multiples: counts of different scales
merge by shifting. Only bins with rows are held, so a single wrong time, a thousand years away,
makes no other bin wider.

Shapes: E times, B bins.
"""

import math
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from pipeline.requests.counting import COUNT, VALUE, count_values, merge_counts

SCALE = "#scale"
"""Column of a count: the width of a bin VALUE is 2^SCALE."""

MAX_BINS = 1 << 20


def count(times_E: np.ndarray) -> pa.Table:
    """Counts times in bins of the least width at which there are at most `MAX_BINS`.

    Returns:
        VALUE, number of the bin, in ascending order; COUNT; SCALE. It has rows if there are times.
    """
    return _within_limit(count_values(pa.array(times_E)), 0)


def merge(counts: pa.Table) -> pa.Table:
    """Adds up rows of several counts, perhaps of different scales, as one count."""
    scales = counts[SCALE].to_numpy()
    scale = int(scales.max(initial=0))
    values = counts[VALUE].to_numpy() >> (scale - scales)
    return _within_limit(merge_counts(pa.table({VALUE: values, COUNT: counts[COUNT]})), scale)


def _within_limit(counts: pa.Table, scale: int) -> pa.Table:
    if counts.num_rows <= MAX_BINS:
        return counts.append_column(SCALE, pa.array(np.full(counts.num_rows, scale, np.int8)))
    values = counts[VALUE].to_numpy()
    # Neighbours fall into one bin as soon as bins are as wide as their highest different bit says.
    differing = np.bincount(_bit_lengths(values[1:] ^ values[:-1]), minlength=65)
    num_bins = counts.num_rows - np.cumsum(differing)
    more = int(np.argmax(num_bins <= MAX_BINS))
    wider = merge_counts(pa.table({VALUE: values >> more, COUNT: counts[COUNT]}))
    return _within_limit(wider, scale + more)


def _bit_lengths(values: np.ndarray) -> np.ndarray:
    """Number of bits of each integer, taken as unsigned: int64, in [0, 64]."""
    high, low = (half.astype(np.float64) for half in np.divmod(values.view(np.uint64), 1 << 32))
    return np.where(high > 0, np.frexp(high)[1] + 32, np.frexp(low)[1])


class Bins(NamedTuple):
    """Disjoint ranges of times, in ascending order, that together hold all rows. B bins.

    Attributes:
        first: int64 [B], first time of each range.
        last: int64 [B], last time of each range.
        counts: int64 [B], number of rows in each, at least 1.
    """

    first: np.ndarray
    last: np.ndarray
    counts: np.ndarray

    @classmethod
    def of(cls, counted: pa.Table) -> "Bins":
        """The bins of a count."""
        scale = int(counted[SCALE].to_numpy().max(initial=0))
        first = counted[VALUE].to_numpy() << scale
        return cls(first, first | ((1 << scale) - 1), counted[COUNT].to_numpy())

    @property
    def num_rows(self) -> int:
        """Number of rows in all bins."""
        return int(self.counts.sum())

    def is_exact(self, place: int) -> bool:
        """Whether a bin is a single time."""
        return bool(self.first[place] == self.last[place])

    def refined(self, place: int, counted: "Bins") -> "Bins":
        """These bins with one of them replaced by finer ones."""
        halves = [(column[:place], column[place + 1 :]) for column in self]
        return Bins(
            *(
                np.concatenate([before, middle, after])
                for (before, after), middle in zip(halves, counted, strict=True)
            )
        )


class Cuts(NamedTuple):
    """Where the cut-offs lie.

    Attributes:
        unknown: Places of the bins that have to be counted more finely before the cut-offs are
            known; none if they are.
        train_end: Last time of train.
        validation_end: Last time of validation.
        num_later: Number of rows after that.
    """

    unknown: list[int]
    train_end: int
    validation_end: int
    num_later: int


def cut(bins: Bins, split_fraction: float, validation_fraction: float) -> Cuts:
    """Cuts a log at a fraction, and the part before it again for validation.

    A part ends with the earliest time such that the rows up to it are at least the fraction. Rows
    of one time stay together, so they can be a little more.

    Args:
        bins: The times of the log; at least one.
        split_fraction: Share of the rows in train and validation together, in (0, 1].
        validation_fraction: Share of those rows in validation, in [0, 1).
    """
    cumulative = np.cumsum(bins.counts)
    num_rows = int(cumulative[-1])

    def place_of(rank: int) -> int:
        return int(np.searchsorted(cumulative, rank))

    rank = math.ceil(split_fraction * num_rows)
    end = place_of(rank)
    # Rows up to the end of validation, which is a time in the bin `end`.
    at_most = int(cumulative[end])
    at_least = at_most if bins.is_exact(end) else rank
    train, last_train = (
        place_of(math.ceil((1 - validation_fraction) * rows)) for rows in (at_least, at_most)
    )
    places = {end, train} if train == last_train else {end}
    return Cuts(
        [place for place in sorted(places) if not bins.is_exact(place)],
        int(bins.first[train]),
        int(bins.first[end]),
        num_rows - at_most,
    )
