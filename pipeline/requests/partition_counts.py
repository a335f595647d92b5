"""Counts of the distinct values and times in the requests of a partition, by split.

Workers count (`PartitionCounts`), combiners add up (`merge_values`, `merge_periods`). Statistics
depend on the counts alone, not on the order in which they came, and are therefore the same for any
number of workers.

A request contributes each value that its example holds: those of the user and the context once,
`candidate/...` those of the positive, `history/...` those of every step. A missing value that has
a default counts as the default; such values are also counted apart (`defaulted_key`). Of sets each
value counts, and an empty set as one missing value.

Shapes: E events, P positives of a split, V distinct values.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import pyarrow as pa

from pipeline.log.row_checks import defaulted_column
from pipeline.requests.counting import VALUE, countable, values_of_sets
from pipeline.requests.event_times import count_gaps
from pipeline.requests.events import Events
from pipeline.stats.statistics import shortest_period
from preprocessing import splits
from preprocessing.example_keys import candidate_key, history_key
from preprocessing.features.feature import Feature
from preprocessing.schema import Schema, encoded_keys
from preprocessing.sequences import window_counts

SCALE = "#scale"
"""Column of `merge_periods`: how often the length of the periods was doubled."""

_MAX_PERIODS = 512


class PartitionCounts:
    """Counts the values and times in the requests of one partition.

    Args:
        events: Events of the partition, with their splits.
    """

    def __init__(self, events: Events) -> None:
        self._events = events
        self._is_positive = [events.split == split for split in range(len(splits.SPLITS))]
        self._in_histories = []
        for is_positive_E in self._is_positive:
            rows_P = np.flatnonzero(is_positive_E)
            max_length = events.plan.schema.history.max_length
            history_counts = window_counts(
                rows_P, events.positions[rows_P], max_length, len(events.split)
            )
            self._in_histories.append(history_counts)

    def values(self) -> Iterator[tuple[str, pa.Table]]:
        """Yields what `count_keys` does.

        Features of candidates other than the item key are left out: these follow from the
        catalogues, see `ClickLog.key_counts`.
        """
        yield from count_keys(self._events.column, self._held())
        yield from count_gaps(self._events, self._events.plan.schema)

    def _held(self) -> Iterator["Held"]:
        schema = self._events.plan.schema
        for feature in schema.encoded_features:
            if feature in schema.user_features:
                yield feature.name, feature, self._is_positive
            elif feature == schema.item_key:
                yield candidate_key(feature.name), feature, self._is_positive
            if feature in schema.step_features and not feature.is_gap:
                yield history_key(feature.name), feature, self._in_histories

    def periods(self) -> pa.Table:
        """Events by period and by the first split whose requests hold them; see `merge_periods`."""
        first_use_E = np.full(len(self._events.split), splits.NONE)
        for split in range(len(splits.SPLITS))[::-1]:
            first_use_E[self._is_positive[split] | (self._in_histories[split] > 0)] = split
        period = shortest_period(self._events.plan.schema)
        return count_periods(self._events.timestamps, first_use_E, period)


def count_periods(timestamps_E: np.ndarray, first_use_E: np.ndarray, period: int) -> pa.Table:
    """Counts by period and split; see `merge_periods`.

    Args:
        timestamps_E: Time of each event.
        first_use_E: First split whose requests hold the event, or NONE.
        period: Length of the shortest period.
    """
    used_E = first_use_E != splits.NONE
    period_E, first_use_E = timestamps_E[used_E] // period, first_use_E[used_E]
    scale = _scale(period_E)
    period_E >>= scale
    first = int(period_E.min()) if len(period_E) else 0
    counts = [
        np.bincount(period_E[first_use_E == split] - first, minlength=_MAX_PERIODS)
        for split in range(len(splits.SPLITS))
    ]
    table = _count_table(pa.array(np.arange(first, first + _MAX_PERIODS)), counts)
    return table.append_column(SCALE, [np.full(table.num_rows, scale)])


Held = tuple[str, Feature, Sequence[np.ndarray]]
"""A key of the examples, its feature, and for each split how often (or whether) it holds each row:
[E]."""


def defaulted_key(key: str) -> str:
    """Name of the counts of values of a key that are a default in place of a missing value."""
    return f"{key}.defaulted"


def counted_columns(schema: Schema) -> Iterator[tuple[str, str, str]]:
    """Yields each key of an example with the names of its counts and of the column counted.

    A key whose feature has a default comes twice: the counts of `defaulted_key` are of its
    `defaulted_column`.
    """
    for key, feature in encoded_keys(schema):
        yield key, key, feature.name
        if feature.default is not None:
            yield key, defaulted_key(key), defaulted_column(feature.name)


def count_keys(
    column: Callable[[str], pa.Array], held: Iterable[Held]
) -> Iterator[tuple[str, pa.Table]]:
    """Yields the counts of each key, and of the defaults in it: VALUE, one column per split.

    Args:
        column: Function that gives the column of the events with a name.
        held: Keys of the examples, with the rows that the requests of each split hold.
    """
    for key, feature, times in held:
        counts = count_column(countable(feature, column(feature.name)), times)
        yield key, counts if feature.many is None else values_of_sets(counts)
        if feature.default is not None:
            defaulted = column(defaulted_column(feature.name))
            yield defaulted_key(key), count_column(defaulted, times)


def count_column(column: pa.Array, times: Sequence[np.ndarray]) -> pa.Table:
    """Counts of the values of a column in each split, with the values as VALUE.

    Args:
        column: [E] values.
        times: Number of times that each split holds each row (or whether it does), [E] per split.
    """
    encoded = column.dictionary_encode()
    num_values = len(encoded.dictionary)
    code_E = encoded.indices.fill_null(num_values).to_numpy()
    counts = [
        np.bincount(code_E[times_E], None, num_values + 1)
        if times_E.dtype == bool
        else np.bincount(code_E, times_E, num_values + 1)
        for times_E in times
    ]
    return _count_table(encoded.dictionary, counts)


def _count_table(values: pa.Array, counts: list[np.ndarray]) -> pa.Table:
    """VALUE and one column of counts per split, without the rows that have none.

    Args:
        values: [V] distinct values.
        counts: Counts of each split, [V] or [V + 1] with the count of null.
    """
    held_rows = np.flatnonzero(np.sum(counts, axis=0))
    columns = {
        name: pa.array(split_counts[held_rows].astype(np.int64))
        for name, split_counts in zip(splits.SPLITS, counts, strict=True)
    }
    return pa.table(
        {VALUE: values.take(pa.array(held_rows, mask=held_rows == len(values))), **columns}
    )


def merge_values(counts: pa.Table) -> pa.Table:
    """Adds up the counts of equal values, in no particular order."""
    merged = counts.group_by(VALUE).aggregate([(name, "sum") for name in splits.SPLITS])
    return merged.rename_columns([VALUE, *splits.SPLITS])


def merge_periods(counts: pa.Table) -> pa.Table:
    """Adds up counts by period, after making periods long enough for few of them.

    Row `n` of scale `k` counts the times from `n * 2^k` shortest periods up to those of row
    `n + 1`. The smallest scale at which all rows span at most 512 periods does not depend on the
    order of merging.
    """
    if not counts.num_rows:
        return counts
    scales = counts[SCALE].to_numpy()
    periods = counts[VALUE].to_numpy() >> (scales.max() - scales)
    extra_scale = _scale(periods)
    merged = merge_values(counts.set_column(0, VALUE, [periods >> extra_scale])).sort_by(VALUE)
    return merged.append_column(SCALE, [np.full(merged.num_rows, scales.max() + extra_scale)])


def _scale(periods: np.ndarray) -> int:
    """Number of times that periods must double in length to span at most 512."""
    if not len(periods):
        return 0
    first, last = int(periods.min()), int(periods.max())
    scale = 0
    while (last >> scale) - (first >> scale) >= _MAX_PERIODS:
        scale += 1
    return scale
