"""The rivals of DemiNet's graph attention; that itself is tested in test_graph_attention.py."""

import numpy as np
import pytest

from models.keras import tf
from models.layers.graph.graph_operators import OPERATORS, graph_layers
from models.layers.graph.item_graph import Graph, add_dropped_views, build_graph, merge_relations
from tests.reference import deminet as reference
from tests.reference import deminet_weights

LENGTHS = [6, 4, 1, 0]
MASK = np.arange(6) < np.array(LENGTHS)[:, None]
RANDOM = np.random.default_rng(0)
NODES = RANDOM.normal(size=(4, 8))[RANDOM.integers(0, 4, MASK.shape)] * MASK[..., None]
NODES = NODES.astype(np.float32)
RIVALS = ("gat", "lgc", "gcmc")
every_rival = pytest.mark.parametrize("operator", RIVALS)


def _layers(operator: str, depth: int = 1, project: bool = True):
    layers = graph_layers(operator, 8, depth=depth, heads=2, project=project, slope=0.3)
    _refine(layers, _graph(layers))
    random = np.random.default_rng(5)
    for layer in layers:
        for weight in layer.trainable_weights:
            weight.assign(random.normal(size=weight.shape))
    return layers


def _graph(layers, nodes: np.ndarray = NODES, mask: np.ndarray = MASK, **settings: float) -> Graph:
    graph = build_graph(nodes, mask, **({"window": 2, "threshold": 0.3} | settings))
    return merge_relations(graph) if layers[0].merges_relations else graph


def _refine(layers, graph: Graph, nodes: np.ndarray = NODES) -> np.ndarray:
    nodes_BVLD = tf.constant(nodes)[:, None]
    for layer in layers:
        nodes_BVLD = layer(nodes_BVLD, graph)
    return nodes_BVLD.numpy()


@pytest.mark.parametrize(
    ("operator", "depth", "project"),
    [("gat", 1, True), ("gat", 1, False), ("lgc", 1, True), ("lgc", 3, True), ("gcmc", 1, True)],
)
def test_equals_its_twin(operator: str, depth: int, project: bool) -> None:
    layers = _layers(operator, depth, project)
    refined = _refine(layers, _graph(layers))
    assert refined.shape == (4, 1, 6, 8)
    for b, n in enumerate(LENGTHS):
        edges = reference.neighbours(NODES[b, :n], 2, 0.3)
        expected = deminet_weights.refine(operator, layers[0], NODES[b, :n], edges, np.ones(n))
        np.testing.assert_allclose(refined[b, 0, :n], expected, rtol=2e-5, atol=2e-5)
        np.testing.assert_array_equal(refined[b, 0, n:], 0)


@pytest.mark.parametrize("operator", OPERATORS)
def test_depth_counts_the_messages(operator: str) -> None:
    layers = graph_layers(operator, 8, depth=3, heads=2, project=True, slope=0.2)
    assert len(layers) == {"none": 0, "lgc": 1}.get(operator, 3)


@every_rival
@pytest.mark.parametrize("drop_self", [False, True])
def test_views_share_nodes_but_not_edges(operator: str, drop_self: bool) -> None:
    layers = _layers(operator, depth=2)
    views = add_dropped_views(
        _graph(layers), rate=0.5, seed=tf.constant([1, 2]), drop_self=drop_self
    )
    together = _refine(layers, views)
    assert together.shape == (4, 3, 6, 8)
    per_view = {
        name: [edges] * 3 if name == "mask_BL" or edges.shape[1] == 1 else tf.split(edges, 3, 1)
        for name, edges in views._asdict().items()
    }
    for v in range(3):
        alone = views._replace(**{name: edges[v] for name, edges in per_view.items()})
        expected = _refine(layers, alone)[:, 0]
        np.testing.assert_allclose(together[:, v], expected, rtol=1e-5, atol=1e-5)
    assert np.abs(together[0, 1] - together[0, 2]).max() > 1e-3


@every_rival
def test_permutes_with_nodes_when_there_is_no_context(operator: str) -> None:
    """Invariant 6."""
    layers, order = _layers(operator, depth=2), np.random.default_rng(2).permutation(6)
    nodes = np.random.default_rng(3).normal(size=(1, 6, 8)).astype(np.float32)

    def refine(nodes: np.ndarray) -> np.ndarray:
        graph = build_graph(nodes, MASK[:1], window=1, threshold=-0.3)
        graph = graph._replace(context_BVRWL=tf.zeros_like(graph.context_BVRWL))
        return _refine(
            layers, merge_relations(graph) if layers[0].merges_relations else graph, nodes
        )[0, 0]

    np.testing.assert_allclose(refine(nodes[:, order]), refine(nodes)[order], atol=1e-4)


@every_rival
def test_padding_changes_nothing_and_gets_nothing(operator: str) -> None:
    """Invariant 1."""
    layers = _layers(operator, depth=2)
    nodes = np.concatenate([NODES, np.zeros([4, 3, 8], np.float32)], 1)
    mask = np.concatenate([MASK, np.zeros([4, 3], bool)], 1)
    long = _refine(layers, _graph(layers, nodes, mask), nodes)
    short = _refine(layers, _graph(layers))
    np.testing.assert_allclose(long[:, :, :6], short, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(long[:, :, 6:], 0)


@every_rival
def test_nodes_that_receive_nothing_are_finite(operator: str) -> None:
    layers = _layers(operator, depth=2)
    graph = _graph(layers)
    nothing = graph._replace(
        **{
            name: tf.zeros_like(edges)
            for name, edges in graph._asdict().items()
            if name != "mask_BL"
        }
    )
    nodes = tf.constant(NODES)[:, None]
    with tf.GradientTape() as tape:
        tape.watch(nodes)
        refined = nodes
        for layer in layers:
            refined = layer(refined, nothing)
    assert np.isfinite(refined).all()
    assert np.isfinite(tape.gradient(refined, nodes)).all()
