import numpy as np
import pytest

from models.keras import tf
from models.layers.graph.graph_attention import DependencyAttention
from models.layers.graph.item_graph import ItemGraph, add_dropped_views, build_graph
from tests.reference import deminet as reference
from tests.reference import deminet_weights

LENGTHS = [6, 4, 1, 0]
MASK = np.arange(6) < np.array(LENGTHS)[:, None]


def _layer(width: int = 8, heads: int = 2, project: bool = True, scale: float = 1.0):
    layer = DependencyAttention(width, heads, project=project, name="layer")
    nodes = np.zeros([1, 1, 2, width], np.float32)
    layer(nodes, build_graph(nodes[:, 0], np.ones([1, 2], bool), window=1, threshold=2.0))
    random = np.random.default_rng(5)
    for weight in layer.trainable_weights:
        weight.assign(random.normal(size=weight.shape) * scale)
    return layer


def _nodes(width: int = 8, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    items = random.normal(size=(4, width)).astype(np.float32)
    return items[random.integers(0, 4, MASK.shape)] * MASK[..., None]


def _only(graph: ItemGraph, relation: str) -> ItemGraph:
    """The graph with one relation beside the self-connection."""
    keep = np.array([relation == "in", relation == "out"])[None, None, :, None, None]
    return graph._replace(
        context_BVRWL=graph.context_BVRWL & keep,
        similar_BVLL=graph.similar_BVLL & (relation == "sim"),
    )


def _complete(mask: np.ndarray) -> ItemGraph:
    return build_graph(tf.zeros([*mask.shape, 2]), mask, window=mask.shape[1], threshold=-1.0)


@pytest.mark.parametrize("project", [True, False])
@pytest.mark.parametrize("scale", [0.5, 5.0])
def test_equals_equations_6_to_11(project: bool, scale: float) -> None:
    layer, nodes = _layer(project=project, scale=scale), _nodes()
    if project:
        layer.projection_DD.assign(layer.projection_DD / scale)
    graph = build_graph(nodes, MASK, window=2, threshold=0.3)
    refined = layer(nodes[:, None], graph).numpy()[:, 0]
    assert graph.similar_BVLL.numpy().any()
    for b, n in enumerate(LENGTHS):
        edges = reference.neighbours(nodes[b, :n], 2, 0.3)
        expected = deminet_weights.refine("dha", layer, nodes[b, :n], edges, np.ones(n))
        np.testing.assert_allclose(refined[b, :n], expected, rtol=2e-5, atol=2e-5)
        np.testing.assert_array_equal(refined[b, n:], 0)


def test_views_share_nodes_but_not_edges() -> None:
    layer, nodes = _layer(), _nodes()
    graph = build_graph(nodes, MASK, window=2, threshold=0.3)
    views = add_dropped_views(graph, rate=0.5, seed=tf.constant([1, 2]))
    together = layer(nodes[:, None], views).numpy()
    assert together.shape == (4, 3, 6, 8)
    for view in range(3):
        own = slice(view, view + 1)
        alone = views._replace(
            context_BVRWL=views.context_BVRWL[:, own], similar_BVLL=views.similar_BVLL[:, own]
        )
        np.testing.assert_allclose(together[:, view], layer(nodes[:, None], alone)[:, 0], atol=1e-6)
    assert np.abs(together[0, 1] - together[0, 2]).max() > 1e-3


def _golden_layer() -> DependencyAttention:
    """G1: one head that is the node itself; a_dst = [1, -1], a_src = [.5, 2]."""
    layer = _layer(2, 1, project=False)
    layer.receiver_RHC.assign(np.broadcast_to([1.0, -1.0], [3, 1, 2]))
    layer.sender_RHC.assign(np.broadcast_to([0.5, 2.0], [3, 1, 2]))
    layer.relation_HC.assign(np.zeros([1, 2]))
    layer.relation_bias_H.assign([0.0])
    return layer


GOLDEN_NODES = np.array([[[[1, 0], [0, 1], [1, 1]]]], np.float32)
GOLDEN_SCORES = [[1.5, 3, 3.5], [-0.1, 1, 1.5], [0.5, 2, 2.5]]


def _messages(layer: DependencyAttention, graph: ItemGraph) -> np.ndarray:
    """h_(r) of the only relation: W_d = 0 makes h' its mean with the node, where it exists."""
    return 2 * layer(GOLDEN_NODES, graph).numpy()[0, 0] - GOLDEN_NODES[0, 0]


def test_golden_g1() -> None:
    weight = np.array([1, -1, 0.5, 2])
    scores = reference.importances(GOLDEN_NODES[0, 0], weight, 0.2)
    np.testing.assert_allclose(scores, GOLDEN_SCORES, atol=1e-6)

    mask = np.ones([1, 3], bool)
    everyone = ItemGraph(
        tf.zeros([1, 1, 2, 1, 3], tf.bool), tf.ones([1, 1, 3, 3], tf.bool), mask[:, None], mask
    )
    alpha = np.exp(GOLDEN_SCORES) / np.exp(GOLDEN_SCORES).sum(-1, keepdims=True)
    messages = _messages(_golden_layer(), everyone)
    np.testing.assert_allclose(messages, alpha @ GOLDEN_NODES[0, 0], atol=1e-6)


def test_golden_g2() -> None:
    layer, mask = _golden_layer(), np.ones([1, 3], bool)
    graph = build_graph(GOLDEN_NODES[:, 0], mask, window=2, threshold=0.7)
    incoming = _messages(layer, _only(graph, "in"))
    # Node 0 has no neighbour: only itself remains, and h' is the node.
    np.testing.assert_allclose(incoming, [[1, 0], [1, 0], [0.18242552, 0.81757448]], atol=1e-6)
    outgoing = _messages(layer, _only(graph, "out"))
    np.testing.assert_allclose(outgoing, [[0.62245933, 1], [1, 1], [1, 1]], atol=1e-6)
    similar = _messages(layer, _only(graph, "sim"))
    np.testing.assert_allclose(similar, [[1, 1], [1, 1], [0.18242552, 0.81757448]], atol=1e-6)


@pytest.mark.parametrize(
    ("has_out", "expected"),
    [(True, [1.08566173, 0.67377039]), (False, [1.21194156, 0.63582467])],
)
def test_golden_g3(has_out: bool, expected: list[float]) -> None:
    """Node 1 is [1, 1] and receives [1, 0] from before, [0, 1] from after, [2, 2] by similarity."""
    layer = _golden_layer()
    layer.relation_HC.assign([[1.0, -1.0]])
    layer.relation_bias_H.assign([0.5])
    nodes = np.array([[[[1, 0], [1, 1], [0, 1], [2, 2]]]], np.float32)
    context = np.zeros([1, 1, 2, 1, 4], bool)
    context[0, 0, 0, 0, 1] = True
    context[0, 0, 1, 0, 1] = has_out
    similar = np.zeros([1, 1, 4, 4], bool)
    similar[0, 0, 1, 3] = True
    mask = np.ones([1, 4], bool)
    graph = ItemGraph(tf.constant(context), tf.constant(similar), mask[:, None], mask)
    np.testing.assert_allclose(layer(nodes, graph)[0, 0, 1], expected, atol=1e-6)


def test_permutes_with_nodes_when_there_is_no_window() -> None:
    """Invariant 6."""
    layer, nodes = _layer(), _nodes()[:1]
    order = np.random.default_rng(2).permutation(6)

    def refine(nodes: np.ndarray) -> np.ndarray:
        graph = build_graph(nodes, MASK[:1], window=2, threshold=0.0)
        return layer(nodes[:, None], _only(graph, "sim")).numpy()[0, 0]

    np.testing.assert_allclose(refine(nodes[:, order]), refine(nodes)[order], atol=1e-5)


@pytest.mark.parametrize("project", [True, False])
def test_without_edges_only_the_projection_remains(project: bool) -> None:
    """Invariant 7: bit-exact identity for slices."""
    layer, nodes = _layer(project=project), _nodes()[:, None]
    alone = _only(build_graph(nodes[:, 0], MASK, window=2, threshold=0.0), "self")
    refined = layer(nodes, alone).numpy()
    if project:
        np.testing.assert_allclose(refined, nodes @ layer.projection_DD.numpy(), atol=1e-5)
    else:
        np.testing.assert_array_equal(refined, nodes)


def test_node_depends_on_its_window_only() -> None:
    """Invariant 10, on the Jacobian."""
    layer, nodes = _layer(4, 1), tf.constant(np.random.default_rng(0).normal(size=(1, 1, 9, 4)))
    nodes = tf.cast(nodes, tf.float32)
    graph = build_graph(nodes[:, 0], np.ones([1, 9], bool), window=2, threshold=1.1)
    with tf.GradientTape() as tape:
        tape.watch(nodes)
        refined = layer(nodes, graph)
    jacobian = tape.jacobian(refined, nodes).numpy()[0, 0, :, :, 0, 0]  # [i, :, j, :]
    reach = np.abs(jacobian).max((1, 3)) > 0
    distance = np.abs(np.arange(9)[:, None] - np.arange(9))
    np.testing.assert_array_equal(reach, distance <= 2)


def test_no_similar_pair_is_the_same_as_no_similarity() -> None:
    """Invariant 8: the weights of an empty relation have no influence."""
    layer, nodes = _layer(), _nodes()
    graph = build_graph(nodes, MASK, window=2, threshold=1.1)
    before = layer(nodes[:, None], graph).numpy()
    for weight in (layer.receiver_RHC, layer.sender_RHC):
        weight.assign(weight.numpy() * np.array([1, 1, 77])[:, None, None])
    np.testing.assert_array_equal(layer(nodes[:, None], graph), before)


def test_attention_is_static() -> None:
    """Invariant 11: all receivers rank their common neighbours alike."""
    layer = _layer(4, 1, project=False)
    layer.relation_HC.assign(np.zeros([1, 4]))
    layer.relation_bias_H.assign([0.0])
    # The first two components of a node decide its scores as a sender, the others tell it apart.
    layer.sender_RHC.assign(layer.sender_RHC * [1.0, 1.0, 0.0, 0.0])
    random = np.random.default_rng(4)
    everyone = _only(_complete(np.ones([1, 6], bool)), "sim")
    nodes = random.normal(size=(1, 1, 6, 4)).astype(np.float32)
    with tf.GradientTape() as tape:
        values = tf.constant(nodes[..., 3:])
        tape.watch(values)
        layer.receiver_RHC.assign(layer.receiver_RHC * [1.0, 1.0, 1.0, 0.0])
        refined = layer(tf.concat([nodes[..., :3], values], -1), everyone)[..., 3:]
    alpha = 2 * tape.jacobian(refined, values).numpy().reshape(6, 6)
    np.fill_diagonal(alpha, np.nan)
    for i in range(6):
        for other in range(6):
            common = [j for j in range(6) if j not in (i, other)]
            ranks = np.argsort(alpha[i, common])
            np.testing.assert_array_equal(ranks, np.argsort(alpha[other, common]))
    np.testing.assert_allclose(np.nansum(alpha, -1), 1, atol=1e-5)  # Invariant 12.


def test_messages_and_relations_are_weighted_means() -> None:
    """Invariant 12: where all nodes are equal, any weighted mean of them is that node."""
    layer = _layer(project=False)
    nodes = np.broadcast_to(np.arange(1, 9) / 4, [4, 1, 6, 8]).astype(np.float32)
    refined = layer(nodes, _complete(MASK)).numpy()
    np.testing.assert_allclose(refined, nodes * MASK[:, None, :, None], rtol=1e-6)


def test_padding_changes_nothing_and_gets_nothing() -> None:
    """Invariant 1."""
    layer, nodes = _layer(), _nodes()
    graph = build_graph(nodes, MASK, window=2, threshold=0.3)
    short = layer(nodes[:, None], graph).numpy()
    garbage = np.full([4, 3, 8], 1e3, np.float32)
    wide = np.concatenate([np.where(MASK[..., None], nodes, 1e3), garbage], 1)
    mask = np.concatenate([MASK, np.zeros([4, 3], bool)], 1)
    graph = build_graph(wide, mask, window=2, threshold=0.3)
    long = layer(wide[:, None].astype(np.float32), graph).numpy()
    np.testing.assert_allclose(long[:, :, :6], short, atol=1e-6)
    np.testing.assert_array_equal(long[:, :, 6:], 0)


def test_extreme_scores_stay_finite() -> None:
    layer, nodes = _layer(scale=100.0), tf.constant(_nodes()[:, None] * 100)
    graph = build_graph(nodes[:, 0], MASK, window=2, threshold=0.3)
    with tf.GradientTape() as tape:
        tape.watch(nodes)
        refined = layer(nodes, graph)
    assert np.isfinite(refined).all()
    assert np.isfinite(tape.gradient(refined, nodes)).all()


@pytest.mark.parametrize("project", [True, False])
def test_attention_gives_back_the_refined_nodes(project: bool) -> None:
    """Eq. 11 from the weights: h' = sum over relations of beta times the mean by alpha."""
    layer, nodes = _layer(project=project), _nodes()
    graph = build_graph(nodes, MASK, window=2, threshold=0.3)
    alpha, beta = (value.numpy()[:, 0] for value in layer.attention(nodes[:, None], graph))
    assert alpha.shape == (4, 3, 2, 6, 6)
    assert beta.shape == (4, 4, 2, 6)
    heads = nodes @ layer.projection_DD.numpy() if project else nodes
    heads = heads.reshape(4, 6, 2, 4)
    with_itself = np.concatenate([alpha, np.broadcast_to(np.eye(6), [4, 1, 2, 6, 6])], axis=1)
    refined = np.einsum("brhi,brhij,bjhc->bihc", beta, with_itself, heads).reshape(4, 6, 8)
    np.testing.assert_allclose(refined, layer(nodes[:, None], graph)[:, 0], atol=1e-5)
    has_neighbours = alpha.any(-1)
    np.testing.assert_allclose(alpha.sum(-1), has_neighbours, atol=1e-6)
    np.testing.assert_allclose(beta.sum(1)[MASK[:, None].repeat(2, 1)], 1, atol=1e-6)
    assert not beta[:, :3][~has_neighbours].any()
