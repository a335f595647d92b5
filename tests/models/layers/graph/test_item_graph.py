import numpy as np
import pytest

from models.keras import tf
from models.layers.graph.item_graph import (
    ItemGraph,
    add_dropped_views,
    build_graph,
    edge_densities,
    merge_relations,
    shifted,
)
from tests.reference import deminet as reference

LENGTHS = [7, 5, 1, 0]
MASK = np.arange(7) < np.array(LENGTHS)[:, None]


def _history(seed: int = 0) -> np.ndarray:
    """Repeated items, and garbage at padding."""
    random = np.random.default_rng(seed)
    return random.normal(size=(5, 4))[random.integers(0, 5, MASK.shape)].astype(np.float32)


def _neighbours(graph: ItemGraph, b: int, view: int = 0) -> reference.Edges:
    """The graph of one request in the form of the reference."""
    n = LENGTHS[b]
    context = graph.context_BVRWL.numpy()[b, view]
    similar = graph.similar_BVLL.numpy()[b, view]
    window = context.shape[1]
    return {
        "in": [[i - w - 1 for w in reversed(range(window)) if context[0, w, i]] for i in range(n)],
        "out": [[i + w + 1 for w in range(window) if context[1, w, i]] for i in range(n)],
        "sim": [list(np.flatnonzero(similar[i])) for i in range(n)],
    }


@pytest.mark.parametrize(("window", "threshold"), [(1, 0.2), (3, 0.7), (6, -1.0), (9, 1.1)])
def test_build_graph_equals_equations_1_to_5(window: int, threshold: float) -> None:
    history = _history()
    graph = build_graph(history, MASK, window=window, threshold=threshold)
    for b, n in enumerate(LENGTHS):
        expected = reference.neighbours(history[b, :n], window, threshold)
        assert _neighbours(graph, b) == expected
    # Nothing beyond the events is an edge.
    context, similar = graph.context_BVRWL.numpy(), graph.similar_BVLL.numpy()
    assert not (context & ~MASK[:, None, None, None]).any()
    assert not (similar & ~(MASK[:, None, :, None] & MASK[:, None, None, :])).any()


@pytest.mark.parametrize("threshold", [0.6, 0.7, 0.9, 0.999])
def test_repeated_items_are_similar_at_any_threshold(threshold: float) -> None:
    """Invariant 9."""
    history = np.random.default_rng(1).normal(size=(1, 6, 8)).astype(np.float32) * 0.01
    history[0, 4] = history[0, 1]
    graph = build_graph(history, np.ones([1, 6], bool), window=1, threshold=threshold)
    assert graph.similar_BVLL.numpy()[0, 0, 4, 1]
    assert graph.similar_BVLL.numpy()[0, 0, 1, 4]
    assert not graph.similar_BVLL.numpy()[0, 0, 1, 1]


def test_similarities_of_golden_g2() -> None:
    history = np.array([[[1, 0], [0, 1], [1, 1]]], np.float32)
    expected = {0.6: [[2], [2], [0, 1]], 0.7: [[2], [2], [0, 1]], 0.8: [[], [], []]}
    for threshold, edges in expected.items():
        graph = build_graph(history, np.ones([1, 3], bool), window=2, threshold=threshold)
        similar = graph.similar_BVLL.numpy()[0, 0]
        assert [list(np.flatnonzero(row)) for row in similar] == edges


def test_shifted() -> None:
    values = tf.reshape(tf.range(12), [2, 6])
    np.testing.assert_array_equal(shifted(values, 2, 1)[0, :4], [2, 3, 4, 5])
    np.testing.assert_array_equal(shifted(values, -1, 1)[1, 1:], [6, 7, 8, 9, 10])


def _large_graph() -> ItemGraph:
    random = np.random.default_rng(0)
    history = random.normal(size=(64, 20, 4)).astype(np.float32)
    return build_graph(history, np.ones([64, 20], bool), window=3, threshold=0.0)


def test_dropped_views_keep_the_stated_share_of_edges_independently() -> None:
    graph = _large_graph()
    seed = tf.constant([3, 4])
    views = add_dropped_views(graph, rate=0.6, seed=seed)
    for edges, dropped in zip(graph[:2], views[:2], strict=True):
        full, first, second = np.moveaxis(dropped.numpy(), 1, 0)
        edges = edges.numpy()[:, 0]
        np.testing.assert_array_equal(full, edges)
        assert not (first & ~edges).any()
        share = 5 / np.sqrt(edges.sum())  # Ten standard deviations of the share of kept edges.
        assert abs(first.sum() / edges.sum() - 0.4) < share
        assert abs(second.sum() / edges.sum() - 0.4) < share
        assert abs((first & second).sum() / edges.sum() - 0.16) < share
    # Directed: an edge and its reverse are dropped by themselves.
    first = views.similar_BVLL.numpy()[:, 1]
    both = graph.similar_BVLL.numpy()[:, 0]
    assert abs((first & first.swapaxes(1, 2)).sum() / both.sum() - 0.16) < 0.05

    again = add_dropped_views(graph, rate=0.6, seed=seed)
    np.testing.assert_array_equal(views.context_BVRWL, again.context_BVRWL)
    other = add_dropped_views(graph, rate=0.6, seed=seed + 1)
    assert (views.context_BVRWL.numpy() != other.context_BVRWL.numpy()).any()


@pytest.mark.parametrize(("rate", "kept"), [(0.0, True), (1.0, False)])
def test_dropping_none_or_all(rate: float, kept: bool) -> None:
    graph = _large_graph()
    views = add_dropped_views(graph, rate=rate, seed=tf.constant([0, 0]))
    for edges, dropped in zip(graph[:2], views[:2], strict=True):
        expected = edges.numpy() & kept
        np.testing.assert_array_equal(dropped[:, 1:2], expected)
        np.testing.assert_array_equal(dropped[:, 2:3], expected)


@pytest.mark.parametrize("drop_self", [False, True])
def test_self_connections_stay_unless_asked(drop_self: bool) -> None:
    graph = _large_graph()
    views = add_dropped_views(graph, rate=0.6, seed=tf.constant([1, 2]), drop_self=drop_self)
    kept = np.broadcast_to(views.self_BVL, [64, 3, 20])
    assert kept[:, 0].all()
    share = 5 / np.sqrt(64 * 20)
    for view in (1, 2):
        assert abs(kept[:, view].mean() - (0.4 if drop_self else 1)) < share


@pytest.mark.parametrize(("window", "threshold"), [(1, 0.2), (3, 0.7), (9, 1.1)])
def test_merged_relations_are_their_union(window: int, threshold: float) -> None:
    history = _history()
    merged = merge_relations(build_graph(history, MASK, window=window, threshold=threshold))
    edges = merged.edges_BVLL.numpy()[:, 0]
    for b, n in enumerate(LENGTHS):
        expected = reference.union(reference.neighbours(history[b, :n], window, threshold))
        assert [list(np.flatnonzero(row)) for row in edges[b, :n]] == expected
        assert not edges[b, n:].any()
    np.testing.assert_array_equal(merged.self_BVL[:, 0], MASK)


def test_edge_densities_are_shares_of_the_pairs_of_events() -> None:
    history = _history()
    found = edge_densities(build_graph(history, MASK, window=2, threshold=0.7))
    edges = {"in": 0, "out": 0, "sim": 0}
    for b, n in enumerate(LENGTHS):
        for relation, received in reference.neighbours(history[b, :n], 2, 0.7).items():
            edges[relation] += sum(map(len, received))
    pairs = sum(n * (n - 1) for n in LENGTHS)
    for name, relation in (("earlier", "in"), ("later", "out"), ("similar", "sim")):
        assert float(found[name]) == pytest.approx(edges[relation] / pairs)
    assert 0 < edges["sim"] < pairs
    lonely = build_graph(history[:, :1], MASK[:, :1], window=2, threshold=0.7)
    assert float(edge_densities(lonely)["similar"]) == 0.0
