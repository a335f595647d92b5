"""Layouts of weights: the mapping of their entries to features.

An axis of a weight that corresponds to features consists of blocks, one for each feature of a
concatenation. A model declares these axes in `Backbone.layouts`, beside the code that concatenates.
A warm start then finds every block in the weight of another run, at any position.

Shapes: B requests, d embedding width per field.
"""

import dataclasses
from collections import Counter
from collections.abc import Hashable, Iterator
from itertools import combinations
from typing import NamedTuple

import numpy as np

from models.keras import keras, tf
from preprocessing.features.encoder_specs import Numeric
from preprocessing.features.feature import Feature
from preprocessing.schema import Schema

_HIDDEN = "hidden"


class Field(NamedTuple):
    """A feature on a side of the request.

    Attributes:
        side: "user", "history" or "candidate".
        name: Name of the feature.
        kind: Further properties that identify the feature in another run; see `kind`.
    """

    side: str
    name: str
    kind: str


class Block(NamedTuple):
    """Adjacent entries of an axis that belong together.

    Attributes:
        label: Identity of the block, such as a field. If labels repeat in an axis, the n-th one
            corresponds to the n-th one of another run.
        width: Number of entries.
    """

    label: Hashable
    width: int


@dataclasses.dataclass(frozen=True)
class Layout:
    """The blocks of an axis, in order; `a + b` and `a * n` are layouts of concatenations."""

    blocks: tuple[Block, ...] = ()

    def __add__(self, other: "Layout") -> "Layout":
        return Layout(self.blocks + other.blocks)

    def __mul__(self, times: int) -> "Layout":
        return Layout(self.blocks * times)

    @property
    def size(self) -> int:
        """Number of entries of the axis."""
        return sum(block.width for block in self.blocks)

    def each(self, width: int) -> "Layout":
        """The same blocks with another width, such as 1 for a scalar per field."""
        return Layout(tuple(block._replace(width=width) for block in self.blocks))

    def equal_slices(self, count: int) -> "Layout":
        """The layout of an axis whose entries are `count` equal slices of this axis.

        A slice that holds parts of several blocks matches one of another run only if that holds the
        same parts.
        """
        parts = [(block.label, i) for block in self.blocks for i in range(block.width)]
        width = len(parts) // count
        slices = [tuple(parts[i * width : (i + 1) * width]) for i in range(count)]
        return Layout(tuple(Block(label, 1) for label in slices))

    def numbered(self) -> Iterator[tuple[tuple[Hashable, int], int, int]]:
        """Label and number among equal labels, first entry, and width of each block."""
        seen: Counter[Hashable] = Counter()
        start = 0
        for label, width in self.blocks:
            yield (label, seen[label]), start, width
            seen[label] += 1
            start += width


Axes = tuple[Layout | None, ...]
"""Layouts of the axes of a weight; None for an axis without features and of fixed size.

A layout beyond the last axis means that the weight depends on all entries of the layout together.
"""

Layouts = Iterator[tuple[tf.Variable, Axes]]
"""Weights with their axes. For weights that are not yielded, the layout is unknown."""


def hidden(width: int, groups: int = 1) -> Layout:
    """An axis of hidden units, or of several groups of them, such as gates or heads.

    The n-th unit of a group corresponds to the n-th unit in another run, even if the numbers of
    units differ.
    """
    return Layout((Block(_HIDDEN, width),)) * groups


def products(first: Layout, second: Layout) -> Layout:
    """The layout of all pairs of a block of each, in row-major order; a product is one entry."""
    return Layout(tuple(Block((a.label, b.label), 1) for a in first.blocks for b in second.blocks))


def distinct_pairs(layout: Layout) -> Layout:
    """The layout of the pairs i < j of blocks, in row-major order; (a, b) equals (b, a)."""
    return Layout(
        tuple(Block(frozenset((a.label, b.label)), 1) for a, b in combinations(layout.blocks, 2))
    )


def of_dense(layer: keras.layers.Dense, reads: Layout | None, writes: Layout | None) -> Layouts:
    """Layouts of a dense layer.

    Args:
        layer: Built layer.
        reads: Layout of its input.
        writes: Layout of its output.
    """
    yield layer.kernel, (reads, writes)
    if layer.use_bias:
        yield layer.bias, (writes,)


def featureless(*layers: keras.layers.Layer) -> Layouts:
    """Layouts of layers whose weights do not depend on features and have fixed sizes."""
    for layer in layers:
        for weight in layer.weights:
            yield weight, ()


def places(before: Layout, after: Layout) -> np.ndarray:
    """For each entry of `after` its position in `before`; -1 if it is missing there."""
    known = {key: (start, width) for key, start, width in before.numbered()}
    place_by_entry = np.full(after.size, -1, np.int64)
    for key, start, width in after.numbered():
        first, count = known.get(key, (0, 0))
        common = min(width, count)
        place_by_entry[start : start + common] = np.arange(first, first + common)
    return place_by_entry


def kind(feature: Feature) -> str:
    """Properties that features of the same name must share to match: role, encoder and dtype."""
    encoder = feature.encoder
    assert encoder is not None
    detail = encoder.normalisation if isinstance(encoder, Numeric) else feature.dtype.value
    if feature.is_vector:
        detail = f"{feature.shape[0]} numbers"
    return f"{feature.role.value}, {encoder.kind} of {detail}"


@dataclasses.dataclass(frozen=True)
class Fields:
    """The embedded features of a request as blocks of width d, as `FeatureEmbedder` stacks them.

    Attributes:
        user: User and context features.
        history: Item features of the events of a history, and of vectors derived from whole events.
        target: The features of `history` for a candidate.
        extra: Further item features of a candidate.
    """

    user: Layout
    history: Layout
    target: Layout
    extra: Layout

    @classmethod
    def of(cls, schema: Schema, embedding_size: int) -> "Fields":
        """The fields of a model with d = `embedding_size`."""

        def layout(side: str, features: tuple[Feature, ...]) -> Layout:
            fields = (Field(side, feature.name, kind(feature)) for feature in features)
            return Layout(tuple(Block(field, embedding_size) for field in fields))

        return cls(
            user=layout("user", schema.user_features),
            history=layout("history", schema.history_features),
            target=layout("candidate", schema.history_features),
            extra=layout("candidate", schema.extra_features),
        )

    @property
    def pair(self) -> Layout:
        """Layout of `models.backbone_api.pair_fields`."""
        return self.user + self.target + self.extra
