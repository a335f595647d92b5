"""Random draws for the requests of a batch that do not depend on the number of replicas.

Every replica draws for the rows of all replicas and keeps those of its rows. Draws do not depend on
padding either: the history is the first axis of draws per event, where further steps add numbers
without changing those of earlier steps.

Shapes: B requests of this replica, L history length; `...` is any number of further axes.
"""

from collections.abc import Sequence

from models.keras import tf
from models.ops import randomness, replicas


def uniform(
    seed: tf.Tensor, place: str, axes: Sequence[int | tf.Tensor], batch: tf.Tensor
) -> tf.Tensor:
    """Uniform float32 numbers in [0, 1), [*axes, B].

    Args:
        seed: Seed of the step, int32 [2].
        place: Name of the place in the code (see `randomness.for_place`).
        axes: Sizes of the leading axes; an axis that padding may lengthen must come first.
        batch: Number B of requests of this replica.
    """
    rows_before, total = replicas.rows(batch)
    draws = randomness.uniform(randomness.for_place(seed, place), [*axes, total])
    return draws[..., rows_before : rows_before + batch]


def scale(draws: tf.Tensor, below: tf.Tensor) -> tf.Tensor:
    """Turns uniform numbers in [0, 1) into integers in [0, below); 0 where `below` < 1."""
    below = tf.cast(below, tf.int32)
    integers = tf.cast(draws * tf.cast(below, tf.float32), tf.int32)
    return tf.clip_by_value(integers, 0, tf.maximum(below - 1, 0))


def per_event(seed: tf.Tensor, place: str, axes: Sequence[int], mask_BL: tf.Tensor) -> tf.Tensor:
    """Uniform float32 numbers in [0, 1) for every event and each of `axes`, [*axes, B, L].

    Args:
        seed: Seed of the step, int32 [2].
        place: Name of the place in the code.
        axes: Sizes of the leading axes.
        mask_BL: Mask of the events, which determines B and L.
    """
    shape = tf.shape(mask_BL)
    draws = uniform(seed, place, [shape[1], *axes], shape[0])
    return tf.transpose(draws, [*range(1, len(axes) + 2), 0])


def kept_events(draws: tf.Tensor, mask: tf.Tensor, rate: float) -> tf.Tensor:
    """Mask of the events to keep, each with probability `rate`, and at least one if there is any.

    Args:
        draws: Uniform numbers [..., L] of the events; the event with the smallest is always kept.
        mask: Boolean mask of the events to choose from, broadcastable to `draws`.
        rate: Probability of keeping an event.

    Returns:
        Boolean mask of the shape of `draws`.
    """
    draws = tf.where(mask, draws, 2.0)
    smallest = tf.reduce_min(draws, -1, keepdims=True)
    return mask & ((draws < rate) | (draws == smallest))


def ranks(draws: tf.Tensor) -> tf.Tensor:
    """The rank of each number in the last axis: a random permutation."""
    return tf.argsort(tf.argsort(draws, axis=-1), axis=-1)
