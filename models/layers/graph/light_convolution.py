"""Graph convolution without weights (LightGCN, He et al., 2020: "LGC").

The paper of DemiNet (arXiv 2109.12512) compares it with dependency-aware attention in Figure 3.

Shapes: B requests, V views of the same history, L history length, D item width.
"""

from models.keras import keras, tf
from models.layers.graph.item_graph import MergedGraph
from models.ops.weight_layouts import Layout, Layouts


class LightConvolution(keras.layers.Layer):
    """All layers of LightGCN: the mean of H, A H, A A H and so on.

    A = D^-1/2 E D^-1/2 with the edges E of the union of the contextual and similar relations,
    without self-connections, which the mean over the layers replaces. If edges are dropped and E is
    not symmetric, a message is divided by the square roots of the number of messages that its
    receiver gets and of the number that its sender sends.

    Args:
        depth: Number of rounds of message passing.

    Example:
        >>> edges_BVLL = tf.constant([[[[False, True], [True, False]]]])
        >>> graph = MergedGraph(edges_BVLL, tf.ones([1, 1, 2], tf.bool), tf.ones([1, 2], tf.bool))
        >>> LightConvolution(depth=1)(tf.constant([[[[2.0], [4.0]]]]), graph).numpy().tolist()
        [[[[3.0], [3.0]]]]
    """

    merges_relations = True

    def __init__(self, depth: int, name: str = "light_convolution") -> None:
        super().__init__(name=name, dtype="float32")
        self.depth = depth

    def writes(self, reads: Layout) -> Layout:
        """Layout of the output for nodes laid out as `reads`: the same layout."""
        return reads

    def layouts(self, reads: Layout) -> Layouts:
        """Layouts of the weights: there are none."""
        del reads
        yield from ()

    def call(self, nodes_BVLD: tf.Tensor, graph: MergedGraph) -> tf.Tensor:
        """Passes messages `depth` times.

        Args:
            nodes_BVLD: Nodes, 0 at padding; V may be 1 if the graph has more views.
            graph: Graph that connects the nodes.

        Returns:
            Nodes [B, V, L, D] with the V of the graph; 0 at padding.
        """
        edges_BVLL = tf.cast(graph.edges_BVLL, nodes_BVLD.dtype)
        received_BVL1 = tf.reduce_sum(edges_BVLL, axis=3, keepdims=True)
        sent_BV1L = tf.reduce_sum(edges_BVLL, axis=2, keepdims=True)
        adjacency_BVLL = tf.math.divide_no_nan(edges_BVLL, tf.sqrt(received_BVL1 * sent_BV1L))
        total_BVLD = nodes_BVLD
        for _ in range(self.depth):
            nodes_BVLD = tf.matmul(adjacency_BVLL, nodes_BVLD)
            total_BVLD += nodes_BVLD
        return total_BVLD / (self.depth + 1.0)
