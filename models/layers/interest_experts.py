"""Interest experts and the network that says how far to trust each (DemiNet, eqs 14-15).

The equations are those of arXiv 2109.12512.

Shapes: B requests, N candidates, K interests and experts, D item width, I width of an expert's
input, O width of a layer.
"""

import math
from collections.abc import Sequence

from models.keras import keras, tf
from models.layers.initializers import glorot_uniform
from models.layers.mlp import MLP
from models.layers.normalization import MaskedBatchNormalization


class InterestExperts(keras.layers.Layer):
    """K scorers of the same input: batch normalisation, then a ReLU network, each with own weights.

    The statistics of the K batch normalisations are the same, since their input is; only their
    scales and offsets differ. So the input is standardised once, and scale and offset are folded
    into the first kernel of each expert, which makes the first layers of all experts one product.

    Args:
        width: I.
        experts: K.
        units: Widths of the hidden layers.
    """

    def __init__(
        self, width: int, experts: int, units: Sequence[int], name: str = "interest_experts"
    ) -> None:
        super().__init__(name=name)
        self.experts = experts
        self.normalize = MaskedBatchNormalization()
        self.scale_IK = self.add_weight("scale", [width, experts], initializer="ones")
        self.offset_IK = self.add_weight("offset", [width, experts], initializer="zeros")
        self.kernels, self.biases = [], []
        widths = [width, *units, 1]
        for i, (fan_in, fan_out) in enumerate(zip(widths[:-1], widths[1:], strict=True)):
            # The first kernel keeps I first, so that it is a plain [I, K O] matrix.
            shape = [fan_in, experts, fan_out] if i == 0 else [experts, fan_in, fan_out]
            initial = glorot_uniform(fan_in, fan_out)
            self.kernels.append(self.add_weight(f"kernel_{i}", shape, initializer=initial))
            self.biases.append(
                self.add_weight(f"bias_{i}", [experts, fan_out], initializer="zeros")
            )

    def call(self, values_BNI: tf.Tensor, mask_BN: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Scores every candidate with every expert.

        Args:
            values_BNI: E', the flattened interests and the features of the pair.
            mask_BN: Candidates that count in the statistics of the normalisation.
            training: Whether to use (and remember) the statistics of the batch.

        Returns:
            o, [B, N, K].
        """
        batch, count = tf.shape(values_BNI)[0], tf.shape(values_BNI)[1]
        values_BNI = self.normalize(values_BNI, mask_BN, training=training)
        first_IKO = self.kernels[0]
        bias_KO = self.biases[0] + tf.einsum("ik,iko->ko", self.offset_IK, first_IKO)
        folded_IKO = self.scale_IK[:, :, None] * first_IKO
        flat = tf.reshape(folded_IKO, [first_IKO.shape[0], -1])
        hidden = tf.reshape(tf.tensordot(values_BNI, flat, axes=1), [-1, *bias_KO.shape]) + bias_KO
        hidden_KXO = tf.transpose(hidden, [1, 0, 2])
        for kernel, bias in zip(self.kernels[1:], self.biases[1:], strict=True):
            hidden_KXO = tf.matmul(tf.nn.relu(hidden_KXO), kernel) + bias[:, None]
        return tf.reshape(tf.transpose(hidden_KXO[:, :, 0]), [batch, count, self.experts])


class ConfidenceNetwork(keras.layers.Layer):
    """Confi-Net: how well each interest fits the expert that speaks for it (eq. 14).

    One three-layer network, shared by the interests, maps [v_k || c] to c_k; the confidence of
    expert k is the softmax over k of c_k . p_k / sqrt(D) with its trainable prototype p_k.

    Args:
        width: D.
        context_width: Width of c.
        experts: K.
        units: Widths of the hidden layers.
    """

    def __init__(
        self,
        width: int,
        context_width: int,
        experts: int,
        units: Sequence[int],
        name: str = "confidence",
    ) -> None:
        super().__init__(name=name)
        # The first layer in two parts: c is the same for all K interests.
        fan_in = width + context_width
        self.interest_half = keras.layers.Dense(
            units[0],
            use_bias=False,
            kernel_initializer=glorot_uniform(fan_in, units[0]),
            name="interest_half",
        )
        self.context_half = keras.layers.Dense(
            units[0], kernel_initializer=glorot_uniform(fan_in, units[0]), name="context_half"
        )
        self.rest = MLP([*units[1:], width], name="rest")
        self.factor = 1.0 / math.sqrt(width)
        self.prototypes_KD = self.add_weight(
            "prototypes",
            [experts, width],
            initializer=keras.initializers.RandomNormal(stddev=self.factor),
        )

    def call(self, interests_BNKD: tf.Tensor, context_BNC: tf.Tensor) -> tf.Tensor:
        """Confidences omega, [B, N, K], summing to 1.

        Args:
            interests_BNKD: v_k.
            context_BNC: c, the features of the pair.
        """
        context = self.context_half(context_BNC)[:, :, None]
        combined_BNKD = self.rest(tf.nn.relu(self.interest_half(interests_BNKD) + context))
        fit_BNK = tf.reduce_sum(combined_BNKD * self.prototypes_KD, -1) * self.factor
        return tf.nn.softmax(fit_BNK)
