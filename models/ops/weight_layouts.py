"""Which entries of a weight belong to which feature.

An axis of a weight that faces features is made of blocks, one for each feature of a concatenation.
A model says so for each such axis (`Backbone.layouts`), beside the code that concatenates. A warm
start then finds every block in the weight of another run, wherever it stands there.

Shapes: B requests, d embedding width per field.
"""

import dataclasses
from collections import Counter
from collections.abc import Hashable, Iterator
from itertools import combinations
from typing import NamedTuple

import numpy as np

from models.keras import keras, tf
from preprocessing.encoder_specs import Numeric
from preprocessing.schema import Feature, Schema

_HIDDEN = "hidden"


class Field(NamedTuple):
    """A feature on a side of the request.

    Attributes:
        side: "user", "history" or "candidate".
        name: Of the feature.
        kind: What else makes it the same feature in another run; see `kind`.
    """

    side: str
    name: str
    kind: str


class Block(NamedTuple):
    """Neighbouring entries of an axis that belong together.

    Attributes:
        label: What they belong to. Of equal labels in an axis, the n-th one means the n-th one of
            another run.
        width: Their number.
    """

    label: Hashable
    width: int


@dataclasses.dataclass(frozen=True)
class Layout:
    """The blocks of an axis, in order. `a + b` and `a * n` are those of concatenations."""

    blocks: tuple[Block, ...] = ()

    def __add__(self, other: "Layout") -> "Layout":
        return Layout(self.blocks + other.blocks)

    def __mul__(self, times: int) -> "Layout":
        return Layout(self.blocks * times)

    @property
    def size(self) -> int:
        """Entries of the axis."""
        return sum(block.width for block in self.blocks)

    def each(self, width: int) -> "Layout":
        """The same blocks in another width, such as 1 for a scalar per field."""
        return Layout(tuple(block._replace(width=width) for block in self.blocks))

    def slices(self, count: int) -> "Layout":
        """The axis of `count` equal slices of this one, each one entry.

        A slice that holds parts of several blocks is the same in another run only if it holds the
        same parts there.
        """
        parts = [(block.label, i) for block in self.blocks for i in range(block.width)]
        width = len(parts) // count
        slices = [tuple(parts[i * width : (i + 1) * width]) for i in range(count)]
        return Layout(tuple(Block(label, 1) for label in slices))

    def numbered(self) -> Iterator[tuple[tuple[Hashable, int], int, int]]:
        """Label and its number among equal ones, first entry and width of each block."""
        seen: Counter[Hashable] = Counter()
        start = 0
        for label, width in self.blocks:
            yield (label, seen[label]), start, width
            seen[label] += 1
            start += width


Axes = tuple[Layout | None, ...]
"""Layouts of the axes of a weight; None for one that faces no feature and whose size is fixed.

A layout beyond the last axis: the weight belongs to all of its entries at once.
"""

Layouts = Iterator[tuple[tf.Variable, Axes]]
"""Weights with their axes. A weight that is left out may face features nobody knows how."""


def hidden(width: int, groups: int = 1) -> Layout:
    """An axis of hidden units, or of several groups of them, such as gates or heads.

    Units mean what the weights make of them, so that unit n of a group is unit n in another run,
    also if there are more of them.
    """
    return Layout((Block(_HIDDEN, width),)) * groups


def products(first: Layout, second: Layout) -> Layout:
    """The axis of all pairs of a block of each, row by row; a product is one entry."""
    return Layout(tuple(Block((a.label, b.label), 1) for a in first.blocks for b in second.blocks))


def distinct_pairs(layout: Layout) -> Layout:
    """The axis of the pairs i < j of blocks, row by row; (a, b) is the same as (b, a)."""
    return Layout(
        tuple(Block(frozenset((a.label, b.label)), 1) for a, b in combinations(layout.blocks, 2))
    )


def of_dense(layer: keras.layers.Dense, reads: Layout | None, writes: Layout | None) -> Layouts:
    """Layouts of a dense layer.

    Args:
        layer: Built.
        reads: Of its input.
        writes: Of its output.
    """
    yield layer.kernel, (reads, writes)
    if layer.use_bias:
        yield layer.bias, (writes,)


def featureless(*layers: keras.layers.Layer) -> Layouts:
    """Layouts of layers whose weights face no feature and have fixed sizes."""
    for layer in layers:
        for weight in layer.weights:
            yield weight, ()


def places(before: Layout, after: Layout) -> np.ndarray:
    """For each entry of `after` its place in `before`; -1 if it is not there."""
    known = {key: (start, width) for key, start, width in before.numbered()}
    found = np.full(after.size, -1, np.int64)
    for key, start, width in after.numbered():
        first, count = known.get(key, (0, 0))
        common = min(width, count)
        found[start : start + common] = np.arange(first, first + common)
    return found


def kind(feature: Feature) -> str:
    """What must be equal for features of one name to be the same: role, encoder and dtype."""
    encoder = feature.encoder
    assert encoder is not None
    of = encoder.normalisation if isinstance(encoder, Numeric) else feature.dtype.value
    return f"{feature.role.value}, {encoder.kind} of {of}"


@dataclasses.dataclass(frozen=True)
class Fields:
    """The embedded features of a request as blocks of width d, as `FeatureEmbedder` stacks them.

    Attributes:
        user: User and context features.
        history: Item features of the events of a history, and of what is made of whole events.
        target: The same features of a candidate.
        extra: Further item features of a candidate.
    """

    user: Layout
    history: Layout
    target: Layout
    extra: Layout

    @classmethod
    def of(cls, schema: Schema, embedding_size: int) -> "Fields":
        """The fields of a model of d = `embedding_size`."""

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
        """Of `models.backbone_api.pair_fields`."""
        return self.user + self.target + self.extra
