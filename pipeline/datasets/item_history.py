"""The history of items in item files: their values as of a time, joined to a log.

Rows are snapshots (item, time, value): from `time` on the item has the value, until its next
snapshot. Items are compared by fingerprint. Shape suffixes: S snapshots, R rows of a batch.
"""

import collections
from collections.abc import Callable, Iterable

import numpy as np
import pyarrow as pa

from pipeline.log import tables
from pipeline.log.raw_batch import RawBatch, Rejection
from pipeline.log.values import as_number
from preprocessing.features.feature import DType
from preprocessing.values.farmhash import fingerprint64
from preprocessing.values.spelling import spelled

ITEM, TIME, VALUE = "item", "time", "value"
"""Columns of snapshots; without TIME the value holds at all times."""

_ALWAYS = np.iinfo(np.int64).min
_SCHEMA = pa.schema({ITEM: pa.uint64(), TIME: pa.int64(), VALUE: pa.string()})


def collect(
    batches: Iterable[RawBatch], reject: Callable[[Rejection], None]
) -> tuple[pa.Table, dict[str, int]]:
    """Reads snapshots; among several with the same item and time the last one counts.

    An item with a single value has it at all times: files of snapshots hold a value that never
    changes once, with any date.

    Args:
        batches: Raw batches with the columns ITEM, VALUE and perhaps TIME.
        reject: Function that is called with the rejection of every bad row.

    Returns:
        Snapshots sorted by item and time; and the counters `read`, `items`, `filtered/<rule>` and
        `rejected/<reason>`.
    """
    counters: collections.Counter[str] = collections.Counter()
    parts = [_SCHEMA.empty_table()]
    for raw in batches:
        batch = _typed(raw)
        counters["read"] += len(batch.lines) + len(batch.rejections) + sum(batch.filtered.values())
        counters.update({f"filtered/{rule}": n for rule, n in batch.filtered.items()})
        for rejection in batch.rejections:
            counters[f"rejected/{rejection.reason}"] += 1
            reject(rejection)
        items = fingerprint64(batch.columns[ITEM].cast(pa.large_string()))
        parts.append(pa.table({**batch.columns, ITEM: items}).select(_SCHEMA.names))
    snapshots = _condensed(pa.concat_tables(parts))
    counters["items"] = len(np.unique(snapshots[ITEM].to_numpy()))
    return snapshots, dict(counters)


def _typed(batch: RawBatch) -> RawBatch:
    """Turns items and values into texts and times into integers; takes out incomplete rows."""
    items = spelled(batch.columns[ITEM]).texts
    values = spelled(batch.columns[VALUE]).texts
    times = pa.array(np.full(len(items), _ALWAYS))
    if TIME in batch.columns:
        times, _ = as_number(batch.columns[TIME], DType.INT64)
    batch = batch.with_columns({ITEM: items, TIME: times, VALUE: values})
    batch = batch.rejecting(_nulls(batch.columns[ITEM]), "no item")
    batch = batch.rejecting(_nulls(batch.columns[TIME]), "no time")
    return batch.without(_nulls(batch.columns[VALUE]), "no_value")


def _nulls(column: pa.Array) -> np.ndarray:
    return np.asarray(column.is_null().to_numpy(zero_copy_only=False), bool)


def _condensed(snapshots: pa.Table) -> pa.Table:
    """Sorts snapshots, one per item and time, or a single one if the value is constant."""
    item_S, time_S = snapshots[ITEM].to_numpy(), snapshots[TIME].to_numpy()
    order = np.lexsort((time_S, item_S))  # stable: the last of equals stays the last
    item_S, time_S = item_S[order], time_S[order]
    value_S = tables.codes(snapshots[VALUE])[order]
    same_item = item_S[1:] == item_S[:-1]
    first = np.flatnonzero(np.append(True, ~same_item)[: len(order)])
    if len(first):
        lowest, highest = (f.reduceat(value_S, first) for f in (np.minimum, np.maximum))
        constant_S = np.repeat(lowest == highest, np.diff(first, append=len(order)))
        time_S = np.where(constant_S, _ALWAYS, time_S)
    is_last = np.append(~same_item | (time_S[1:] != time_S[:-1]), True)[: len(order)]
    kept_snapshots = snapshots.take(pa.array(order[is_last]))
    return kept_snapshots.set_column(1, TIME, pa.array(time_S[is_last]))


class ItemHistory:
    """Finds values as of a time.

    Args:
        snapshots: Snapshots as returned by `collect`.
    """

    def __init__(self, snapshots: pa.Table) -> None:
        self._item_S = snapshots[ITEM].to_numpy()
        self._values = tables.one_array(snapshots[VALUE])
        self._items = np.unique(self._item_S)
        self._times, rank_S = np.unique(snapshots[TIME].to_numpy(), return_inverse=True)
        self._place_S = self._place(self._item_S, rank_S + 1)

    def at(self, items: pa.Array, times_R: np.ndarray) -> pa.Array:
        """The value of each item at a time, string [R]; null if there is none.

        Args:
            items: Items as the log has them, of any type.
            times_R: Time of each row, int64.
        """
        texts = spelled(items).texts.fill_null("").cast(pa.large_string())
        item_R = fingerprint64(texts)
        rank_R = np.searchsorted(self._times, times_R, side="right")
        row_R = np.searchsorted(self._place_S, self._place(item_R, rank_R), side="right") - 1
        has_value_R = row_R >= 0
        has_value_R[has_value_R] = self._item_S[row_R[has_value_R]] == item_R[has_value_R]
        return self._values.take(pa.array(row_R, mask=~has_value_R))

    def _place(self, items: np.ndarray, ranks: np.ndarray) -> np.ndarray:
        """An integer that orders pairs of an item and the number of times up to a time."""
        return np.searchsorted(self._items, items) * (len(self._times) + 1) + ranks
