"""The deterministic sink: group by shard, sort by key, write."""

from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.job import pieces
from pipeline.job.beam import beam
from pipeline.log import tables
from pipeline.requests.encoding import KEY, RECORD
from preprocessing import data_dir
from preprocessing.splits import SPLITS
from preprocessing.storage.arrow_buffers import binary_buffers
from preprocessing.storage.files import AnyPath
from preprocessing.storage.tfrecord import write_shard

_BLOCK_BYTES = 1 << 24


def shard_name(split: str, shard: int, num_shards: int) -> str:
    """File name of a shard."""
    return f"{split}-{shard:05d}-of-{num_shards:05d}.tfrecord.gz"


def sorted_records(
    parts: Iterable[tables.Reference], block_bytes: int = _BLOCK_BYTES
) -> Iterator[pa.LargeBinaryArray]:
    """Yields the records of a shard by key, and by content if keys are equal, in blocks.

    The order therefore never depends on which worker was first. Neither do the blocks, which are
    equal ranges of keys; as keys are fingerprints, all blocks are about as large. Only one block is
    in memory at a time; the parts are memory-mapped.

    Args:
        parts: Records, each part sorted by key.
        block_bytes: Average size of a block.
    """
    mapped = [tables.read_part(part) for part in parts]
    if not mapped:
        return
    keys = [part[KEY].to_numpy() for part in mapped]
    records = [tables.one_array(part[RECORD]) for part in mapped]
    size = sum(int(pc.sum(pc.binary_length(part)).as_py()) for part in records)
    num_blocks = 1 + size // block_bytes
    ends = np.arange(1, num_blocks, dtype=np.uint64) * np.uint64((2**64 - 1) // num_blocks)
    bounds = np.array([[0, *np.searchsorted(part, ends), len(part)] for part in keys])
    for starts, stops in zip(bounds.T[:-1], bounds.T[1:], strict=True):
        spans = list(zip(starts.tolist(), stops.tolist(), strict=True))
        yield _sorted(
            np.concatenate([part[slice(*span)] for part, span in zip(keys, spans, strict=True)]),
            pa.concat_arrays(
                [
                    part.slice(start, stop - start)
                    for part, (start, stop) in zip(records, spans, strict=True)
                ]
            ),
        )


def _sorted(keys: np.ndarray, records: pa.LargeBinaryArray) -> pa.LargeBinaryArray:
    """Records by key, and by content if keys are equal (a chance of 2^-64 a pair)."""
    order = np.argsort(keys, kind="stable")
    if (np.diff(keys[order]) == 0).any():
        order = np.array(sorted(order, key=lambda row: (keys[row], records[row].as_py())))
    return records.take(pa.array(order, pa.int64()))


class WriteShards(beam.PTransform):
    """References to records by (split, shard), or None, to the files of all shards.

    Args:
        output: The data directory.
        reports: Directory of the JSON files that say what was written, in the work directory.
        num_shards: Number of files of each split.
    """

    def __init__(self, output: AnyPath, reports: AnyPath, num_shards: tuple[int, ...]) -> None:
        super().__init__()
        self._write = WriteShard(output, reports, num_shards)

    def expand(
        self, records: beam.PCollection[tuple[tuple[int, int], tables.Reference | None]]
    ) -> beam.PCollection[None]:
        """Groups the references by shard and writes a file for each group."""
        return records | "Group" >> beam.GroupByKey() | "Write" >> beam.ParDo(self._write)


class WriteShard(beam.DoFn):
    """Writes ((split, shard), references to the records of all partitions) as one file.

    The size and hash of the file go to a JSON file of the same name in `reports`, which a repeated
    attempt overwrites with the same content.

    Args:
        output: The data directory.
        reports: Directory of the JSON files that say what was written, in the work directory.
        num_shards: Number of files of each split.
    """

    def __init__(self, output: AnyPath, reports: AnyPath, num_shards: tuple[int, ...]) -> None:
        self._output = output
        self._reports = reports
        self._num_shards = num_shards

    def process(
        self, element: tuple[tuple[int, int], Iterable[tables.Reference | None]]
    ) -> Iterable[None]:
        """Writes one shard, perhaps an empty one (its only element is None); emits nothing."""
        work = self._reports.parent
        return list(pieces.piece_of_work("write", work, lambda: self._write(element)))

    def _write(
        self, element: tuple[tuple[int, int], Iterable[tables.Reference | None]]
    ) -> Iterable[None]:
        (split, shard), parts = element
        name = shard_name(SPLITS[split], shard, self._num_shards[split])
        num_records = 0

        def blocks() -> Iterator[tuple[np.ndarray, np.ndarray]]:
            nonlocal num_records
            for records in sorted_records(filter(None, parts)):
                num_records += len(records)
                yield binary_buffers(records)

        size, sha256 = write_shard(self._output / name, blocks())
        report = {
            "split": SPLITS[split],
            "file": name,
            "requests": num_records,
            "bytes": size,
            "sha256": sha256,
        }
        data_dir.write_json(self._reports / f"{name}.json", report)
        pieces.count({pieces.REQUESTS_WRITTEN: num_records, pieces.BYTES_WRITTEN: size})
        return ()
