"""Encoders learnt from the values of the training data and their counts."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from preprocessing.encoders.columns import ARROW_TYPES, floats, is_pad, signed_log, texts
from preprocessing.encoders.fitted import (
    BucketisedEncoder,
    FittedEncoder,
    HashEncoder,
    NumericEncoder,
    VocabularyEncoder,
)
from preprocessing.encoders.vector_encoder import VectorEncoder
from preprocessing.features.encoder_specs import Bucketised, Hash, Numeric, Vector, Vocabulary
from preprocessing.features.feature import Feature
from preprocessing.storage.arrow_buffers import as_large_binary


def fit(feature: Feature, values: pa.Array, counts: np.ndarray) -> FittedEncoder:
    """Learns an encoder from the values of a feature in the training data.

    The result depends on the counts alone, not on the order of the values.

    Args:
        feature: The feature to encode.
        values: [n] distinct values of the feature's dtype; nulls, NaN and padding are ignored. Of
            vectors their norms.
        counts: [n] int64, number of times that each value occurs.
    """
    encoder = feature.encoder
    if isinstance(encoder, Hash):
        return HashEncoder(feature)
    values = values.cast(ARROW_TYPES[feature.dtype], safe=False)
    if isinstance(encoder, Vocabulary):
        rows = ranked_rows(feature, values, counts)
        return VocabularyEncoder(feature, values.take(pa.array(rows)))
    numbers = floats(values)
    is_present = ~np.isnan(numbers)
    order = np.argsort(numbers[is_present], kind="stable")
    numbers, counts = numbers[is_present][order], counts[is_present][order]
    if isinstance(encoder, Bucketised):
        boundaries = np.array(encoder.boundaries) if encoder.boundaries else np.zeros(0)
        if encoder.quantiles:
            boundaries = _quantiles(numbers, counts, encoder.quantiles)
        return BucketisedEncoder(feature, boundaries)
    if isinstance(encoder, Vector):
        square = float(np.average(numbers**2, weights=counts)) if counts.sum() else 0.0
        return VectorEncoder(feature, float(np.sqrt(square)) if square > 0 else 1.0)
    assert isinstance(encoder, Numeric)
    if encoder.normalisation == "none" or not counts.sum():
        return NumericEncoder(feature, 0.0, 1.0)
    if encoder.normalisation == "log_standard":
        numbers = signed_log(numbers)
    mean = float(np.average(numbers, weights=counts))
    std = float(np.sqrt(np.average((numbers - mean) ** 2, weights=counts)))
    return NumericEncoder(feature, mean, std if std > 0 else 1.0)


def ranked_rows(feature: Feature, values: pa.Array, counts: np.ndarray) -> np.ndarray:
    """The rows of a vocabulary in order: frequent values by count, then by the bytes of their text.

    Args:
        feature: The feature; its encoder is `encoder_specs.Vocabulary`.
        values: [n] distinct values of the feature's dtype; nulls and padding are left out.
        counts: [n] int64, number of times that each value occurs.
    """
    assert isinstance(feature.encoder, Vocabulary)
    values = values.cast(ARROW_TYPES[feature.dtype], safe=False)
    kept_rows = np.flatnonzero((counts >= feature.encoder.min_count) & ~is_pad(feature, values))
    text = as_large_binary(texts(values.take(pa.array(kept_rows))))
    table = pa.table({"count": counts[kept_rows], "text": text})
    order = pc.sort_indices(table, [("count", "descending"), ("text", "ascending")])
    return kept_rows[order.to_numpy()]


def _quantiles(numbers: np.ndarray, counts: np.ndarray, intervals: int) -> np.ndarray:
    """Boundaries that split the training values into intervals of about equal count.

    Args:
        numbers: [n] training values in increasing order.
        counts: [n] number of times that each value occurs.
        intervals: Wanted number of intervals; fewer result if values repeat a lot.
    """
    if not len(numbers):
        return np.zeros(0)
    total = np.cumsum(counts)
    ranks = np.arange(1, intervals) * total[-1] / intervals
    return np.unique(numbers[np.searchsorted(total, ranks, side="right")])
