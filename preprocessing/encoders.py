"""Encoders: raw values to ids or floats and back, with NumPy and Arrow only.

Ids start with `schema.PAD_ID` = 0 for padding, followed by

    vocabulary  1..k        out of vocabulary, by fingerprint of the value
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
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from preprocessing.errors import UserError
from preprocessing.schema import (
    PAD_ID,
    Bucketised,
    DType,
    Feature,
    Hash,
    Numeric,
    Vocabulary,
)
from preprocessing.storage import files
from preprocessing.storage.arrow_buffers import as_large_binary
from preprocessing.storage.files import AnyPath
from preprocessing.values.farmhash import fingerprint64

MISSING_ID = 1
"""Encoded id of a missing number of a bucketised feature."""

_ARROW_TYPES = {
    DType.STRING: pa.large_string(),
    DType.INT64: pa.int64(),
    DType.FLOAT32: pa.float32(),
}


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
        arrow_type = _ARROW_TYPES[self.feature.dtype]
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

    def _pads(self, column: pa.Array) -> np.ndarray:
        """True where a value is missing or stands for padding."""
        return _is_pad(self.feature, column)

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
        feature: The feature to encode; its encoder is `schema.Vocabulary`.
        vocabulary: [v] distinct large_string or int64 values in the order of their ids.
    """

    def __init__(self, feature: Feature, vocabulary: pa.Array) -> None:
        super().__init__(feature)
        assert isinstance(feature.encoder, Vocabulary)
        self.vocabulary = vocabulary.cast(_ARROW_TYPES[feature.dtype])
        self.num_oov = self._buckets = feature.encoder.oov_buckets
        self.cardinality = 1 + self.num_oov + len(vocabulary)

    def _encode(self, column: pa.Array) -> np.ndarray:
        ranks = pc.fill_null(pc.index_in(column, self.vocabulary), -1).to_numpy().astype(np.int64)
        ids = ranks + (1 + self.num_oov)
        pads = self._pads(column)
        unknown = np.flatnonzero((ranks < 0) & ~pads)
        ids[unknown] = self._bucket_ids(column.take(pa.array(unknown)))
        ids[pads] = PAD_ID
        return ids

    def decode(self, encoded: np.ndarray) -> np.ndarray:
        """See `FittedEncoder.decode`."""
        ids = np.ravel(encoded)
        raw = np.full(ids.shape, self.feature.pad_value, _numpy_type(self.feature))
        is_oov = (ids > PAD_ID) & (ids <= self.num_oov)
        if is_oov.any():
            raw[is_oov] = _to_numpy(self._made_up(ids[is_oov], self.vocabulary))
        is_known = ids > self.num_oov
        raw[is_known] = _to_numpy(self.vocabulary.take(pa.array(ids[is_known] - self.num_oov - 1)))
        return raw.reshape(np.shape(encoded))


class HashEncoder(_TextEncoder):
    """Encodes to ids by fingerprint.

    Args:
        feature: The feature to encode; its encoder is `schema.Hash`.
    """

    def __init__(self, feature: Feature) -> None:
        super().__init__(feature)
        assert isinstance(feature.encoder, Hash)
        self._buckets = feature.encoder.buckets
        self.cardinality = 1 + self._buckets

    def _encode(self, column: pa.Array) -> np.ndarray:
        ids = np.full(len(column), PAD_ID, np.int64)
        present_rows = np.flatnonzero(~self._pads(column))
        ids[present_rows] = self._bucket_ids(column.take(pa.array(present_rows)))
        return ids

    def decode(self, encoded: np.ndarray) -> np.ndarray:
        """See `FittedEncoder.decode`."""
        ids = np.ravel(encoded)
        raw = np.full(ids.shape, self.feature.pad_value, _numpy_type(self.feature))
        is_present = ids != PAD_ID
        if is_present.any():
            raw[is_present] = _to_numpy(self._made_up(ids[is_present], None))
        return raw.reshape(np.shape(encoded))


class NumericEncoder(FittedEncoder):
    """Encodes to (x - mean) / std as float32, for x or sign(x) log(1 + |x|); 0 where x is missing.

    Args:
        feature: The feature to encode; its encoder is `schema.Numeric`.
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
        numbers = _floats(column)
        if self.log:
            numbers = _signed_log(numbers)
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
        raw = numbers.astype(np.float32)
        raw[(scaled == 0) & (self._encode(pa.array(raw)) != 0)] = np.nan
        return raw.reshape(np.shape(encoded))


class BucketisedEncoder(FittedEncoder):
    """Encodes to ids by interval.

    Args:
        feature: The feature to encode; its encoder is `schema.Bucketised`.
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
        numbers = _floats(column)
        ids = MISSING_ID + 1 + np.searchsorted(self.boundaries, numbers, side="right")
        ids[np.isnan(numbers)] = MISSING_ID
        if self.feature.dtype is DType.INT64:
            ids[_is_pad(self.feature, column)] = PAD_ID
        return ids.astype(np.int64)

    def decode(self, encoded: np.ndarray) -> np.ndarray:
        """See `FittedEncoder.decode`."""
        ids = np.ravel(encoded)
        dtype = _numpy_type(self.feature)
        by_id = np.full(self.cardinality, self.feature.pad_value, dtype)
        if self.feature.dtype is DType.FLOAT32:
            by_id[MISSING_ID] = np.nan
        by_id[MISSING_ID + 1 :] = self._members()
        return by_id[ids].reshape(np.shape(encoded))

    def _members(self) -> np.ndarray:
        """[boundaries + 1] A raw value of each interval."""
        if not len(self.boundaries):
            return np.zeros(1, _numpy_type(self.feature))
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


def fit(feature: Feature, values: pa.Array, counts: np.ndarray) -> FittedEncoder:
    """Learns an encoder from the values of a feature in the training data.

    The result depends on the counts alone, not on the order of the values.

    Args:
        feature: The feature to encode.
        values: [n] distinct values of the feature's dtype; nulls, NaN and padding are ignored.
        counts: [n] int64, number of times that each value occurs.
    """
    encoder = feature.encoder
    if isinstance(encoder, Hash):
        return HashEncoder(feature)
    values = values.cast(_ARROW_TYPES[feature.dtype], safe=False)
    if isinstance(encoder, Vocabulary):
        return VocabularyEncoder(feature, _rank(feature, values, counts, encoder.min_count))
    numbers = _floats(values)
    is_present = ~np.isnan(numbers)
    order = np.argsort(numbers[is_present], kind="stable")
    numbers, counts = numbers[is_present][order], counts[is_present][order]
    if isinstance(encoder, Bucketised):
        boundaries = np.array(encoder.boundaries) if encoder.boundaries else np.zeros(0)
        if encoder.quantiles:
            boundaries = _quantiles(numbers, counts, encoder.quantiles)
        return BucketisedEncoder(feature, boundaries)
    assert isinstance(encoder, Numeric)
    if encoder.normalisation == "none" or not counts.sum():
        return NumericEncoder(feature, 0.0, 1.0)
    if encoder.normalisation == "log_standard":
        numbers = _signed_log(numbers)
    mean = float(np.average(numbers, weights=counts))
    std = float(np.sqrt(np.average((numbers - mean) ** 2, weights=counts)))
    return NumericEncoder(feature, mean, std if std > 0 else 1.0)


def save_vocabulary(encoder: FittedEncoder, vocab_dir: str | AnyPath) -> None:
    """Writes `<feature>.txt`, one value per line in the order of ids, if there is a vocabulary.

    Raises:
        UserError: A value holds a line break.
    """
    if not isinstance(encoder, VocabularyEncoder):
        return
    words = texts(encoder.vocabulary)
    broken = words.filter(pc.match_substring_regex(words, r"[\n\r]"))
    if len(broken):
        raise UserError(
            f"Expected values of {encoder.feature.name!r} without line breaks, found "
            f"{broken[0].as_py()!r}.",
            "replace the line breaks in the log, or give the feature a hash encoder.",
        )
    lines = "".join(f"{word}\n" for word in words.to_pylist())
    path = vocabulary_path(encoder.feature.name, vocab_dir)
    path.write_bytes(lines.encode())


def vocabulary_path(name: str, vocab_dir: str | AnyPath) -> AnyPath:
    """The vocabulary file of a feature."""
    return files.path(vocab_dir) / f"{name}.txt"


def load(feature: Feature, vocab_dir: str | AnyPath, numbers: Mapping[str, Any]) -> FittedEncoder:
    """The encoder that was saved with `save_vocabulary` and `FittedEncoder.numbers`.

    Args:
        feature: The feature to encode.
        vocab_dir: Directory of the vocabulary files.
        numbers: Numbers as returned by `FittedEncoder.numbers`.

    Raises:
        UserError: The vocabulary file is missing or not of the feature's dtype.
    """
    if isinstance(feature.encoder, Hash):
        return HashEncoder(feature)
    if isinstance(feature.encoder, Numeric):
        return NumericEncoder(feature, numbers["mean"], numbers["std"])
    if isinstance(feature.encoder, Bucketised):
        return BucketisedEncoder(feature, np.array(numbers["boundaries"], np.float64))
    path = vocabulary_path(feature.name, vocab_dir)
    try:
        # `splitlines` would also split at other characters, which values may hold.
        words = path.read_bytes().decode().split("\n")[:-1]
        column = pa.array(words, pa.large_string()).cast(_ARROW_TYPES[feature.dtype])
    except FileNotFoundError:
        raise UserError(
            f"Expected the vocabulary of {feature.name!r}, found no file {path}.",
            "build the data anew.",
        ) from None
    except (UnicodeDecodeError, pa.ArrowInvalid) as error:
        raise UserError(
            f"Expected {feature.dtype.value} values in {path}, found: {error}.",
            "build the data anew.",
        ) from None
    return VocabularyEncoder(feature, column)


def texts(column: pa.Array) -> pa.Array:
    """Values as large_string: integers as decimal text."""
    return column.cast(pa.large_string())


def _buckets(words: pa.Array, buckets: int) -> np.ndarray:
    return (fingerprint64(words) % np.uint64(buckets)).astype(np.int64) + 1


def _rank(feature: Feature, values: pa.Array, counts: np.ndarray, min_count: int) -> pa.Array:
    """The vocabulary: frequent values by count, then by the bytes of their text."""
    kept_rows = np.flatnonzero((counts >= min_count) & ~_is_pad(feature, values))
    values, counts = values.take(pa.array(kept_rows)), counts[kept_rows]
    table = pa.table({"count": counts, "text": as_large_binary(texts(values))})
    order = pc.sort_indices(table, [("count", "descending"), ("text", "ascending")])
    return values.take(order)


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


def _is_pad(feature: Feature, column: pa.Array) -> np.ndarray:
    pads = pc.equal(column, pa.scalar(feature.pad_value, column.type))
    return pads.fill_null(True).to_numpy(zero_copy_only=False)


def _floats(column: pa.Array) -> np.ndarray:
    """The numbers as float64, NaN where missing."""
    return column.cast(pa.float64(), safe=False).fill_null(np.nan).to_numpy()


def _signed_log(numbers: np.ndarray) -> np.ndarray:
    return np.sign(numbers) * np.log1p(np.abs(numbers))


def _numpy_type(feature: Feature) -> Any:
    return {DType.STRING: object, DType.INT64: np.int64, DType.FLOAT32: np.float32}[feature.dtype]


def _to_numpy(column: pa.Array) -> np.ndarray:
    return column.to_numpy(zero_copy_only=False)
