"""A loss for interests that are alike, which DemiNet's losses do not ask for (not in the paper).

Shapes: B requests, N candidates, K interests, D item width.
"""

from models.keras import tf


def likeness(interests_BNKD: tf.Tensor) -> tf.Tensor:
    """Mean squared cosine of two interests of a candidate, [B, N] in float32.

    It is 0 for orthogonal interests and 1 for parallel ones, of either sign. Interests of length 0
    have the cosine 0.

    Args:
        interests_BNKD: At least two interests v_k.

    Example:
        >>> interests = tf.constant([[[[2.0, 0.0], [0.0, 1.0]], [[1.0, 0.0], [-3.0, 0.0]]]])
        >>> likeness(interests).numpy().round(4).tolist()
        [[0.0, 1.0]]
    """
    unit_BNKD = tf.math.l2_normalize(tf.cast(interests_BNKD, tf.float32), axis=-1)
    return mean_of_pairs(tf.square(tf.matmul(unit_BNKD, unit_BNKD, transpose_b=True)))


def mean_of_pairs(values_BNKK: tf.Tensor) -> tf.Tensor:
    """Mean of a symmetric quantity over the pairs of different interests, [B, N]."""
    interests = values_BNKK.shape[-1]
    # Each pair counts twice, and so does its number.
    others_BN = tf.reduce_sum(values_BNKK, [-2, -1]) - tf.linalg.trace(values_BNKK)
    return others_BN / (interests * (interests - 1))
