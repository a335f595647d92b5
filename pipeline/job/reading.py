"""The log, read and dealt out to partitions: validated rows, checked requests, sorted files."""

import collections
import contextlib
import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.datasets import open_adapter, read_canonical
from pipeline.job import time_cutoffs
from pipeline.job.beam import beam
from pipeline.job.output import REJECTED
from pipeline.job.pieces import count_rows, piece_of_work
from pipeline.job.runner import mark_done
from pipeline.log import file_accounts, tables
from pipeline.log.raw_batch import InputFile, RawBatch, Rejection
from pipeline.log.readers import InputRange
from pipeline.log.row_checks import FILE, LINE, TIME, Validated, validate
from pipeline.requests import counting, impressions, tails
from pipeline.requests.events import Plan
from pipeline.requests.log_kind import AnyLog
from pipeline.requests.long_histories import Gathered
from preprocessing import time_units
from preprocessing.storage import files
from preprocessing.storage.files import AnyPath
from preprocessing.values.farmhash import fingerprint64

COUNTERS, ITEMS, TIMES = "counters", "items", "times"
"""Tags of further outputs."""


@beam.typehints.with_output_types(tuple[int, tables.Reference], **{COUNTERS: dict[str, int]})
class ReadEvents(beam.DoFn):
    """Reads a range, validates it and deals its events out to the partitions.

    Emits (partition, reference to events); tagged COUNTERS: counters.

    Args:
        plan: Arguments and schema.
        kind: Kind of the log, which says by what key to deal.
    """

    def __init__(self, plan: Plan, kind: AnyLog) -> None:
        self._plan = plan
        self._kind = kind

    def setup(self) -> None:
        """Loads the table with which items of a published log are joined, once per worker."""
        self._adapter = open_adapter(self._plan.arguments.dataset, self._plan.item_history)

    def process(self, part: InputRange) -> Iterator[Any]:
        """Reads one range."""
        return piece_of_work("read", self._plan.work, lambda: self._read(part))

    def _read(self, part: InputRange) -> Iterator[Any]:
        schema = self._plan.schema
        counters: collections.Counter[str] = collections.Counter()
        output = self._plan.arguments.output_path
        rejected = output / REJECTED / f"part-{part_name(part)}.jsonl"
        with RejectedFile(rejected) as file:
            for number, batch in enumerate(read_canonical(part, schema, self._adapter)):
                result = self._judge_late(validate(batch, schema), batch, counters)
                counters["read"] += result.read
                counters.update(file_accounts.of_batch(batch, result))
                counters.update({f"filtered/{rule}": n for rule, n in result.filtered.items()})
                counters.update({f"defaulted/{name}": n for name, n in result.defaulted.items()})
                for rejection in result.rejections:
                    counters[f"rejected/{rejection.reason}"] += 1
                    file.write(part.file.record(rejection))
                path = self._plan.work / "dealt" / f"{part_name(part)}.{number}.arrow"
                yield from _deal(self._plan, result.events, self._kind.deal_key, path)
                mark_done(self._plan.work / "read", f"{part_name(part)}.{batch.blocks_done}")
        count_rows(counters)
        yield beam.pvalue.TaggedOutput(COUNTERS, dict(counters))

    def _judge_late(
        self, result: Validated, batch: RawBatch, counters: collections.Counter[str]
    ) -> Validated:
        """Counts events that are earlier than the latest of the base, or rejects them."""
        plan = self._plan
        if plan.base is None:
            return result
        is_late = pc.less(result.events[TIME], plan.base.watermark)
        late_lines = result.events[LINE].filter(is_late)
        if plan.arguments.late != "reject":
            counters["late"] += len(late_lines)
            return result
        rows = pc.index_in(late_lines, value_set=pa.array(batch.lines))
        latest = time_units.text(plan.schema, plan.base.watermark)
        reason = f"earlier than {latest}, the latest time of the base"
        rejections = [batch.rejection(row, reason) for row in rows.to_pylist()]
        return dataclasses.replace(
            result,
            events=result.events.filter(pc.invert(is_late)),
            rejections=[*result.rejections, *rejections],
        )


@beam.typehints.with_output_types(tuple[int, tables.Reference], **{COUNTERS: dict[str, int]})
class CheckRequests(beam.DoFn):
    """Rejects rows of impression logs that contradict their request; deals the others out by user.

    Takes (partition by request, references to rows); emits what `ReadEvents` does, by user.

    Args:
        plan: Arguments and schema.
        files: The log's files by their index.
    """

    def __init__(self, plan: Plan, files: Mapping[int, InputFile]) -> None:
        self._plan = plan
        self._files = files

    def process(self, element: tuple[int, Iterable[tables.Reference]]) -> Iterator[Any]:
        """Checks the requests of one partition."""
        return piece_of_work("check", self._plan.work, lambda: self._check(element))

    def _check(self, element: tuple[int, Iterable[tables.Reference]]) -> Iterator[Any]:
        partition, parts = element
        schema, work = self._plan.schema, self._plan.work
        rows = impressions.requests_sorted(parts)
        good = np.ones(rows.num_rows, bool)
        counters: collections.Counter[str] = collections.Counter()
        output = self._plan.arguments.output_path
        rejected = output / REJECTED / f"part-requests-{partition:05d}.jsonl"
        with RejectedFile(rejected) as file:
            for reason, bad in impressions.disagreements(rows, schema):
                good &= ~bad
                for row in rows.filter(pa.array(bad)).to_pylist():
                    counters[f"rejected/{reason}"] += 1
                    counters[file_accounts.counter(row[FILE], "rejected")] += 1
                    origin = self._files[row[FILE]]
                    rejection = Rejection.of(origin.path, row[LINE], reason, row)
                    file.write(origin.record(rejection))
        rows = impressions.with_request_times(rows.filter(pa.array(good)).combine_chunks())
        path = work / "dealt" / f"requests-{partition:05d}.arrow"
        yield from _deal(self._plan, rows, schema.user_key.name, path)
        count_rows(counters)
        yield beam.pvalue.TaggedOutput(COUNTERS, dict(counters))


class SortPartitions(beam.PTransform):
    """Rows by partition of users to one sorted file per partition.

    Emits, tagged ITEMS, a table of counts of the items of each partition if rare ones are to be
    filtered; tagged TIMES: a count of its times, see `time_cutoffs.are_counted_in_reading`; tagged
    COUNTERS: counters of repeated rows.

    Args:
        plan: Arguments, schema and paths.
        kind: Kind of the log, which has the order.
    """

    def __init__(self, plan: Plan, kind: AnyLog) -> None:
        super().__init__()
        self._write = SortPartition(plan, kind)

    def expand(
        self, rows: beam.PCollection[tuple[int, tables.Reference]]
    ) -> beam.pvalue.DoOutputsTuple:
        """Groups references to rows and writes a file for each group."""
        write = beam.ParDo(self._write).with_outputs(COUNTERS, TIMES, main=ITEMS)
        return rows | "Group" >> beam.GroupByKey() | "Write" >> write


@beam.typehints.with_output_types(bytes, **{COUNTERS: dict[str, int], TIMES: bytes})
class SortPartition(beam.DoFn):
    """Writes the rows of one partition as one sorted file; emits what `SortPartitions` does.

    Takes (partition, references to rows).

    Args:
        plan: Arguments, schema and paths.
        kind: Kind of the log, which has the order.
    """

    def __init__(self, plan: Plan, kind: AnyLog) -> None:
        self._plan = plan
        self._kind = kind

    def process(self, element: tuple[int, Iterable[tables.Reference]]) -> Iterator[Any]:
        """Sorts one partition."""
        return piece_of_work("sort", self._plan.work, lambda: self._sort(element))

    def _sort(self, element: tuple[int, Iterable[tables.Reference]]) -> Iterator[Any]:
        partition, parts = element
        arguments = self._plan.arguments
        rows = _gathered(self._plan, self._kind, partition, map(tables.read_part, parts))
        rows, older = _with_base(self._plan, partition, rows)
        if older is not None:
            tables.write(self._plan.older(partition), older.combine_chunks())
        rows, repeats = self._kind.sort(rows, arguments.deduplicate, older)
        tables.write(self._plan.partition(partition), rows)
        if arguments.min_item_events > 1:
            items = tables.one_array(rows[self._plan.schema.item_key.name])
            yield tables.to_bytes(counting.count_values(items))
        if time_cutoffs.are_counted_in_reading(self._plan):
            times = time_cutoffs.counted(self._plan, self._kind, partition)
            yield beam.pvalue.TaggedOutput(TIMES, times)
        if len(repeats):
            counters = {"filtered/duplicate": len(repeats)}
            counters |= file_accounts.by_file("filtered", repeats)
            yield beam.pvalue.TaggedOutput(COUNTERS, counters)


def _gathered(plan: Plan, kind: AnyLog, partition: int, parts: Iterable[pa.Table]) -> pa.Table:
    """The rows of a partition without old ones of users with too many, which get their own file."""
    most = kind.most_events(plan)
    if most is None:
        return pa.concat_tables(parts)
    gathered = Gathered(plan.schema.user_key.name, most)
    tables.write_pieces(plan.excess(partition), gathered.excess(parts))
    return gathered.rows


def _with_base(plan: Plan, partition: int, rows: pa.Table) -> tuple[pa.Table, pa.Table | None]:
    """The rows of a partition beside what the base keeps of their users: events, older counts."""
    if plan.base is None:
        return rows, None
    users = rows[plan.schema.user_key.name].unique()
    for name in tails.counted_columns(plan.schema):
        rows = rows.append_column(name, pa.array(np.zeros(rows.num_rows, bool)))
    earlier = plan.base.events_of(partition, users, rows.schema)
    if earlier is not None:
        rows = pa.concat_tables([rows, earlier], promote_options="default")
    return rows, plan.base.older_of(partition, users)


def _deal(
    plan: Plan, events: pa.Table, key: str, path: AnyPath
) -> Iterable[tuple[int, tables.Reference]]:
    """Writes events to a file with one part for each partition that has any, by a hash of `key`."""
    if not events.num_rows:
        return ()
    keys = events[key].combine_chunks().dictionary_encode()
    key_hashes = fingerprint64(keys.dictionary.cast(pa.large_string()))
    # Small integers are sorted by digits, which takes a fraction of the time.
    partition_of_key = (key_hashes % np.uint64(plan.num_partitions)).astype(
        np.min_scalar_type(plan.num_partitions)
    )
    partition_of_event = partition_of_key[keys.indices.to_numpy()]
    order = np.argsort(partition_of_event, kind="stable")
    events = events.take(pa.array(order))
    partitions, starts = np.unique(partition_of_event[order], return_index=True)
    counts = np.diff(starts, append=len(order)).tolist()
    parts = [events.slice(*bounds) for bounds in zip(starts.tolist(), counts, strict=True)]
    return zip(partitions.tolist(), tables.write_parts(path, parts), strict=True)


def part_name(part: InputRange) -> str:
    """Name of the files of a range: `00002` or, for a part of a file, `00002-00007`."""
    name = f"{part.file.index:05d}"
    return name if part.number is None else f"{name}-{part.number:05d}"


class RejectedFile:
    """JSON lines of rejected rows; the file exists only if there are any."""

    def __init__(self, path: AnyPath) -> None:
        self._path = path
        self._lines: list[str] = []
        self._file: pa.NativeFile | None = None
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> "RejectedFile":
        # A runner may start a second attempt and cancel it: nothing of the first may be removed.
        return self

    def write(self, record: Mapping[str, Any]) -> None:
        """Adds one rejected row."""
        self._lines.append(json.dumps(record, ensure_ascii=False) + "\n")
        if len(self._lines) >= 10_000:
            self._flush()

    def _flush(self) -> None:
        if self._lines:
            if self._file is None:
                self._file = self._stack.enter_context(files.create(self._path))
            self._file.write("".join(self._lines).encode())
        self._lines = []

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if error is None:
            self._flush()
        self._stack.__exit__(kind, error, trace)
