"""What workers found, merged over all partitions and written for the driver to read."""

import collections
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence

import pyarrow as pa

from pipeline.job.beam import beam
from pipeline.log import tables
from preprocessing import data_dir
from preprocessing.storage.files import AnyPath

_MERGE_EVERY = 32


@beam.typehints.with_input_types(bytes)
@beam.typehints.with_output_types(bytes)
class MergeTables(beam.CombineFn):
    """Combines tables (as bytes) by concatenation and a merge function that shrinks the result.

    Args:
        merge: Function that gives the same result for any grouping and order of the rows.
    """

    def __init__(self, merge: Callable[[pa.Table], pa.Table]) -> None:
        self._merge = merge

    def create_accumulator(self) -> list[bytes]:
        """An empty accumulator, which is a list of tables to merge."""
        return []

    def add_input(self, accumulator: list[bytes], element: bytes) -> list[bytes]:
        """Adds one table."""
        accumulator.append(element)
        return self._shrink(accumulator) if len(accumulator) >= _MERGE_EVERY else accumulator

    def merge_accumulators(self, accumulators: Iterable[list[bytes]]) -> list[bytes]:
        """Adds the tables of several accumulators."""
        merged: list[bytes] = []
        for accumulator in accumulators:
            for element in accumulator:
                merged = self.add_input(merged, element)
        return merged

    def compact(self, accumulator: list[bytes]) -> list[bytes]:
        """Merges before the accumulator is sent elsewhere."""
        return self._shrink(accumulator) if len(accumulator) > 1 else accumulator

    def extract_output(self, accumulator: list[bytes]) -> bytes:
        """The merged table; at least one was added."""
        return self._shrink(accumulator)[0]

    def _shrink(self, accumulator: Sequence[bytes]) -> list[bytes]:
        if not accumulator:
            return []
        return [tables.to_bytes(self._merge(tables.concat(accumulator)))]


class WriteMerged(beam.PTransform):
    """Tables to one file with all of them merged; there is none without any.

    Args:
        path: The file.
        merge: Function that shrinks rows, see `MergeTables`.
    """

    def __init__(self, path: AnyPath, merge: Callable[[pa.Table], pa.Table]) -> None:
        super().__init__()
        self._path = path
        self._merge = merge

    def expand(self, counted: beam.PCollection[bytes]) -> beam.PCollection[None]:
        """Merges and writes tables, as bytes."""
        return (
            counted
            | "Merge" >> beam.CombineGlobally(MergeTables(self._merge)).without_defaults()
            | "Write" >> beam.Map(_write_table, self._path)
        )


class WriteMergedByName(beam.PTransform):
    """Named tables to one file per name, which has all tables of that name merged.

    Args:
        path_of: Function that gives the file of a name.
        merge: Function that shrinks rows, see `MergeTables`.
    """

    def __init__(
        self, path_of: Callable[[str], AnyPath], merge: Callable[[pa.Table], pa.Table]
    ) -> None:
        super().__init__()
        self._path_of = path_of
        self._merge = merge

    def expand(self, counted: beam.PCollection[tuple[str, bytes]]) -> beam.PCollection[None]:
        """Merges and writes tables, as bytes."""
        write = functools.partial(_write_named, self._path_of)
        return (
            counted
            | "Merge" >> beam.CombinePerKey(MergeTables(self._merge))
            | "Write" >> beam.MapTuple(write)
        )


class WriteCounters(beam.PTransform):
    """Counters to one JSON file with the sum of each.

    Args:
        path: The file.
    """

    def __init__(self, path: AnyPath) -> None:
        super().__init__()
        self._path = path

    def expand(self, counters: beam.PCollection[dict[str, int]]) -> beam.PCollection[None]:
        """Adds up and writes counters."""
        return (
            counters
            | "Add" >> beam.CombineGlobally(_add).without_defaults()
            | "Write" >> beam.Map(_write_counters, self._path)
        )


class WriteTimeRanges(beam.PTransform):
    """Ranges of times by split to one JSON file with the range that spans those of each split.

    Args:
        path: The file.
    """

    def __init__(self, path: AnyPath) -> None:
        super().__init__()
        self._path = path

    def expand(self, ranges: beam.PCollection[dict[str, list[int]]]) -> beam.PCollection[None]:
        """Spans and writes ranges."""
        return (
            ranges
            | "Span" >> beam.CombineGlobally(_span).without_defaults()
            | "Write" >> beam.Map(_write_ranges, self._path)
        )


def _add(counters: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Sum of counters by name."""
    total: collections.Counter[str] = collections.Counter()
    for part_counters in counters:
        total.update(part_counters)
    return dict(total)


def _span(ranges: Iterable[Mapping[str, list[int]]]) -> dict[str, list[int]]:
    """For each name the smallest range that holds all ranges of that name."""
    spans: dict[str, list[int]] = {}
    for part_ranges in ranges:
        for name, (low, high) in part_ranges.items():
            lowest, highest = spans.get(name, (low, high))
            spans[name] = [min(low, lowest), max(high, highest)]
    return spans


def _write_table(data: bytes, path: AnyPath) -> None:
    tables.write(path, tables.from_bytes(data))


def _write_named(path_of: Callable[[str], AnyPath], name: str, data: bytes) -> None:
    _write_table(data, path_of(name))


def _write_counters(counters: dict[str, int], path: AnyPath) -> None:
    data_dir.write_json(path, counters)


def _write_ranges(ranges: dict[str, list[int]], path: AnyPath) -> None:
    data_dir.write_json(path, ranges)
