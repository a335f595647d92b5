"""Positions counted from the most recent event (DemiNet, arXiv 2109.12512, eq. 12).

Shapes: B requests, L history length, D item width.
"""

from models.keras import keras, tf
from models.ops.weight_layouts import Layout, Layouts


class RecencyPositions(keras.layers.Layer):
    """A trainable vector per rank, where rank 0 is the most recent event.

    Counting from the most recent event keeps the meaning of a rank when a long history is
    truncated, and when histories of different lengths share a batch.

    Args:
        max_length: Number of ranks.
        width: Item width D.

    Example:
        >>> mask_BL = tf.constant([[True, True, True], [True, False, False]])
        >>> positions_BLD = RecencyPositions(max_length=50, width=8)(mask_BL)
        >>> positions_BLD.shape
        TensorShape([2, 3, 8])
        >>> bool(tf.reduce_all(positions_BLD[0, 2] == positions_BLD[1, 0]))  # The last events.
        True
    """

    def __init__(self, max_length: int, width: int, name: str = "positions") -> None:
        super().__init__(name=name, dtype="float32")
        self._shape = [max_length, width]

    def build(self, shape: tf.TensorShape) -> None:
        """Creates the vectors."""
        del shape
        self.table = self.add_weight(
            "table", self._shape, initializer=keras.initializers.RandomNormal(stddev=0.01)
        )

    def layouts(self, writes: Layout) -> Layouts:
        """Layouts of the weights, for vectors laid out as `writes`."""
        yield self.table, (None, writes)

    def call(self, mask_BL: tf.Tensor) -> tf.Tensor:
        """The vector of every step, [B, L, D]; those of padded steps are meaningless.

        Args:
            mask_BL: True for events, a prefix; L is at most `max_length`.
        """
        batch, length = tf.shape(mask_BL)[0], tf.shape(mask_BL)[1]
        lengths_B = tf.reduce_sum(tf.cast(mask_BL, tf.int32), axis=1)
        ranks = tf.broadcast_to(self.table[:length], [batch, length, self.table.shape[1]])
        # Unlike a gather, this has a dense gradient, which is cheaper here than a sparse one.
        return tf.reverse_sequence(ranks, lengths_B, seq_axis=1)
