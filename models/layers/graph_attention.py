"""Dependency-aware heterogeneous attention (DemiNet, arXiv 2109.12512, eqs 6-11).

Shapes: B requests, V views of the same history, L history length, D item width, H heads, C = D / H
head width, W window, R relations with a learned attention: earlier, later, similar; Q = R + 1
relations including the self-connection.
"""

from typing import NamedTuple

from models.keras import keras, tf
from models.layers.initializers import glorot_uniform
from models.layers.item_graph import ItemGraph, shifted, window_offsets
from models.layers.masking import masked_softmax

_RELATIONS = 3


class DependencyAttention(keras.layers.Layer):
    """One layer of message passing on an item graph.

    Nodes attend to their neighbours within each relation (eqs 6-8), then to the relations (eqs
    9-11), both per head. The weight vector of eq. 6 on [h_i || h_j] is kept as its two halves, so
    that a score is u_i + v_j and no pair is ever concatenated. A relation in which a node has no
    neighbour takes no part in eq. 10; the self-connection always does, and needs no weights in eq.
    6 because a softmax over one element is 1. Heads stay apart until eq. 11 concatenates them.

    Args:
        width: D.
        heads: H, a divisor of D.
        project: Whether heads are slices of a learned projection of the nodes, shared by the
            relations, or of the nodes themselves.
        slope: Of LeakyReLU on its negative side.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        project: bool = True,
        slope: float = 0.2,
        name: str = "dependency_attention",
    ) -> None:
        super().__init__(name=name)
        self.heads, self.head_width, self.slope = heads, width // heads, slope
        self.project = (
            keras.layers.Dense(width, use_bias=False, name="project") if project else None
        )
        # W_n of eq. 6: the half for the receiving node, then the half for the sending one.
        shape = [_RELATIONS, heads, self.head_width]
        fans = 2 * self.head_width, 1
        self.receiver_RHC = self.add_weight("receiver", shape, initializer=glorot_uniform(*fans))
        self.sender_RHC = self.add_weight("sender", shape, initializer=glorot_uniform(*fans))
        # W_d and b_d of eq. 9.
        self.relation_HC = self.add_weight(
            "relation", shape[1:], initializer=glorot_uniform(self.head_width, 1)
        )
        self.relation_bias_H = self.add_weight("relation_bias", [heads], initializer="zeros")

    def call(self, nodes_BVLD: tf.Tensor, graph: ItemGraph) -> tf.Tensor:
        """Passes messages once.

        Args:
            nodes_BVLD: Nodes; V may be 1 while the graph has more views, which then share all work
                on nodes alone.
            graph: From which nodes each node receives.

        Returns:
            h' of eq. 11, [B, V, L, D] with the V of the graph; 0 at padding.
        """
        if self.project is not None:
            nodes_BVLD = self.project(nodes_BVLD)
        shape = tf.shape(nodes_BVLD)
        batch, views, length = shape[0], shape[1], shape[2]
        nodes_BVLHC = tf.reshape(nodes_BVLD, [batch, views, length, self.heads, self.head_width])
        nodes_BVHLC = tf.transpose(nodes_BVLHC, [0, 1, 3, 2, 4])

        *context, similar = self._scores(nodes_BVLD, graph.mask_BL)
        contexts = tf.unstack(graph.context_BVRWL, axis=2)
        window = graph.context_BVRWL.shape[3]
        messages = [
            _context_messages(nodes_BVHLC, *sides)
            for sides in zip(context, contexts, window_offsets(window), strict=True)
        ]
        messages.append(_similarity_messages(nodes_BVHLC, similar, graph.similar_BVLL))
        messages.append(tf.broadcast_to(nodes_BVHLC, tf.shape(messages[-1])))
        fused_BVHLC = self._fuse(tf.stack(messages, axis=2), _reached(graph))

        fused_BVLHC = tf.transpose(fused_BVHLC, [0, 1, 3, 2, 4])
        fused_BVLD = tf.reshape(fused_BVLHC, [batch, -1, length, self.heads * self.head_width])
        return tf.where(graph.mask_BL[:, None, :, None], fused_BVLD, 0.0)

    def _scores(self, nodes_BVLD: tf.Tensor, mask_BL: tf.Tensor) -> list["_PairScores"]:
        """Eq. 6 for every relation, from one product with all weight vectors."""
        weights_SHC = tf.concat([self.receiver_RHC, self.sender_RHC], axis=0)
        # Block diagonal: the scores of a head read the slice of that head only.
        own_HH = tf.eye(self.heads, dtype=weights_SHC.dtype)
        kernel = tf.einsum("shc,hg->hcsg", weights_SHC, own_HH)
        kernel = tf.reshape(kernel, [self.heads * self.head_width, -1])
        shape = tf.shape(nodes_BVLD)
        scores = tf.tensordot(nodes_BVLD, kernel, axes=1)
        scores = tf.reshape(scores, [shape[0], shape[1], shape[2], 2 * _RELATIONS, self.heads])
        scores = tf.unstack(tf.transpose(scores, [3, 0, 1, 4, 2]))
        return [
            _PairScores.of(receiver_BVHL, sender_BVHL, mask_BL, self.slope)
            for receiver_BVHL, sender_BVHL in zip(
                scores[:_RELATIONS], scores[_RELATIONS:], strict=True
            )
        ]

    def _fuse(self, messages_BVQHLC: tf.Tensor, reached_BVQL: tf.Tensor) -> tf.Tensor:
        """Eqs 9-11: weighs the relations of each node and head, and sums their messages."""
        scores_BVQHL = tf.reduce_sum(messages_BVQHLC * tf.expand_dims(self.relation_HC, 1), axis=-1)
        bias = tf.expand_dims(self.relation_bias_H, 1)
        scores_BVQHL = tf.nn.leaky_relu(scores_BVQHL + bias, self.slope)
        weights_BVQHL = masked_softmax(scores_BVQHL, reached_BVQL[:, :, :, None], axis=2)
        return tf.reduce_sum(messages_BVQHLC * tf.expand_dims(weights_BVQHL, -1), axis=2)


class _PairScores(NamedTuple):
    """exp(LeakyReLU(u_i + v_j)) for all pairs of nodes, factorised over the pair.

    LeakyReLU(x) = max(x, slope x), so the exponential is max(e^u_i e^v_j, e^(slope u_i) e^(slope
    v_j)): two products of vectors and a maximum in place of L x L exponentials. Each row i is
    scaled by a factor that cancels in eq. 7 and keeps all four vectors in [0, 1]. Padded senders
    are 0.
    """

    high_receiver_BVHL: tf.Tensor
    high_sender_BVHL: tf.Tensor
    low_receiver_BVHL: tf.Tensor
    low_sender_BVHL: tf.Tensor

    @classmethod
    def of(
        cls, receiver_BVHL: tf.Tensor, sender_BVHL: tf.Tensor, mask_BL: tf.Tensor, slope: float
    ) -> "_PairScores":
        """Factorises scores u and v, in float32."""
        receiver, sender = tf.cast(receiver_BVHL, tf.float32), tf.cast(sender_BVHL, tf.float32)
        sender = tf.where(mask_BL[:, None, None], sender, -1e9)
        highest = tf.stop_gradient(tf.reduce_max(sender, axis=-1, keepdims=True))
        receiver, sender = receiver + highest, sender - highest
        scale = tf.stop_gradient(tf.nn.leaky_relu(receiver, slope))
        return cls(
            tf.exp(receiver - scale),
            tf.exp(sender),
            tf.exp(slope * receiver - scale),
            tf.exp(slope * sender),
        )


def _context_messages(
    nodes_BVHLC: tf.Tensor, scores: _PairScores, context_BVWL: tf.Tensor, offsets: list[int]
) -> tf.Tensor:
    """Eqs 7-8 over the window on one side of each node."""
    weights, messages = [], []
    for edges_BVL, offset in zip(tf.unstack(context_BVWL, axis=2), offsets, strict=True):
        high_BVHL = scores.high_receiver_BVHL * shifted(scores.high_sender_BVHL, offset, 3)
        low_BVHL = scores.low_receiver_BVHL * shifted(scores.low_sender_BVHL, offset, 3)
        weights_BVHL = tf.maximum(high_BVHL, low_BVHL)
        edges = tf.cast(edges_BVL, weights_BVHL.dtype)[:, :, None]
        weights.append(tf.cast(weights_BVHL * edges, nodes_BVHLC.dtype))
        messages.append(tf.expand_dims(weights[-1], -1) * shifted(nodes_BVHLC, offset, 3))
    return tf.math.divide_no_nan(tf.add_n(messages), tf.expand_dims(tf.add_n(weights), -1))


def _similarity_messages(
    nodes_BVHLC: tf.Tensor, scores: _PairScores, similar_BVLL: tf.Tensor
) -> tf.Tensor:
    """Eqs 7-8 over the similar nodes, wherever they are."""

    def product(receiver_BVHL: tf.Tensor, sender_BVHL: tf.Tensor) -> tf.Tensor:
        return tf.matmul(tf.expand_dims(receiver_BVHL, -1), tf.expand_dims(sender_BVHL, -2))

    weights_BVHLL = tf.maximum(
        product(scores.high_receiver_BVHL, scores.high_sender_BVHL),
        product(scores.low_receiver_BVHL, scores.low_sender_BVHL),
    )
    weights_BVHLL *= tf.cast(similar_BVLL, weights_BVHLL.dtype)[:, :, None]
    weights_BVHLL = tf.cast(weights_BVHLL, nodes_BVHLC.dtype)
    # A column of ones beside the nodes makes the same product sum the weights.
    ones = tf.ones_like(nodes_BVHLC[..., :1])
    sums = tf.matmul(weights_BVHLL, tf.concat([nodes_BVHLC, ones], -1))
    messages, totals = tf.split(sums, [nodes_BVHLC.shape[-1], 1], axis=-1)
    return tf.math.divide_no_nan(messages, totals)


def _reached(graph: ItemGraph) -> tf.Tensor:
    """Whether a node has a neighbour in each relation, [B, V, Q, L]."""
    context_BVRL = tf.reduce_any(graph.context_BVRWL, axis=3)
    similar_BVL = tf.reduce_any(graph.similar_BVLL, axis=3)
    self_BVL = tf.broadcast_to(graph.mask_BL[:, None], tf.shape(similar_BVL))
    return tf.concat([context_BVRL, tf.stack([similar_BVL, self_BVL], axis=2)], axis=2)
