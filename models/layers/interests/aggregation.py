"""Weights of the interest experts (DemiNet, arXiv 2109.12512, eq. 14 and Table 2).

Every aggregation is a layer `(interests_BNKD, context_BNC, training) -> weights`. The weights of
the experts, [B, N, K], sum to 1 and average their scores (eq. 15). The method `layouts` yields the
layouts of the layer's weights, given the layouts of an interest and of the features of a pair.

Shapes: B requests, N candidates, K interests and experts, D item width, C width of the features of
a pair of user and candidate.
"""

import math
from collections.abc import Sequence

from models.keras import keras, tf
from models.layers.initializers import glorot_uniform
from models.layers.interests.experts import expert_input
from models.layers.mlp import MLP
from models.ops.weight_layouts import Layout, Layouts, hidden, of_dense

AGGREGATIONS = ("confidence", "average", "hard_routing", "moe", "single")


def aggregation_layer(
    aggregation: str,
    *,
    width: int,
    context_width: int,
    interests: int,
    units: Sequence[int],
    temperature: float | None = None,
) -> keras.layers.Layer:
    """Builds the aggregation with the given name.

    Args:
        aggregation: One of `AGGREGATIONS`; "single" is for one expert only.
        width: Item width D.
        context_width: Width C of the features of a pair.
        interests: Number K of interests.
        units: Hidden widths of Confi-Net.
        temperature: Temperature of Confi-Net; None for sqrt(D).

    Example:
        >>> layer = aggregation_layer("average", width=8, context_width=6, interests=4, units=(80,))
        >>> layer(tf.ones([2, 3, 4, 8]), tf.ones([2, 3, 6]))[0, 0].numpy()
        array([0.25, 0.25, 0.25, 0.25], dtype=float32)
    """
    if aggregation == "single":
        return EqualWeights(1)
    if aggregation == "average":
        return EqualWeights(interests)
    if aggregation == "moe":
        return ExpertGate(interests)
    network = {"confidence": ConfidenceNetwork, "hard_routing": HardRouting}[aggregation]
    return network(width, context_width, interests, units, temperature)


class ConfidenceNetwork(keras.layers.Layer):
    """Confi-Net: weights experts by how well their interests fit their prototypes (eq. 14).

    One three-layer network, shared by the interests, maps [v_k || c] to c_k; the confidence of
    expert k is the softmax over k of c_k . p_k / temperature with its trainable prototype p_k.

    Args:
        width: Item width D.
        context_width: Width C of the context c.
        experts: Number K of experts.
        units: Widths of the hidden layers.
        temperature: Divisor of the scores; None for sqrt(D) of the paper.

    Example:
        >>> layer = ConfidenceNetwork(width=8, context_width=6, experts=4, units=(80, 40))
        >>> layer(tf.ones([2, 3, 4, 8]), tf.ones([2, 3, 6])).shape
        TensorShape([2, 3, 4])
    """

    def __init__(
        self,
        width: int,
        context_width: int,
        experts: int,
        units: Sequence[int],
        temperature: float | None = None,
        name: str = "confidence",
    ) -> None:
        super().__init__(name=name)
        # The first layer has two parts, because c is the same for all K interests.
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
        self.factor = 1.0 / (temperature or math.sqrt(width))
        self._shape = [experts, width]

    def build(self, shape: tf.TensorShape) -> None:
        """Creates the prototypes of the experts."""
        del shape
        self.prototypes_KD = self.add_weight(
            "prototypes",
            self._shape,
            initializer=keras.initializers.RandomNormal(stddev=1.0 / math.sqrt(self._shape[1])),
        )

    def layouts(self, interest: Layout, context: Layout) -> Layouts:
        """Layouts of the weights. See the module docstring."""
        combined = hidden(self._shape[1])
        yield from of_dense(self.interest_half, interest, None)
        yield from of_dense(self.context_half, context, None)
        yield from self.rest.layouts(hidden(self.context_half.units), combined)
        yield self.prototypes_KD, (None, combined)

    def call(
        self, interests_BNKD: tf.Tensor, context_BNC: tf.Tensor, training: bool = False
    ) -> tf.Tensor:
        """Confidences omega, [B, N, K], summing to 1.

        Args:
            interests_BNKD: Interests v_k.
            context_BNC: Context c, the features of the pair.
            training: Whether this is a training step.
        """
        del training
        context = self.context_half(context_BNC)[:, :, None]
        combined_BNKD = self.rest(tf.nn.relu(self.interest_half(interests_BNKD) + context))
        fit_BNK = tf.reduce_sum(combined_BNKD * self.prototypes_KD, -1) * self.factor
        return tf.nn.softmax(tf.cast(fit_BNK, tf.float32))


class HardRouting(ConfidenceNetwork):
    """Hard-Routing of Table 2: Confi-Net in training; only the most trusted expert at inference.

    Of equally trusted experts, the first one is used.

    Example:
        >>> layer = HardRouting(width=8, context_width=6, experts=4, units=(80, 40))
        >>> layer(tf.zeros([2, 3, 4, 8]), tf.zeros([2, 3, 6]))[0, 0].numpy()
        array([1., 0., 0., 0.], dtype=float32)
    """

    def call(
        self, interests_BNKD: tf.Tensor, context_BNC: tf.Tensor, training: bool = False
    ) -> tf.Tensor:
        """Weights of the base class in training; one-hot weights at inference."""
        weights_BNK = super().call(interests_BNKD, context_BNC)
        if training:
            return weights_BNK
        return tf.one_hot(
            tf.argmax(weights_BNK, -1), weights_BNK.shape[-1], dtype=weights_BNK.dtype
        )


class EqualWeights(keras.layers.Layer):
    """Multi-Avg of Table 2: equal weights, so that logits, not probabilities, are averaged.

    Args:
        experts: Number K of experts.

    Example:
        >>> EqualWeights(experts=4)(tf.ones([2, 3, 4, 8]), tf.ones([2, 3, 6]))[0, 0].numpy()
        array([0.25, 0.25, 0.25, 0.25], dtype=float32)
    """

    def __init__(self, experts: int, name: str = "equal_weights") -> None:
        super().__init__(name=name)
        self.experts = experts

    def layouts(self, interest: Layout, context: Layout) -> Layouts:
        """Layouts of the weights: there are none."""
        del interest, context
        yield from ()

    def call(
        self, interests_BNKD: tf.Tensor, context_BNC: tf.Tensor, training: bool = False
    ) -> tf.Tensor:
        """Equal weights [B, N, K]."""
        del interests_BNKD, training
        shape = tf.shape(context_BNC)
        return tf.fill([shape[0], shape[1], self.experts], 1.0 / self.experts)


class ExpertGate(keras.layers.Layer):
    """MoE of Table 2 (Ma et al., 2018): a softmax over a linear gate on the experts' input.

    Args:
        experts: Number K of experts.

    Example:
        >>> ExpertGate(experts=4)(tf.ones([2, 3, 4, 8]), tf.ones([2, 3, 6])).shape
        TensorShape([2, 3, 4])
    """

    def __init__(self, experts: int, name: str = "expert_gate") -> None:
        super().__init__(name=name, dtype="float32")
        self.gate = keras.layers.Dense(experts, use_bias=False, dtype="float32", name="gate")

    def layouts(self, interest: Layout, context: Layout) -> Layouts:
        """Layouts of the weights. See the module docstring."""
        yield from of_dense(self.gate, interest * self.gate.units + context, None)

    def call(
        self, interests_BNKD: tf.Tensor, context_BNC: tf.Tensor, training: bool = False
    ) -> tf.Tensor:
        """Gates [B, N, K]; see `ConfidenceNetwork.call`."""
        del training
        scores_BNK = self.gate(expert_input(interests_BNKD, context_BNC))
        return tf.nn.softmax(scores_BNK)
