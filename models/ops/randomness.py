"""Stateless random numbers: a function of the run's seed, the step and the place of use.

The functions keep no state, so a resumed run has the same draws as an uninterrupted one, and draws
in one place of the code do not affect those in others.
"""

import zlib

from models.keras import tf
from models.ops import replicas


def for_place(seed: tf.Tensor, place: str) -> tf.Tensor:
    """A separate seed for one place in the code.

    Args:
        seed: Seed of the step, int32 [2].
        place: Name of the place, e.g. "deminet/edge_dropout".

    Returns:
        Seed of the place, int32 [2].
    """
    salt = zlib.crc32(place.encode()) & 0x7FFFFFFF
    return tf.random.experimental.stateless_fold_in(seed, salt)


def of_rows(seed: tf.Tensor) -> tf.Tensor:
    """The seed of independent draws for each row of a batch (see `uniform_rows`)."""
    return tf.random.experimental.stateless_fold_in(seed, 0)


def uniform(
    seed: tf.Tensor, shape: tf.Tensor | list[int], low: float = 0.0, high: float = 1.0
) -> tf.Tensor:
    """Uniform float32 numbers in [low, high)."""
    return tf.random.stateless_uniform(shape, seed, low, high)


def uniform_rows(seed: tf.Tensor, shape: tf.Tensor) -> tf.Tensor:
    """Uniform float32 numbers in [0, 1) for the rows of this replica.

    Every replica draws for the rows of all replicas and keeps those of its rows, so that the
    numbers of a request do not depend on the number of replicas that share the batch.

    Args:
        seed: Seed int32 [2], the same on all replicas.
        shape: Shape int32 [k] of the result; its first entry is the number of this replica's rows.
    """
    if replicas.count() == 1:
        return uniform(seed, shape)
    rows_before, total = replicas.rows(shape[0])
    draws = uniform(seed, tf.concat([total[None], shape[1:]], 0))
    return draws[rows_before : rows_before + shape[0]]


def integers(seed: tf.Tensor, below: tf.Tensor) -> tf.Tensor:
    """Uniform integers in [0, below), one per element of `below`; 0 where `below` < 1."""
    below = tf.cast(below, tf.int32)
    draws = tf.random.stateless_uniform(tf.shape(below), seed)
    return tf.clip_by_value(
        tf.cast(draws * tf.cast(below, tf.float32), tf.int32), 0, tf.maximum(below - 1, 0)
    )
