"""Graph attention on a graph without relations (GAT, Velickovic et al., 2018).

The paper of DemiNet (arXiv 2109.12512) compares it with dependency-aware attention in Figure 3; its
equation numbers are used here.

Shapes: B requests, V views of the same history, L history length, D item width, H heads, C = D / H
head width.
"""

from models.keras import tf
from models.layers.graph.headed_attention import HeadedAttention
from models.layers.graph.item_graph import MergedGraph
from models.layers.graph.pair_scores import PairScores
from models.layers.initializers import glorot_uniform
from models.ops.weight_layouts import Layout, Layouts


class MergedAttention(HeadedAttention):
    """Graph attention (eqs 6-8) with one relation: the union of all four.

    A node attends to its neighbours and itself; heads are concatenated.

    Example:
        >>> mask_BL = tf.ones([2, 5], tf.bool)
        >>> graph = MergedGraph(tf.ones([2, 1, 5, 5], tf.bool), mask_BL[:, None], mask_BL)
        >>> MergedAttention(width=8, heads=2)(tf.ones([2, 1, 5, 8]), graph).shape
        TensorShape([2, 1, 5, 8])
    """

    merges_relations = True

    def build(self, shape: tf.TensorShape) -> None:
        """Creates the two halves of the weight vector of eq. 6, and the projection."""
        super().build(shape)
        own, fans = [self.heads, self.head_width], (2 * self.head_width, 1)
        self.receiver_HC = self.add_weight("receiver", own, initializer=glorot_uniform(*fans))
        self.sender_HC = self.add_weight("sender", own, initializer=glorot_uniform(*fans))

    def layouts(self, reads: Layout) -> Layouts:
        """See the base class."""
        yield from super().layouts(reads)
        heads, unit = self.head_axes(reads)
        yield self.receiver_HC, (heads, unit)
        yield self.sender_HC, (heads, unit)

    def call(self, nodes_BVLD: tf.Tensor, graph: MergedGraph) -> tf.Tensor:
        """Passes messages once.

        Args:
            nodes_BVLD: Nodes; V may be 1 if the graph has more views.
            graph: Graph that connects the nodes.

        Returns:
            Nodes [B, V, L, D] with the V of the graph; 0 at padding and for nodes without messages.
        """
        if self.projection_DD is not None:
            nodes_BVLD = tf.tensordot(nodes_BVLD, self.projection_DD, axes=1)
        shape = tf.shape(nodes_BVLD)
        batch, views, length = shape[0], shape[1], shape[2]
        nodes_BVHCL = tf.reshape(
            tf.transpose(nodes_BVLD, [0, 1, 3, 2]),
            [batch, views, self.heads, self.head_width, length],
        )
        pairs = PairScores.of(
            tf.einsum("bvhcl,hc->bvhl", nodes_BVHCL, self.receiver_HC),
            tf.einsum("bvhcl,hc->bvhl", nodes_BVHCL, self.sender_HC),
            graph.mask_BL,
            self.slope,
        )
        own_BVLL = tf.linalg.diag(graph.self_BVL, padding_value=False)
        # The message of ones is the denominator of eq. 7.
        sent = tf.concat([nodes_BVHCL, tf.ones_like(nodes_BVHCL[:, :, :, :1])], axis=3)
        received = pairs.messages(sent, graph.edges_BVLL | own_BVLL)
        sum_BVHCL, total = tf.split(received, [self.head_width, 1], axis=3)
        merged_BVHCL = tf.math.divide_no_nan(sum_BVHCL, total)
        merged_BVDL = tf.reshape(
            merged_BVHCL, [batch, tf.shape(merged_BVHCL)[1], self.width, length]
        )
        return tf.transpose(merged_BVDL, [0, 1, 3, 2])
