"""Attention scores of pairs of nodes, without a tensor of pairs of vectors.

The attention weight vector on [h_i || h_j] (DemiNet, arXiv 2109.12512, eq. 6; graph attention
networks, Velickovic et al., 2018) consists of a half for the receiving node i and one for the
sending node j, so that a score is LeakyReLU(u_i + v_j).

Shapes: B requests, V views of the same history, H heads, L history length.
"""

from collections.abc import Callable
from typing import NamedTuple

from models.keras import tf
from models.layers.graph.item_graph import shifted

_LOWEST = -1e9
_SPREAD = 40.0


class PairScores(NamedTuple):
    """The numerators exp(LeakyReLU(u_i + v_j)) of a softmax over the neighbours j.

    Each row i is scaled by a factor that cancels in the softmax and keeps every numerator in
    [0, 1]. Sender scores are clipped to 40 below the highest of their history, so that the sum over
    any neighbourhood, and its square in the gradient, are normal float32 numbers.

    Attributes:
        receiver_BVHL: Receiver scores u plus the highest v of the history; float32.
        sender_BVHL: Sender scores v minus the highest v of the history.
        slope: Slope of LeakyReLU for negative inputs.

    Example:
        >>> zeros_BVHL = tf.zeros([1, 1, 1, 3])
        >>> pairs = PairScores.of(zeros_BVHL, zeros_BVHL, tf.ones([1, 3], tf.bool), slope=0.2)
        >>> edges_BVLL = tf.constant([[[[True, True, True], [True, False, False], [False] * 3]]])
        >>> pairs.messages(tf.ones([1, 1, 1, 1, 3]), edges_BVLL)[0, 0, 0].numpy()  # Counts them.
        array([[3., 1., 0.]], dtype=float32)
    """

    receiver_BVHL: tf.Tensor
    sender_BVHL: tf.Tensor
    slope: float

    @classmethod
    def of(
        cls, receiver_BVHL: tf.Tensor, sender_BVHL: tf.Tensor, mask_BL: tf.Tensor, slope: float
    ) -> "PairScores":
        """Creates it from scores u and v in float32; the highest v is that of valid events."""
        masked_BVHL = tf.where(mask_BL[:, None, None], sender_BVHL, _LOWEST)
        highest = tf.stop_gradient(tf.reduce_max(masked_BVHL, axis=-1, keepdims=True))
        sender_BVHL = tf.clip_by_value(sender_BVHL - highest, -_SPREAD, 0.0)
        return cls(receiver_BVHL + highest, sender_BVHL, slope)

    def with_neighbour(self, offset: int, edges_BVL: tf.Tensor) -> tf.Tensor:
        """Numerators for the neighbour at one offset from each node, [B, V, H, L].

        Args:
            offset: Offset of the neighbour; negative for earlier ones.
            edges_BVL: Whether a node receives from this neighbour.
        """
        scores_BVHL = self.receiver_BVHL + shifted(self.sender_BVHL, offset, 3)
        exponents_BVHL = tf.nn.leaky_relu(scores_BVHL, self.slope) - self._scale()
        return tf.exp(exponents_BVHL) * tf.cast(edges_BVL, tf.float32)[:, :, None]

    def messages(self, sent_BVHCL: tf.Tensor, edges_BVLL: tf.Tensor) -> tf.Tensor:
        """Sums the sent values weighted by numerators, [B, V, H, C, L] with the V of the edges.

        The views are computed one by one: tensors over all pairs are the largest of a model, and
        those of one view are more likely to stay in the processor's cache.

        Args:
            sent_BVHCL: Values that each node sends; V is that of the scores: 1, or that of the
                edges.
            edges_BVLL: Whether node i (third axis) receives from node j (last axis).
        """
        edges = tf.unstack(tf.cast(edges_BVLL, tf.float32)[:, :, None], axis=1)
        sent = tf.unstack(sent_BVHCL, axis=1)
        numerators = [
            _numerators(receiver_BHL, sender_BHL, scale_BHL, self.slope)
            for receiver_BHL, sender_BHL, scale_BHL in zip(
                tf.unstack(self.receiver_BVHL, axis=1),
                tf.unstack(self.sender_BVHL, axis=1),
                tf.unstack(self._scale(), axis=1),
                strict=True,
            )
        ]
        if len(numerators) == 1:  # All views have the same nodes.
            sent, numerators = sent * len(edges), numerators * len(edges)
        received = [
            tf.matmul(sent_BHCL, all_BHLL * edges_B1LL, transpose_b=True)
            for sent_BHCL, all_BHLL, edges_B1LL in zip(sent, numerators, edges, strict=True)
        ]
        return tf.stack(received, axis=1)

    def _scale(self) -> tf.Tensor:
        """The score of each row's receiver with the highest sender, [B, V, H, L]."""
        return tf.stop_gradient(tf.nn.leaky_relu(self.receiver_BVHL, self.slope))


def _numerators(
    receiver_BHL: tf.Tensor, sender_BHL: tf.Tensor, scale_BHL: tf.Tensor, slope: float
) -> tf.Tensor:
    """exp(LeakyReLU(u_i + v_j) - s_i) for all pairs of nodes in few passes, [B, H, L, L].

    LeakyReLU(x) = max(x, slope x), so the exponential is max(e^u_i e^v_j, e^(slope u_i) e^(slope
    v_j)): two products of vectors and a maximum in place of L x L exponentials. The gradient is
    explicit: with respect to the score it is the numerator itself, which the caller keeps anyway,
    times 1 or the slope, so that no intermediate tensor is stored or differentiated.
    """

    @tf.custom_gradient
    def numerators(
        receiver_BHL: tf.Tensor, sender_BHL: tf.Tensor
    ) -> tuple[tf.Tensor, Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]]:
        high_BHLL = _products(tf.exp(receiver_BHL - scale_BHL), tf.exp(sender_BHL))
        low_BHLL = _products(tf.exp(slope * receiver_BHL - scale_BHL), tf.exp(slope * sender_BHL))
        values_BHLL = tf.maximum(high_BHLL, low_BHLL)

        def gradient(upstream_BHLL: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            by_sum_BHLL = tf.raw_ops.LeakyReluGrad(
                gradients=upstream_BHLL * values_BHLL,
                features=_sums(receiver_BHL, sender_BHL),
                alpha=slope,
            )
            return tf.reduce_sum(by_sum_BHLL, -1), tf.reduce_sum(by_sum_BHLL, -2)

        return values_BHLL, gradient

    return numerators(receiver_BHL, sender_BHL)


def _products(receiver_BHL: tf.Tensor, sender_BHL: tf.Tensor) -> tf.Tensor:
    """Products r_i s_j of all pairs, as a matrix product, which is faster than broadcasting."""
    return tf.matmul(tf.expand_dims(receiver_BHL, -1), tf.expand_dims(sender_BHL, -2))


def _sums(receiver_BHL: tf.Tensor, sender_BHL: tf.Tensor) -> tf.Tensor:
    """Sums r_i + s_j of all pairs, as a matrix product, which is faster than broadcasting."""
    ones_BHL = tf.ones_like(receiver_BHL)
    return tf.matmul(tf.stack([receiver_BHL, ones_BHL], -1), tf.stack([ones_BHL, sender_BHL], -2))
