"""How far two views of a user disagree about the interests (DemiNet, arXiv 2109.12512, eq. 18).

Shapes: D item width.
"""

from models.keras import tf


def interest_divergence(first: tf.Tensor, second: tf.Tensor) -> tf.Tensor:
    """Half the sum of the Kullback-Leibler divergences of two interests in both directions.

    An interest counts as the distribution softmax(v) over its D components. The two directions
    together are 1/2 sum (p - q)(log p - log q): symmetric, at least 0, and blind to a constant
    added to all components.

    Args:
        first: [..., D].
        second: Like `first`.

    Returns:
        J, [...] in float32.
    """
    log_first = tf.nn.log_softmax(tf.cast(first, tf.float32))
    log_second = tf.nn.log_softmax(tf.cast(second, tf.float32))
    difference = tf.exp(log_first) - tf.exp(log_second)
    return 0.5 * tf.reduce_sum(difference * (log_first - log_second), axis=-1)
