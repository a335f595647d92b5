"""The graph of fields: the twin, its edges, and its size in memory."""

import numpy as np
import pytest

from models.keras import tf
from models.layers.fields.field_graph import FieldGraph
from tests.reference import embedded
from tests.reference import fieldwise as reference

SHAPE = (2, 3, 5, 4)


@pytest.fixture(scope="module")
def graph():
    layer = FieldGraph(num_fields=5, width=4, steps=3)
    layer(tf.zeros(SHAPE))
    embedded.randomize(layer, seed=1)
    return layer


def fields(seed=0):
    return np.random.default_rng(seed).normal(size=SHAPE).astype(np.float32)


def test_equals_the_twin(graph):
    values = fields()
    cell = graph.cell.kernel.numpy(), graph.cell.recurrent_kernel.numpy(), graph.cell.bias.numpy()
    states = graph(tf.constant(values)).numpy()
    for place in np.ndindex(2, 3):
        expected = reference.field_graph(
            values[place].astype(np.float64),
            graph.edge_kernel.numpy().T.ravel(),
            graph.out_kernel.numpy(),
            graph.in_kernel.numpy(),
            graph.bias.numpy(),
            cell,
            graph.steps,
        )
        np.testing.assert_allclose(states[place], expected, rtol=1e-5, atol=1e-5)


def test_edges_share_out_attention_among_the_other_fields(graph):
    edges = graph.edges(tf.constant(fields())).numpy()
    np.testing.assert_allclose(edges.sum(-1), 1.0, rtol=1e-6)
    assert not edges[..., np.arange(5), np.arange(5)].any()
    expected = reference.field_edges(fields()[1, 2], graph.edge_kernel.numpy().T.ravel())
    np.testing.assert_allclose(edges[1, 2], expected, rtol=1e-5)


def test_matrices_of_fields_start_apart():
    layer = FieldGraph(num_fields=3, width=4)
    kernels = [*layer.out_kernel.numpy(), *layer.in_kernel.numpy()]
    limit = np.sqrt(6.0 / (4 + 4))
    for i, kernel in enumerate(kernels):
        assert np.abs(kernel).max() <= limit
        assert all((kernel != other).all() for other in kernels[:i])


def test_no_tensor_of_pairs_of_vectors(graph):
    """Nothing has room for [e_i || e_j] of all pairs: [..., M, M, 2 d]."""
    spec = tf.TensorSpec([1, 1, 5, 4])
    traced = tf.function(graph.call).get_concrete_function(spec)
    sizes = [
        tensor.shape.num_elements() or 0
        for operation in traced.graph.get_operations()
        for tensor in operation.outputs
        if tensor.shape.rank is not None
    ]
    assert 5 * 5 <= max(sizes) < 5 * 5 * 2 * 4
