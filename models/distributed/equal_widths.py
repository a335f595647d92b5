"""Batches of different processes, padded to the same widths.

Processes that read shards of their own have histories and candidates of other numbers at the same
step. Padded alike, their batches are the parts of one batch: with its random draws, and with values
that can be gathered.

Shapes: W replicas, F padded features.
"""

from collections.abc import Callable, Mapping
from typing import Any

from models.keras import tf
from models.ops import replicas


def with_equal_widths(
    step: Callable[[Mapping[str, tf.Tensor]], Any],
) -> Callable[[Mapping[str, tf.Tensor]], Any]:
    """A step on batches that are padded to the largest widths among all replicas.

    Args:
        step: Function of the batch of a replica.
    """

    def padded_step(features: Mapping[str, tf.Tensor]) -> Any:
        return step(padded_alike(features))

    return padded_step


def padded_alike(features: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """Features of a replica, padded with 0 to the largest widths among all replicas.

    Args:
        features: Features by name, [B] or [B, X, ...]; they are padded where X is unknown in the
            graph. Every replica has the same ones.

    Returns:
        The features, X being the same on all replicas.
    """
    names = [
        name
        for name, value in sorted(features.items())
        if value.shape.rank > 1 and value.shape[1] is None
    ]
    widths_F = tf.stack([tf.shape(features[name])[1] for name in names])
    widths_F = tf.reduce_max(replicas.all_gather(widths_F[None]), 0)
    padded = dict(features)
    for place, name in enumerate(names):
        value = features[name]
        missing = widths_F[place] - tf.shape(value)[1]
        padded[name] = tf.pad(value, [[0, 0], [0, missing], *[[0, 0]] * (value.shape.rank - 2)])
    return padded
