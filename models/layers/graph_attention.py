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
        nodes_BVHLC, own_BVHL, scores = self._prepare(nodes_BVLD, graph.mask_BL)
        context = _context_weights(scores[:-1], graph.context_BVRWL)
        similar_BVHLL = _similarity_weights(scores[-1], graph.similar_BVLL)

        # W_d . h of eq. 9 is linear, so its value for a message is the message of its values; and
        # the message of ones is the denominator of eq. 7.
        ones_BVHL = tf.ones_like(own_BVHL)
        sent = [nodes_BVHLC, tf.expand_dims(own_BVHL, -1), tf.expand_dims(ones_BVHL, -1)]
        received = tf.matmul(similar_BVHLL, tf.concat(sent, -1))
        similar_BVHLC, *similar = tf.split(received, [self.head_width, 1, 1], axis=-1)
        own = [_context_sum(side, own_BVHL) for side in context]
        own += [tf.squeeze(similar[0], -1), own_BVHL]
        totals = [tf.add_n(list(side.values())) for side in context]
        totals += [tf.squeeze(similar[1], -1), ones_BVHL]
        *sides, similar_share, self_share = self._shares(own, totals, _reached(graph))

        # Eqs 8 and 11 in one sum: the share of a relation scales its weights, before they meet the
        # nodes wherever there are few of them.
        scaled = [
            {offset: weights_BVHL * share_BVHL for offset, weights_BVHL in side.items()}
            for side, share_BVHL in zip(context, sides, strict=True)
        ]
        fused_BVHLC = tf.add_n(
            [
                *(_context_sum(side, nodes_BVHLC) for side in scaled),
                tf.expand_dims(similar_share, -1) * similar_BVHLC,
                tf.expand_dims(self_share, -1) * nodes_BVHLC,
            ]
        )
        shape = tf.shape(fused_BVHLC)
        fused_BVLD = tf.reshape(
            tf.transpose(fused_BVHLC, [0, 1, 3, 2, 4]),
            [shape[0], shape[1], shape[3], self.heads * self.head_width],
        )
        return tf.where(graph.mask_BL[:, None, :, None], fused_BVLD, 0.0)

    def _prepare(
        self, nodes_BVLD: tf.Tensor, mask_BL: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, list["_PairScores"]]:
        """What depends on single nodes only.

        Returns:
            The heads of the nodes [B, V, H, L, C], W_d . h of eq. 9 for each [B, V, H, L], and the
            scores of eq. 6 for each of the three relations.
        """
        shape = tf.shape(nodes_BVLD)
        batch, views, length = shape[0], shape[1], shape[2]
        nodes_BVLHC = tf.reshape(nodes_BVLD, [batch, views, length, self.heads, self.head_width])
        weights = [self.receiver_RHC, self.sender_RHC, tf.expand_dims(self.relation_HC, 0)]
        # Block diagonal: the scores of a head read the slice of that head only.
        own_HH = tf.eye(self.heads, dtype=weights[0].dtype)
        kernel_HCSH = tf.einsum("shc,hg->hcsg", tf.concat(weights, axis=0), own_HH)
        kernel = tf.reshape(kernel_HCSH, [self.heads * self.head_width, -1])
        scores = tf.tensordot(nodes_BVLD, kernel, axes=1)
        scores = tf.reshape(scores, [batch, views, length, 2 * _RELATIONS + 1, self.heads])
        *scores, own_BVHL = tf.unstack(tf.transpose(scores, [3, 0, 1, 4, 2]))
        pairs = [
            _PairScores.of(receiver_BVHL, sender_BVHL, mask_BL, self.slope)
            for receiver_BVHL, sender_BVHL in zip(
                scores[:_RELATIONS], scores[_RELATIONS:], strict=True
            )
        ]
        return tf.transpose(nodes_BVLHC, [0, 1, 3, 2, 4]), own_BVHL, pairs

    def _shares(
        self, own: list[tf.Tensor], totals: list[tf.Tensor], reached_BVQL: tf.Tensor
    ) -> list[tf.Tensor]:
        """Eqs 9-10: weight of each relation, divided by the denominator of eq. 7.

        Args:
            own: For each relation the sum of W_d . h over what a node receives, [B, V, H, L].
            totals: For each relation the sum of the weights, likewise.
            reached_BVQL: Whether a node has neighbours.

        Returns:
            [B, V, H, L] for each relation.
        """
        shape = tf.shape(own[_RELATIONS - 1])

        def stack(values: list[tf.Tensor]) -> tf.Tensor:
            # What a node sends to itself may be the same for all views.
            return tf.stack([tf.broadcast_to(value, shape) for value in values], axis=2)

        totals_BVQHL = stack(totals)
        scores_BVQHL = tf.math.divide_no_nan(stack(own), totals_BVQHL)
        scores_BVQHL += tf.expand_dims(self.relation_bias_H, -1)
        weights_BVQHL = masked_softmax(
            tf.nn.leaky_relu(scores_BVQHL, self.slope), reached_BVQL[:, :, :, None], axis=2
        )
        return tf.unstack(tf.math.divide_no_nan(weights_BVQHL, totals_BVQHL), axis=2)


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
        """Factorises scores u and v, computing in float32 whatever their type."""
        dtype = receiver_BVHL.dtype
        receiver, sender = tf.cast(receiver_BVHL, tf.float32), tf.cast(sender_BVHL, tf.float32)
        masked = tf.where(mask_BL[:, None, None], sender, _LOWEST)
        highest = tf.stop_gradient(tf.reduce_max(masked, axis=-1, keepdims=True))
        receiver, sender = receiver + highest, tf.clip_by_value(sender - highest, -_SPREAD, 0.0)
        scale = tf.stop_gradient(tf.nn.leaky_relu(receiver, slope))
        exponents = receiver - scale, sender, slope * receiver - scale, slope * sender
        return cls(*(tf.cast(tf.exp(exponent), dtype) for exponent in exponents))


def _context_weights(
    scores: list[_PairScores], context_BVRWL: tf.Tensor
) -> list[dict[int, tf.Tensor]]:
    """Numerators of eq. 7 on either side of each node: offset of the neighbour -> [B, V, H, L]."""
    offsets_RW = window_offsets(context_BVRWL.shape[3])
    context = []
    for pair, offsets, edges_BVWL in zip(
        scores, offsets_RW, tf.unstack(context_BVRWL, axis=2), strict=True
    ):
        side = {}
        for offset, edges_BVL in zip(offsets, tf.unstack(edges_BVWL, axis=2), strict=True):
            high_BVHL = pair.high_receiver_BVHL * shifted(pair.high_sender_BVHL, offset, 3)
            low_BVHL = pair.low_receiver_BVHL * shifted(pair.low_sender_BVHL, offset, 3)
            edges = tf.cast(edges_BVL, high_BVHL.dtype)[:, :, None]
            side[offset] = tf.maximum(high_BVHL, low_BVHL) * edges
        context.append(side)
    return context


def _context_sum(side: dict[int, tf.Tensor], values: tf.Tensor) -> tf.Tensor:
    """Sum over one side of each node of the weights times [B, V, H, L] or [B, V, H, L, C]."""
    terms = []
    for offset, weights_BVHL in side.items():
        weights = weights_BVHL if values.shape.rank == 4 else tf.expand_dims(weights_BVHL, -1)
        terms.append(weights * shifted(values, offset, 3))
    return tf.add_n(terms)


def _similarity_weights(pair: _PairScores, similar_BVLL: tf.Tensor) -> tf.Tensor:
    """Numerators of eq. 7 for all pairs of nodes, 0 where they are not similar, [B, V, H, L, L]."""

    def product(receiver_BVHL: tf.Tensor, sender_BVHL: tf.Tensor) -> tf.Tensor:
        return tf.matmul(tf.expand_dims(receiver_BVHL, -1), tf.expand_dims(sender_BVHL, -2))

    weights_BVHLL = tf.maximum(
        product(pair.high_receiver_BVHL, pair.high_sender_BVHL),
        product(pair.low_receiver_BVHL, pair.low_sender_BVHL),
    )
    return weights_BVHLL * tf.cast(similar_BVLL, weights_BVHLL.dtype)[:, :, None]


def _reached(graph: ItemGraph) -> tf.Tensor:
    """Whether a node has a neighbour in each relation, [B, V, Q, L]."""
    context_BVRL = tf.reduce_any(graph.context_BVRWL, axis=3)
    similar_BVL = tf.reduce_any(graph.similar_BVLL, axis=3)
    self_BVL = tf.broadcast_to(graph.mask_BL[:, None], tf.shape(similar_BVL))
    return tf.concat([context_BVRL, tf.stack([similar_BVL, self_BVL], axis=2)], axis=2)
