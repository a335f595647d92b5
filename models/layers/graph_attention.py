"""Dependency-aware heterogeneous attention (DemiNet, arXiv 2109.12512, eqs 6-11).

Shapes: B requests, V views of the same history, L history length, D item width, H heads, C = D / H
head width, W window, R relations with a learned attention: earlier, later, similar; Q = R + 1
relations including the self-connection.
"""

from typing import Any, NamedTuple

from models.keras import keras, tf
from models.layers.initializers import glorot_uniform
from models.layers.item_graph import ItemGraph, shifted, window_offsets
from models.layers.masking import masked_softmax

_RELATIONS = 3
_LOWEST = -1e9
_SPREAD = 40.0


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
        *context, similar, carried_BVHLX = self._prepare(nodes_BVLD, graph.mask_BL)
        contexts = tf.unstack(graph.context_BVRWL, axis=2)
        window = graph.context_BVRWL.shape[3]
        sums = [
            _context_sums(carried_BVHLX, *sides)
            for sides in zip(context, contexts, window_offsets(window), strict=True)
        ]
        sums.append(_similarity_sums(carried_BVHLX, similar, graph.similar_BVLL))
        sums.append(tf.broadcast_to(carried_BVHLX, tf.shape(sums[-1])))
        fused_BVHLC = self._fuse(tf.stack(sums, axis=2), _reached(graph))

        shape = tf.shape(fused_BVHLC)
        fused_BVLD = tf.reshape(
            tf.transpose(fused_BVHLC, [0, 1, 3, 2, 4]),
            [shape[0], shape[1], shape[3], self.heads * self.head_width],
        )
        return tf.where(graph.mask_BL[:, None, :, None], fused_BVLD, 0.0)

    def _prepare(self, nodes_BVLD: tf.Tensor, mask_BL: tf.Tensor) -> list[Any]:
        """What depends on single nodes only.

        Returns:
            The `_PairScores` of the three relations, and what nodes send, [B, V, H, L, C + 2]: the
            node itself, W_d . h of eq. 9, and 1. Eq. 9 is linear up to its bias, so that its value
            for a message is the message of its values; and the sum of the ones is the denominator
            of eq. 7.
        """
        shape = tf.shape(nodes_BVLD)
        batch, views, length = shape[0], shape[1], shape[2]
        nodes_BVLHC = tf.reshape(nodes_BVLD, [batch, views, length, self.heads, self.head_width])
        nodes_BVHLC = tf.transpose(nodes_BVLHC, [0, 1, 3, 2, 4])

        weights = [self.receiver_RHC, self.sender_RHC, tf.expand_dims(self.relation_HC, 0)]
        # Block diagonal: the scores of a head read the slice of that head only.
        own_HH = tf.eye(self.heads, dtype=weights[0].dtype)
        kernel_HCSH = tf.einsum("shc,hg->hcsg", tf.concat(weights, axis=0), own_HH)
        kernel = tf.reshape(kernel_HCSH, [self.heads * self.head_width, -1])
        scores = tf.tensordot(nodes_BVLD, kernel, axes=1)
        scores = tf.reshape(scores, [batch, views, length, 2 * _RELATIONS + 1, self.heads])
        *pairs, relation_BVHL = tf.unstack(tf.transpose(scores, [3, 0, 1, 4, 2]))
        carried = [
            nodes_BVHLC,
            tf.expand_dims(relation_BVHL, -1),
            tf.ones_like(nodes_BVHLC)[..., :1],
        ]
        return [
            *(
                _PairScores.of(receiver_BVHL, sender_BVHL, mask_BL, self.slope)
                for receiver_BVHL, sender_BVHL in zip(
                    pairs[:_RELATIONS], pairs[_RELATIONS:], strict=True
                )
            ),
            tf.concat(carried, -1),
        ]

    def _fuse(self, sums_BVQHLX: tf.Tensor, reached_BVQL: tf.Tensor) -> tf.Tensor:
        """Eqs 9-11: weighs the relations of each node and head, and sums their messages."""
        nodes, scores, totals = tf.split(sums_BVQHLX, [self.head_width, 1, 1], axis=-1)
        scores_BVQHLX = tf.math.divide_no_nan(scores, totals)
        bias_HLX = tf.reshape(self.relation_bias_H, [-1, 1, 1])
        scores_BVQHLX = tf.nn.leaky_relu(scores_BVQHLX + bias_HLX, self.slope)
        reached_BVQHLX = reached_BVQL[:, :, :, None, :, None]
        weights_BVQHLX = masked_softmax(scores_BVQHLX, reached_BVQHLX, axis=2)
        return tf.reduce_sum(nodes * tf.math.divide_no_nan(weights_BVQHLX, totals), axis=2)


class _PairScores(NamedTuple):
    """exp(LeakyReLU(u_i + v_j)) for all pairs of nodes, factorised over the pair.

    LeakyReLU(x) = max(x, slope x), so the exponential is max(e^u_i e^v_j, e^(slope u_i) e^(slope
    v_j)): two products of vectors and a maximum in place of L x L exponentials. Each row i is
    scaled by a factor that cancels in eq. 7 and keeps all four vectors in [0, 1]. Senders that
    score more than 40 below the highest of their history count as 40 below, so that the sum over
    any neighbourhood, and its square in the gradient, stay normal float32 numbers.
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
        masked = tf.where(mask_BL[:, None, None], sender, _LOWEST)
        highest = tf.stop_gradient(tf.reduce_max(masked, axis=-1, keepdims=True))
        receiver, sender = receiver + highest, tf.clip_by_value(sender - highest, -_SPREAD, 0.0)
        scale = tf.stop_gradient(tf.nn.leaky_relu(receiver, slope))
        return cls(
            tf.exp(receiver - scale),
            tf.exp(sender),
            tf.exp(slope * receiver - scale),
            tf.exp(slope * sender),
        )


def _context_sums(
    carried_BVHLX: tf.Tensor, scores: _PairScores, context_BVWL: tf.Tensor, offsets: list[int]
) -> tf.Tensor:
    """Eqs 7-8, before the division, over the window on one side of each node."""
    terms = []
    for edges_BVL, offset in zip(tf.unstack(context_BVWL, axis=2), offsets, strict=True):
        high_BVHL = scores.high_receiver_BVHL * shifted(scores.high_sender_BVHL, offset, 3)
        low_BVHL = scores.low_receiver_BVHL * shifted(scores.low_sender_BVHL, offset, 3)
        weights_BVHL = tf.maximum(high_BVHL, low_BVHL)
        weights_BVHL *= tf.cast(edges_BVL, weights_BVHL.dtype)[:, :, None]
        weights_BVHL = tf.cast(weights_BVHL, carried_BVHLX.dtype)
        terms.append(tf.expand_dims(weights_BVHL, -1) * shifted(carried_BVHLX, offset, 3))
    return tf.add_n(terms)


def _similarity_sums(
    carried_BVHLX: tf.Tensor, scores: _PairScores, similar_BVLL: tf.Tensor
) -> tf.Tensor:
    """Eqs 7-8, before the division, over the similar nodes, wherever they are."""

    def product(receiver_BVHL: tf.Tensor, sender_BVHL: tf.Tensor) -> tf.Tensor:
        return tf.matmul(tf.expand_dims(receiver_BVHL, -1), tf.expand_dims(sender_BVHL, -2))

    weights_BVHLL = tf.maximum(
        product(scores.high_receiver_BVHL, scores.high_sender_BVHL),
        product(scores.low_receiver_BVHL, scores.low_sender_BVHL),
    )
    weights_BVHLL *= tf.cast(similar_BVLL, weights_BVHLL.dtype)[:, :, None]
    return tf.matmul(tf.cast(weights_BVHLL, carried_BVHLX.dtype), carried_BVHLX)


def _reached(graph: ItemGraph) -> tf.Tensor:
    """Whether a node has a neighbour in each relation, [B, V, Q, L]."""
    context_BVRL = tf.reduce_any(graph.context_BVRWL, axis=3)
    similar_BVL = tf.reduce_any(graph.similar_BVLL, axis=3)
    self_BVL = tf.broadcast_to(graph.mask_BL[:, None], tf.shape(similar_BVL))
    return tf.concat([context_BVRL, tf.stack([similar_BVL, self_BVL], axis=2)], axis=2)
