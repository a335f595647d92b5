"""Reductions that ignore padding.

Shapes: B requests, L history length.
"""

from models.keras import tf

_LOWEST = -1e9


def masked_softmax(scores: tf.Tensor, mask: tf.Tensor, axis: int = -1) -> tf.Tensor:
    """Softmax over the valid entries of an axis; a row without valid entries is exactly zero.

    Adding -1e9 alone would spread the weights of an empty row evenly over its padding, and -inf
    would make it NaN; here such a row is 0 with finite gradients.

    Args:
        scores: Scores of any shape; the softmax is computed in float32.
        mask: Boolean mask, broadcastable to `scores`.
        axis: Axis that sums to 1 (or 0).

    Returns:
        Weights of the shape of `scores`, in its dtype.

    Example:
        >>> mask = tf.constant([[True, True, False], [False, False, False]])
        >>> masked_softmax(tf.ones([2, 3]), mask).numpy()
        array([[0.5, 0.5, 0. ],
               [0. , 0. , 0. ]], dtype=float32)
    """
    dtype = scores.dtype
    scores = tf.where(mask, tf.cast(scores, tf.float32), _LOWEST)
    highest = tf.stop_gradient(tf.reduce_max(scores, axis=axis, keepdims=True))
    weights = tf.where(mask, tf.exp(scores - highest), 0.0)
    total = tf.reduce_sum(weights, axis=axis, keepdims=True)
    return tf.cast(weights / tf.maximum(total, 1e-9), dtype)


def masked_mean(values: tf.Tensor, mask_BL: tf.Tensor) -> tf.Tensor:
    """Mean over the valid steps of a sequence; zero for an empty one.

    Args:
        values: Sequences [B, L, ...].
        mask_BL: Boolean mask of the valid steps.

    Returns:
        Means [B, ...].

    Example:
        >>> events_BLD = tf.constant([[[2.0], [4.0], [9.0]]])
        >>> masked_mean(events_BLD, tf.constant([[True, True, False]])).numpy()
        array([[3.]], dtype=float32)
    """
    weights = tf.cast(mask_BL, values.dtype)
    lengths = tf.maximum(tf.reduce_sum(weights, axis=1), 1.0)
    extra = [1] * (values.shape.rank - 2)
    weights = tf.reshape(weights, tf.concat([tf.shape(weights), extra], 0))
    total = tf.reduce_sum(values * weights, axis=1)
    return total / tf.reshape(lengths, tf.concat([tf.shape(lengths), extra], 0))
