"""The encoders of a build: learnt from its log, continued from its base, or taken over.

What a large log has of values is in buckets, and its vocabularies are ranked in them, see
`ranking`; the driver holds neither the values nor the words. All else it holds.
"""

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.job import ranking
from pipeline.log import sorted_runs, tables
from pipeline.requests import by_bucket, counting, last_seen
from pipeline.requests.by_bucket import Bucket
from pipeline.requests.counting import COUNT, VALUE
from pipeline.requests.events import Plan
from pipeline.requests.log_kind import AnyLog
from preprocessing import data_dir
from preprocessing.data_dir import DataDir
from preprocessing.encoders import encoder_files, fitting
from preprocessing.encoders.fitted import FittedEncoder, VocabularyEncoder
from preprocessing.errors import UserError
from preprocessing.features.encoder_specs import Hash, Vocabulary
from preprocessing.features.feature import Feature


class Fitted(NamedTuple):
    """What is known of the encoder of a feature.

    Attributes:
        cardinality: Number of its ids including padding.
        numbers: Learnt numbers, other than a vocabulary.
        num_expired: Number of its expired words; None without a vocabulary.
        given: Number of its first words that need not be among the values of the training requests,
            since they were counted elsewhere; None if the requests are all that it learnt from.
        encoder: Function that gives the encoder: for the values of a bucket, or for all values.
    """

    cardinality: int
    numbers: dict[str, Any]
    num_expired: int | None
    given: int | None
    encoder: Callable[[Bucket], FittedEncoder]

    @classmethod
    def of(cls, encoder: FittedEncoder, given: int | None) -> "Fitted":
        """What is known of an encoder that is in memory."""
        is_expired = encoder.is_expired if isinstance(encoder, VocabularyEncoder) else None
        return cls(
            encoder.cardinality,
            encoder.numbers(),
            None if is_expired is None else int(is_expired.sum()),
            given,
            lambda bucket: encoder,
        )


def fit(plan: Plan, kind: AnyLog, ranked: Mapping[str, int]) -> dict[str, Fitted]:
    """Learns the encoder of each feature and writes the vocabularies.

    With a base the ids of its vocabularies keep their meaning, values that have become frequent
    enough are appended, by count and then by bytes, and numbers stay as they were fitted. With
    `rerank` everything is learnt anew from all that was counted so far. Expired values keep their
    ids in reserve; a vocabulary that is learnt leaves them out.

    Args:
        plan: Plan of a build that has counted its training values.
        kind: Kind of its log.
        ranked: Number of words of the vocabularies that `ranking.rank` has written.
    """
    vocab_dir = plan.arguments.output_path / data_dir.VOCABULARIES
    vocab_dir.mkdir(exist_ok=True)
    fitted = {}
    for feature, encoder, given in _encoders(plan, kind, ranked):
        encoder_files.save_vocabulary(encoder, vocab_dir)
        fitted[feature.name] = Fitted.of(encoder, given)
    for feature in plan.schema.encoded_features:
        if feature.name in ranked:
            assert isinstance(feature.encoder, Vocabulary)
            cardinality = 1 + feature.encoder.oov_buckets + ranked[feature.name]
            encoder_of = functools.partial(ranking.encoder, plan, feature)
            fitted[feature.name] = Fitted(cardinality, {}, 0, None, encoder_of)
    return {feature.name: fitted[feature.name] for feature in plan.schema.encoded_features}


def _encoders(
    plan: Plan, kind: AnyLog, ranked: Mapping[str, int]
) -> Iterator[tuple[Feature, FittedEncoder, int | None]]:
    """Yields features that are not ranked, the encoder of each, how many words of it are given."""
    arguments = plan.arguments
    features = [feature for feature in plan.schema.encoded_features if feature.name not in ranked]
    if arguments.vocabularies is None and (plan.base is None or arguments.rerank):
        is_given = plan.base is not None or bool(arguments.expire_days)
        for feature in features:
            encoder = (
                _without_values(feature)
                if feature.is_gap
                else _learnt(feature, _unexpired(plan, feature, counts_so_far(plan, kind, feature)))
            )
            yield feature, encoder, _num_words(encoder) if is_given else None
        return
    if arguments.vocabularies is not None:
        encoders = _taken_over(arguments.vocabularies, plan)
    else:
        assert plan.base is not None
        encoders = plan.base.encoders(plan.schema)
    for feature in features:
        encoder = encoders[feature.name]
        given = _num_words(encoder)
        if plan.base is not None and isinstance(encoder, VocabularyEncoder):
            encoder = _continued(encoder, counts_so_far(plan, kind, feature))
        if isinstance(encoder, VocabularyEncoder):
            expired = last_seen.expired(plan, feature)
            encoder = VocabularyEncoder(feature, encoder.vocabulary, expired)
        yield feature, encoder, given


def num_expired(fitted: Mapping[str, Fitted]) -> dict[str, int]:
    """Counters of the expired values of each vocabulary: `expired/<feature>`."""
    return {
        f"expired/{name}": one.num_expired
        for name, one in fitted.items()
        if one.num_expired is not None
    }


def counts_so_far(plan: Plan, kind: AnyLog, feature: Feature) -> pa.Table:
    """Values that training has counted, here and in all data sets below: VALUE, COUNT, by value."""
    if plan.base is None or isinstance(feature.encoder, Hash):
        return kind.training_values(plan, feature)
    counts = kind.new_values(plan, feature)
    earlier = plan.base.counts(feature.name).cast(counts.schema)
    return counting.merge_counts(pa.concat_tables([earlier, counts]))


def counts_in_order(plan: Plan, kind: AnyLog, feature: Feature) -> Iterable[pa.Table]:
    """The rows of `counts_so_far`, in pieces if values are in buckets."""
    buckets = by_bucket.buckets(plan)
    if not buckets or not isinstance(feature.encoder, Vocabulary):
        return [counts_so_far(plan, kind, feature)]
    paths = [by_bucket.training_values(plan, feature.name, bucket) for bucket in buckets]
    return sorted_runs.merged(paths, [(VALUE, "ascending")])


def _learnt(feature: Feature, counts: pa.Table) -> FittedEncoder:
    return fitting.fit(feature, tables.one_array(counts[VALUE]), counts[COUNT].to_numpy())


def _unexpired(plan: Plan, feature: Feature, counts: pa.Table) -> pa.Table:
    """The counts without those of expired values."""
    expired = last_seen.expired(plan, feature)
    if expired is None:
        return counts
    return counts.filter(pc.invert(pc.is_in(counts[VALUE], value_set=expired)))


def _without_values(feature: Feature) -> FittedEncoder:
    """The encoder of a feature whose intervals are the same for every log."""
    return fitting.fit(feature, pa.array([], pa.int64()), np.zeros(0, np.int64))


def _continued(encoder: VocabularyEncoder, counts: pa.Table) -> VocabularyEncoder:
    """The encoder with the frequent values that it does not know, behind those that it knows."""
    ranked = _learnt(encoder.feature, counts)
    assert isinstance(ranked, VocabularyEncoder)
    known = encoder.vocabulary
    new_words = ranked.vocabulary.filter(pc.invert(pc.is_in(ranked.vocabulary, known)))
    return VocabularyEncoder(encoder.feature, pa.concat_arrays([known, new_words]))


def _num_words(encoder: FittedEncoder) -> int:
    return len(encoder.vocabulary) if isinstance(encoder, VocabularyEncoder) else 0


def _taken_over(location: str, plan: Plan) -> dict[str, FittedEncoder]:
    data = DataDir.open(location, verify=False)
    if differences := data.schema.diff(plan.schema):
        raise UserError(
            f"--vocabularies: expected the schema of {data.path}, found differences: "
            f"{'; '.join(differences)}.",
            "give the schema.json of that data set with --schema.",
        )
    return data.encoders
