"""Dependency-aware heterogeneous attention (DemiNet, arXiv 2109.12512, eqs 6-11).

Shapes: B requests, V views of the same history, L history length, D item width, H heads, C = D / H
head width, R relations with a learned attention: earlier, later, similar; Q = R + 1 relations
including the self-connection. L is the last axis, so that values per node are broadcast over whole
rows.
"""

from models.keras import tf
from models.layers.graph.headed_attention import HeadedAttention
from models.layers.graph.item_graph import ItemGraph, shifted, window_offsets
from models.layers.graph.pair_scores import PairScores
from models.layers.initializers import glorot_uniform
from models.layers.masking import masked_softmax
from models.ops.weight_layouts import Layout, Layouts

_RELATIONS = 3

Side = dict[int, tf.Tensor]
"""A tensor [B, V, H, L] for each offset of a contextual neighbour, negative for earlier ones."""


class DependencyAttention(HeadedAttention):
    """One layer of message passing on an item graph.

    Nodes attend to their neighbours within each relation (eqs 6-8), then to the relations (eqs
    9-11), both per head. The weight vector of eq. 6 on [h_i || h_j] is stored as its two halves, so
    that a score is u_i + v_j and no pairs are concatenated. A relation in which a node has no
    neighbour is left out of eq. 10; the self-connection needs no weights in eq. 6 because a softmax
    over one element is 1. Heads are separate until eq. 11 concatenates them.

    Example:
        >>> from models.layers.graph.item_graph import build_graph
        >>> nodes_BVLD, mask_BL = tf.ones([2, 1, 5, 8]), tf.ones([2, 5], tf.bool)
        >>> graph = build_graph(nodes_BVLD[:, 0], mask_BL, window=3, threshold=0.7)
        >>> DependencyAttention(width=8, heads=2)(nodes_BVLD, graph).shape
        TensorShape([2, 1, 5, 8])
    """

    merges_relations = False

    def build(self, shape: tf.TensorShape) -> None:
        """Creates the weights of eqs 6 and 9, and the projection."""
        super().build(shape)
        # W_n of eq. 6: the half for the receiving node, then the half for the sending node.
        shape_RHC = [_RELATIONS, self.heads, self.head_width]
        fans = 2 * self.head_width, 1
        self.receiver_RHC = self.add_weight(
            "receiver", shape_RHC, initializer=glorot_uniform(*fans)
        )
        self.sender_RHC = self.add_weight("sender", shape_RHC, initializer=glorot_uniform(*fans))
        # W_d and b_d of eq. 9.
        self.relation_HC = self.add_weight(
            "relation", shape_RHC[1:], initializer=glorot_uniform(self.head_width, 1)
        )
        self.relation_bias_H = self.add_weight("relation_bias", [self.heads], initializer="zeros")

    def layouts(self, reads: Layout) -> Layouts:
        """See the base class."""
        yield from super().layouts(reads)
        heads, unit = self.head_axes(reads)
        yield self.receiver_RHC, (None, heads, unit)
        yield self.sender_RHC, (None, heads, unit)
        yield self.relation_HC, (heads, unit)
        yield self.relation_bias_H, (heads,)

    def call(self, nodes_BVLD: tf.Tensor, graph: ItemGraph) -> tf.Tensor:
        """Passes messages once.

        Args:
            nodes_BVLD: Nodes; V may be 1 if the graph has more views, which then share the work on
                single nodes.
            graph: Graph that connects the nodes.

        Returns:
            Nodes h' of eq. 11, [B, V, L, D] with the V of the graph; 0 at padding.
        """
        nodes_BVHCL, own_BVHL, scores = self._prepare(nodes_BVLD, graph.mask_BL)
        context = _context_numerators(scores[:-1], graph.context_BVRWL)

        # W_d . h of eq. 9 is linear, so its value for a message is the message of node values.
        # The message of ones is the denominator of eq. 7.
        ones_BVHL = tf.ones_like(own_BVHL)
        sent = tf.concat([nodes_BVHCL, tf.stack([own_BVHL, ones_BVHL], axis=3)], axis=3)
        received = scores[-1].messages(sent, graph.similar_BVLL)
        similar_BVHCL, similar_own, similar_total = tf.split(
            received, [self.head_width, 1, 1], axis=3
        )
        own = [
            tf.add_n([w_BVHL * shifted(own_BVHL, offset, 3) for offset, w_BVHL in side.items()])
            for side in context
        ]
        own += [tf.squeeze(similar_own, 3), own_BVHL]
        totals = [tf.add_n(list(side.values())) for side in context]
        totals += [tf.squeeze(similar_total, 3), ones_BVHL]
        *sides, similar_share, self_share = self._shares(own, totals, _reached(graph))

        # Eqs 8 and 11 in one sum: where a relation has few weights, its share scales these instead
        # of the messages.
        messages = [
            tf.expand_dims(similar_share, 3) * similar_BVHCL,
            tf.expand_dims(self_share, 3) * nodes_BVHCL,
        ]
        for side, share_BVHL in zip(context, sides, strict=True):
            for offset, w_BVHL in side.items():
                weights = tf.expand_dims(w_BVHL * share_BVHL, 3)
                messages.append(weights * shifted(nodes_BVHCL, offset, 4))
        fused_BVHCL = tf.add_n(messages)
        shape = tf.shape(fused_BVHCL)
        fused_BVDL = tf.reshape(fused_BVHCL, [shape[0], shape[1], self.width, shape[4]])
        return tf.transpose(fused_BVDL, [0, 1, 3, 2])

    def attention(self, nodes_BVLD: tf.Tensor, graph: ItemGraph) -> tuple[tf.Tensor, tf.Tensor]:
        """The attention weights of `call` for all pairs of nodes, for figures.

        Args:
            nodes_BVLD: Nodes, with the V of the graph.
            graph: Graph that connects the nodes.

        Returns:
            Weights alpha of eq. 7, [B, V, R, H, L, L], which sum to 1 over the sending nodes (last
            axis), or to 0 where a node has no neighbour in a relation; and weights beta of eq. 10,
            [B, V, Q, H, L].
        """
        _, own_BVHL, scores = self._prepare(nodes_BVLD, graph.mask_BL)
        length = tf.shape(own_BVHL)[3]
        context = [
            tf.add_n(
                [
                    tf.expand_dims(w_BVHL, -1) * tf.one_hot(tf.range(length) + offset, length)
                    for offset, w_BVHL in side.items()
                ]
            )
            for side in _context_numerators(scores[:-1], graph.context_BVRWL)
        ]
        # If every node sends its one-hot position, a node receives its neighbours' numerators.
        sent = tf.broadcast_to(tf.eye(length), tf.concat([tf.shape(own_BVHL), [length]], 0))
        similar = tf.linalg.matrix_transpose(scores[-1].messages(sent, graph.similar_BVLL))
        numerators_BVRHLL = tf.stack([*context, similar], axis=2)
        totals_BVRHL = tf.reduce_sum(numerators_BVRHLL, -1)
        own_BVRHL = tf.linalg.matvec(numerators_BVRHLL, tf.expand_dims(own_BVHL, 2))
        ones_BVHL = tf.ones_like(own_BVHL)
        totals = [*tf.unstack(totals_BVRHL, axis=2), ones_BVHL]
        own = [*tf.unstack(own_BVRHL, axis=2), own_BVHL]
        shares = self._shares(own, totals, _reached(graph))
        alpha = tf.math.divide_no_nan(numerators_BVRHLL, totals_BVRHL[..., None])
        return alpha, tf.stack(shares, axis=2) * tf.stack(totals, axis=2)

    def _prepare(
        self, nodes_BVLD: tf.Tensor, mask_BL: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, list[PairScores]]:
        """Computes all values that depend on single nodes only.

        Returns:
            The heads of the nodes [B, V, H, C, L], W_d . h of eq. 9 for each [B, V, H, L], and the
            scores of eq. 6 for each of the three relations.
        """
        weights = [self.receiver_RHC, self.sender_RHC, tf.expand_dims(self.relation_HC, 0)]
        # Block diagonal: the scores of a head depend on the slice of that head only.
        kernel_HCSH = tf.einsum("shc,hg->hcsg", tf.concat(weights, axis=0), tf.eye(self.heads))
        kernel = tf.reshape(kernel_HCSH, [self.width, -1])
        # One product gives the heads of the nodes and their scores.
        projection_DD = tf.eye(self.width) if self.projection_DD is None else self.projection_DD
        both = tf.concat([projection_DD, tf.matmul(projection_DD, kernel)], axis=1)
        values = tf.transpose(tf.tensordot(nodes_BVLD, both, axes=1), [0, 1, 3, 2])
        nodes_BVDL, scores = tf.split(values, [self.width, kernel.shape[1]], axis=2)
        shape = tf.shape(nodes_BVDL)
        batch, views, length = shape[0], shape[1], shape[3]
        nodes_BVHCL = tf.reshape(nodes_BVDL, [batch, views, self.heads, self.head_width, length])
        scores = tf.reshape(scores, [batch, views, 2 * _RELATIONS + 1, self.heads, length])
        *scores, own_BVHL = tf.unstack(scores, axis=2)
        pairs = [
            PairScores.of(receiver_BVHL, sender_BVHL, mask_BL, self.slope)
            for receiver_BVHL, sender_BVHL in zip(
                scores[:_RELATIONS], scores[_RELATIONS:], strict=True
            )
        ]
        return nodes_BVHCL, own_BVHL, pairs

    def _shares(
        self, own: list[tf.Tensor], totals: list[tf.Tensor], reached_BVQL: tf.Tensor
    ) -> list[tf.Tensor]:
        """Weight of each relation (eqs 9-10), divided by the denominator of eq. 7.

        Args:
            own: For each relation, the sum of W_d . h over what a node receives, [B, V, H, L].
            totals: For each relation, the sum of the numerators, [B, V, H, L].
            reached_BVQL: Whether a node has neighbours in each relation.

        Returns:
            Divided weights [B, V, H, L] for each relation.
        """
        shape = tf.shape(own[_RELATIONS - 1])

        def stack(values: list[tf.Tensor]) -> tf.Tensor:
            # Values of the self-connection may have V = 1 for all views.
            return tf.stack([tf.broadcast_to(value, shape) for value in values], axis=2)

        totals_BVQHL = stack(totals)
        scores_BVQHL = tf.math.divide_no_nan(stack(own), totals_BVQHL)
        scores_BVQHL += tf.expand_dims(self.relation_bias_H, -1)
        weights_BVQHL = masked_softmax(
            tf.nn.leaky_relu(scores_BVQHL, self.slope), reached_BVQL[:, :, :, None], axis=2
        )
        return tf.unstack(tf.math.divide_no_nan(weights_BVQHL, totals_BVQHL), axis=2)


def _context_numerators(scores: list[PairScores], context_BVRWL: tf.Tensor) -> list[Side]:
    """Numerators of eq. 7 for the earlier and for the later neighbours of each node."""
    return [
        {
            offset: pairs.with_neighbour(offset, edges_BVL)
            for offset, edges_BVL in zip(offsets, tf.unstack(edges_BVWL, axis=2), strict=True)
        }
        for pairs, offsets, edges_BVWL in zip(
            scores,
            window_offsets(context_BVRWL.shape[3]),
            tf.unstack(context_BVRWL, axis=2),
            strict=True,
        )
    ]


def _reached(graph: ItemGraph) -> tf.Tensor:
    """Whether a node has a neighbour in each relation, [B, V, Q, L]."""
    context_BVRL = tf.reduce_any(graph.context_BVRWL, axis=3)
    similar_BVL = tf.reduce_any(graph.similar_BVLL, axis=3)
    self_BVL = tf.broadcast_to(graph.self_BVL, tf.shape(similar_BVL))
    return tf.concat([context_BVRL, tf.stack([similar_BVL, self_BVL], axis=2)], axis=2)
