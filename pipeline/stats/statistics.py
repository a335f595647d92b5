"""The statistics of values in stats.json, and how to read them. See docs/data_directory.md.

Every figure follows from counts of distinct values and not from their order, so that the same log
gives the same bytes however it was counted. V distinct values.
"""

import collections
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

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
from preprocessing.splits import SPLITS, TRAIN

BUCKETS = 64
"""Classes into which the ids of a hash encoder are folded, for drift between data sets."""

_TOP_VALUES = 20
_TRAIN = SPLITS[TRAIN]


class Described(NamedTuple):
    """Some of the values of a key of the examples; no value is in two of these.

    Attributes:
        encoder: Encoder that tells which of the values are known, or the bucket of a hash.
        values: Distinct values in any order; null stands for missing ones.
        counts: Number of times that the requests of each split hold each value, [V] by split.
    """

    encoder: FittedEncoder
    values: pa.Array
    counts: Mapping[str, np.ndarray]


def describe_key(
    feature: Feature,
    parts: Callable[[], Iterable[Described]],
    num_defaulted: Mapping[str, int],
) -> dict[str, dict[str, Any]]:
    """By split: counts, distinct, drift from train; top values or numbers; rate of unknown ids.

    Args:
        feature: Feature of the values.
        parts: Function that gives all values in parts, of which one is held at a time; of numbers
            there is a single one.
        num_defaulted: Number of values that are the default because the log has none, by split.
    """
    if is_number(feature):
        (part,) = parts()
        # A missing number counts as smaller than every other.
        order = pc.array_sort_indices(part.values, null_placement="at_start")
        counts = {split: counts_V[order.to_numpy()] for split, counts_V in part.counts.items()}
        part = Described(part.encoder, part.values.take(order), counts)
        return {split: _describe_split(part, split, num_defaulted[split]) for split in SPLITS}
    totals = collections.Counter({split: 0 for split in SPLITS})
    for part in parts():
        totals.update({split: int(counts_V.sum()) for split, counts_V in part.counts.items()})
    described = {split: _Categories(split, totals) for split in SPLITS}
    for part in parts():
        texts_V, ids_V = texts(part.values), part.encoder.encode(part.values)
        is_missing_V = pc.is_null(part.values).to_numpy(zero_copy_only=False)
        for categories in described.values():
            categories.add(part, texts_V, ids_V, is_missing_V)
    return {split: one.record(num_defaulted[split]) for split, one in described.items()}


def _describe_split(part: Described, split: str, num_defaulted: int) -> dict[str, Any]:
    """The record of a split from all numbers in increasing order."""
    counts_V = part.counts[split]
    is_missing_V = pc.is_null(part.values).to_numpy(zero_copy_only=False)
    is_present_V = ~is_missing_V & (counts_V > 0)
    record: dict[str, Any] = {
        "count": int(counts_V.sum()),
        "missing": int(counts_V[is_missing_V].sum()),
        "defaulted": num_defaulted,
        "distinct": int(is_present_V.sum()),
    }
    if split != _TRAIN:
        record["drift"] = drift.kolmogorov_smirnov(part.counts[_TRAIN], counts_V)
    values = part.values.filter(pa.array(is_present_V))
    return record | _describe_numbers(values, counts_V[is_present_V])


class _Categories:
    """The record of a split from the values of a category, which come in parts.

    Args:
        split: Name of the split.
        totals: Number of values of each split.
    """

    def __init__(self, split: str, totals: Mapping[str, int]) -> None:
        self._split = split
        self._total = totals[split]
        self._drift = (
            None if split == _TRAIN else drift.JensenShannon(totals[_TRAIN], totals[split])
        )
        self._missing = self._distinct = 0
        self._top: list[pa.Table] = []
        self._ids: dict[str, Any] = {}

    def add(
        self, part: Described, texts_V: pa.Array, ids_V: np.ndarray, is_missing_V: np.ndarray
    ) -> None:
        """Adds values.

        Args:
            part: The values.
            texts_V: Their texts.
            ids_V: Their ids.
            is_missing_V: Whether each stands for missing ones.
        """
        counts_V = part.counts[self._split]
        is_present_V = ~is_missing_V & (counts_V > 0)
        self._missing += int(counts_V[is_missing_V].sum())
        self._distinct += int(is_present_V.sum())
        if self._drift is not None:
            self._drift.add(part.counts[_TRAIN], counts_V)
        counts_V, ids_V = counts_V[is_present_V], ids_V[is_present_V]
        texts_V = texts_V.filter(pa.array(is_present_V))
        self._top = [_most_frequent([*self._top, pa.table({"text": texts_V, "count": counts_V})])]
        if num_oov := part.encoder.num_oov:
            self._add_ids("unknown", int(counts_V[ids_V <= num_oov].sum()))
        else:
            folded = np.bincount(ids_V % BUCKETS, counts_V, BUCKETS).astype(np.int64)
            self._add_ids("hash_buckets", folded)

    def _add_ids(self, name: str, count: Any) -> None:
        self._ids[name] = self._ids.get(name, 0) + count

    def record(self, num_defaulted: int) -> dict[str, Any]:
        """The record, of which `num_defaulted` values are defaults."""
        record: dict[str, Any] = {
            "count": self._total,
            "missing": self._missing,
            "defaulted": num_defaulted,
            "distinct": self._distinct,
        }
        if self._drift is not None:
            record["drift"] = self._drift.distance
        (top,) = self._top
        record["top_values"] = dict(
            zip(top["text"].to_pylist(), top["count"].to_pylist(), strict=True)
        )
        if "hash_buckets" in self._ids:
            return record | {"hash_buckets": self._ids["hash_buckets"].tolist()}
        num_present = self._total - self._missing
        return record | {"oov_rate": self._ids["unknown"] / num_present if num_present else 0.0}


def _most_frequent(counted: Sequence[pa.Table]) -> pa.Table:
    """The most frequent of counted texts, by count and then by bytes."""
    top = pa.concat_tables(counted)
    order = [("count", "descending"), ("text", "ascending")]
    return (
        top.take(pc.select_k_unstable(top, min(_TOP_VALUES, top.num_rows), order))
        if (top.num_rows)
        else top
    )


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


def describe_vocabulary(encoder: Vocabulary, counts: Iterable[np.ndarray]) -> dict[str, Any]:
    """Number of words by count, from which `data_dir.word_counts` restores the count of each word.

    `rare` counts the values in training requests that are too rare for the vocabulary.

    Args:
        encoder: Specification of the encoder, which defines what is too rare.
        counts: Number of times that training requests hold each value, in parts: [V] each.
    """
    words_by_count: collections.Counter[int] = collections.Counter()
    rare = 0
    for counts_V in counts:
        distinct_counts, words = np.unique(
            counts_V[counts_V >= encoder.min_count], return_counts=True
        )
        words_by_count.update(dict(zip(distinct_counts.tolist(), words.tolist(), strict=True)))
        rare += int(counts_V[counts_V < encoder.min_count].sum())
    in_order = {str(count): words_by_count[count] for count in sorted(words_by_count)}
    return {"words_by_count": in_order, "rare": rare}


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
