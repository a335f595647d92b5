"""The interest experts of DemiNet (arXiv 2109.12512, section "Multi-Interest Aggregation Module").

Shapes: B requests, N candidates, K experts, I width of an expert's input, O width of a layer.
"""

from collections.abc import Sequence
from itertools import pairwise

from models.keras import keras, tf
from models.layers.initializers import glorot_uniform
from models.layers.normalization import MaskedBatchNormalization
from models.ops.weight_layouts import Layout, Layouts


class InterestExperts(keras.layers.Layer):
    """K scorers of the same input: batch normalisation, then a ReLU network, with separate weights.

    The K batch normalisations have the same input, so the same statistics; only their scales and
    offsets differ. So the input is standardised once, and scale and offset are folded into the
    first kernel of each expert, which makes the first layers of all experts one product.

    Args:
        width: Width I of the input.
        experts: Number K of experts.
        units: Widths of the hidden layers.
        batch_norm: Whether to standardise the input and apply scales and offsets.

    Example:
        >>> experts = InterestExperts(width=8, experts=4, units=(200, 80))
        >>> experts(tf.ones([2, 3, 8]), tf.ones([2, 3], tf.bool)).shape
        TensorShape([2, 3, 4])
    """

    def __init__(
        self,
        width: int,
        experts: int,
        units: Sequence[int],
        *,
        batch_norm: bool = True,
        name: str = "interest_experts",
    ) -> None:
        super().__init__(name=name, autocast=False)  # Normalises before the cast.
        self.experts = experts
        self._widths = [width, *units, 1]
        self.normalize = MaskedBatchNormalization() if batch_norm else None

    def build(self, shape: tf.TensorShape) -> None:
        """Creates the weights of all experts."""
        del shape
        width, experts = self._widths[0], self.experts
        if self.normalize is not None:
            self.scale_IK = self.add_weight("scale", [width, experts], initializer="ones")
            self.offset_IK = self.add_weight("offset", [width, experts], initializer="zeros")
        self.kernels, self.biases = [], []
        for i, (fan_in, fan_out) in enumerate(pairwise(self._widths)):
            # I is the first axis of the first kernel, so that it reshapes to a matrix [I, K O].
            own = [fan_in, experts, fan_out] if i == 0 else [experts, fan_in, fan_out]
            initial = glorot_uniform(fan_in, fan_out)
            self.kernels.append(self.add_weight(f"kernel_{i}", own, initializer=initial))
            self.biases.append(
                self.add_weight(f"bias_{i}", [experts, fan_out], initializer="zeros")
            )

    def layouts(self, reads: Layout) -> Layouts:
        """Layouts of the weights, for an input laid out as `reads`."""
        if self.normalize is not None:
            yield from self.normalize.layouts(reads)
            yield self.scale_IK, (reads, None)
            yield self.offset_IK, (reads, None)
        yield self.kernels[0], (reads, None, None)
        for weight in (*self.kernels[1:], *self.biases):
            yield weight, ()

    def call(self, values_BNI: tf.Tensor, mask_BN: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Scores every candidate with every expert.

        Args:
            values_BNI: Input E', see `expert_input`.
            mask_BN: Mask of the candidates that count in the statistics of the normalisation.
            training: Whether to use the statistics of the batch and update the moving averages.

        Returns:
            Scores o, [B, N, K].
        """
        batch, count = tf.shape(values_BNI)[0], tf.shape(values_BNI)[1]
        first_IKO, bias_KO = self.kernels[0], self.biases[0]
        if self.normalize is not None:
            values_BNI = self.normalize(values_BNI, mask_BN, training=training)
            bias_KO = bias_KO + tf.einsum("ik,iko->ko", self.offset_IK, first_IKO)
            first_IKO = self.scale_IK[:, :, None] * first_IKO
        values_BNI = tf.cast(values_BNI, self.compute_dtype)
        flat = tf.reshape(first_IKO, [self._widths[0], -1])
        hidden = tf.reshape(tf.tensordot(values_BNI, flat, axes=1), [-1, *bias_KO.shape]) + bias_KO
        hidden_KXO = tf.transpose(hidden, [1, 0, 2])
        for kernel, bias in zip(self.kernels[1:], self.biases[1:], strict=True):
            hidden_KXO = tf.matmul(tf.nn.relu(hidden_KXO), kernel) + bias[:, None]
        scores_BNK = tf.reshape(tf.transpose(hidden_KXO[:, :, 0]), [batch, count, self.experts])
        return tf.cast(scores_BNK, tf.float32)


def expert_input(interests_BNKD: tf.Tensor, context_BNC: tf.Tensor) -> tf.Tensor:
    """Input E' of experts: all interests and the features of a pair, [B, N, K D + C].

    Example:
        >>> expert_input(tf.ones([2, 3, 4, 8]), tf.ones([2, 3, 6])).shape  # 4 * 8 + 6
        TensorShape([2, 3, 38])
    """
    shape = tf.shape(interests_BNKD)
    width = interests_BNKD.shape[2] * interests_BNKD.shape[3]
    return tf.concat([tf.reshape(interests_BNKD, [shape[0], shape[1], width]), context_BNC], -1)
