"""Capsules: vectors whose length stands for the presence of something."""

from models.keras import tf


def squash(values: tf.Tensor) -> tf.Tensor:
    """Shrinks vectors to a length below 1, keeping their direction (Sabour et al., 2017, eq. 1).

    x n / (1 + n) / sqrt(n) with n = |x|^2.

    Args:
        values: [..., width]; a vector of zeros stays 0.

    Returns:
        Shape of `values`.
    """
    square = tf.reduce_sum(tf.square(values), -1, keepdims=True)
    return values * (square / (1.0 + square)) * tf.math.rsqrt(square + 1e-9)
