"""Shapes of embedding tables, known before any of them is made."""

import math
from collections.abc import Mapping

from models.config.pretrained import Pretrained


def projected_widths(pretrained: Mapping[str, Pretrained], embedding_size: int) -> dict[str, int]:
    """Widths of the vectors that are projected to the width of a field, by feature."""
    return {
        name: vectors.width
        for name, vectors in pretrained.items()
        if vectors.is_projected(embedding_size)
    }


def table_shapes(
    cardinalities: Mapping[str, int],
    width: int,
    compressed: Mapping[str, int],
    widths: Mapping[str, int],
) -> dict[str, list[tuple[int, int]]]:
    """Shape of the table of each feature, followed by that of its quotient table, if any.

    Args:
        cardinalities: Number of ids of each categorical feature, padding included; 0 for others.
        width: Number of columns.
        compressed: Number of ids that share a row, by compressed feature.
        widths: Number of columns of tables that have another one, by feature.
    """
    shapes = {}
    for name, ids in cardinalities.items():
        rows = math.ceil(ids / compressed.get(name, 1))
        shapes[name] = [(rows, widths.get(name, width))]
        if name in compressed:
            shapes[name].append((math.ceil(ids / rows), width))
    return shapes
