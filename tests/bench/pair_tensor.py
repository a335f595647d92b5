"""DemiNet's graph attention as its equations read: on [h_i || h_j] of all pairs of nodes.

Shapes: B requests, L history length, D item width, H heads, C = D / H head width, E = 2 C, R = 3
relations with a learned attention: earlier, later, similar; Q = R + 1 relations including the
self-connection.
"""

from collections.abc import Callable

import numpy as np

from models.keras import tf
from models.layers.graph.graph_attention import DependencyAttention
from models.layers.graph.item_graph import build_graph
from models.layers.masking import masked_softmax

from .figures import Figure, compare

_LENGTH, _WIDTH, _HEADS, _WINDOW = 50, 32, 4, 3

PairScores = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]


def measure(quick: bool) -> list[Figure]:
    """One unit of work is a layer forward and backward, on a graph that is given."""
    nodes_BLD, mask_BL = _histories(8 if quick else 256)
    graph = build_graph(nodes_BLD, mask_BL, window=_WINDOW, threshold=0.7)
    edges_BRLL = _dense_edges(graph.similar_BVLL[:, 0], mask_BL)
    layer = DependencyAttention(_WIDTH, _HEADS)

    def step(refine: Callable[[], tf.Tensor]) -> Callable[[], list[tf.Tensor]]:
        def forward_and_backward() -> list[tf.Tensor]:
            with tf.GradientTape() as tape:
                loss = tf.reduce_sum(tf.square(refine()))
            return [loss, *tape.gradient(loss, layer.trainable_weights)]

        return tf.function(forward_and_backward)

    ours = step(lambda: layer(nodes_BLD[:, None], graph)[:, 0])
    size = f"B={len(mask_BL)} L={_LENGTH} D={_WIDTH} H={_HEADS}"
    figures = []
    for name, scores, title, target in (
        ("dha_pair_tensor", all_heads, "the equations on [h_i || h_j] of all pairs", 20),
        ("dha_pair_tensor_by_head", by_head, "as above, tuned: a matrix product per head", None),
    ):

        def refine(scores: PairScores = scores) -> tf.Tensor:
            return pair_tensor_attention(layer, nodes_BLD, edges_BRLL, mask_BL, scores)

        baseline = step(refine)
        for mine, theirs in zip(ours(), baseline(), strict=True):
            largest = float(tf.reduce_max(tf.abs(theirs)))
            np.testing.assert_allclose(mine, theirs, atol=1e-4 * largest)
        times = compare(ours, baseline)
        figures.append(times.speedup(name, f"{title}, {size}", target))
    return figures


def pair_tensor_attention(
    layer: DependencyAttention,
    nodes_BLD: tf.Tensor,
    edges_BRLL: tf.Tensor,
    mask_BL: tf.Tensor,
    pair_scores: PairScores,
) -> tf.Tensor:
    """Eqs 6-11 with the weights of a layer.

    Args:
        layer: Gives the weights.
        nodes_BLD: Nodes.
        edges_BRLL: Whether node i (third axis) receives from node j (last axis).
        mask_BL: Which nodes exist.
        pair_scores: `all_heads` or `by_head`.

    Returns:
        h' of eq. 11, [B, L, D].
    """
    assert layer.projection_DD is not None
    shape = [*nodes_BLD.shape[:2], layer.heads, layer.head_width]
    nodes_BLHC = tf.reshape(nodes_BLD @ layer.projection_DD, shape)
    nodes_BHLC = tf.transpose(nodes_BLHC, [0, 2, 1, 3])
    weights_RHE = tf.concat([layer.receiver_RHC, layer.sender_RHC], -1)
    scores_BRHLL = tf.nn.leaky_relu(pair_scores(nodes_BHLC, weights_RHE), layer.slope)  # Eq. 6.
    weights_BRHLL = masked_softmax(scores_BRHLL, edges_BRLL[:, :, None])  # Eq. 7.
    messages = [weights_BHLL @ nodes_BHLC for weights_BHLL in tf.unstack(weights_BRHLL, axis=1)]
    messages_BQHLC = tf.stack([*messages, nodes_BHLC], axis=1)  # Eq. 8.
    reached_BRL = tf.reduce_any(edges_BRLL, axis=-1)
    reached_BQL = tf.concat([reached_BRL, mask_BL[:, None]], axis=1)
    scores_BQHL = tf.reduce_sum(messages_BQHLC * layer.relation_HC[:, None], -1)  # Eq. 9.
    scores_BQHL = tf.nn.leaky_relu(scores_BQHL + layer.relation_bias_H[:, None], layer.slope)
    shares_BQHL = masked_softmax(scores_BQHL, reached_BQL[:, :, None], axis=1)  # Eq. 10.
    fused_BHLC = tf.reduce_sum(shares_BQHL[..., None] * messages_BQHLC, axis=1)  # Eq. 11.
    fused_BLD = tf.reshape(tf.transpose(fused_BHLC, [0, 2, 1, 3]), tf.shape(nodes_BLD))
    return tf.where(mask_BL[..., None], fused_BLD, 0.0)


def all_heads(nodes_BHLC: tf.Tensor, weights_RHE: tf.Tensor) -> tf.Tensor:
    """w . [h_i || h_j] as eq. 6 reads, relation by relation, [B, R, H, L, L]."""
    pairs_BHLLE = _pairs(nodes_BHLC)
    scores = [
        tf.einsum("bhije,he->bhij", pairs_BHLLE, weights_HE)
        for weights_HE in tf.unstack(weights_RHE)
    ]
    return tf.stack(scores, axis=1)


def by_head(nodes_BHLC: tf.Tensor, weights_RHE: tf.Tensor) -> tf.Tensor:
    """As `all_heads`, arranged so that nothing is transposed: a matrix product per head."""
    scores = [
        tf.stack(
            [tf.tensordot(pairs_BLLE, weights_E, 1) for weights_E in tf.unstack(weights_RE)], 1
        )
        for pairs_BLLE, weights_RE in zip(
            map(_pairs, tf.unstack(nodes_BHLC, axis=1)),
            tf.unstack(weights_RHE, axis=1),
            strict=True,
        )
    ]
    return tf.stack(scores, axis=2)


def _pairs(nodes: tf.Tensor) -> tf.Tensor:
    """[h_i || h_j] of all pairs: [..., L, C] to [..., L, L, E]."""
    shape = [*nodes.shape[:-1], _LENGTH, nodes.shape[-1]]
    receivers = tf.broadcast_to(tf.expand_dims(nodes, -2), shape)
    senders = tf.broadcast_to(tf.expand_dims(nodes, -3), shape)
    return tf.concat([receivers, senders], -1)


def _histories(requests: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Histories of 1 to 50 events that repeat items, so that some are similar."""
    rng = np.random.default_rng(0)
    items = rng.normal(size=[20, _WIDTH]).astype(np.float32)
    mask_BL = np.arange(_LENGTH) < rng.integers(1, _LENGTH + 1, [requests, 1])
    nodes_BLD = items[rng.integers(0, len(items), mask_BL.shape)] * mask_BL[..., None]
    return tf.constant(nodes_BLD), tf.constant(mask_BL)


def _dense_edges(similar_BLL: tf.Tensor, mask_BL: tf.Tensor) -> tf.Tensor:
    """The three relations of `build_graph`, each with an entry for every pair."""
    place_L = tf.range(_LENGTH)
    earlier_LL = place_L[:, None] - place_L
    exists_BLL = mask_BL[:, :, None] & mask_BL[:, None]
    sides = [
        exists_BLL & (distance_LL >= 1) & (distance_LL <= _WINDOW)
        for distance_LL in (earlier_LL, -earlier_LL)
    ]
    return tf.stack([*sides, similar_BLL], axis=1)
