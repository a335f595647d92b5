"""Recomputes stats.json and the statistics of the encoders from the encoded requests alone.

This proves that the statistics describe the requests of their split, and that the numbers which
encoders learnt (counts of vocabularies, means and deviations) come from training requests and
nothing else. For the latter every event counts once, however many histories hold it: events are
identified by their user and their index.

Shape suffixes: B requests of a batch, E events, V ids of a feature.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.auditing.log_checks import LogChecks, has_given_encoders
from pipeline.auditing.requests import Requests
from pipeline.stats import statistics
from preprocessing import known_items, splits
from preprocessing.data_dir import DataDir, word_counts
from preprocessing.encoders.fitted import MISSING_ID, VocabularyEncoder
from preprocessing.errors import shown
from preprocessing.example_keys import candidate_key, history_key
from preprocessing.features.encoder_specs import Bucketised, Numeric, Vector, Vocabulary
from preprocessing.features.feature import PAD_ID, Feature
from preprocessing.known_items import UnknownItems
from preprocessing.schema import encoded_keys

_COMPACT_EVERY = 64
_TOLERANCE = 1e-4  # of means of float32 numbers whose deviation is 1
_SQUARE_TOLERANCE = 2e-3  # of squared norms of vectors, which may be held in half precision
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


class StatisticsChecks:
    """Counts one batch after the other, then compares the counts with stats.json.

    Args:
        data: The data set; `statistics.require` has accepted it.
        checks: Checks of its kind of log.
    """

    def __init__(self, data: DataDir, checks: LogChecks) -> None:
        self._data = data
        self._counted = [_SplitCounts(data, checks) for _ in splits.SPLITS]
        self._learnt = [
            _Learnt(data, feature)
            for feature in data.schema.encoded_features
            if isinstance(feature.encoder, (Vocabulary, Numeric, Vector))
            and feature in (*data.schema.user_features, *data.schema.step_features)
            and checks.identifies_events
            and not (isinstance(feature.encoder, Numeric) and has_given_encoders(data))
        ]

    def add(self, batch: Requests, split: int) -> None:
        """Counts the requests of a batch."""
        self._counted[split].add(batch)
        if split == splits.TRAIN:
            for learnt in self._learnt:
                learnt.add(batch)

    def unknown_items(self) -> Iterator[tuple[str, UnknownItems]]:
        """Yields each split with its unknown items."""
        for name, split_counts in zip(splits.SPLITS, self._counted, strict=True):
            yield name, split_counts.unknown_items

    def problems(self) -> Iterator[str]:
        """Yields each figure that the requests do not confirm."""
        for name, split_counts in zip(splits.SPLITS, self._counted, strict=True):
            stats = self._data.stats["splits"][name]
            for figure, actual in split_counts.sizes().items():
                # Builds of earlier versions did not count unknown items.
                if (expected := stats.get(figure, actual)) != actual:
                    yield f"{name}: {figure} is {actual}, not {expected}"
            for key, feature in encoded_keys(self._data.schema):
                values = stats["features"][key]
                for figure, actual in split_counts.values(key, feature, values).items():
                    if values[figure] != actual:
                        yield f"{name}: {key}: {figure} is {actual}, not {values[figure]}"
        for learnt in self._learnt:
            yield from learnt.problems()


class _SplitCounts:
    """Counts over the requests of one split."""

    def __init__(self, data: DataDir, checks: LogChecks) -> None:
        self._data = data
        self._checks = checks
        self._requests = self._candidates = self._positives = 0
        self.unknown_items = UnknownItems(0, 0, 0, 0)
        self._lengths = np.zeros(data.schema.history.max_length + 1, np.int64)
        self._time_range: list[int] | None = None
        self._counts = {
            key: np.zeros(data.encoders[feature.name].cardinality or 1, np.int64)
            for key, feature in encoded_keys(data.schema)
        }

    def add(self, batch: Requests) -> None:
        is_positive_BN = (batch.label_BN == 1) & batch.is_candidate_BN
        self._requests += len(batch)
        self._candidates += int(batch.is_candidate_BN.sum())
        self._positives += int(is_positive_BN.sum())
        item_key = self._data.schema.item_key.name
        item_C = batch.values[candidate_key(item_key)][batch.is_candidate_BN]
        is_unknown_C = known_items.are_unknown(self._data.encoders[item_key], item_C)
        batch_items = UnknownItems.of(is_unknown_C, batch.label_BN[batch.is_candidate_BN])
        self.unknown_items = UnknownItems(
            *map(sum, zip(self.unknown_items, batch_items, strict=True))
        )
        max_length = len(self._lengths) - 1
        self._lengths += np.bincount(
            np.minimum(batch.lengths_B, max_length), minlength=max_length + 1
        )
        times = [
            int(batch.timestamp_B.min()),
            int(batch.timestamp_B.max()),
            *(self._time_range or ()),
        ]
        self._time_range = [min(times), max(times)]
        for key, feature in encoded_keys(self._data.schema):
            mask = batch.mask(key)
            if self._checks.is_sampled(key):
                mask = is_positive_BN  # negatives are not counted
            values = batch.real(key, mask) if feature.is_categorical else np.zeros(mask.sum(), int)
            # Another check reports ids out of range.
            is_in_range = (values >= 0) & (values < len(self._counts[key]))
            self._counts[key] += np.bincount(values[is_in_range], minlength=len(self._counts[key]))

    def sizes(self) -> dict[str, Any]:
        """Figures of the split as a whole."""
        lengths = np.flatnonzero(self._lengths).tolist()
        return {
            "requests": self._requests,
            "candidates": self._candidates,
            "positives": self._positives,
            "unknown_items": self.unknown_items._asdict(),
            "history_length": {str(length): int(self._lengths[length]) for length in lengths},
            "time_range": self._time_range,
        }

    def values(self, key: str, feature: Feature, described: dict[str, Any]) -> dict[str, Any]:
        """Figures of the values under a key of the examples, as far as ids determine them."""
        counts_V = self._counts[key].copy()
        encoder = self._data.encoders[feature.name]
        total = int(counts_V.sum())
        figures: dict[str, Any] = {"count": total}
        if feature.many is not None:
            figures["missing"] = int(counts_V[PAD_ID])  # empty sets
            total -= figures["missing"]
            counts_V[PAD_ID] = 0
        if isinstance(feature.encoder, Bucketised):
            # Integers that are missing have the id of padding.
            figures["missing"] = int(counts_V[PAD_ID] + counts_V[MISSING_ID])
        elif isinstance(encoder, VocabularyEncoder):
            unknown = int(counts_V[1 : encoder.num_oov + 1].sum())
            figures["oov_rate"] = unknown / total if total else 0.0
            top = described["top_values"]
            ids = encoder.encode(pa.array(list(top), pa.large_string())).tolist()
            figures["top_values"] = {
                # Unknown values share their ids.
                word: int(counts_V[id_]) if id_ > encoder.num_oov else top[word]
                for word, id_ in zip(top, ids, strict=True)
            }
        elif feature.is_categorical:
            ids = np.arange(len(counts_V)) % statistics.BUCKETS
            folded = np.bincount(ids, counts_V, statistics.BUCKETS)
            figures["hash_buckets"] = folded.astype(np.int64).tolist()
        return figures


class _Learnt:
    """The training values of one feature, from which its encoder learnt, each event once."""

    def __init__(self, data: DataDir, feature: Feature) -> None:
        self._data = data
        self._feature = feature
        self._steps: list[tuple[np.ndarray, np.ndarray]] = []  # events of histories: key, value
        self._positives: list[tuple[np.ndarray, np.ndarray]] = []

    def add(self, batch: Requests) -> None:
        user_B, index_B = batch.user_B, batch.index_B
        schema = self._data.schema
        is_user = self._feature in schema.user_features
        if self._feature not in schema.event_features:  # a candidate has none of these
            own_B = batch.values[self._feature.name] if is_user else batch.positives(self._feature)
            self._positives.append((_event_keys(user_B, index_B), self._seen(own_B)))
        if is_user:
            return
        row, step = np.nonzero(batch.is_event_BL)
        keys_E = _event_keys(user_B[row], (index_B - batch.lengths_B)[row] + step)
        steps_E = batch.values[history_key(self._feature.name)][row, step]
        self._steps.append((keys_E, self._seen(steps_E)))
        if len(self._steps) >= _COMPACT_EVERY:
            self._steps = [_distinct(self._steps)]

    def _seen(self, values: np.ndarray) -> np.ndarray:
        """What is looked at of values: themselves, or of vectors their squared norms."""
        if not self._feature.is_vector:
            return values
        return np.square(values, dtype=np.float64).sum(axis=-1)

    def problems(self) -> Iterator[str]:
        if not (self._positives or self._steps):
            return
        keys_E, values_E = _distinct(self._positives or self._steps)
        if self._positives and self._steps:
            step_keys_E, step_values_E = _distinct(self._steps)
            # An event of a history has its own features, a candidate those of the catalogue.
            only_positive_E = ~np.isin(keys_E, step_keys_E)
            values_E = np.concatenate([step_values_E, values_E[only_positive_E]])
        if self._feature.many is not None:
            yield from self._miscounted(values_E[values_E != PAD_ID])
        elif isinstance(self._feature.encoder, Vocabulary):
            yield from self._miscounted(values_E)
        elif self._feature.is_vector:
            mean = float(values_E.mean())
            if values_E.any() and abs(mean - 1) > _SQUARE_TOLERANCE:
                yield f"{self._feature.name}: its training vectors have the mean square {mean:.4g}"
        elif self._feature.encoder.normalisation != "none":  # type: ignore[union-attr]
            yield from self._misplaced(values_E)

    def _miscounted(self, ids_E: np.ndarray) -> Iterator[str]:
        """Words of the vocabulary whose count in training requests differs from stats.json."""
        name = self._feature.name
        encoder = self._data.encoders[name]
        vocabulary_stats = self._data.stats["vocabularies"][name]
        first = encoder.num_oov + 1
        actual_V = np.bincount(ids_E, minlength=encoder.cardinality)[first:]
        expected_V = word_counts(vocabulary_stats)
        if len(expected_V) != len(actual_V):
            yield f"vocabulary of {name}: {len(actual_V)} words, not {len(expected_V)}"
            return
        # Values are counted before sets lose those beyond `max`.
        cut = self._data.stats.get("cut", {}).get(name, 0)
        lost_V = expected_V - actual_V
        is_wrong_V = (lost_V < 0) | (lost_V > cut)
        wrong_words = np.flatnonzero(is_wrong_V if lost_V.sum() <= cut else lost_V)
        if len(wrong_words):
            word, row = encoder.decode(wrong_words[:1] + first)[0], wrong_words[0]
            yield (
                f"vocabulary of {name}: {len(wrong_words)} words were counted wrongly, the "
                f"first {shown(word)!r}: {actual_V[row]} times, not {expected_V[row]}"
            )
        rare = int(((ids_E > 0) & (ids_E < first)).sum())
        # Unknown values of a set, which share an id, are held once.
        of_sets = self._feature.many is not None
        if rare > vocabulary_stats["rare"] if of_sets else rare != vocabulary_stats["rare"]:
            yield f"vocabulary of {name}: {rare} rare values, not {vocabulary_stats['rare']}"

    def _misplaced(self, scaled_E: np.ndarray) -> Iterator[str]:
        """A mean other than 0, or a deviation other than 1; missing numbers are 0."""
        scaled_E = scaled_E.astype(np.float64)
        mean, squares = scaled_E.mean(), float((scaled_E**2).sum())
        fewest, most = np.count_nonzero(scaled_E), len(scaled_E)
        if abs(mean) > _TOLERANCE:
            yield f"{self._feature.name}: its training values have the mean {mean:.4g}, not 0"
        if not (1 - _TOLERANCE) * fewest <= squares <= (1 + _TOLERANCE) * most:
            deviation = np.sqrt(squares / most)
            yield f"{self._feature.name}: its training values deviate by {deviation:.4g}, not 1"


def _event_keys(user_E: np.ndarray, index_E: np.ndarray) -> np.ndarray:
    """One number per event of a user, uint64."""
    return user_E.view(np.uint64) + index_E.astype(np.uint64) * _GOLDEN


def _distinct(parts: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Keys and values of several parts, each key once."""
    keys, values = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    keys, first = np.unique(keys, return_index=True)
    return keys, values[first]
