"""Counts over the training data: of values, for encoders; of items, for negatives.

Both are tables that can be merged in any order with the same result, which is what a Beam combiner
needs: memory grows with the number of distinct values, never with the log, and sums of integers do
not depend on how the log was partitioned. Means and quantiles are computed at the end from the
merged counts, for the same reason.
"""

from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.log import tables
from pipeline.log.row_checks import FILE, LINE, TIME, defaulted_column
from pipeline.requests.event_order import Places
from preprocessing.features.feature import Feature
from preprocessing.schema import Schema
from preprocessing.splits import NONE
from preprocessing.storage.files import AnyPath
from preprocessing.values import value_sets, vectors

VALUE, COUNT, FIRST_USE, CANDIDATES = "#value", "#count", "#first_use", "#candidates"
FIRST_TIME, FIRST_ROW = "#first_time", "#first_row"
"""Place of the first event of an item (see `places`), if a build draws by appearance."""


def read(directory: AnyPath, bucket: int | None = None) -> pa.Table:
    """Reads counts that the job merged in buckets; rows are sorted by value if counts merge so.

    Args:
        directory: Directory of the buckets.
        bucket: Number of the bucket to read; None for all of them.
    """
    if bucket is None:
        return tables.read_buckets(directory, VALUE)
    return tables.read_bucket(directory, bucket)


def count_values(values: pa.Array) -> pa.Table:
    """Distinct values and how often each occurs; nulls are left out."""
    values = values.drop_null()
    if pa.types.is_integer(values.type):  # sorting is faster than hashing, especially for times
        distinct, counts = np.unique(values.to_numpy(), return_counts=True)
        return pa.table({VALUE: distinct, COUNT: counts})
    value_counts = values.value_counts()
    distinct = tables.decoded(value_counts.field("values"))
    return pa.table({VALUE: distinct, COUNT: value_counts.field("counts")})


def values_of_sets(counts: pa.Table) -> pa.Table:
    """Counts of the values of sets, from counts of the sets; null counts empty sets.

    Args:
        counts: VALUE, sets as `value_sets.join` makes them, and any columns of counts. A single
            value is a set of one.
    """
    values, sizes = value_sets.split(tables.one_array(counts[VALUE]))
    rows = pa.array(np.repeat(np.arange(counts.num_rows), sizes))
    of_values = counts.take(rows).set_column(0, VALUE, values)
    empty = counts.filter(pa.array(sizes == 0))
    names = [name for name in counts.column_names if name != VALUE]
    merged = pa.concat_tables([of_values, empty]).group_by(VALUE)
    return merged.aggregate([(name, "sum") for name in names]).rename_columns([VALUE, *names])


def count_feature(feature: Feature, column: pa.Array) -> pa.Table:
    """Distinct values of a feature and how often each occurs, in sets too; nulls are left out."""
    counts = count_values(countable(feature, column))
    return merge_counts(values_of_sets(counts)) if feature.many is not None else counts


def merge_counts(counts: pa.Table) -> pa.Table:
    """Adds up the counts of equal values; rows sorted by value."""
    if pa.types.is_integer(counts[VALUE].type) and counts.num_rows:
        values = counts[VALUE].to_numpy()
        order = np.argsort(values, kind="stable")
        values = values[order]
        first = np.flatnonzero(np.append(True, values[1:] != values[:-1]))
        sums = np.add.reduceat(counts[COUNT].to_numpy()[order], first)
        return pa.table({VALUE: values[first], COUNT: sums})
    merged = counts.group_by(VALUE).aggregate([(COUNT, "sum")])
    return merged.rename_columns([VALUE, COUNT]).sort_by(VALUE)


def countable(feature: Feature, column: pa.Array) -> pa.Array:
    """What is counted of a column: the values, or of vectors the norms."""
    return vectors.norms(column) if feature.is_vector else column


def candidate_values(catalogue: pa.Table, feature: Feature) -> pa.Table:
    """Values of an item feature that events contribute as candidates only, with their counts.

    Args:
        catalogue: Items of the training data, see `catalogue`.
        feature: The feature.
    """
    column = countable(feature, tables.one_array(catalogue[feature.name]))
    values = pa.table({VALUE: column, COUNT: catalogue[CANDIDATES]})
    values = values.filter(pc.and_(pc.is_valid(values[VALUE]), pc.greater(values[COUNT], 0)))
    return values if feature.many is None else values_of_sets(values)


def count_items(
    events: pa.Table,
    first_use_E: np.ndarray,
    is_candidate_E: np.ndarray,
    schema: Schema,
    places: Places | None = None,
) -> pa.Table:
    """Events per item and first use, with the item's features as of its last event.

    Args:
        events: Events with the item features (and whether each is a default), TIME, FILE and LINE.
        first_use_E: First split that contains each event, or NONE.
        is_candidate_E: Whether to count each event as one of CANDIDATES, which training requests
            contain as positives only.
        schema: Schema that names the item features.
        places: Places of the events, if the first place of each item is wanted.
    """
    names = [feature.name for feature in schema.item_features] + [TIME, FILE, LINE]
    names += [defaulted_column(f.name) for f in schema.item_features if f.default is not None]
    items = events.select(names)
    items = items.append_column(FIRST_USE, pa.array(first_use_E))
    items = items.append_column(COUNT, pa.array(np.ones(len(first_use_E), np.int64)))
    items = items.append_column(CANDIDATES, pa.array(is_candidate_E.astype(np.int64)))
    if places is not None:
        items = items.append_column(FIRST_TIME, pa.array(places.times))
        items = items.append_column(FIRST_ROW, pa.array(places.rows))
    merged = merge_items(items, schema.item_key.name)
    merged = merged.filter(pc.not_equal(merged[FIRST_USE], NONE))
    return pa.table(
        {name: tables.decoded(tables.one_array(merged[name])) for name in merged.column_names}
    )


def merge_items(items: pa.Table, key: str) -> pa.Table:
    """One row per item and first use: counts added up, first places, all else of the last event.

    Args:
        items: Rows as `count_items` makes them.
        key: Name of the item key.
    """
    group = tables.codes(items[key]) * (NONE + 1) + items[FIRST_USE].to_numpy()
    last = _last_rows(group, *(items[name].to_numpy() for name in (TIME, FILE, LINE)))
    merged = items.take(pa.array(last))
    for name in (COUNT, CANDIDATES):
        sums = np.bincount(group, items[name].to_numpy())[group[last]]  # exact below 2^53
        merged = _with_column(merged, name, pa.array(sums.astype(np.int64)))
    if FIRST_TIME in items.column_names:
        places = [items[name].to_numpy() for name in (FIRST_TIME, FIRST_ROW)]
        first = _last_rows(group, *(~place for place in places))  # ~ reverses the order
        for name in (FIRST_TIME, FIRST_ROW):
            merged = _with_column(merged, name, items[name].take(pa.array(first)))
    return merged


def _with_column(table: pa.Table, name: str, column: pa.Array | pa.ChunkedArray) -> pa.Table:
    return table.set_column(table.column_names.index(name), name, column)


def _last_rows(group: np.ndarray, *keys: np.ndarray) -> np.ndarray:
    """Last row of each group in the order of the keys, of which the first is primary."""
    num_groups = group.max(initial=-1) + 1
    rows = np.arange(len(group))
    for key in keys:
        group_of_row, values = group[rows], key[rows].astype(np.int64)
        highest = np.full(num_groups, np.iinfo(np.int64).min)
        np.maximum.at(highest, group_of_row, values)
        rows = rows[values == highest[group_of_row]]
    last = np.full(num_groups, -1)
    last[group[rows]] = rows
    return last[last >= 0]


def catalogue(items: pa.Table, key: str, last_split: int) -> pa.Table:
    """The items whose events are of first use `last_split` or earlier.

    They are sorted by first place if that was counted, else by key.

    Args:
        items: Merged rows of `count_items`.
        key: Name of the item key.
        last_split: TRAIN, VALIDATION or TEST.
    """
    usable = items.filter(pc.less_equal(items[FIRST_USE], last_split))
    one_use = pa.array(np.zeros(usable.num_rows, np.int8))
    merged = merge_items(_with_column(usable, FIRST_USE, one_use), key)
    return merged.sort_by(catalogue_order(key, FIRST_TIME in merged.column_names))


def catalogue_order(key: str, by_place: bool) -> list[tuple[str, Literal["ascending"]]]:
    """The order of a catalogue, which no two of its rows share.

    Args:
        key: Name of the item key.
        by_place: Whether first places were counted.
    """
    return [(name, "ascending") for name in ([FIRST_TIME, FIRST_ROW] if by_place else [key])]
