"""The Beam pipelines of `build_examples`, one function each.

    ingest   files -> validated events -> one sorted file per partition of users, rejected rows
    time     events -> counts of timestamps (time_split)
    fit      events -> counts of values and items over the training data
    write    events -> requests -> shards

They exchange files in a work directory that all workers share, as they share the output directory.
Between them the driver reads the counts, from which it derives cut-offs and vocabularies, and stops
at a log with too many bad rows. The elements of the pipelines are few and large: tables of counts,
or references to files of events and requests. Workers load what they need from files, once each.
"""

import collections
import contextlib
import functools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from apache_beam.utils import shared

from pipeline.arguments import AVAILABLE_POPULARITY
from pipeline.beam import beam
from pipeline.datasets import open_adapter, read_canonical
from pipeline.job.runner import mark_done
from pipeline.job.sink import WriteShard
from pipeline.log import file_accounts, tables
from pipeline.log.raw_batch import Rejection
from pipeline.log.readers import InputRange
from pipeline.log.row_checks import FILE, LINE, REQUEST, TIME, validate
from pipeline.requests import appearances, counting, impressions
from pipeline.requests.encoding import RequestEncoder, load_encoders
from pipeline.requests.events import Events, Plan, sort_events
from pipeline.requests.impression_encoding import ImpressionCounts, ImpressionEncoder
from pipeline.requests.partition_counts import PartitionCounts, merge_periods, merge_values
from preprocessing import data_dir, splits
from preprocessing.schema import Hash
from preprocessing.storage import files
from preprocessing.storage.files import AnyPath
from preprocessing.values.farmhash import fingerprint64

COUNTERS = "counters"
ITEMS = "items"
TIMES = "times"
VALUES = "values"
PERIODS = "periods"


class ReadEvents(beam.DoFn):
    """Reads a range, validates it and deals its events out to the partitions.

    Emits (partition, reference to events); tagged COUNTERS: counters; tagged ITEMS:
    table of counts.

    Args:
        plan: Arguments and schema.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan

    def setup(self) -> None:
        """Loads the table with which items of a published log are joined, once per worker."""
        self._adapter = open_adapter(self._plan.arguments.dataset, self._plan.item_history)

    def process(self, part: InputRange) -> Iterator[Any]:
        """Reads one range."""
        schema = self._plan.schema
        counters: collections.Counter[str] = collections.Counter()
        output = self._plan.arguments.output_path
        rejected = output / "rejected" / f"part-{part_name(part)}.jsonl"
        with RejectedFile(rejected) as file:
            for number, batch in enumerate(read_canonical(part, schema, self._adapter)):
                result = validate(batch, schema)
                counters["read"] += result.read
                counters.update(file_accounts.of_batch(batch, result))
                counters.update({f"filtered/{rule}": n for rule, n in result.filtered.items()})
                counters.update({f"defaulted/{name}": n for name, n in result.defaulted.items()})
                for rejection in result.rejections:
                    counters[f"rejected/{rejection.reason}"] += 1
                    file.write(rejection._asdict())
                path = self._plan.work / "dealt" / f"{part_name(part)}.{number}.arrow"
                key = schema.user_key.name if schema.request is None else REQUEST
                yield from _deal(self._plan, result.events, key, path)
                if self._plan.arguments.min_item_events > 1 and result.events.num_rows:
                    items = result.events[schema.item_key.name].combine_chunks()
                    item_counts = counting.count_values(items)
                    yield beam.pvalue.TaggedOutput(ITEMS, tables.to_bytes(item_counts))
                mark_done(self._plan.work / "read", f"{part_name(part)}.{batch.blocks_done}")
        yield beam.pvalue.TaggedOutput(COUNTERS, dict(counters))


class CheckRequests(beam.DoFn):
    """Rejects rows of impression logs that contradict their request; deals the others out by user.

    Takes (partition by request, references to rows); emits what `ReadEvents` does, by user.

    Args:
        plan: Arguments and schema.
        files: Paths of the log's files by their index.
    """

    def __init__(self, plan: Plan, files: Mapping[int, str]) -> None:
        self._plan = plan
        self._files = files

    def process(self, element: tuple[int, Iterable[tables.Reference]]) -> Iterator[Any]:
        """Checks the requests of one partition."""
        partition, parts = element
        schema, work = self._plan.schema, self._plan.work
        rows = impressions.requests_sorted(parts)
        good = np.ones(rows.num_rows, bool)
        counters: collections.Counter[str] = collections.Counter()
        output = self._plan.arguments.output_path
        rejected = output / "rejected" / f"part-requests-{partition:05d}.jsonl"
        with RejectedFile(rejected) as file:
            for reason, bad in impressions.disagreements(rows, schema):
                good &= ~bad
                for row in rows.filter(pa.array(bad)).to_pylist():
                    counters[f"rejected/{reason}"] += 1
                    counters[file_accounts.counter(row[FILE], "rejected")] += 1
                    rejection = Rejection.of(self._files[row[FILE]], row[LINE], reason, row)
                    file.write(rejection._asdict())
        rows = impressions.with_request_times(rows.filter(pa.array(good)).combine_chunks())
        path = work / "dealt" / f"requests-{partition:05d}.arrow"
        yield from _deal(self._plan, rows, schema.user_key.name, path)
        yield beam.pvalue.TaggedOutput(COUNTERS, dict(counters))


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
        self._path.unlink(missing_ok=True)
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


def ingest(plan: Plan, parts: list[InputRange], pipeline: beam.Pipeline) -> None:
    """Files to sorted events: `events/*.arrow`, `counters/ingest.json`, perhaps `items.arrow`."""
    outputs = (
        pipeline
        | "Ranges" >> beam.Create(parts, reshuffle=True)
        | "Read" >> beam.ParDo(ReadEvents(plan)).with_outputs(COUNTERS, ITEMS, main="events")
    )
    events, counters = outputs.events, outputs[COUNTERS]
    if plan.schema.request is not None:
        files = {part.file.index: part.file.path for part in parts}
        checked = (
            events
            | "GroupByRequest" >> beam.GroupByKey()
            | "Check"
            >> beam.ParDo(CheckRequests(plan, files)).with_outputs(COUNTERS, main="events")
        )
        events = checked.events
        counters = (counters, checked[COUNTERS]) | "AllCounters" >> beam.Flatten()
    (
        events
        | "GroupByPartition" >> beam.GroupByKey()
        | "Sort" >> beam.MapTuple(functools.partial(_write_partition, plan))
    )
    _write_counters(counters, plan, "ingest")
    if plan.arguments.min_item_events > 1:
        merge = counting.MergeTables(counting.merge_counts)
        (
            outputs[ITEMS]
            | "CountItems" >> beam.CombineGlobally(merge).without_defaults()
            | "WriteItems" >> beam.Map(_write_bytes, plan.work / "items.arrow")
        )


def _write_partition(plan: Plan, partition: int, parts: Iterable[tables.Reference]) -> None:
    sort = sort_events
    if plan.schema.is_impression_log:
        shares_requests = plan.schema.request is not None
        sort = impressions.sort_impressions if shares_requests else impressions.sort_labelled_rows
    tables.write(plan.partition(partition), sort(parts, plan.schema.user_key.name))


def count_times(plan: Plan, partitions: list[int], pipeline: beam.Pipeline) -> None:
    """Events to counts of timestamps: `times.arrow` in the work directory."""

    def count(partition: int) -> bytes:
        if plan.schema.is_impression_log:
            times = impressions.Impressions.load(plan, partition).column(impressions.REQUEST_TIME)
        else:
            times = Events.load(plan, partition).column(TIME)
        time_counts = counting.count_values(times)
        mark_done(plan.work / "time", str(partition))
        return tables.to_bytes(time_counts)

    (
        pipeline
        | "Partitions" >> beam.Create(partitions, reshuffle=True)
        | "Count" >> beam.Map(count).with_output_types(bytes)
        | "Merge"
        >> beam.CombineGlobally(counting.MergeTables(counting.merge_counts)).without_defaults()
        | "Write" >> beam.Map(_write_bytes, plan.work / "times.arrow")
    )


class CountTraining(beam.DoFn):
    """Counts values and items of the training data of a partition.

    Emits (feature, table of counts); tagged ITEMS: table of items; tagged COUNTERS: counters.

    Args:
        plan: Arguments, schema and cut-offs.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan

    def process(self, partition: int) -> Iterator[Any]:
        """Counts one partition."""
        is_impression_log = self._plan.schema.is_impression_log
        count = impressions.count_training if is_impression_log else _count_training
        values, items, counters = count(self._plan, partition)
        file_indices = tables.read(self._plan.partition(partition))[FILE]
        counters |= file_accounts.by_file("dealt", file_indices.to_numpy())
        for name, value_counts in values.items():
            yield name, tables.to_bytes(value_counts)
        yield beam.pvalue.TaggedOutput(ITEMS, tables.to_bytes(items))
        yield beam.pvalue.TaggedOutput(COUNTERS, counters)
        mark_done(self._plan.work / "fit", str(partition))


def _count_training(
    plan: Plan, partition: int
) -> tuple[dict[str, pa.Table], pa.Table, dict[str, int]]:
    """Returns counts of values by feature, a table of items, and counters."""
    schema = plan.schema
    events = Events.load(plan, partition)
    is_positive = events.split == splits.TRAIN
    in_history = events.in_training_history
    histories = pa.array(np.flatnonzero(in_history))
    positives = pa.array(np.flatnonzero(is_positive))
    value_counts = {}
    for feature in schema.encoded_features:
        # Requests carry the user's side once, as it was at the positive. Item features of the
        # positive are those of the catalogue: `counting.candidate_values` adds them.
        rows = histories if feature in schema.item_features else positives
        if isinstance(feature.encoder, Hash):
            rows = rows[:0]  # nothing to learn
        value_counts[feature.name] = counting.count_values(events.column(feature.name).take(rows))
    places = events.places if plan.arguments.draws_available else None
    only_candidates = is_positive & ~in_history
    items = counting.count_items(events.table, events.first_use, only_candidates, schema, places)
    if plan.arguments.negative_sampling == AVAILABLE_POPULARITY:
        appearances.write_run(plan, partition, events)
    counters = {f"filtered/{rule}": n for rule, n in events.filtered.items()}
    counters |= {f"filtered/{rule}": n for rule, n in events.unused().items()}
    counters |= {f"{name}/left_out": n for name, n in events.left_out().items()}
    counters["train/requests"] = len(positives)
    counters[f"longest/{np.diff(events.starts).max(initial=0)}"] = 1
    is_used = events.first_use != splits.NONE
    counters["used"] = int(is_used.sum())
    counters |= file_accounts.by_file("used", events.table[FILE].to_numpy()[is_used])
    counters["users"] = len(np.unique(events.users[is_used]))
    return value_counts, items, counters


def fit(plan: Plan, partitions: list[int], pipeline: beam.Pipeline) -> None:
    """Events to counts: `values/<feature>.arrow`, `items.arrow`, `counters/fit.json`."""
    outputs = (
        pipeline
        | "Partitions" >> beam.Create(partitions, reshuffle=True)
        | "Count" >> beam.ParDo(CountTraining(plan)).with_outputs(COUNTERS, ITEMS, main="values")
    )
    merge_items = functools.partial(counting.merge_items, key=plan.schema.item_key.name)
    (
        outputs["values"]
        | "MergeValues" >> beam.CombinePerKey(counting.MergeTables(counting.merge_counts))
        | "WriteValues" >> beam.MapTuple(functools.partial(_write_values, plan.work / "values"))
    )
    (
        outputs[ITEMS]
        | "MergeItems" >> beam.CombineGlobally(counting.MergeTables(merge_items)).without_defaults()
        | "WriteItems" >> beam.Map(_write_bytes, plan.work / "items.arrow")
    )
    _write_counters(outputs[COUNTERS], plan, "fit")


def _write_values(directory: AnyPath, name: str, data: bytes) -> None:
    tables.write(directory / f"{name}.arrow", tables.from_bytes(data))


class EncodeRequests(beam.DoFn):
    """Encodes the requests of a partition.

    Emits ((split, shard), reference to records); tagged COUNTERS: counters; tagged
    TIMES: first and last time of the positives by split; tagged VALUES and PERIODS: tables of
    counts for the statistics.

    Args:
        plan: Arguments, schema and cut-offs.
        vocab_dir: Directory of the vocabularies.
        numbers: Numbers that encoders learnt beside vocabularies, by feature.
    """

    def __init__(
        self, plan: Plan, vocab_dir: AnyPath, numbers: Mapping[str, Mapping[str, Any]]
    ) -> None:
        self._plan = plan
        self._vocab_dir = vocab_dir
        self._numbers = numbers
        self._of_process = shared.Shared()

    def setup(self) -> None:
        """Loads vocabularies and item catalogues, once per process, whatever its threads."""
        self._load: Callable[..., Any] = Events.load
        self._counts: Callable[..., Any] = PartitionCounts
        if self._plan.schema.is_impression_log:
            self._load, self._counts = impressions.Impressions.load, ImpressionCounts
        self._encoder = self._of_process.acquire(self._new_encoder)

    def _new_encoder(self) -> RequestEncoder | ImpressionEncoder:
        fitted = load_encoders(self._plan.schema, self._vocab_dir, self._numbers)
        if self._plan.schema.is_impression_log:
            return ImpressionEncoder(self._plan, fitted)
        catalogues = [tables.read(self._plan.catalogue(name)) for name in splits.SPLITS]
        return RequestEncoder(self._plan, fitted, catalogues)

    def process(self, partition: int) -> Iterator[Any]:
        """Encodes one partition."""
        counters: collections.Counter[str] = collections.Counter()
        events = self._load(self._plan, partition)
        for number, pieces in enumerate(self._encoder.encode(events, counters)):
            path = self._plan.work / "requests" / f"{partition:05d}.{number}.arrow"
            references = tables.write_parts(path, [piece.records for piece in pieces])
            for piece, reference in zip(pieces, references, strict=True):
                yield (piece.split, piece.shard), reference
        yield beam.pvalue.TaggedOutput(COUNTERS, dict(counters))
        times = [events.timestamps[events.split == split] for split in range(len(splits.SPLITS))]
        ranges = {
            name: [int(split_times.min()), int(split_times.max())]
            for name, split_times in zip(splits.SPLITS, times, strict=True)
            if len(split_times)
        }
        yield beam.pvalue.TaggedOutput(TIMES, ranges)
        counts = self._counts(events)
        for key, value_counts in counts.values():
            yield beam.pvalue.TaggedOutput(VALUES, (key, tables.to_bytes(value_counts)))
        yield beam.pvalue.TaggedOutput(PERIODS, tables.to_bytes(counts.periods()))


def write(
    plan: Plan,
    vocab_dir: AnyPath,
    numbers: Mapping[str, Mapping[str, Any]],
    partitions: list[int],
    pipeline: beam.Pipeline,
) -> None:
    """Events to shards: the shards, `shards/*.json` and `counters/write.json`."""
    num_shards = tuple(plan.arguments.shards(name) for name in splits.SPLITS)
    every_shard = [((s, i), None) for s, count in enumerate(num_shards) for i in range(count)]
    outputs = (
        pipeline
        | "Partitions" >> beam.Create(partitions, reshuffle=True)
        | "Encode"
        >> beam.ParDo(EncodeRequests(plan, vocab_dir, numbers)).with_outputs(
            COUNTERS, TIMES, VALUES, PERIODS, main="records"
        )
    )
    no_records = pipeline | "EveryShard" >> beam.Create(every_shard)
    (
        (outputs.records, no_records)
        | "WithEmptyShards" >> beam.Flatten()
        | "GroupByShard" >> beam.GroupByKey()
        | "Write"
        >> beam.ParDo(WriteShard(plan.arguments.output_path, plan.work / "shards", num_shards))
    )
    _write_counters(outputs[COUNTERS], plan, "write")
    (
        outputs[TIMES]
        | "TimeRanges" >> beam.CombineGlobally(_hull).without_defaults()
        | "WriteTimeRanges" >> beam.Map(_write_json, plan.work / "counters" / "times.json")
    )
    (
        outputs[VALUES]
        | "MergeValues" >> beam.CombinePerKey(counting.MergeTables(merge_values))
        | "WriteValues" >> beam.MapTuple(functools.partial(_write_values, plan.work / "statistics"))
    )
    merged_periods = beam.CombineGlobally(counting.MergeTables(merge_periods))
    (
        outputs[PERIODS]
        | "MergePeriods" >> merged_periods.without_defaults()
        | "WritePeriods" >> beam.Map(_write_bytes, plan.work / "periods.arrow")
    )


def _write_counters(counters: beam.PCollection, plan: Plan, stage: str) -> None:
    (
        counters
        | "AddCounters" >> beam.CombineGlobally(_add).without_defaults()
        | "WriteCounters" >> beam.Map(_write_json, plan.work / "counters" / f"{stage}.json")
    )


def _add(counters: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Sum of counters by name."""
    total: collections.Counter[str] = collections.Counter()
    for part_counters in counters:
        total.update(part_counters)
    return dict(total)


def _hull(ranges: Iterable[Mapping[str, list[int]]]) -> dict[str, list[int]]:
    """For each name the smallest range that holds all ranges of that name."""
    hull: dict[str, list[int]] = {}
    for part_ranges in ranges:
        for name, (low, high) in part_ranges.items():
            lowest, highest = hull.get(name, (low, high))
            hull[name] = [min(low, lowest), max(high, highest)]
    return hull


def _write_json(content: Any, path: AnyPath) -> None:
    data_dir.write_json(path, content)


def _write_bytes(data: bytes, path: AnyPath) -> None:
    tables.write(path, tables.from_bytes(data))
