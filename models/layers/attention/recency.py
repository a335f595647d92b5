"""The history in reverse order, most recent event first.

Shapes: B requests, L history length.
"""

from models.keras import tf


def reverse_history(values: tf.Tensor, mask_BL: tf.Tensor, axis: int = 1) -> tf.Tensor:
    """Puts the most recent event of every history first; padding stays behind the events.

    Index 0 is then the last *valid* step for any length, and an index has the same meaning however
    long the history was before truncation. The function is its own inverse, and the mask is the
    same in both orders.

    Args:
        values: Values [B, ..., L, ...], oldest event first.
        mask_BL: True for events, a prefix.
        axis: Axis L of `values`.

    Returns:
        Reversed values, of the shape of `values`.

    Example:
        >>> items_BL = tf.constant([[1, 2, 3, 0]])
        >>> reverse_history(items_BL, items_BL > 0).numpy()
        array([[3, 2, 1, 0]], dtype=int32)
    """
    lengths_B = tf.reduce_sum(tf.cast(mask_BL, tf.int32), axis=1)
    return tf.reverse_sequence(values, lengths_B, seq_axis=axis)
