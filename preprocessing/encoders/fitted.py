"""Encoders: raw values to ids or floats and back, with NumPy and Arrow only.

Ids start with `feature.PAD_ID` = 0 for padding, followed by

    vocabulary  1..k        out of vocabulary or expired, by fingerprint of the value
                k+1..       the vocabulary by count in the training data, ties by bytes of the value
    hash        1..buckets  by fingerprint of the value
    bucketised  1           missing
                2..         the interval: 2 + number of boundaries <= value

A numeric feature is one float. Integers are hashed and ranked as decimal text. The raw value that
stands for padding (`Feature.pad_value`) gets id 0, except for float32, where it is a number like
any other and only its position shows that it is padding. `transforms.RawEncoder` does the same in a
graph.
"""

import abc
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from preprocessing.encoders.columns import (
    ARROW_TYPES,
    floats,
    is_pad,
    numpy_type,
    shortest,
    signed_log,
    texts,
    to_numpy,
)
from preprocessing.features.encoder_specs import Hash, Numeric, Vocabulary
from preprocessing.features.feature import PAD_ID, DType, Feature
from preprocessing.values.farmhash import fingerprint64
from preprocessing.values.value_places import ValuePlaces

MISSING_ID = 1
"""Encoded id of a missing number of a bucketised feature."""


class FittedEncoder(abc.ABC):
    """Encodes the values of one feature, with statistics learnt from the training data.

    Attributes:
        feature: The encoded feature.
        cardinality: Number of ids including padding (rows of an embedding table); 0 if numeric.
        num_oov: Number of out-of-vocabulary ids, which are 1..num_oov; 0 without a vocabulary.
    """

    cardinality: int = 0
    num_oov: int = 0

    def __init__(self, feature: Feature) -> None:
        self.feature = feature

    def encode(self, values: Any) -> np.ndarray:
        """Encodes a column.

        Args:
            values: [n] Arrow array, NumPy array or sequence of the feature's dtype. Nulls (and NaN)
                are missing: they become the default of the feature, if it has one. Each distinct
                value of a dictionary array is encoded once.

        Returns:
            [n] int64 ids, or float32 if the feature is numeric.
        """
        if isinstance(values, pa.DictionaryArray):
            missing = pa.nulls(1, values.dictionary.type)
            encoded = self.encode(pa.concat_arrays([values.dictionary, missing]))
            return encoded[values.indices.fill_null(len(values.dictionary)).to_numpy()]
        return self._encode(self._present(values))

    @abc.abstractmethod
    def decode(self, encoded: np.ndarray) -> np.ndarray:
        """Raw values that encode to the given ids or floats.

        An out-of-vocabulary or hash id becomes a made-up value of that bucket; id 0 becomes the pad
        value of the feature; a float becomes the raw number up to rounding.

        Args:
            encoded: Ids or floats as returned by `encode`, any shape.

        Returns:
            Raw values in the same shape: object array of str, int64 or float32.
        """

    def numbers(self) -> dict[str, Any]:
        """Learnt numbers, other than a vocabulary, as JSON (the content of stats.json)."""
        return {}

    @abc.abstractmethod
    def _encode(self, column: pa.Array) -> np.ndarray:
        """Encodes a column of the feature's Arrow type whose nulls have no default."""

    def _present(self, values: Any) -> pa.Array:
        """The values as one Arrow array of the feature's dtype with defaults filled in."""
        arrow_type = ARROW_TYPES[self.feature.dtype]
        if isinstance(values, pa.ChunkedArray):
            values = values.combine_chunks()
        if not isinstance(values, pa.Array):
            values = pa.array(values, arrow_type)
        column = values if values.type == arrow_type else values.cast(arrow_type, safe=False)
        if self.feature.default is None:
            return column
        if arrow_type == pa.float32():
            column = pc.if_else(pc.is_nan(column), pa.scalar(None, arrow_type), column)
        return column.fill_null(pa.scalar(self.feature.default, arrow_type))


class _TextEncoder(FittedEncoder):
    """Base of the encoders whose ids follow from the text of a value: vocabulary and hash."""

    _buckets: int

    def _bucket_ids(self, column: pa.Array) -> np.ndarray:
        """1 + fingerprint of the text modulo the number of buckets."""
        return _buckets(texts(column), self._buckets)

    def _made_up(self, ids: np.ndarray, known_values: pa.Array | None) -> pa.Array:
        """A made-up value, not among the known ones, of the bucket of each id in 1..buckets."""
        distinct_ids = np.unique(ids)
        number_of_id = np.full(self._buckets + 1, -1, np.int64)
        start, chunk = 0, max(1024, 2 * self._buckets)
        while np.any(number_of_id[distinct_ids] < 0):
            numbers = np.arange(start, start + chunk)
            candidates = self._candidates(numbers)
            buckets = _buckets(texts(candidates), self._buckets)
            if known_values is not None:
                buckets[pc.is_in(candidates, known_values).to_numpy(zero_copy_only=False)] = PAD_ID
            # Backwards, so that the first candidate of a bucket stays; then keep earlier finds.
            first = np.full_like(number_of_id, -1)
            first[buckets[::-1]] = numbers[::-1]
            number_of_id = np.where(number_of_id < 0, first, number_of_id)
            start += chunk
        return self._candidates(number_of_id[ids])

    def _candidates(self, numbers: np.ndarray) -> pa.Array:
        """Distinct made-up raw values for distinct non-negative numbers."""
        if self.feature.dtype is DType.INT64:
            return pa.array(-2 - numbers)  # -1 is padding
        return pc.binary_join_element_wise(
            pa.scalar("unseen", pa.large_string()),
            texts(pa.array(numbers)),
            pa.scalar("-", pa.large_string()),
        )


class VocabularyEncoder(_TextEncoder):
    """Encodes to ids by rank in a vocabulary, and unknown values to ids by fingerprint.

    Args:
        feature: The feature to encode; its encoder is `encoder_specs.Vocabulary`.
        vocabulary: [v] distinct large_string or int64 values in the order of their ids.
        expired: Values, in the vocabulary or not, that are treated as unknown; None for none.

    Attributes:
        vocabulary: The vocabulary.
        is_expired: Whether each of its values is expired: its id stays reserved, and the value is
            out of vocabulary. bool [v].
    """

    def __init__(
        self, feature: Feature, vocabulary: pa.Array, expired: pa.Array | None = None
    ) -> None:
        super().__init__(feature)
        assert isinstance(feature.encoder, Vocabulary)
        self.vocabulary = vocabulary.cast(ARROW_TYPES[feature.dtype])
        self._places = ValuePlaces(self.vocabulary)
        self.is_expired = np.zeros(len(vocabulary), bool)
        if expired is not None:
            values = expired.cast(self.vocabulary.type)
            self.is_expired = pc.is_in(self.vocabulary, values).to_numpy(zero_copy_only=False)
        self.num_oov = self._buckets = feature.encoder.oov_buckets
        self.cardinality = 1 + self.num_oov + len(vocabulary)

    def _encode(self, column: pa.Array) -> np.ndarray:
        ranks = self._places.find(column)
        if self.is_expired.any():
            ranks[np.append(self.is_expired, False)[ranks]] = -1
        ids = ranks + (1 + self.num_oov)
        pads = is_pad(self.feature, column)
        unknown = np.flatnonzero((ranks < 0) & ~pads)
        ids[unknown] = self._bucket_ids(column.take(pa.array(unknown)))
        ids[pads] = PAD_ID
        return ids

    def decode(self, encoded: np.ndarray) -> np.ndarray:
        """See `FittedEncoder.decode`."""
        ids = np.ravel(encoded)
        raw = np.full(ids.shape, self.feature.pad_value, numpy_type(self.feature))
        is_oov = (ids > PAD_ID) & (ids <= self.num_oov)
        if is_oov.any():
            raw[is_oov] = to_numpy(self._made_up(ids[is_oov], self.vocabulary))
        is_known = ids > self.num_oov
        raw[is_known] = to_numpy(self.vocabulary.take(pa.array(ids[is_known] - self.num_oov - 1)))
        return raw.reshape(np.shape(encoded))


class HashEncoder(_TextEncoder):
    """Encodes to ids by fingerprint.

    Args:
        feature: The feature to encode; its encoder is `encoder_specs.Hash`.
    """

    def __init__(self, feature: Feature) -> None:
        super().__init__(feature)
        assert isinstance(feature.encoder, Hash)
        self._buckets = feature.encoder.buckets
        self.cardinality = 1 + self._buckets

    def _encode(self, column: pa.Array) -> np.ndarray:
        ids = np.full(len(column), PAD_ID, np.int64)
        present_rows = np.flatnonzero(~is_pad(self.feature, column))
        ids[present_rows] = self._bucket_ids(column.take(pa.array(present_rows)))
        return ids

    def decode(self, encoded: np.ndarray) -> np.ndarray:
        """See `FittedEncoder.decode`."""
        ids = np.ravel(encoded)
        raw = np.full(ids.shape, self.feature.pad_value, numpy_type(self.feature))
        is_present = ids != PAD_ID
        if is_present.any():
            raw[is_present] = to_numpy(self._made_up(ids[is_present], None))
        return raw.reshape(np.shape(encoded))


class NumericEncoder(FittedEncoder):
    """Encodes to (x - mean) / std as float32, for x or sign(x) log(1 + |x|); 0 where x is missing.

    Args:
        feature: The feature to encode; its encoder is `encoder_specs.Numeric`.
        mean: Mean of the (transformed) training values.
        std: Standard deviation of the (transformed) training values, positive.
    """

    def __init__(self, feature: Feature, mean: float, std: float) -> None:
        super().__init__(feature)
        assert isinstance(feature.encoder, Numeric)
        self.log = feature.encoder.normalisation == "log_standard"
        self.mean = mean
        self.std = std

    def numbers(self) -> dict[str, Any]:
        """See `FittedEncoder.numbers`."""
        return {"mean": self.mean, "std": self.std}

    def _encode(self, column: pa.Array) -> np.ndarray:
        numbers = floats(column)
        if self.log:
            numbers = signed_log(numbers)
        scaled = ((numbers - self.mean) / self.std).astype(np.float32)
        return np.where(np.isnan(scaled), np.float32(0), scaled)

    def decode(self, encoded: np.ndarray) -> np.ndarray:
        """See `FittedEncoder.decode`. A zero that no number encodes to becomes NaN, if float32."""
        scaled = np.ravel(encoded).astype(np.float32)
        numbers = scaled.astype(np.float64) * self.std + self.mean
        if self.log:
            numbers = np.sign(numbers) * np.expm1(np.abs(numbers))
        if self.feature.dtype is DType.INT64:
            return np.rint(numbers).astype(np.int64).reshape(np.shape(encoded))
        raw = shortest(numbers.astype(np.float32), scaled, lambda n: self._encode(pa.array(n)))
        raw[(scaled == 0) & (self._encode(pa.array(raw)) != 0)] = np.nan
        return raw.reshape(np.shape(encoded))


class BucketisedEncoder(FittedEncoder):
    """Encodes to ids by interval.

    Args:
        feature: The feature to encode; its encoder is `encoder_specs.Bucketised`.
        boundaries: Distinct numbers in increasing order; interval i ends before boundary i.
    """

    def __init__(self, feature: Feature, boundaries: np.ndarray) -> None:
        super().__init__(feature)
        self.boundaries = np.asarray(boundaries, np.float64)
        self.cardinality = MISSING_ID + len(self.boundaries) + 2

    def numbers(self) -> dict[str, Any]:
        """See `FittedEncoder.numbers`."""
        return {"boundaries": self.boundaries.tolist()}

    def _encode(self, column: pa.Array) -> np.ndarray:
        numbers = floats(column)
        ids = MISSING_ID + 1 + np.searchsorted(self.boundaries, numbers, side="right")
        ids[np.isnan(numbers)] = MISSING_ID
        if self.feature.dtype is DType.INT64:
            ids[is_pad(self.feature, column)] = PAD_ID
        return ids.astype(np.int64)

    def decode(self, encoded: np.ndarray) -> np.ndarray:
        """See `FittedEncoder.decode`."""
        ids = np.ravel(encoded)
        dtype = numpy_type(self.feature)
        by_id = np.full(self.cardinality, self.feature.pad_value, dtype)
        if self.feature.dtype is DType.FLOAT32:
            by_id[MISSING_ID] = np.nan
        by_id[MISSING_ID + 1 :] = self._members()
        return by_id[ids].reshape(np.shape(encoded))

    def interval(self, value_id: int) -> str:
        """What the values of an id have in common, for readers.

        Example:
            >>> from preprocessing.features.encoder_specs import Bucketised
            >>> from preprocessing.features.feature import DType, Feature, Role
            >>> encoder = Bucketised(boundaries=(18.0, 25.0))
            >>> age = Feature(
            ...     name="age", column="age", role=Role.USER, dtype=DType.FLOAT32, encoder=encoder
            ... )
            >>> fitted = BucketisedEncoder(age, [18, 25])
            >>> [fitted.interval(i) for i in range(1, 5)]
            ['missing', 'below 18', '18 to below 25', '25 or more']
        """
        number = value_id - MISSING_ID - 1
        if number < 0:
            return "missing"
        bounds = [f"{boundary:.6g}" for boundary in self.boundaries]
        if not bounds:
            return "any number"
        if number == 0:
            return f"below {bounds[0]}"
        return f"{bounds[number - 1]} " + (
            f"to below {bounds[number]}" if number < len(bounds) else "or more"
        )

    def _members(self) -> np.ndarray:
        """[boundaries + 1] A raw value of each interval."""
        if not len(self.boundaries):
            return np.zeros(1, numpy_type(self.feature))
        if self.feature.dtype is DType.INT64:
            starts = np.ceil(self.boundaries).astype(np.int64)
            below = starts[0] - 1
            # -1 is padding; use another value of its interval.
            starts[starts == self.feature.pad_value] += 1
            return np.append(below - (below == self.feature.pad_value), starts)
        nearest = self.boundaries.astype(np.float32)
        after = np.nextafter(nearest, np.float32(np.inf))
        starts = np.where(nearest.astype(np.float64) >= self.boundaries, nearest, after)
        return np.append(np.nextafter(nearest[0], np.float32(-np.inf)), starts)


def _buckets(words: pa.Array, buckets: int) -> np.ndarray:
    return (fingerprint64(words) % np.uint64(buckets)).astype(np.int64) + 1
