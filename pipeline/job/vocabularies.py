"""The encoders of a build: learnt from its log, continued from its base, or taken over."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.log import tables
from pipeline.requests import counting, last_seen
from pipeline.requests.counting import COUNT, VALUE
from pipeline.requests.events import Plan
from pipeline.requests.log_kind import AnyLog
from preprocessing.data_dir import DataDir
from preprocessing.encoders import fitting
from preprocessing.encoders.fitted import FittedEncoder, VocabularyEncoder
from preprocessing.errors import UserError
from preprocessing.features.encoder_specs import Hash
from preprocessing.features.feature import Feature


class Fitted(NamedTuple):
    """The encoder of a feature.

    Attributes:
        encoder: The encoder.
        given: Number of its first words that need not be among the values of the training requests,
            since they were counted elsewhere; None if the requests are all that it learnt from.
    """

    encoder: FittedEncoder
    given: int | None


def fit(plan: Plan, kind: AnyLog) -> dict[str, Fitted]:
    """The encoder of each feature.

    With a base the ids of its vocabularies keep their meaning, values that have become frequent
    enough are appended, by count and then by bytes, and numbers stay as they were fitted. With
    `rerank` everything is learnt anew from all that was counted so far. Expired values keep their
    ids in reserve; a vocabulary that is learnt leaves them out.

    Args:
        plan: Plan of a build that has counted its training values.
        kind: Kind of its log.
    """
    arguments = plan.arguments
    if arguments.vocabularies is not None:
        encoders = _taken_over(arguments.vocabularies, plan)
    elif plan.base is not None and not arguments.rerank:
        encoders = plan.base.encoders(plan.schema)
    else:
        encoders = {
            feature.name: _without_values(feature)
            if feature.is_gap
            else _learnt(feature, _unexpired(plan, feature, counts_so_far(plan, kind, feature)))
            for feature in plan.schema.encoded_features
        }
        is_given = plan.base is not None or bool(arguments.expire_days)
        return {
            name: Fitted(encoder, _num_words(encoder) if is_given else None)
            for name, encoder in encoders.items()
        }
    fitted = {}
    for feature in plan.schema.encoded_features:
        encoder = encoders[feature.name]
        given = _num_words(encoder)
        if plan.base is not None and isinstance(encoder, VocabularyEncoder):
            encoder = _continued(encoder, counts_so_far(plan, kind, feature))
        if isinstance(encoder, VocabularyEncoder):
            expired = last_seen.expired(plan, feature)
            encoder = VocabularyEncoder(feature, encoder.vocabulary, expired)
        fitted[feature.name] = Fitted(encoder, given)
    return fitted


def num_expired(fitted: Mapping[str, Fitted]) -> dict[str, int]:
    """Counters of the expired values of each vocabulary: `expired/<feature>`."""
    return {
        f"expired/{name}": int(encoder.is_expired.sum())
        for name, (encoder, _) in fitted.items()
        if isinstance(encoder, VocabularyEncoder)
    }


def counts_so_far(plan: Plan, kind: AnyLog, feature: Feature) -> pa.Table:
    """Values that training has counted, here and in all data sets below: VALUE, COUNT, by value."""
    if plan.base is None or isinstance(feature.encoder, Hash):
        return kind.training_values(plan, feature)
    counts = kind.new_values(plan, feature)
    earlier = plan.base.counts(feature.name).cast(counts.schema)
    return counting.merge_counts(pa.concat_tables([earlier, counts]))


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
