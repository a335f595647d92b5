"""Vectors of examples: bytes until a batch is made, then numbers.

As bytes a vector is one value, which is padded, sliced and collected like any other.
"""

import tensorflow as tf

from preprocessing.features.encoder_specs import Vector
from preprocessing.features.feature import Feature
from preprocessing.schema import Schema, encoded_keys


def decoded(schema: Schema, features: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """Features with the numbers of vectors in place of their bytes.

    Args:
        schema: Schema of the features.
        features: Values by key of an example, those of vectors as bytes [...], empty for padding.

    Returns:
        The features, those of vectors as float32 [..., D], zeros for padding.
    """
    return features | {
        key: _numbers(feature, features[key])
        for key, feature in encoded_keys(schema)
        if feature.is_vector
    }


def _numbers(feature: Feature, stored: tf.Tensor) -> tf.Tensor:
    """The numbers of bytes."""
    assert isinstance(feature.encoder, Vector)
    (size,), dtype = feature.shape, tf.dtypes.as_dtype(feature.encoder.storage)
    zeros = tf.constant(bytes(size * dtype.size))
    numbers = tf.io.decode_raw(tf.where(stored == "", zeros, stored), dtype)
    return tf.cast(tf.reshape(numbers, tf.concat([tf.shape(stored), [size]], 0)), tf.float32)
