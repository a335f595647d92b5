"""The deterministic sink: group by shard, sort by key, write."""

import pathlib
from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline import tables
from pipeline.beam import beam
from pipeline.encoding import KEY, RECORD
from preprocessing import data_dir
from preprocessing.columns import binary_buffers
from preprocessing.splits import SPLITS
from preprocessing.tfrecord import write_shard


def shard_name(split: str, shard: int, num_shards: int) -> str:
    """File name of a shard."""
    return f"{split}-{shard:05d}-of-{num_shards:05d}.tfrecord.gz"


def sorted_records(parts: Iterable[tables.Reference]) -> pa.LargeBinaryArray:
    """The records of a shard by key, and by content if keys are equal (a chance of 2^-64 a pair).

    Their order therefore never depends on which worker was first.
    """
    none = pa.table({KEY: pa.array([], pa.uint64()), RECORD: pa.array([], pa.large_binary())})
    table = pa.concat_tables([none, *map(tables.read_part, parts)]).combine_chunks()
    keys = table[KEY].to_numpy()
    order = np.argsort(keys, kind="stable")
    records = table[RECORD].combine_chunks()
    if (np.diff(keys[order]) == 0).any():
        order = np.array(sorted(order, key=lambda row: (keys[row], records[row].as_py())))
    taken = records.take(pa.array(order, pa.int64()))
    return pa.concat_arrays(taken.chunks) if isinstance(taken, pa.ChunkedArray) else taken


class WriteShard(beam.DoFn):
    """Writes ((split, shard), where the records of all partitions are) as one file.

    Its size and hash go to a JSON file of the same name in `reports`, where a repeated attempt
    overwrites them with the same content.

    Args:
        output: The data directory.
        reports: Where to say what was written.
        num_shards: Files of each split.
    """

    def __init__(
        self, output: pathlib.Path, reports: pathlib.Path, num_shards: tuple[int, ...]
    ) -> None:
        self._output = output
        self._reports = reports
        self._num_shards = num_shards

    def process(
        self, element: tuple[tuple[int, int], Iterable[tables.Reference | None]]
    ) -> Iterable[Any]:
        """Writes one shard, perhaps an empty one (its only element is None); emits nothing."""
        (split, shard), parts = element
        name = shard_name(SPLITS[split], shard, self._num_shards[split])
        buffer, offsets = binary_buffers(sorted_records(filter(None, parts)))
        size, sha256 = write_shard(self._output / name, buffer, offsets)
        report = {
            "split": SPLITS[split],
            "file": name,
            "requests": len(offsets) - 1,
            "bytes": size,
            "sha256": sha256,
        }
        data_dir.write_json(self._reports / f"{name}.json", report)
        return ()
