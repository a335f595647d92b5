"""The history seen from its recent end.

Shapes: B requests, L history length.
"""

from models.keras import tf


def reverse_history(values: tf.Tensor, mask_BL: tf.Tensor, axis: int = 1) -> tf.Tensor:
    """Puts the most recent event of every history first; padding stays behind the events.

    Index 0 is then the last *valid* step whatever the length, and an index means the same however
    long the history was before truncation. Doing it twice gives back the input, and the mask is the
    same in both orders.

    Args:
        values: [B, ..., L, ...], oldest event first.
        mask_BL: True for events, a prefix.
        axis: Axis L of `values`.

    Returns:
        Shape of `values`.
    """
    lengths_B = tf.reduce_sum(tf.cast(mask_BL, tf.int32), axis=1)
    return tf.reverse_sequence(values, lengths_B, seq_axis=axis)
