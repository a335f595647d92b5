"""The sequence encoder of S3Rec and CL4SRec, and views of a history for it.

Shapes: B requests, V views of each request, L history length, D item width.
"""

from typing import NamedTuple

from models.backbone_api import Dims, UserSide
from models.keras import keras, tf
from models.layers.attention.recency_positions import RecencyPositions
from models.layers.mlp import MLP
from preprocessing.errors import UserError


class SequenceViews(NamedTuple):
    """Augmented histories.

    Attributes:
        sources_VBL: Index of the source event at each position.
        lengths_VB: Number of events of each view.
        hidden_VBL: Whether the mask vector replaces the event.
    """

    sources_VBL: tf.Tensor
    lengths_VB: tf.Tensor
    hidden_VBL: tf.Tensor


class SequenceEncoder(keras.layers.Layer):
    """A bidirectional transformer layer; the state of the last event represents the sequence.

    As in BERT: x = LayerNorm(events + positions); y = LayerNorm(x + Attention(x)); then
    LayerNorm(y + W2 gelu(W1 y + b1) + b2). Positions count from the most recent event. All views of
    all requests are encoded at once.

    Args:
        dims: Static sizes.
        heads: Number of heads of the attention, a divisor of D.

    Raises:
        UserError: `heads` does not divide D.
    """

    def __init__(self, dims: Dims, heads: int, name: str = "sequence_encoder") -> None:
        super().__init__(name=name)
        self._width = dims.item_width
        if self._width % heads:
            raise UserError(
                f"Expected ssl.heads to divide {self._width}, the width of an item, found {heads}.",
                "choose another, or another model.embedding_size.",
            )
        self.mask_vector = self.add_weight(
            name="mask_vector",
            shape=(self._width,),
            initializer=keras.initializers.RandomUniform(-0.05, 0.05),
        )
        self.positions = RecencyPositions(dims.max_length, self._width)
        self.attention = keras.layers.MultiHeadAttention(
            heads, self._width // heads, name="attention"
        )
        self.feed_forward = MLP((4 * self._width, self._width), "gelu", name="feed_forward")
        # Embeddings start with a variance near 0.001, which Keras' default epsilon would drown.
        self.norms = [
            keras.layers.LayerNormalization(epsilon=1e-6, name=f"norm_{i}") for i in range(3)
        ]

    def encode(self, user: UserSide, views: SequenceViews) -> tf.Tensor:
        """The representation of each view, [V, B, D]; meaningless for an empty view."""
        shape = tf.shape(views.sources_VBL)
        count, length = shape[0] * shape[1], shape[2]
        mask_VBL = tf.sequence_mask(views.lengths_VB, length)
        places_VBL = tf.range(shape[1])[:, None] * length + views.sources_VBL
        events = tf.gather(tf.reshape(user.history_BLD, [-1, self._width]), places_VBL)
        mask_vector = tf.cast(self.mask_vector, events.dtype)
        events = tf.where(views.hidden_VBL[..., None], mask_vector, events)
        events = tf.reshape(events, [count, length, self._width])
        mask = tf.reshape(mask_VBL, [count, length])

        positions = tf.cast(self.positions(mask), events.dtype)
        values = self.norms[0](tf.where(mask[..., None], events + positions, 0.0))
        attended = self.attention(values, values, attention_mask=mask[:, None])
        values = self.norms[1](values + attended)
        values = self.norms[2](values + self.feed_forward(values))
        last = tf.maximum(tf.reshape(views.lengths_VB, [-1]) - 1, 0)
        return tf.reshape(tf.gather(values, last, batch_dims=1), [shape[0], shape[1], self._width])
