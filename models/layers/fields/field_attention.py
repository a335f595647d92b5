"""Self-attention among the fields of a request (AutoInt: Song et al., CIKM 2019).

Shapes: B requests, N candidates, M fields, d width of a field, H heads, C width of a head.
"""

from models.keras import keras, tf
from models.layers.initializers import glorot_uniform


class FieldAttention(keras.layers.Layer):
    """Each field attends to all fields, itself included (eqs. 5-8), as in the authors' code.

    Beyond the paper, that code rectifies queries, keys, values and residuals, scales the scores by
    the square root of the head width, and normalises each field of the output.

    Args:
        width: Width d of a field.
        heads: Number H of heads.
        head_width: Width C of a head.

    Example:
        >>> FieldAttention(width=4, heads=2, head_width=16)(tf.ones([2, 3, 5, 4])).shape
        TensorShape([2, 3, 5, 32])
    """

    def __init__(
        self, width: int, heads: int = 2, head_width: int = 16, name: str = "field_attention"
    ) -> None:
        super().__init__(name=name)
        self.heads, self.head_width = heads, head_width
        # Queries, keys, values and residuals, concatenated, from one matrix product.
        self.projection = keras.layers.Dense(
            4 * heads * head_width,
            "relu",
            kernel_initializer=glorot_uniform(width, heads * head_width),
            name="projection",
        )
        self.normalization = keras.layers.LayerNormalization(epsilon=1e-5, name="normalization")

    def call(self, fields_BNMd: tf.Tensor) -> tf.Tensor:
        """Maps fields [B, N, M, d] to [B, N, M, H C]."""
        projected = self.projection(fields_BNMd)
        shape = tf.shape(projected)
        split = tf.concat([shape[:3], [4, self.heads, self.head_width]], 0)
        query_BNHMC, key_BNHMC, value_BNHMC, residual_BNHMC = tf.unstack(
            tf.transpose(tf.reshape(projected, split), [3, 0, 1, 4, 2, 5])
        )
        scores_BNHMM = tf.matmul(query_BNHMC, key_BNHMC, transpose_b=True)
        scores_BNHMM = tf.cast(scores_BNHMM, tf.float32) / self.head_width**0.5
        weights_BNHMM = tf.cast(tf.nn.softmax(scores_BNHMM), value_BNHMC.dtype)
        attended_BNHMC = tf.nn.relu(tf.matmul(weights_BNHMM, value_BNHMC) + residual_BNHMC)
        joined = tf.concat([shape[:3], [self.heads * self.head_width]], 0)
        return self.normalization(tf.reshape(tf.transpose(attended_BNHMC, [0, 1, 3, 2, 4]), joined))
