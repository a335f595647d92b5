"""Vocabularies ranked in buckets: each by whichever worker has it, then merged block by block."""

import functools
from collections.abc import Callable, Iterable

import pyarrow as pa

from pipeline.job.beam import beam
from pipeline.job.pieces import Pieces, piece_of_work
from pipeline.job.runner import mark_done
from pipeline.log import sorted_runs, tables
from pipeline.requests import by_bucket
from pipeline.requests.by_bucket import Bucket
from pipeline.requests.counting import COUNT, VALUE
from pipeline.requests.events import Plan
from pipeline.requests.log_kind import AnyLog
from preprocessing import data_dir
from preprocessing.encoders import encoder_files, fitting
from preprocessing.encoders.columns import ARROW_TYPES, texts
from preprocessing.encoders.fitted import FittedEncoder, VocabularyEncoder
from preprocessing.features.encoder_specs import Vocabulary
from preprocessing.features.feature import Feature

_BY_COUNT: sorted_runs.Order = [(COUNT, "descending"), (VALUE, "ascending")]


def rank(plan: Plan, kind: AnyLog, stage: Callable[..., object]) -> dict[str, int]:
    """Writes the vocabularies of a log whose values are in buckets; none of any other log.

    Args:
        plan: Plan of a build that has counted its training values.
        kind: Kind of its log.
        stage: Function that runs a pipeline.

    Returns:
        The number of words of each vocabulary that it wrote.
    """
    buckets = by_bucket.buckets(plan)
    if not buckets:
        return {}
    features = {
        f.name: f for f in plan.schema.encoded_features if isinstance(f.encoder, Vocabulary)
    }
    parts = [(name, bucket) for name in features for bucket in buckets]
    construct = functools.partial(_in_buckets, plan, kind, parts)
    stage("Ranking values", construct, watch=plan.work / "ranked", total=len(parts))
    vocab_dir = plan.arguments.output_path / data_dir.VOCABULARIES
    num_words = {}
    for name, feature in features.items():
        paths = [by_bucket.words(plan, name, bucket) for bucket in buckets]
        words = (tables.one_array(rows[VALUE]) for rows in sorted_runs.merged(paths, _BY_COUNT))
        num_words[name] = encoder_files.write_words(feature, words, vocab_dir)
    return num_words


def encoder(plan: Plan, feature: Feature, bucket: Bucket) -> FittedEncoder:
    """The encoder of a feature that `rank` has ranked, for the values of a bucket or for all.

    That of a bucket tells which values are known; its ids are not those of the data set.
    """
    if bucket is None:
        return encoder_files.load(feature, plan.arguments.output_path / data_dir.VOCABULARIES, {})
    words = tables.one_array(tables.read(by_bucket.words(plan, feature.name, bucket))[VALUE])
    return VocabularyEncoder(feature, words.cast(ARROW_TYPES[feature.dtype]))


def _in_buckets(
    plan: Plan, kind: AnyLog, parts: list[tuple[str, int]], pipeline: beam.Pipeline
) -> None:
    ranked = pipeline | "Buckets" >> Pieces(parts)
    _ = ranked | "Rank" >> beam.ParDo(_RankBucket(plan, kind))


class _RankBucket(beam.DoFn):
    """Writes the training values of (feature, bucket), and the words among them in their order.

    Args:
        plan: Plan of a build that has counted its training values.
        kind: Kind of its log.
    """

    def __init__(self, plan: Plan, kind: AnyLog) -> None:
        self._plan = plan
        self._kind = kind

    def process(self, part: tuple[str, int]) -> Iterable[None]:
        """Ranks one bucket; emits nothing."""
        return piece_of_work("rank", self._plan.work, lambda: self._rank(*part))

    def _rank(self, name: str, bucket: int) -> Iterable[None]:
        plan = self._plan
        (feature,) = [one for one in plan.schema.encoded_features if one.name == name]
        counts = self._kind.training_values(plan, feature, bucket)
        sorted_runs.write(by_bucket.training_values(plan, name, bucket), counts, plan.num_buckets)
        values = tables.one_array(counts[VALUE])
        rows = pa.array(fitting.ranked_rows(feature, values, counts[COUNT].to_numpy()))
        words = {VALUE: texts(values.take(rows)), COUNT: counts[COUNT].take(rows)}
        sorted_runs.write(by_bucket.words(plan, name, bucket), pa.table(words), plan.num_buckets)
        mark_done(plan.work / "ranked", f"{name}.{bucket}")
        return ()
