"""The graph operators of DemiNet by name (arXiv 2109.12512, Figure 3).

Every operator is a stack of layers `(nodes_BVLD, graph) -> nodes_BVLD`. The class attribute
`merges_relations` tells whether a layer needs an `ItemGraph` or the `MergedGraph` of all relations.
"""

from models.keras import keras
from models.layers.graph.graph_attention import DependencyAttention
from models.layers.graph.light_convolution import LightConvolution
from models.layers.graph.merged_attention import MergedAttention
from models.layers.graph.relational_convolution import RelationalConvolution

OPERATORS = ("dha", "gat", "lgc", "gcmc", "none")


def graph_layers(
    operator: str, width: int, *, depth: int, heads: int, project: bool, slope: float
) -> list[keras.layers.Layer]:
    """The layers of an operator, in the order of their application.

    Args:
        operator: One of `OPERATORS`; "none" has no layers.
        width: Item width D.
        depth: Number of rounds of message passing.
        heads: Number of attention heads, a divisor of D.
        project: Whether heads are slices of a learned projection, or of the nodes.
        slope: Slope of LeakyReLU for negative inputs.

    Example:
        >>> layers = graph_layers("dha", 8, depth=2, heads=2, project=True, slope=0.2)
        >>> [layer.name for layer in layers]
        ['graph_0', 'graph_1']
    """
    if operator == "none":
        return []
    if operator == "lgc":
        return [LightConvolution(depth, name="graph")]
    names = [f"graph_{i}" for i in range(depth)]
    if operator == "gcmc":
        return [RelationalConvolution(width, name=name) for name in names]
    attention = {"dha": DependencyAttention, "gat": MergedAttention}[operator]
    return [attention(width, heads, project=project, slope=slope, name=name) for name in names]
