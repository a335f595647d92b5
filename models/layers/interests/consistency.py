"""Divergence between the interests of two views of a user (DemiNet, arXiv 2109.12512, eq. 18).

An interest v is treated as the distribution softmax(v) over its D components. Every divergence is
symmetric, at least 0, and invariant to a constant added to all components.

Shapes: D item width.
"""

import math

from models.keras import tf

DIVERGENCES = ("symmetric_kl", "js")


def interest_divergence(
    first: tf.Tensor, second: tf.Tensor, divergence: str = "symmetric_kl"
) -> tf.Tensor:
    """The divergence of two interests.

    Args:
        first: Interests [..., D] of the first view.
        second: Interests [..., D] of the second view.
        divergence: "symmetric_kl": half the sum of the Kullback-Leibler divergences in both
            directions, 1/2 sum (p - q)(log p - log q), as eq. 18 is printed. "js": the
            Jensen-Shannon divergence, as the text of the paper calls it: the mean of the
            divergences of both from their mean.

    Returns:
        Divergences J, [...] in float32.

    Example:
        >>> first, second = tf.constant([0.0, 0.0]), tf.math.log([3.0, 1.0])  # 1/2, 1/2; 3/4, 1/4
        >>> round(float(interest_divergence(first, second)), 4)  # ln(3) / 8
        0.1373
    """
    log_first = tf.nn.log_softmax(tf.cast(first, tf.float32))
    log_second = tf.nn.log_softmax(tf.cast(second, tf.float32))
    if divergence == "symmetric_kl":
        difference = tf.exp(log_first) - tf.exp(log_second)
        return 0.5 * tf.reduce_sum(difference * (log_first - log_second), axis=-1)
    log_mean = tf.reduce_logsumexp([log_first, log_second], axis=0) - math.log(2.0)
    terms = [tf.exp(log_p) * (log_p - log_mean) for log_p in (log_first, log_second)]
    return 0.5 * tf.reduce_sum(tf.add_n(terms), axis=-1)
