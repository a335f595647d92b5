"""The encoders of `preprocessing.encoders` inside a TensorFlow graph.

A serving signature takes raw values; `RawEncoder` turns them into the ids that the model was
trained on. Vocabularies are assets, so that a SavedModel carries them.

Shape suffixes: M values of a set.
"""

from typing import Any

import numpy as np
import tensorflow as tf

from preprocessing.data_dir import sha256_file
from preprocessing.encoders import encoder_files
from preprocessing.encoders.fitted import (
    MISSING_ID,
    BucketisedEncoder,
    FittedEncoder,
    HashEncoder,
    NumericEncoder,
    VocabularyEncoder,
)
from preprocessing.encoders.vector_encoder import LARGEST_FLOAT16, VectorEncoder
from preprocessing.features.feature import PAD_ID, DType
from preprocessing.storage import files, tensorflow_files
from preprocessing.storage.files import AnyPath


class RawEncoder(tf.Module):
    """Encodes raw tensors with the same result as `FittedEncoder.encode`.

    Args:
        fitted: Encoders by feature name.
        vocab_dir: Directory of the vocabulary files, which become assets.
    """

    def __init__(self, fitted: dict[str, FittedEncoder], vocab_dir: str | AnyPath) -> None:
        super().__init__(name="raw_encoder")
        self._fitted = dict(fitted)
        self._tables = {
            name: _table(encoder_files.vocabulary_path(name, vocab_dir), len(encoder.vocabulary))
            for name, encoder in fitted.items()
            if isinstance(encoder, VocabularyEncoder) and len(encoder.vocabulary)
        }
        self._expired = {
            name: _table(encoder_files.expired_path(name, vocab_dir), int(encoder.is_expired.sum()))
            for name, encoder in fitted.items()
            if isinstance(encoder, VocabularyEncoder) and encoder.is_expired.any()
        }

    def encode(self, name: str, raw: tf.Tensor, is_real: tf.Tensor | bool = False) -> tf.Tensor:
        """Encodes raw values of one feature.

        NaN is missing, and becomes the feature's default if there is one. The pad value of texts
        and integers stands for two things, which only the caller can tell apart: padding, and a
        missing value of a real user, event or candidate. Padding gets id 0. A missing value gets
        the id that the data pipeline gives it: that of the default, or of a missing number. Where
        the pipeline rejects the row (no default, vocabulary or hash), training saw no such value,
        and it is treated like any other unseen value: it gets the out-of-vocabulary id or the
        bucket of its text.

        Args:
            name: Name of the feature.
            raw: Raw values of the feature's dtype, any shape.
            is_real: Whether pad values are missing values rather than padding: in the shape of
                `raw`, or one bool for all of it.

        Returns:
            int64 ids, or float32 if the feature is numeric, in the shape of `raw`.
        """
        encoder = self._fitted[name]
        default = encoder.feature.default
        if encoder.feature.dtype is DType.FLOAT32 and default is not None:
            raw = tf.where(tf.math.is_nan(raw), tf.constant(default, tf.float32), raw)
        if isinstance(encoder, NumericEncoder):
            return _scale(encoder, raw)
        ids = self._ids(name, encoder, raw)
        if encoder.feature.dtype is DType.FLOAT32:
            return ids
        missing = ids
        if default is not None or isinstance(encoder, BucketisedEncoder):
            missing = tf.constant(encoder.encode([None])[0], tf.int64)
        pads = tf.where(is_real, missing, tf.constant(PAD_ID, tf.int64))
        return tf.where(raw == encoder.feature.pad_value, pads, ids)

    def encode_sets(
        self, name: str, raw: tf.Tensor, is_real: tf.Tensor | bool = False
    ) -> tf.Tensor:
        """Encodes sets of raw values with the same result as `id_sets.encode_column`.

        Values in any order, repeated ones and padding anywhere give the same ids. An empty set of
        something real becomes the feature's default, if there is one.

        Args:
            name: Name of a feature that has many values.
            raw: Raw values of the feature's dtype [..., M], with the pad value as padding.
            is_real: Whether a set belongs to a real user, event or candidate: [...], or one bool.

        Returns:
            int64 ids [..., M'], padded with 0 on the right; M' is at least 1 and at most the `max`
            of the feature.
        """
        encoder = self._fitted[name]
        many = encoder.feature.many
        assert many is not None
        ids = self.encode(name, raw)
        # One value of padding at the end, so that there is a value even if M is 0.
        ids = tf.pad(ids, [[0, 0]] * (raw.shape.rank - 1) + [[0, 1]])
        rank = tf.where(ids > encoder.num_oov, ids, ids + encoder.cardinality)
        last = tf.constant(2 * encoder.cardinality, tf.int64)  # behind all ids
        rank = tf.sort(tf.where(ids == PAD_ID, last, rank))
        is_again = tf.concat(
            [tf.zeros_like(rank[..., :1], tf.bool), rank[..., 1:] == rank[..., :-1]], -1
        )
        rank = tf.sort(tf.where(is_again, last, rank))[..., : many.max]
        kept = tf.where(rank < encoder.cardinality, rank, rank - encoder.cardinality)
        kept = tf.where(rank == last, np.int64(PAD_ID), kept)
        if encoder.feature.default is None:
            return kept
        default = tf.constant(encoder.encode([encoder.feature.default])[0], tf.int64)
        is_missing = is_real & (kept[..., 0] == PAD_ID)
        first = tf.where(is_missing, default, kept[..., 0])
        return tf.concat([first[..., None], kept[..., 1:]], -1)

    def encode_vectors(self, name: str, raw: tf.Tensor) -> tf.Tensor:
        """Encodes vectors with the same result as `VectorEncoder.encode`.

        Args:
            name: Name of a feature of vectors.
            raw: float32 [..., D]; a vector with a number that is not finite is missing.

        Returns:
            float32 [..., D], zeros where a vector is missing.
        """
        encoder = self._fitted[name]
        assert isinstance(encoder, VectorEncoder)
        is_whole = tf.reduce_all(tf.math.is_finite(raw), -1, keepdims=True)
        numbers = tf.cast(tf.where(is_whole, raw, 0.0), tf.float64)
        scaled = tf.cast(numbers / encoder.norm, tf.float32)
        if encoder.storage == np.float16:
            scaled = tf.clip_by_value(scaled, -LARGEST_FLOAT16, LARGEST_FLOAT16)
        return tf.cast(tf.cast(scaled, encoder.storage), tf.float32)

    def _ids(self, name: str, encoder: FittedEncoder, raw: tf.Tensor) -> tf.Tensor:
        """Ids of values, with the pad value treated like any other."""
        if isinstance(encoder, BucketisedEncoder):
            return _bucketise(encoder, raw)
        text = tf.strings.as_string(raw) if raw.dtype == tf.int64 else raw
        if isinstance(encoder, HashEncoder):
            return 1 + tf.strings.to_hash_bucket_fast(text, encoder.cardinality - 1)
        oov = 1 + tf.strings.to_hash_bucket_fast(text, encoder.num_oov)
        if name not in self._tables:
            return oov
        line = self._tables[name].lookup(text)
        is_known = line >= 0
        if name in self._expired:
            is_known &= self._expired[name].lookup(text) < 0
        return tf.where(is_known, line + (1 + encoder.num_oov), oov)


class _VocabularyFile(tf.lookup.TextFileInitializer):
    """The lines of a vocabulary file as the content of a table, named by the content.

    TensorFlow would name the table by the file's path. Then all tables of a process that come from
    one path would share the content that the first one read, even if the file has changed
    (TensorFlow issue 56974), and the SavedModel would reveal the path on the training machine.
    """

    @property
    def _shared_name(self) -> str:
        path = files.path(self._filename_arg)
        return f"{path.stem}_{sha256_file(path)[:16]}"


def _table(path: AnyPath, size: int) -> Any:
    """Table from text to line number of a vocabulary file; -1 for other texts.

    The graph holds the size: TensorFlow refuses to load a model whose file has lost lines, and
    reads only the first `size` lines of a file that has grown.
    """
    tensorflow_files.enable(path)
    lines = _VocabularyFile(
        str(path),
        key_dtype=tf.string,
        key_index=tf.lookup.TextFileIndex.WHOLE_LINE,
        value_dtype=tf.int64,
        value_index=tf.lookup.TextFileIndex.LINE_NUMBER,
        vocab_size=size,
    )
    return tf.lookup.StaticHashTable(lines, default_value=-1)


def _scale(encoder: NumericEncoder, raw: tf.Tensor) -> tf.Tensor:
    """Normalises to float32, 0 where missing; in double precision, like `NumericEncoder`."""
    numbers = tf.cast(raw, tf.float64)
    if encoder.log:
        numbers = tf.sign(numbers) * tf.math.log1p(tf.abs(numbers))
    scaled = tf.cast((numbers - encoder.mean) / encoder.std, tf.float32)
    return tf.where(tf.math.is_nan(scaled), tf.zeros_like(scaled), scaled)


def _bucketise(encoder: BucketisedEncoder, raw: tf.Tensor) -> tf.Tensor:
    """Ids of intervals; `MISSING_ID` for NaN."""
    numbers = tf.cast(raw, tf.float64)
    boundaries = tf.constant(encoder.boundaries, tf.float64)
    flat = tf.searchsorted(boundaries, tf.reshape(numbers, [-1]), side="right", out_type=tf.int64)
    ids = tf.reshape(flat, tf.shape(raw)) + np.int64(MISSING_ID + 1)
    return tf.where(tf.math.is_nan(numbers), np.int64(MISSING_ID), ids)
