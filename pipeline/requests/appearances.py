"""The events of a log in order, from which `--negative_sampling=available_popularity` draws.

A split draws from the events that its requests and those of earlier splits hold, and each request
from the ones among them up to its own place. Sorted by place these are a prefix: one search says
how many they are, and a random number below that is an exact draw by the counts so far.

The events grow with the log and are never in memory at once: every partition writes its own in
order (`write_run`), the driver merges these files block by block (`merge_runs`), and workers map
the result into memory (`read`).

Shapes: D events of a split.
"""

import contextlib
import operator
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from pipeline.log import tables
from pipeline.requests.counting import FIRST_USE
from pipeline.requests.event_order import Places
from pipeline.requests.events import Events, Plan
from preprocessing import splits
from preprocessing.storage import files
from preprocessing.values.value_places import ValuePlaces

_TIMES, _ROWS, _ITEMS = "times", "rows", "items"
_FILES = {_TIMES: np.int64, _ROWS: np.int64, _ITEMS: np.int32}
"""Columns of the merged events: one file each, without a header, so that blocks can be appended."""

_BLOCK = 16_384
"""Rows of each run that are merged at once."""


class _Run(NamedTuple):
    """The events of one partition, sorted by place; memory-mapped, except for `number_V`.

    Attributes:
        places: Places of the events.
        code_D: Place of each event's item among the items of the partition.
        number_V: Place of each of those items in the catalogue of the test split.
        first_use_D: First split that contains each event.
    """

    places: Places
    code_D: np.ndarray
    number_V: np.ndarray
    first_use_D: np.ndarray

    def __len__(self) -> int:
        return len(self.code_D)


def write_run(plan: Plan, partition: int, events: Events) -> None:
    """Writes the events of a partition that any request contains, sorted by place."""
    used_rows = np.flatnonzero(events.first_use != splits.NONE)
    used_rows = used_rows[events.places.take(used_rows).order()]
    times, rows = events.places.take(used_rows)
    items = events.column(plan.schema.item_key.name).take(pa.array(used_rows)).dictionary_encode()
    first_use = events.first_use[used_rows]
    columns = {_TIMES: times, _ROWS: rows, _ITEMS: items, FIRST_USE: first_use}
    tables.write(plan.run(partition), pa.table(columns))


def merge_runs(plan: Plan, partitions: Sequence[int]) -> None:
    """Merges what the partitions wrote; items become places in the catalogue of the test split."""
    items = tables.read(plan.catalogue(splits.SPLITS[-1]))
    universe = ValuePlaces(tables.one_array(items[plan.schema.item_key.name]))
    runs = [_read_run(plan, partition, universe) for partition in partitions]
    starts = [0] * len(runs)
    with contextlib.ExitStack() as stack:
        output_files = {
            (split, name): stack.enter_context(files.create(plan.appearances(split, name)))
            for split in splits.SPLITS
            for name in _FILES
        }
        while any(map(operator.lt, starts, map(len, runs))):
            ends = _block_ends(runs, starts)
            blocks = list(zip(runs, map(slice, starts, ends), strict=True))
            merged = {
                _TIMES: np.concatenate([run.places.times[block] for run, block in blocks]),
                _ROWS: np.concatenate([run.places.rows[block] for run, block in blocks]),
                _ITEMS: np.concatenate([run.number_V[run.code_D[block]] for run, block in blocks]),
            }
            first_use = np.concatenate([run.first_use_D[block] for run, block in blocks])
            order = Places(merged[_TIMES], merged[_ROWS]).order()
            for split, split_name in enumerate(splits.SPLITS):
                kept_rows = order[first_use[order] <= split]
                for name, dtype in _FILES.items():
                    output_files[split_name, name].write(
                        merged[name][kept_rows].astype(dtype).tobytes()
                    )
            starts = ends


def _read_run(plan: Plan, partition: int, universe: ValuePlaces) -> _Run:
    table = tables.read(plan.run(partition))
    values, code_D = tables.distinct(tables.one_array(table[_ITEMS]))
    number_V = universe.find(values)
    times, rows, first_use_D = (
        tables.one_array(table[name]).to_numpy() for name in (_TIMES, _ROWS, FIRST_USE)
    )
    return _Run(Places(times, rows), code_D, number_V, first_use_D)


def _block_ends(runs: Sequence[_Run], starts: Sequence[int]) -> list[int]:
    """End of the next block of each run: one place in all runs, at most a block away in each."""
    last_places = [
        (run.places.times[start + _BLOCK - 1], run.places.rows[start + _BLOCK - 1])
        for run, start in zip(runs, starts, strict=True)
        if start + _BLOCK < len(run)
    ]
    if not last_places:
        return [len(run) for run in runs]
    time, row = min(last_places)
    limit = Places(np.array([time]), np.array([row]))
    return [int(run.places.up_to(limit)[0]) for run in runs]


def read(plan: Plan, split: str) -> tuple[Places, np.ndarray]:
    """The events that a split draws from.

    Args:
        plan: Plan of a build for which `merge_runs` has run.
        split: Name of the split.

    Returns:
        Places of the events in order; and the item of each event, as its place in the catalogue of
        the test split.
    """
    times, rows, items = (
        _read_numbers(plan.appearances(split, name), dtype) for name, dtype in _FILES.items()
    )
    return Places(times, rows), items


def _read_numbers(path: files.AnyPath, dtype: Any) -> np.ndarray:
    with files.random_access(path) as source:
        return np.frombuffer(source.read_buffer(), dtype)
