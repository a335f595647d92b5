"""Tables with a row per value, merged in buckets of values: no element holds all values of a log.

Users and items are too many for one element of a large log, which may have 2 GiB. So every table is
split by a hash of its key as it leaves a worker, the tables of a bucket are merged by whichever
worker has it, and each bucket is a file. Small logs have one bucket.
"""

import functools
from collections.abc import Callable, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.job.beam import beam
from pipeline.job.merging import MergeTables
from pipeline.log import sorted_runs, tables
from preprocessing.storage.files import AnyPath
from preprocessing.values.farmhash import fingerprint64

_Key = tuple[str, int]
"""Name of tables, number of the bucket."""


class WriteBuckets(beam.PTransform):
    """Named tables to one directory per name, which has a file for each bucket with rows.

    `tables.read_buckets` reads what it wrote. A name whose tables have no rows gets one file,
    without rows.

    Args:
        path_of: Function that gives the directory of a name.
        merge: Function that shrinks rows, see `MergeTables`; rows of different keys stay apart.
        key: Column by which rows are dealt out, of texts or numbers.
        num_buckets: Number of buckets.
        order: Order of the rows of each file, which is a run then; None to leave them as merged.
    """

    def __init__(
        self,
        path_of: Callable[[str], AnyPath],
        merge: Callable[[pa.Table], pa.Table],
        key: str,
        num_buckets: int,
        order: sorted_runs.Order | None = None,
    ) -> None:
        super().__init__()
        self._write = functools.partial(_write, path_of, order, num_buckets)
        self._merge = merge
        self._split = functools.partial(_split, key, num_buckets)

    def expand(self, counted: beam.PCollection[tuple[str, bytes]]) -> beam.PCollection[None]:
        """Splits, merges and writes tables, as bytes."""
        return (
            counted
            | "Split" >> beam.FlatMap(self._split).with_output_types(tuple[_Key, bytes])
            | "Merge" >> beam.CombinePerKey(MergeTables(self._merge))
            | "Write" >> beam.MapTuple(self._write)
        )


class WriteItems(beam.PTransform):
    """Tables of items to one directory, see `WriteBuckets`.

    Args:
        directory: The directory.
        merge: Function that shrinks rows, see `MergeTables`.
        key: Column of the item.
        num_buckets: Number of buckets.
        order: Order of the rows of each file, see `WriteBuckets`.
    """

    def __init__(
        self,
        directory: AnyPath,
        merge: Callable[[pa.Table], pa.Table],
        key: str,
        num_buckets: int,
        order: sorted_runs.Order | None = None,
    ) -> None:
        super().__init__()
        path_of = functools.partial(_below, directory.parent)
        self._name = directory.name
        self._write = WriteBuckets(path_of, merge, key, num_buckets, order)

    def expand(self, counted: beam.PCollection[bytes]) -> beam.PCollection[None]:
        """Merges and writes tables, as bytes."""
        named = counted | "Name" >> beam.Map(_named, self._name)
        return named | "Buckets" >> self._write


def _below(directory: AnyPath, name: str) -> AnyPath:
    return directory / name


def _named(data: bytes, name: str) -> tuple[str, bytes]:
    return name, data


def _split(key: str, num_buckets: int, named: tuple[str, bytes]) -> Iterator[tuple[_Key, bytes]]:
    name, data = named
    table = tables.from_bytes(data)
    if num_buckets == 1 or not table.num_rows:
        yield (name, 0), data
        return
    bucket_of_row = bucket_of(tables.one_array(table[key]), num_buckets)
    order = np.argsort(bucket_of_row, kind="stable")
    in_order = table.take(pa.array(order))
    buckets, starts = np.unique(bucket_of_row[order], return_index=True)
    sizes = np.diff(starts, append=len(order))
    for bucket, start, size in zip(*(n.tolist() for n in (buckets, starts, sizes)), strict=True):
        yield (name, bucket), tables.to_bytes(in_order.slice(start, size))


def bucket_of(values: pa.Array, num_buckets: int) -> np.ndarray:
    """The bucket of each value, int64 [V]: equal values are in one bucket.

    Args:
        values: [V] texts, numbers or booleans, perhaps with nulls.
        num_buckets: Number of buckets.
    """
    if pa.types.is_null(values.type):
        return np.zeros(len(values), np.int64)
    values = tables.decoded(values)
    if pa.types.is_boolean(values.type):
        values = values.cast(pa.int8())
    if pa.types.is_primitive(values.type):
        numbers = pc.fill_null(values, 0).to_numpy(zero_copy_only=False)
        numbers = numbers.view(f"u{numbers.itemsize}").astype(np.uint64)
        hashes = (numbers * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(32)
    else:
        hashes = fingerprint64(pc.fill_null(values, "").cast(pa.large_string()))
    return (hashes % np.uint64(num_buckets)).astype(np.int64)


def _write(
    path_of: Callable[[str], AnyPath],
    order: sorted_runs.Order | None,
    num_buckets: int,
    key: _Key,
    data: bytes,
) -> None:
    name, bucket = key
    path, table = tables.bucket_path(path_of(name), bucket), tables.from_bytes(data)
    if order is None:
        tables.write(path, table)
    else:
        sorted_runs.write(path, table.sort_by(list(order)), num_buckets)
