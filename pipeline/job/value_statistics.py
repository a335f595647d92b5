"""Statistics of what requests hold, for stats.json: values key by key, bucket by bucket.

Numbers are described all at once, since percentiles take them in order, and so are sets, whose
priority depends on the whole vocabulary.
"""

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pyarrow.compute as pc

from pipeline.job.beam import beam
from pipeline.job.buckets import WriteBuckets
from pipeline.job.pieces import Pieces, piece_of_work
from pipeline.job.runner import mark_done
from pipeline.job.vocabularies import Fitted
from pipeline.log import tables
from pipeline.requests import by_bucket, counting
from pipeline.requests.by_bucket import Bucket
from pipeline.requests.counting import COUNT, VALUE
from pipeline.requests.events import Plan
from pipeline.requests.kept_values import held_values
from pipeline.requests.log_kind import AnyLog
from pipeline.requests.partition_counts import SCALE, defaulted_key, merge_values
from pipeline.stats import statistics
from pipeline.stats.statistics import Described
from preprocessing import splits
from preprocessing.encoders.fitted import VocabularyEncoder
from preprocessing.features.encoder_specs import Vocabulary
from preprocessing.features.feature import Feature
from preprocessing.schema import encoded_keys


def derive(plan: Plan, kind: AnyLog, stage: Callable[..., object]) -> None:
    """Writes the counts that follow from those that workers merged.

    Args:
        plan: Plan of a build that has written its requests.
        kind: Kind of its log.
        stage: Function that runs a pipeline.
    """
    buckets = by_bucket.buckets(plan)
    if not buckets:
        for name, counts in kind.derived_counts(plan, None):
            tables.write(tables.bucket_path(plan.key_counts(name), 0), counts)
    else:
        construct = functools.partial(_in_buckets, plan, kind)
        stage("Counting features", construct, watch=plan.work / "derived", total=len(buckets))


def _in_buckets(plan: Plan, kind: AnyLog, pipeline: beam.Pipeline) -> None:
    derived = (
        pipeline
        | "Buckets" >> Pieces(by_bucket.buckets(plan))
        | "Derive" >> beam.ParDo(_DeriveCounts(plan, kind))
    )
    write = WriteBuckets(plan.key_counts, merge_values, VALUE, plan.num_buckets)
    _ = derived | "WriteCounts" >> write


@beam.typehints.with_output_types(tuple[str, bytes])
class _DeriveCounts(beam.DoFn):
    """Emits (name, table of counts) for what follows from the counts of a bucket of items.

    Args:
        plan: Plan of a build that has written its requests.
        kind: Kind of its log.
    """

    def __init__(self, plan: Plan, kind: AnyLog) -> None:
        self._plan = plan
        self._kind = kind

    def process(self, bucket: int) -> Iterator[Any]:
        """Derives the counts of one bucket."""
        return piece_of_work("derive", self._plan.work, lambda: self._derive(bucket))

    def _derive(self, bucket: int) -> Iterator[tuple[str, bytes]]:
        for name, counts in self._kind.derived_counts(self._plan, bucket):
            yield name, tables.to_bytes(counts)
        mark_done(self._plan.work / "derived", str(bucket))


def describe(plan: Plan, kind: AnyLog, fitted: Mapping[str, Fitted]) -> dict[str, Any]:
    """Statistics of values and times.

    Args:
        plan: Plan of a build for which `derive` has run.
        kind: Kind of its log.
        fitted: What is known of the encoders.

    Returns:
        `vocabularies` by feature, `period` (length in units of the log's time), and for each split
        `features` by key of an example and `events_by_period` by start of the period.
    """
    times = tables.read(plan.work / "periods.arrow")
    period = statistics.shortest_period(plan.schema) << (
        int(times[SCALE][0].as_py()) if times.num_rows else 0
    )
    starts = [str(number * period) for number in times[VALUE].to_pylist()]
    by_split: dict[str, Any] = {}
    for name in splits.SPLITS:
        by_period = zip(starts, times[name].to_pylist(), strict=True)
        events_by_period = {start: count for start, count in by_period if count}
        by_split[name] = {"features": {}, "events_by_period": events_by_period}
    for key, feature in encoded_keys(plan.schema):
        for name, record in _describe_key(plan, key, feature, fitted[feature.name]).items():
            by_split[name]["features"][key] = record
    return {
        "period": period,
        "vocabularies": {
            feature.name: _describe_vocabulary(plan, kind, feature, fitted[feature.name])
            for feature in plan.schema.encoded_features
            if isinstance(feature.encoder, Vocabulary)
        },
        "splits": by_split,
    }


def _describe_key(
    plan: Plan, key: str, feature: Feature, fitted: Fitted
) -> dict[str, dict[str, Any]]:
    """The record of a key of the examples by split."""

    def part(bucket: Bucket) -> Described:
        counts = counting.read(plan.key_counts(key), bucket)
        encoder = fitted.encoder(bucket)
        if feature.many is not None:
            counts = held_values(encoder, counts)
        by_split = {name: counts[name].to_numpy() for name in splits.SPLITS}
        return Described(encoder, tables.one_array(counts[VALUE]), by_split)

    num_defaulted = dict.fromkeys(splits.SPLITS, 0)
    if feature.default is not None:
        counts = counting.read(plan.key_counts(defaulted_key(key)))
        for name in splits.SPLITS:
            num_defaulted[name] = pc.sum(counts[name].filter(counts[VALUE])).as_py() or 0
    buckets = by_bucket.buckets(plan)
    if feature.many is not None or statistics.is_number(feature) or not buckets:
        whole = part(None)
        return statistics.describe_key(feature, lambda: [whole], num_defaulted)
    return statistics.describe_key(feature, lambda: map(part, buckets), num_defaulted)


def _describe_vocabulary(
    plan: Plan, kind: AnyLog, feature: Feature, fitted: Fitted
) -> dict[str, Any]:
    """Counts of the words of a vocabulary in the training requests."""
    assert isinstance(feature.encoder, Vocabulary)

    def training_values(bucket: Bucket) -> Any:
        if bucket is None:
            return kind.training_values(plan, feature)
        return tables.read(by_bucket.training_values(plan, feature.name, bucket))

    if fitted.given is None:
        buckets: list[Bucket] = [*by_bucket.buckets(plan)] or [None]
        counts = (training_values(bucket)[COUNT] for bucket in buckets)
        return statistics.describe_vocabulary(feature.encoder, (one.to_numpy() for one in counts))
    values = training_values(None)
    encoder = fitted.encoder(None)
    assert isinstance(encoder, VocabularyEncoder)
    words, counts_V = tables.one_array(values[VALUE]), values[COUNT].to_numpy()
    return statistics.describe_given_vocabulary(encoder, words, counts_V, fitted.given)
