"""The heterogeneous graph on the items of a history (DemiNet, arXiv 2109.12512, eqs 1-5).

Shapes: B requests, V views of the same history (1, or 3 if edges are dropped), L history length,
D item width, W window: the largest distance of contextual neighbours, R = 2 directions of the
window: earlier and later.

Contextual edges are stored per distance, and only similarity is dense in L x L, here and in the
layers that use the graph.
"""

from typing import NamedTuple

from models.keras import tf
from models.ops import randomness


class ItemGraph(NamedTuple):
    """The edges by which each node receives messages, by relation.

    Attributes:
        context_BVRWL: Whether node i receives from the node w + 1 steps before it (R = 0, eq. 1) or
            after it (R = 1, eq. 2).
        similar_BVLL: Whether node i (third axis) receives from node j (last axis), eq. 4.
        self_BVL: Whether node i receives from itself, eq. 5; V may be 1 for all views.
        mask_BL: Whether each node exists.

    Example:
        >>> history_BLD = tf.constant([[[1.0, 0.0], [0.0, 1.0], [2.0, 0.0]]])
        >>> graph = build_graph(history_BLD, tf.ones([1, 3], tf.bool), window=1, threshold=0.7)
        >>> tf.where(graph.similar_BVLL[0, 0]).numpy().tolist()
        [[0, 2], [2, 0]]
    """

    context_BVRWL: tf.Tensor
    similar_BVLL: tf.Tensor
    self_BVL: tf.Tensor
    mask_BL: tf.Tensor


class MergedGraph(NamedTuple):
    """A graph with the union of the edges of all relations.

    Attributes:
        edges_BVLL: Whether node i (third axis) receives from another node j (last axis).
        self_BVL: Whether node i receives from itself; V may be 1 for all views.
        mask_BL: Whether each node exists.

    Example:
        >>> history_BLD = tf.constant([[[1.0, 0.0], [0.0, 1.0], [2.0, 0.0]]])
        >>> graph = build_graph(history_BLD, tf.ones([1, 3], tf.bool), window=1, threshold=0.7)
        >>> tf.where(merge_relations(graph).edges_BVLL[0, 0]).numpy().tolist()
        [[0, 1], [0, 2], [1, 0], [1, 2], [2, 0], [2, 1]]
    """

    edges_BVLL: tf.Tensor
    self_BVL: tf.Tensor
    mask_BL: tf.Tensor


Graph = ItemGraph | MergedGraph


def window_offsets(window: int) -> list[list[int]]:
    """Offsets from a node to its contextual neighbours: [earlier, later], nearest first.

    Example:
        >>> window_offsets(3)
        [[-1, -2, -3], [1, 2, 3]]
    """
    steps = range(1, window + 1)
    return [[-step for step in steps], [+step for step in steps]]


def shifted(values: tf.Tensor, offset: int, axis: int) -> tf.Tensor:
    """Values whose entry i is the entry i + offset of `values`, wrapping around at the ends.

    Wrapped values are meaningless; `ItemGraph.context_BVRWL` excludes them.
    """
    return tf.roll(values, -offset, axis)


def build_graph(
    history_BLD: tf.Tensor, mask_BL: tf.Tensor, *, window: int, threshold: float
) -> ItemGraph:
    """Builds the graph of each history: contextual edges in both directions, and similarity.

    Similarity is the cosine of the embeddings (eq. 3); a pair is connected in both directions if it
    reaches the threshold (eq. 4). The comparison has no gradient. Similarity excludes the pair of a
    node with itself, which is the self-connection of eq. 5.

    Args:
        history_BLD: Embedded history.
        mask_BL: True for events.
        window: Number epsilon of contextual neighbours on either side; 0 for none.
        threshold: Threshold t in [-1, 1]; above 1 no pair is similar.

    Returns:
        The graph, with V = 1.
    """
    length = tf.shape(mask_BL)[1]
    place_L = tf.range(length)
    offsets_RW = tf.reshape(tf.constant(window_offsets(window), tf.int32), [2, window])
    neighbour_RWL = place_L + offsets_RW[:, :, None]
    # The mask is a prefix, so a neighbour exists if its index is below the length of the history.
    lengths_B = tf.reduce_sum(tf.cast(mask_BL, tf.int32), axis=1)
    context_BRWL = (neighbour_RWL >= 0) & (neighbour_RWL < lengths_B[:, None, None, None])
    context_BRWL &= mask_BL[:, None, None, :]

    # Cosines need float32 under any policy: rounding could move them across the threshold.
    unit_BLD = tf.math.l2_normalize(tf.cast(tf.stop_gradient(history_BLD), tf.float32), -1)
    similar_BLL = tf.matmul(unit_BLD, unit_BLD, transpose_b=True) >= threshold
    similar_BLL &= mask_BL[:, :, None] & mask_BL[:, None, :] & (place_L[:, None] != place_L)
    return ItemGraph(context_BRWL[:, None], similar_BLL[:, None], mask_BL[:, None], mask_BL)


def merge_relations(graph: ItemGraph) -> MergedGraph:
    """The homogeneous graph with the union of the contextual and the similar edges."""
    length = tf.shape(graph.mask_BL)[1]
    distance_LL = tf.range(length) - tf.range(length)[:, None]
    edges_BVLL = graph.similar_BVLL
    offsets_RW = window_offsets(graph.context_BVRWL.shape[3])
    for offsets, side_BVWL in zip(offsets_RW, tf.unstack(graph.context_BVRWL, axis=2), strict=True):
        for offset, edges_BVL in zip(offsets, tf.unstack(side_BVWL, axis=2), strict=True):
            edges_BVLL |= tf.expand_dims(edges_BVL, -1) & (distance_LL == offset)
    return MergedGraph(edges_BVLL, graph.self_BVL, graph.mask_BL)


def add_dropped_views(
    graph: Graph, *, rate: float, seed: tf.Tensor, drop_self: bool = False
) -> Graph:
    """The graph and two views of it with edges dropped at random (eqs 16-17).

    Every directed edge of every relation is dropped independently with probability `rate` in each
    view. Heads and layers share the views.

    Args:
        graph: A graph with V = 1.
        rate: Probability rho of dropping an edge.
        seed: Seed of the draws, int32 [2].
        drop_self: Whether self-connections are dropped too; a node may then receive nothing.

    Returns:
        A graph with V = 3: complete, first view, second view.
    """

    def add_views(edges: tf.Tensor, place: str) -> tf.Tensor:
        shape = tf.concat([tf.shape(edges)[:1], [2], tf.shape(edges)[2:]], 0)
        draws = randomness.uniform_rows(randomness.for_place(seed, place), shape)
        return tf.concat([edges, edges & (draws >= rate)], axis=1)

    stays = {"mask_BL"} if drop_self else {"mask_BL", "self_BVL"}
    return graph._replace(
        **{
            name: add_views(edges, f"item_graph/{name}")
            for name, edges in graph._asdict().items()
            if name not in stays
        }
    )


def edge_densities(graph: ItemGraph) -> dict[str, tf.Tensor]:
    """Share of the ordered pairs of different events that each relation connects, over the batch.

    Args:
        graph: A graph with V = 1.

    Returns:
        Scalars by relation: earlier, later, similar.
    """
    lengths_B = tf.reduce_sum(tf.cast(graph.mask_BL, tf.float32), axis=1)
    pairs = tf.reduce_sum(lengths_B * (lengths_B - 1.0))
    earlier, later = tf.unstack(graph.context_BVRWL, axis=2)
    relations = {"earlier": earlier, "later": later, "similar": graph.similar_BVLL}
    return {
        name: tf.math.divide_no_nan(tf.reduce_sum(tf.cast(edges, tf.float32)), pairs)
        for name, edges in relations.items()
    }
