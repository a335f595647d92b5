"""A graph whose nodes are the fields of a request (Fi-GNN: Li et al., CIKM 2019).

Shapes: B requests, N candidates, M fields, d embedding width.
"""

from models.keras import keras, tf
from models.layers.initializers import glorot_uniform
from models.layers.masking import masked_softmax
from models.ops.weight_layouts import Layout, Layouts, featureless

_SLOPE = 0.01


class FieldGraph(keras.layers.Layer):
    """Fields exchange messages along weighted edges and update their states by a GRU.

    The weight A_ij of the edge from field j to field i is a softmax over j != i of LeakyReLU(w .
    [e_i || e_j]) (edge-wise attention of the paper); the halves of w are applied to all fields
    first, so that no tensor of pairs of vectors is needed. Starting from h = e, each step computes

        a_i = W_in^i sum_j A_ij W_out^j h_j + b,    h_i' = GRU(a_i, h_i) + e_i,

    with separate matrices for each field (node-wise transformation) and one GRU for all fields and
    steps. The paper's self-attention before the graph is left out.

    Args:
        num_fields: Number M of fields.
        width: Embedding width d.
        steps: Number of rounds of messages.

    Example:
        >>> graph = FieldGraph(num_fields=3, width=4)
        >>> graph(tf.ones([2, 7, 3, 4])).shape
        TensorShape([2, 7, 3, 4])
        >>> graph.edges(tf.ones([2, 7, 3, 4]))[0, 0].numpy().tolist()  # Equal fields.
        [[0.0, 0.5, 0.5], [0.5, 0.0, 0.5], [0.5, 0.5, 0.0]]
    """

    def __init__(
        self, num_fields: int, width: int, steps: int = 3, name: str = "field_graph"
    ) -> None:
        super().__init__(name=name)
        self.steps = steps
        self.edge_kernel = self.add_weight(
            name="edge_kernel", shape=(width, 2), initializer=glorot_uniform(2 * width, 1)
        )
        self.out_kernel, self.in_kernel = (
            self.add_weight(
                name=name,
                shape=(num_fields, width, width),
                initializer=glorot_uniform(width, width),
            )
            for name in ("out_kernel", "in_kernel")
        )
        self.bias = self.add_weight(name="bias", shape=(width,), initializer="zeros")
        self.cell = keras.layers.GRUCell(width, name="gru")

    def layouts(self, fields: Layout) -> Layouts:
        """Layouts of the weights, for fields laid out as `fields`."""
        yield self.out_kernel, (fields.each(1), None, None)
        yield self.in_kernel, (fields.each(1), None, None)
        yield self.edge_kernel, ()
        yield self.bias, ()
        yield from featureless(self.cell)

    def call(self, fields_BNMd: tf.Tensor) -> tf.Tensor:
        """Returns the last states of the fields, [B, N, M, d]."""
        shape, width = tf.shape(fields_BNMd), fields_BNMd.shape[3]
        edges_BNMM = self.edges(fields_BNMd)
        states_BNMd = fields_BNMd
        for _ in range(self.steps):
            sent_BNMd = tf.einsum("bnmd,mde->bnme", states_BNMd, self.out_kernel)
            sums_BNMd = tf.matmul(edges_BNMM, sent_BNMd)
            received_BNMd = tf.einsum("bnmd,mde->bnme", sums_BNMd, self.in_kernel) + self.bias
            updated, _ = self.cell(
                tf.reshape(received_BNMd, [-1, width]), tf.reshape(states_BNMd, [-1, width])
            )
            states_BNMd = tf.reshape(updated, shape) + fields_BNMd
        return states_BNMd

    def edges(self, fields_BNMd: tf.Tensor) -> tf.Tensor:
        """Edge weights A from each field (last axis) to each other (third axis), [B, N, M, M]."""
        halves = tf.tensordot(fields_BNMd, tf.cast(self.edge_kernel, fields_BNMd.dtype), 1)
        receiver_BNM1, sender_BNM1 = tf.split(halves, 2, -1)
        scores_BNMM = receiver_BNM1 + tf.linalg.matrix_transpose(sender_BNM1)
        others_MM = ~tf.eye(fields_BNMd.shape[2], dtype=tf.bool)
        return masked_softmax(tf.nn.leaky_relu(scores_BNMM, _SLOPE), others_MM)
