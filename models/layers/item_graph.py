"""The heterogeneous graph between the items of a history (DemiNet, arXiv 2109.12512, eqs 1-5).

Shapes: B requests, V views of the same history (1, or 3 while edges are dropped), L history length,
D item width, W window: the largest distance of contextual neighbours, R = 2 directions of the
window: earlier and later.

No tensor here or in the layers that read the graph holds a pair of windows per pair of items:
contextual neighbours are kept as W shifted copies, and only similarity is dense in L x L.
"""

from typing import NamedTuple

from models import randomness
from models.keras import tf


class ItemGraph(NamedTuple):
    """From which nodes each node receives messages; self-connections are implied.

    Attributes:
        context_BVRWL: Whether node i receives from the node w + 1 steps before it (R = 0, eq. 1) or
            after it (R = 1, eq. 2).
        similar_BVLL: Whether node i (third axis) receives from node j (last axis), eq. 4.
        mask_BL: Which nodes exist.
    """

    context_BVRWL: tf.Tensor
    similar_BVLL: tf.Tensor
    mask_BL: tf.Tensor


def window_offsets(window: int) -> list[list[int]]:
    """Distance from a node to its contextual neighbours: [earlier, later], nearest first."""
    steps = range(1, window + 1)
    return [[-step for step in steps], [+step for step in steps]]


def shifted(values: tf.Tensor, offset: int, axis: int) -> tf.Tensor:
    """At place i the value of place i + offset; beyond either end it wraps around.

    What wraps is meaningless, and excluded by `ItemGraph.context_BVRWL`.
    """
    return tf.roll(values, -offset, axis)


def build_graph(
    history_BLD: tf.Tensor, mask_BL: tf.Tensor, *, window: int, threshold: float
) -> ItemGraph:
    """Connects the items of each history: contextually before and after, and by similarity.

    Similarity is the cosine of the embeddings (eq. 3) and a pair is connected in both directions if
    it reaches the threshold (eq. 4). The comparison has no gradient. A node is not similar to
    itself: that is the self-connection of eq. 5.

    Args:
        history_BLD: Embedded history.
        mask_BL: True for events.
        window: epsilon, how many neighbours on either side are contextual; 0 for none.
        threshold: t in [-1, 1]; above 1 nothing is similar.

    Returns:
        The graph, with V = 1.
    """
    length = tf.shape(mask_BL)[1]
    place_L = tf.range(length)
    offsets_RW = tf.reshape(tf.constant(window_offsets(window), tf.int32), [2, window])
    neighbour_RWL = place_L + offsets_RW[:, :, None]
    # The mask is a prefix, so a neighbour exists if its place is below the length of the history.
    lengths_B = tf.reduce_sum(tf.cast(mask_BL, tf.int32), axis=1)
    context_BRWL = (neighbour_RWL >= 0) & (neighbour_RWL < lengths_B[:, None, None, None])
    context_BRWL &= mask_BL[:, None, None, :]

    # Cosines in float32 whatever the policy: in half precision they would flip at the threshold.
    unit_BLD = tf.math.l2_normalize(tf.cast(tf.stop_gradient(history_BLD), tf.float32), -1)
    similar_BLL = tf.matmul(unit_BLD, unit_BLD, transpose_b=True) >= threshold
    similar_BLL &= mask_BL[:, :, None] & mask_BL[:, None, :] & (place_L[:, None] != place_L)
    return ItemGraph(context_BRWL[:, None], similar_BLL[:, None], mask_BL)


def add_dropped_views(graph: ItemGraph, *, rate: float, seed: tf.Tensor) -> ItemGraph:
    """The graph beside two views of it with edges dropped at random (eqs 16-17).

    Every directed edge of every relation is dropped by itself with probability `rate`, in each view
    anew; self-connections stay. Heads and layers share the views.

    Args:
        graph: A graph with V = 1.
        rate: rho, probability of dropping an edge.
        seed: int32 [2].

    Returns:
        A graph with V = 3: complete, first view, second view.
    """

    def add_views(edges: tf.Tensor, place: str) -> tf.Tensor:
        shape = tf.concat([tf.shape(edges)[:1], [2], tf.shape(edges)[2:]], 0)
        draws = randomness.uniform(randomness.for_place(seed, place), shape)
        return tf.concat([edges, edges & (draws >= rate)], axis=1)

    return ItemGraph(
        add_views(graph.context_BVRWL, "item_graph/context"),
        add_views(graph.similar_BVLL, "item_graph/similar"),
        graph.mask_BL,
    )
