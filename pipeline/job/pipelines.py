"""The Beam pipelines of `build_examples`, one function each.

    ingest   files -> validated events -> one sorted file per partition of users, rejected rows
    fit      events -> counts of values and items over the training data
    write    events -> requests -> shards

The passes over events of `core_filter` and `time_cutoffs` stand there. All exchange files in a work
directory that all workers share, as they share the output directory. Between them the driver reads
the counts, from which it derives cut-offs and vocabularies, and stops at a log with too many bad
rows. The elements of the pipelines are few and large: tables of counts, or references to files of
events and requests. Workers load what they need from files, once each.
"""

import collections
import dataclasses
import functools
from collections.abc import Iterator, Mapping
from typing import Any

from apache_beam.utils import shared

from pipeline.job import time_cutoffs
from pipeline.job.beam import beam
from pipeline.job.buckets import WriteBuckets, WriteItems
from pipeline.job.merging import WriteCounters, WriteMerged, WriteTimeRanges
from pipeline.job.pieces import Pieces, piece_of_work
from pipeline.job.reading import (
    COUNTERS,
    ITEMS,
    TIMES,
    CheckRequests,
    ReadEvents,
    SortPartitions,
)
from pipeline.job.runner import mark_done
from pipeline.job.sink import WriteShards
from pipeline.log import file_accounts, tables
from pipeline.log.readers import InputRange
from pipeline.log.row_checks import FILE
from pipeline.requests import counting, last_seen, time_bins
from pipeline.requests.encoding import load_encoders
from pipeline.requests.events import Plan, every_row
from pipeline.requests.kept_values import keep_values
from pipeline.requests.log_kind import AnyLog, Encoder
from pipeline.requests.partition_counts import merge_periods, merge_values
from preprocessing import splits
from preprocessing.encoders.fitted import FittedEncoder
from preprocessing.storage.files import AnyPath

ROWS = "rows"
RECORDS = "records"
VALUES = "values"
PERIODS = "periods"
SEEN = "seen"
"""Tags of outputs, beside those of `reading`."""


def ingest(plan: Plan, kind: AnyLog, parts: list[InputRange], pipeline: beam.Pipeline) -> None:
    """Files to sorted events: `events/*.arrow`, `counters/ingest.json`.

    If rare items are filtered, also to `every_item/*`, else for protocols by time `times/*`.
    """
    read = (
        pipeline
        | "Ranges" >> Pieces(parts)
        | "Read" >> beam.ParDo(ReadEvents(plan, kind)).with_outputs(COUNTERS, main=ROWS)
    )
    rows, counters = read[ROWS], [read[COUNTERS]]
    if kind.deal_key != plan.schema.user_key.name:
        files = {part.file.index: part.file for part in parts}
        checked = (
            rows
            | "GroupByRequest" >> beam.GroupByKey()
            | "CheckRequests"
            >> beam.ParDo(CheckRequests(plan, files)).with_outputs(COUNTERS, main=ROWS)
        )
        rows = checked[ROWS]
        counters.append(checked[COUNTERS])
    sorted_rows = rows | "SortPartitions" >> SortPartitions(plan, kind)
    counters.append(sorted_rows[COUNTERS])
    write_counters = WriteCounters(plan.work / "counters" / "ingest.json")
    _ = counters | "AllCounters" >> beam.Flatten() | "WriteCounters" >> write_counters
    if plan.arguments.min_item_events > 1:
        write_items = WriteItems(
            plan.every_item, counting.merge_counts, counting.VALUE, plan.num_buckets
        )
        _ = sorted_rows[ITEMS] | "WriteItems" >> write_items
    if time_cutoffs.are_counted_in_reading(plan):
        write_times = WriteMerged(time_cutoffs.file_of_reading(plan), time_bins.merge)
        _ = sorted_rows[TIMES] | "WriteTimes" >> write_times


def fit(plan: Plan, kind: AnyLog, partitions: list[int], pipeline: beam.Pipeline) -> None:
    """Events to counts: `values/<feature>/*.arrow`, `items/*.arrow`, `counters/fit.json`.

    If values expire, also to times: `seen/<feature>/*.arrow`.
    """
    counted = (
        pipeline
        | "Partitions" >> Pieces(partitions)
        | "CountTraining"
        >> beam.ParDo(CountTraining(plan, kind)).with_outputs(COUNTERS, ITEMS, SEEN, main=VALUES)
    )
    item_key, num_buckets = plan.schema.item_key.name, plan.num_buckets
    merge_items = functools.partial(counting.merge_items, key=item_key)
    write_values = WriteBuckets(plan.values, counting.merge_counts, counting.VALUE, num_buckets)
    _ = counted[VALUES] | "WriteValues" >> write_values
    write_items = WriteItems(plan.items, merge_items, item_key, num_buckets)
    _ = counted[ITEMS] | "WriteItems" >> write_items
    if plan.arguments.expire_days:
        write_seen = WriteBuckets(plan.seen, last_seen.merge, counting.VALUE, num_buckets)
        _ = counted[SEEN] | "WriteSeen" >> write_seen
    _ = counted[COUNTERS] | "WriteCounters" >> WriteCounters(plan.work / "counters" / "fit.json")


def write(
    plan: Plan,
    kind: AnyLog,
    vocab_dir: AnyPath,
    numbers: Mapping[str, Mapping[str, Any]],
    partitions: list[int],
    pipeline: beam.Pipeline,
) -> None:
    """Events to shards: the shards, `shards/*.json` and `counters/write.json`."""
    encoded = (
        pipeline
        | "Partitions" >> Pieces(partitions)
        | "Encode"
        >> beam.ParDo(EncodeRequests(plan, kind, vocab_dir, numbers)).with_outputs(
            COUNTERS, TIMES, VALUES, PERIODS, main=RECORDS
        )
    )
    num_shards = tuple(plan.arguments.shards(name) for name in splits.SPLITS)
    every_shard = [((s, i), None) for s, count in enumerate(num_shards) for i in range(count)]
    no_records = pipeline | "EveryShard" >> beam.Create(every_shard)
    write_shards = WriteShards(plan.arguments.output_path, plan.work / "shards", num_shards)
    counters = plan.work / "counters"
    records = (encoded[RECORDS], no_records) | "WithEmptyShards" >> beam.Flatten()
    _ = records | "WriteShards" >> write_shards
    _ = encoded[COUNTERS] | "WriteCounters" >> WriteCounters(counters / "write.json")
    _ = encoded[TIMES] | "WriteTimeRanges" >> WriteTimeRanges(counters / "times.json")
    write_values = WriteBuckets(plan.key_counts, merge_values, counting.VALUE, plan.num_buckets)
    _ = encoded[VALUES] | "WriteValues" >> write_values
    write_periods = WriteMerged(plan.work / "periods.arrow", merge_periods)
    _ = encoded[PERIODS] | "WritePeriods" >> write_periods


@beam.typehints.with_output_types(
    tuple[str, bytes], **{COUNTERS: dict[str, int], ITEMS: bytes, SEEN: tuple[str, bytes]}
)
class CountTraining(beam.DoFn):
    """Counts values and items of the training data of a partition.

    Emits (feature, table of counts); tagged ITEMS: table of items; tagged COUNTERS: counters;
    tagged SEEN, if values expire: (feature, table of times).

    Args:
        plan: Arguments, schema and cut-offs.
        kind: Kind of the log, which says what is training data.
    """

    def __init__(self, plan: Plan, kind: AnyLog) -> None:
        self._plan = plan
        self._kind = kind

    def process(self, partition: int) -> Iterator[Any]:
        """Counts one partition."""
        return piece_of_work("fit", self._plan.work, lambda: self._count(partition))

    def _count(self, partition: int) -> Iterator[Any]:
        values, items, counters = self._kind.count_training(self._plan, partition)
        totals = collections.Counter(counters)
        for piece in tables.read_pieces(self._plan.excess(partition)):
            totals["filtered/max_user_events"] += piece.num_rows
        for rows in every_row(self._plan, partition):
            totals.update(file_accounts.by_file("dealt", rows[FILE].to_numpy()))
            if self._plan.arguments.expire_days:
                for name, seen in last_seen.of_rows(rows, self._plan.schema):
                    yield beam.pvalue.TaggedOutput(SEEN, (name, tables.to_bytes(seen)))
        for name, value_counts in values.items():
            yield name, tables.to_bytes(value_counts)
        yield beam.pvalue.TaggedOutput(ITEMS, tables.to_bytes(items))
        yield beam.pvalue.TaggedOutput(COUNTERS, dict(totals))
        mark_done(self._plan.work / "fit", str(partition))


@dataclasses.dataclass(frozen=True)
class _Encoding:
    """What a process needs to encode requests: the encoder of each feature, and that of them."""

    fitted: Mapping[str, FittedEncoder]
    encoder: Encoder[Any]


@beam.typehints.with_output_types(
    tuple[tuple[int, int], tables.Reference],
    **{
        COUNTERS: dict[str, int],
        TIMES: dict[str, list[int]],
        VALUES: tuple[str, bytes],
        PERIODS: bytes,
    },
)
class EncodeRequests(beam.DoFn):
    """Encodes the requests of a partition.

    Emits ((split, shard), reference to records); tagged COUNTERS: counters; tagged
    TIMES: first and last time of the positives by split; tagged VALUES and PERIODS: tables of
    counts for the statistics.

    Args:
        plan: Arguments, schema and cut-offs.
        kind: Kind of the log, which has the encoder.
        vocab_dir: Directory of the vocabularies.
        numbers: Numbers that encoders learnt beside vocabularies, by feature.
    """

    def __init__(
        self,
        plan: Plan,
        kind: AnyLog,
        vocab_dir: AnyPath,
        numbers: Mapping[str, Mapping[str, Any]],
    ) -> None:
        self._plan = plan
        self._kind = kind
        self._vocab_dir = vocab_dir
        self._numbers = numbers
        self._of_process = shared.Shared()

    def setup(self) -> None:
        """Loads vocabularies and item catalogues, once per process, whatever its threads."""
        self._encoding = self._of_process.acquire(self._new_encoding)

    def _new_encoding(self) -> "_Encoding":
        fitted = load_encoders(self._plan.schema, self._vocab_dir, self._numbers)
        return _Encoding(fitted, self._kind.encoder(self._plan, fitted))

    def process(self, partition: int) -> Iterator[Any]:
        """Encodes one partition."""
        return piece_of_work("encode", self._plan.work, lambda: self._encode(partition))

    def _encode(self, partition: int) -> Iterator[Any]:
        counters: collections.Counter[str] = collections.Counter()
        rows = keep_values(self._kind.load(self._plan, partition), self._encoding.fitted, counters)
        for number, pieces in enumerate(self._encoding.encoder.encode(rows, counters)):
            path = self._plan.work / "requests" / f"{partition:05d}.{number}.arrow"
            references = tables.write_parts(path, [piece.records for piece in pieces])
            for piece, reference in zip(pieces, references, strict=True):
                yield (piece.split, piece.shard), reference
        yield beam.pvalue.TaggedOutput(COUNTERS, dict(counters))
        times = [rows.timestamps[rows.split == split] for split in range(len(splits.SPLITS))]
        ranges = {
            name: [int(split_times.min()), int(split_times.max())]
            for name, split_times in zip(splits.SPLITS, times, strict=True)
            if len(split_times)
        }
        yield beam.pvalue.TaggedOutput(TIMES, ranges)
        counts = self._kind.counts(rows)
        for key, value_counts in counts.values():
            yield beam.pvalue.TaggedOutput(VALUES, (key, tables.to_bytes(value_counts)))
        yield beam.pvalue.TaggedOutput(PERIODS, tables.to_bytes(counts.periods()))
