"""Graph convolution with a matrix per relation (GC-MC, van den Berg et al., 2017: "GCMC").

The paper of DemiNet (arXiv 2109.12512) compares it with dependency-aware attention in Figure 3.

Shapes: B requests, V views of the same history, L history length, D item width.
"""

from models.keras import keras, tf
from models.layers.graph.item_graph import ItemGraph, shifted, window_offsets
from models.layers.initializers import glorot_uniform
from models.ops.weight_layouts import Layout, Layouts, hidden, of_dense


class RelationalConvolution(keras.layers.Layer):
    """h' = W ReLU(sum over r of W_r mean of the neighbours in r), without biases.

    The relations r are earlier, later, similar and the self-connection. The mean is taken before
    the product with W_r, so that all relations are one product.

    Args:
        width: Item width D.

    Example:
        >>> from models.layers.graph.item_graph import build_graph
        >>> nodes_BVLD, mask_BL = tf.ones([2, 1, 5, 8]), tf.ones([2, 5], tf.bool)
        >>> graph = build_graph(nodes_BVLD[:, 0], mask_BL, window=3, threshold=0.7)
        >>> RelationalConvolution(width=8)(nodes_BVLD, graph).shape
        TensorShape([2, 1, 5, 8])
    """

    merges_relations = False

    def __init__(self, width: int, name: str = "relational_convolution") -> None:
        super().__init__(name=name, dtype="float32")
        self.relations = keras.layers.Dense(
            width,
            "relu",
            use_bias=False,
            dtype="float32",
            kernel_initializer=glorot_uniform(width, width),
            name="relations",
        )
        self.combine = keras.layers.Dense(width, use_bias=False, dtype="float32", name="combine")

    def writes(self, reads: Layout) -> Layout:
        """Layout of the output for nodes laid out as `reads`."""
        del reads
        return hidden(self.combine.units)

    def layouts(self, reads: Layout) -> Layouts:
        """Layouts of the weights, for nodes laid out as `reads`."""
        units = hidden(self.relations.units)
        yield from of_dense(self.relations, reads * 4, units)
        yield from of_dense(self.combine, units, self.writes(reads))

    def call(self, nodes_BVLD: tf.Tensor, graph: ItemGraph) -> tf.Tensor:
        """Passes messages once.

        Args:
            nodes_BVLD: Nodes, 0 at padding; V may be 1 if the graph has more views.
            graph: Graph that connects the nodes.

        Returns:
            Nodes [B, V, L, D] with the V of the graph; 0 at padding and for nodes without messages.
        """

        def flags(edges: tf.Tensor) -> tf.Tensor:
            return tf.cast(edges, nodes_BVLD.dtype)

        similar_BVLL = flags(graph.similar_BVLL)
        views = tf.shape(similar_BVLL)[1]
        means = []
        offsets_RW = window_offsets(graph.context_BVRWL.shape[3])
        for offsets, side in zip(offsets_RW, tf.unstack(graph.context_BVRWL, axis=2), strict=True):
            edges_BVWL = flags(side)
            total_BVLD = tf.add_n(
                [
                    tf.expand_dims(edges_BVL, -1) * shifted(nodes_BVLD, offset, 2)
                    for offset, edges_BVL in zip(
                        offsets, tf.unstack(edges_BVWL, axis=2), strict=True
                    )
                ]
            )
            count_BVL = tf.reduce_sum(edges_BVWL, axis=2)
            means.append(tf.math.divide_no_nan(total_BVLD, tf.expand_dims(count_BVL, -1)))
        count_BVL1 = tf.reduce_sum(similar_BVLL, axis=3, keepdims=True)
        means.append(tf.math.divide_no_nan(tf.matmul(similar_BVLL, nodes_BVLD), count_BVL1))
        own_BVLD = tf.expand_dims(flags(graph.self_BVL), -1) * nodes_BVLD
        shape = tf.shape(nodes_BVLD)
        means.append(tf.broadcast_to(own_BVLD, [shape[0], views, shape[2], shape[3]]))
        return self.combine(self.relations(tf.concat(means, -1)))
