"""Metrics by history length, popularity, features of users, requests and items, known and new ones.

Shapes: C candidates, V values of a vocabulary.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pandas as pd
from tqdm import tqdm

from models.evaluation import confidence_intervals
from models.evaluation.metrics import Scores, calibration_error, sigmoid
from preprocessing.data_dir import DataDir, word_counts
from preprocessing.encoders.fitted import BucketisedEncoder
from preprocessing.example_keys import candidate_key
from preprocessing.features.feature import PAD_ID, Feature
from preprocessing.known_items import are_unknown

USERS, ITEMS = "user, known or new", "item, known or new"
"""Dimensions of known and new users and items; they differ from feature names (identifiers)."""
KNOWN, NEW = "known", "not in training"
"""Slices of these dimensions."""
_LENGTHS = (0, 1, 2, 3, 5, 8, 13, 21, 34)
_COUNTS = (0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
_VALUES = 10
_DRAWS = 300
"""Draws per slice; fewer than for a whole split, because there are many slices."""


class Slice(NamedTuple):
    """A subset of the candidates of a split.

    Attributes:
        dimension: Property that defines the slices, such as "history length".
        name: Name of the slice.
        chosen_C: Mask of the candidates of the slice.
    """

    dimension: str
    name: str
    chosen_C: np.ndarray


def slices(scores: Scores, data: DataDir) -> Iterator[Slice]:
    """The slices of a split that hold candidates; each dimension covers all candidates.

    Args:
        scores: Scores of the split.
        data: Data set that the model was trained on.
    """
    yield from _bins("history length", scores.history_length, _LENGTHS)
    schema = data.schema
    known_user_C = _training_counts(data, schema.user_key, scores.ids[schema.user_key.name]) > 0
    for dimension, known_C in ((USERS, known_user_C), (ITEMS, known_items(scores, data))):
        for name, chosen_C in ((KNOWN, known_C), (NEW, ~known_C)):
            if chosen_C.any():
                yield Slice(dimension, name, chosen_C)
    item_key = schema.item_key
    counts_C = _training_counts(data, item_key, scores.ids[candidate_key(item_key.name)])
    yield from _bins("item popularity", counts_C, _COUNTS)
    for feature in schema.history_features:
        if feature.is_categorical and feature != item_key:
            yield from _values(data, feature, scores.ids[candidate_key(feature.name)])
    for feature in schema.user_features:
        # Scores that were dumped by an earlier version have no ids of these.
        if feature != schema.user_key and feature.name in scores.ids:
            yield from _values(data, feature, scores.ids[feature.name])


def known_items(scores: Scores, data: DataDir) -> np.ndarray:
    """Whether the item of each candidate is known from training, [C]."""
    key = data.schema.item_key
    return ~are_unknown(data.encoders[key.name], scores.ids[candidate_key(key.name)])


def measure(scores: Scores, data: DataDir, progress: bool = False) -> pd.DataFrame:
    """Metrics of each slice.

    AUC, log loss and calibration cover the slice's candidates only. Ranking metrics (`mrr`, ...)
    cover the requests with a positive in the slice, with all their candidates.

    Args:
        scores: Scores of a split.
        data: Data set that the model was trained on.
        progress: Whether to show a progress bar on standard error.

    Returns:
        A row per slice: dimension, slice, candidates, positives, the metrics of
        `confidence_intervals.estimate` each with its bounds (auc, auc_low, auc_high, ...), NaN
        where undefined, and calibration_error.
    """
    rows = []
    for part in tqdm(list(slices(scores, data)), desc="slices", disable=None if progress else True):
        label_C, logit_C = scores.label[part.chosen_C], scores.logit[part.chosen_C]
        row: dict[str, object] = {
            "dimension": part.dimension,
            "slice": part.name,
            "candidates": len(label_C),
            "positives": int(label_C.sum()),
        }
        estimates = confidence_intervals.estimate(scores, part.chosen_C, _DRAWS)
        for name, metric_estimate in estimates.items():
            for column, value in zip(("", "_low", "_high"), metric_estimate, strict=True):
                row[f"{name}{column}"] = np.nan if value is None else value
        row["calibration_error"] = calibration_error(
            label_C.astype(np.float64), sigmoid(logit_C.astype(np.float64))
        )
        rows.append(row)
    return pd.DataFrame(rows)


def _bins(dimension: str, value_C: np.ndarray, lows: tuple[int, ...]) -> Iterator[Slice]:
    """Slices by ranges of an integer; the last range has no upper bound."""
    bin_C = np.searchsorted(lows, value_C, side="right") - 1
    for number, low in enumerate(lows):
        chosen_C = bin_C == number
        if chosen_C.any():
            high = f"-{lows[number + 1] - 1}" if number + 1 < len(lows) else "+"
            yield Slice(dimension, f"{low}{high}" if high != f"-{low}" else str(low), chosen_C)


def _values(data: DataDir, feature: Feature, id_C: np.ndarray) -> Iterator[Slice]:
    """Slices by the most frequent values of a feature, and one of all others.

    Intervals of numbers stand in their order, other values by their frequency.
    Of a feature of many values, candidates count by the most frequent value of each.
    """
    dimension = feature.name if feature.many is None else f"{feature.name}, most frequent value"
    values, counts = np.unique(id_C, return_counts=True)
    frequent = values[np.argsort(-counts, kind="stable")][:_VALUES]
    encoder = data.encoders[feature.name]
    names = [str(value) for value in encoder.decode(frequent)]
    if isinstance(encoder, BucketisedEncoder):
        frequent = np.sort(frequent)
        # Intervals of hours and weekdays hold one number each.
        names = [
            encoder.interval(value) if feature.derived is None else str(number)
            for value, number in zip(frequent, encoder.decode(frequent), strict=True)
        ]
    for value, name in zip(frequent, names, strict=True):
        yield Slice(dimension, "no value" if value == PAD_ID else name, id_C == value)
    if len(values) > _VALUES:
        yield Slice(dimension, "all others", ~np.isin(id_C, frequent))


def _training_counts(data: DataDir, feature: Feature, id_C: np.ndarray) -> np.ndarray:
    """Number of training events with each value [C]; 0 for out-of-vocabulary ids.

    An encoder without a vocabulary knows every value: then all counts are 1.
    """
    described = data.stats["vocabularies"].get(feature.name)
    if described is None:
        return np.ones(len(id_C), np.int64)
    count_V = word_counts(described)
    num_unknown = 1 + data.encoders[feature.name].num_oov
    return np.concatenate([np.zeros(num_unknown, np.int64), count_V])[id_C]
