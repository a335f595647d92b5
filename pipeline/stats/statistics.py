"""The statistics of values in stats.json, and how to read them. See docs/data_directory.md.

Every figure follows from counts of distinct values and not from their order, so that the same log
gives the same bytes however it was counted. V distinct values.
"""

import math
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.stats import drift
from preprocessing import time_units
from preprocessing.data_dir import STATS, DataDir
from preprocessing.encoders.columns import texts
from preprocessing.encoders.fitted import FittedEncoder, VocabularyEncoder
from preprocessing.errors import UserError
from preprocessing.example_keys import candidate_key, history_key
from preprocessing.features.encoder_specs import Hash, Vocabulary
from preprocessing.features.feature import Feature
from preprocessing.schema import Schema

BUCKETS = 64
"""Classes into which the ids of a hash encoder are folded, for drift between data sets."""

_TOP_VALUES = 20


def describe_key(
    feature: Feature,
    encoder: FittedEncoder,
    values: pa.Array,
    counts_V: np.ndarray,
    trained_V: np.ndarray | None,
    num_defaulted: int = 0,
) -> dict[str, Any]:
    """Counts, distinct and drift from train; top values or numbers; rate of unknown ids.

    Args:
        feature: Feature of the values.
        encoder: Encoder of the feature.
        values: Distinct values in any order; null stands for missing ones.
        counts_V: Number of times that requests of the split hold each value.
        trained_V: Number of times that requests of train hold each value; None if train is the
            split.
        num_defaulted: Number of values that are the default because the log has none.
    """
    measure = drift.jensen_shannon
    if is_number(feature):
        # A missing number counts as smaller than every other.
        order = pc.array_sort_indices(values, null_placement="at_start").to_numpy()
        values, counts_V = values.take(pa.array(order)), counts_V[order]
        trained_V = None if trained_V is None else trained_V[order]
        measure = drift.kolmogorov_smirnov
    missing_V = pc.is_null(values).to_numpy(zero_copy_only=False)
    present_V = ~missing_V & (counts_V > 0)
    record: dict[str, Any] = {
        "count": int(counts_V.sum()),
        "missing": int(counts_V[missing_V].sum()),
        "defaulted": num_defaulted,
        "distinct": int(present_V.sum()),
    }
    if trained_V is not None:
        record["drift"] = measure(trained_V, counts_V)
    values, counts_V = values.filter(pa.array(present_V)), counts_V[present_V]
    if is_number(feature):
        return record | _describe_numbers(values, counts_V)
    return record | _describe_categories(values, counts_V, encoder)


def _describe_numbers(values: pa.Array, counts_V: np.ndarray) -> dict[str, Any]:
    """Mean, standard deviation and percentiles (the first and last are the extremes).

    Args:
        values: Distinct numbers in increasing order.
        counts_V: Number of times that each value occurs.
    """
    if not len(values):
        return {}
    numbers_V = values.cast(pa.float64(), safe=False).to_numpy()
    cumulative_V = np.cumsum(counts_V)
    total = int(cumulative_V[-1])
    # Exact sums: their last digit depends on no order and on no machine.
    mean = math.fsum((numbers_V * counts_V).tolist()) / total
    variance = math.fsum(((numbers_V - mean) ** 2 * counts_V).tolist()) / total
    ranks = np.maximum(1, np.ceil(np.arange(101) * total / 100))
    return {
        "mean": mean,
        "std": math.sqrt(variance),
        "percentiles": numbers_V[np.searchsorted(cumulative_V, ranks)].tolist(),
    }


def _describe_categories(
    values: pa.Array, counts_V: np.ndarray, encoder: FittedEncoder
) -> dict[str, Any]:
    """The most frequent values, by count and then by bytes; share of unknown ids or hash buckets.

    Args:
        values: Distinct values in any order.
        counts_V: Number of times that each value occurs.
        encoder: Encoder of the feature.
    """
    top = pa.table({"text": texts(values), "count": pa.array(counts_V)})
    if top.num_rows:
        order = [("count", "descending"), ("text", "ascending")]
        top = top.take(pc.select_k_unstable(top, min(_TOP_VALUES, top.num_rows), order))
    record: dict[str, Any] = {
        "top_values": dict(zip(top["text"].to_pylist(), top["count"].to_pylist(), strict=True))
    }
    ids_V = encoder.encode(values)
    if encoder.num_oov:
        unknown, total = int(counts_V[ids_V <= encoder.num_oov].sum()), int(counts_V.sum())
        return record | {"oov_rate": unknown / total if total else 0.0}
    folded = np.bincount(ids_V % BUCKETS, counts_V, BUCKETS).astype(np.int64)
    return record | {"hash_buckets": folded.tolist()}


def describe_vocabulary(encoder: Vocabulary, counts_V: np.ndarray) -> dict[str, Any]:
    """Number of words by count, from which `data_dir.word_counts` restores the count of each word.

    `rare` counts the values in training requests that are too rare for the vocabulary.

    Args:
        encoder: Specification of the encoder, which defines what is too rare.
        counts_V: Number of times that training requests hold each value.
    """
    distinct_counts, words = np.unique(counts_V[counts_V >= encoder.min_count], return_counts=True)
    return {
        "words_by_count": dict(
            zip(map(str, distinct_counts.tolist()), words.tolist(), strict=True)
        ),
        "rare": int(counts_V[counts_V < encoder.min_count].sum()),
    }


def describe_given_vocabulary(
    encoder: VocabularyEncoder, values: pa.Array, counts_V: np.ndarray, given: int
) -> dict[str, Any]:
    """As `describe_vocabulary`, of a vocabulary that is not ranked by these counts.

    `in_order` has the counts of its lines, 0 for a word that no training request holds or that is
    expired. `rare` counts the values that it lacks, and those that are expired.

    Args:
        encoder: Encoder with the vocabulary.
        values: [V] distinct values.
        counts_V: Number of times that training requests hold each value.
        given: Number of its first words that come from elsewhere.
    """
    rows = pc.index_in(encoder.vocabulary, value_set=values.cast(encoder.vocabulary.type))
    of_words = np.append(counts_V, 0)[pc.fill_null(rows, len(counts_V)).to_numpy()]
    of_words[encoder.is_expired] = 0
    distinct_counts, words = np.unique(of_words, return_counts=True)
    return {
        "words_by_count": dict(
            zip(map(str, distinct_counts.tolist()), words.tolist(), strict=True)
        ),
        "in_order": " ".join(f"{n}" if k == 1 else f"{n}x{k}" for n, k in _runs(of_words)),
        "rare": int(counts_V.sum() - of_words.sum()),
        "given": given,
    }


def _runs(numbers: np.ndarray) -> list[tuple[int, int]]:
    """Each run of equal numbers: the number and its length."""
    starts = np.flatnonzero(np.append(True, numbers[1:] != numbers[:-1])[: len(numbers)])
    lengths = np.diff(starts, append=len(numbers))
    return list(zip(numbers[starts].tolist(), lengths.tolist(), strict=True))


def shortest_period(schema: Schema) -> int:
    """Shortest period of `events_by_period`: a day; times of unknown unit count as seconds."""
    return 86_400 * time_units.ticks_per_second(schema)


def training_key(schema: Schema, feature: Feature) -> str:
    """The key of the example that holds most values of a feature."""
    if feature in schema.step_features:
        return history_key(feature.name)
    return candidate_key(feature.name) if feature in schema.item_features else feature.name


def is_number(feature: Feature) -> bool:
    """Whether the values of a feature have a size, rather than only being equal or not."""
    return not isinstance(feature.encoder, (Vocabulary, Hash))


def require(data: DataDir) -> None:
    """Raises `UserError` if a data set was built before there were statistics of values."""
    if "vocabularies" not in data.stats:
        raise UserError(
            f"Expected the key 'vocabularies' in {data.path / STATS}, found none: an earlier "
            "version of the code built the data set.",
            "run python -m pipeline.build_examples again.",
        )
