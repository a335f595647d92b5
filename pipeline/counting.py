"""Counts over the training data: of values, for encoders; of items, for negatives.

Both are tables that can be merged in any order with the same result, which is what a Beam combiner
needs: memory grows with the number of distinct values, never with the log, and sums of integers do
not depend on how the log was partitioned. Means and quantiles are computed at the end from the
merged counts, for the same reason.
"""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import tables
from pipeline.beam import beam
from pipeline.validation import FILE, LINE, TIME
from preprocessing.schema import Schema
from preprocessing.splits import NONE

VALUE, COUNT, FIRST_USE, CANDIDATES = "#value", "#count", "#first_use", "#candidates"
_MERGE_EVERY = 32


def count_values(values: pa.Array) -> pa.Table:
    """Distinct values and how often each occurs; nulls are left out."""
    counted = values.drop_null().value_counts()
    return pa.table({VALUE: counted.field("values"), COUNT: counted.field("counts")})


def merge_counts(counts: pa.Table) -> pa.Table:
    """Adds up the counts of equal values; rows sorted by value."""
    merged = counts.group_by(VALUE).aggregate([(COUNT, "sum")])
    return merged.rename_columns([VALUE, COUNT]).sort_by(VALUE)


def candidate_values(catalogue: pa.Table, name: str) -> pa.Table:
    """Values of an item feature that events contribute as candidates only, and how often each.

    Args:
        catalogue: Items of the training data, see `catalogue`.
        name: The feature.
    """
    values = pa.table({VALUE: catalogue[name], COUNT: catalogue[CANDIDATES]})
    return values.filter(pc.and_(pc.is_valid(values[VALUE]), pc.greater(values[COUNT], 0)))


def count_items(
    events: pa.Table, first_use_E: np.ndarray, is_candidate_E: np.ndarray, schema: Schema
) -> pa.Table:
    """Events per item and first use, with the item's features as of its last event.

    Args:
        events: Events with the item features, TIME, FILE and LINE.
        first_use_E: First split that contains each event, or NONE.
        is_candidate_E: Events to be counted as CANDIDATES: those that training requests contain as
            positives only.
        schema: Names the item features.
    """
    names = [feature.name for feature in schema.item_features] + [TIME, FILE, LINE]
    used = np.flatnonzero(first_use_E != NONE)
    items = events.select(names).take(pa.array(used))
    items = items.append_column(FIRST_USE, pa.array(first_use_E[used]))
    items = items.append_column(COUNT, pa.array(np.ones(len(used), np.int64)))
    items = items.append_column(CANDIDATES, pa.array(is_candidate_E[used].astype(np.int64)))
    return merge_items(items, schema.item_key.name)


def merge_items(items: pa.Table, key: str) -> pa.Table:
    """One row per item and first use: counts added up, everything else of the last event.

    Args:
        items: Rows as `count_items` makes them.
        key: Name of the item key.
    """
    item = tables.codes(items[key])
    time, file, line, use = (items[name].to_numpy() for name in (TIME, FILE, LINE, FIRST_USE))
    order = np.lexsort((line, file, time, use, item))
    group = np.stack([item, use])[:, order]
    is_last = np.append((group[:, 1:] != group[:, :-1]).any(axis=0), True)[: len(order)]
    last = np.flatnonzero(is_last)
    merged = items.take(pa.array(order[last]))
    for name in (COUNT, CANDIDATES):
        sums = np.diff(np.cumsum(items[name].to_numpy()[order])[last], prepend=0)
        merged = merged.set_column(merged.column_names.index(name), name, pa.array(sums))
    return merged


def catalogue(items: pa.Table, key: str, last_split: int) -> pa.Table:
    """The items whose events are of first use `last_split` or earlier, sorted by key.

    Args:
        items: Merged rows of `count_items`.
        key: Name of the item key.
        last_split: TRAIN, VALIDATION or TEST.
    """
    usable = items.filter(pc.less_equal(items[FIRST_USE], last_split))
    one_use = pa.array(np.zeros(usable.num_rows, np.int8))
    usable = usable.set_column(usable.column_names.index(FIRST_USE), FIRST_USE, one_use)
    return merge_items(usable, key).sort_by(key)


class MergeTables(beam.CombineFn):
    """Combines tables (as bytes) by concatenation and a merge function that shrinks the result.

    Args:
        merge: Gives the same result for any grouping and order of the rows it is applied to.
    """

    def __init__(self, merge: Callable[[pa.Table], pa.Table]) -> None:
        self._merge = merge

    def create_accumulator(self) -> list[bytes]:
        """Nothing yet; an accumulator is a list of tables to merge."""
        return []

    def add_input(self, accumulator: list[bytes], element: bytes) -> list[bytes]:
        """Adds one table."""
        accumulator.append(element)
        return self._shrink(accumulator) if len(accumulator) >= _MERGE_EVERY else accumulator

    def merge_accumulators(self, accumulators: Iterable[list[bytes]]) -> list[bytes]:
        """Adds the tables of several accumulators."""
        merged: list[bytes] = []
        for accumulator in accumulators:
            merged += accumulator
        return self._shrink(merged)

    def extract_output(self, accumulator: list[bytes]) -> bytes:
        """The merged table; at least one was added."""
        return self._shrink(accumulator)[0]

    def _shrink(self, accumulator: Sequence[bytes]) -> list[bytes]:
        if not accumulator:
            return []
        return [tables.to_bytes(self._merge(tables.concat(accumulator)))]
