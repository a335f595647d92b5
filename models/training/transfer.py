"""Copies weights between models of the same settings whose features may differ.

Weights are matched by their path in the model, and their entries by the feature they belong to (see
`models.ops.weight_layouts`), so that neither the order of features nor their number matters.
"""

import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from models.backbone_api import Backbone
from models.core.base import CTRModel
from models.core.embeddings import single_variables
from models.keras import tf
from models.ops.weight_layouts import Axes, Field, Fields, kind, places
from preprocessing.errors import UserError
from preprocessing.schema import Schema

_BACKBONE = "backbone."
_SHOWN = 5


class Transfer(NamedTuple):
    """Result of the transfer of the weights other than embedding tables.

    Attributes:
        whole: Number of weights copied in full.
        partial: Number of weights of which some entries were copied; the others stay initial.
        new: Names of the weights of which no entry was copied.
        shrunk: Number of copied weights that lost the entries of removed features.
        difference: Difference of the features of both models.
    """

    whole: int
    partial: int
    new: list[str]
    shrunk: int
    difference: "Difference"

    def __str__(self) -> str:
        text = f"{self.whole + self.partial:,} other weights taken over"
        if self.partial:
            text += (
                f", {self.partial:,} of them in part (new rows for {_join(self.difference.new)})"
            )
        text += f", {len(self.new):,} new"
        if self.new:
            text += f" ({_join(self.new)})"
        if self.shrunk:
            text += f"; rows for {_join(self.difference.gone)} left behind in {self.shrunk:,}"
        return text


class Difference(NamedTuple):
    """The difference of the features of two models.

    Attributes:
        new: Names of features that the first model lacks, or has with another kind or place.
        gone: Names of features that the second model lacks, or has with another kind or place.
        is_reordered: Whether common features are in another order.
    """

    new: list[str]
    gone: list[str]
    is_reordered: bool

    @classmethod
    def between(cls, before: Fields, after: Fields) -> "Difference":
        """The difference of the fields of two models."""
        old, new = _fields(before), _fields(after)
        common = [field for field in old if field in new]
        return cls(
            new=_names(field for field in new if field not in old),
            gone=_names(field for field in old if field not in new),
            is_reordered=common != [field for field in new if field in old],
        )

    def __str__(self) -> str:
        parts = [
            f"{title} {', '.join(names)}"
            for title, names in (("new:", self.new), ("gone:", self.gone))
            if names
        ]
        return "; ".join(parts + ["in another order"] * self.is_reordered)


def why_new(name: str, before: Schema, after: Schema) -> str | None:
    """The reason why a feature of `after` is not one of `before`; None if it is."""
    theirs = {feature.name: kind(feature) for feature in before.encoded_features}
    ours = kind(after[name])
    if name not in theirs:
        return "the run does not have it"
    return None if theirs[name] == ours else f"it is {ours} here, {theirs[name]} there"


def copy_dense(source: CTRModel, model: CTRModel) -> tuple[Transfer, list[str]]:
    """Copies the weights of embedder and backbone other than tables.

    Returns:
        The result of the transfer, and warnings.

    Raises:
        UserError: The layouts of the model do not fit its weights.
    """
    before, after = _fields_of(source), _fields_of(model)
    difference = Difference.between(before, after)
    copies = [*_copy_vectors(source, model), *_copy_projections(source, model)]
    copies += [*_copy_backbone(source, model, before, after)]
    undeclared = [copy.name for copy in copies if not copy.is_declared]
    warnings = []
    if undeclared:
        warnings.append(
            f"WARNING: {type(model.backbone).__name__} does not say which feature the entries of "
            f"{_join(undeclared)} belong to, and the features differ ({difference}): these begin "
            "anew. Fix: its method layouts should yield them, see docs/extending.md."
        )
    transfer = Transfer(
        whole=sum(copy.taken == copy.size for copy in copies),
        partial=sum(0 < copy.taken < copy.size for copy in copies),
        new=[copy.name for copy in copies if copy.taken == 0 < copy.size],
        shrunk=sum(0 < copy.taken < copy.there for copy in copies),
        difference=difference,
    )
    return transfer, warnings


class _Copy(NamedTuple):
    """Result of the transfer of a weight.

    Attributes:
        name: Name of the weight.
        taken: Number of entries copied.
        size: Number of entries of the weight.
        there: Number of entries of the weight in the source.
        is_declared: Whether the features of the entries are known, if that matters.
    """

    name: str
    taken: int
    size: int
    there: int
    is_declared: bool = True


def _copy_vectors(source: CTRModel, model: CTRModel) -> Iterator[_Copy]:
    for name, ours in model.embedder.vectors.items():
        theirs = source.embedder.vectors.get(name)
        size = int(np.prod(ours.shape))
        if theirs is None or why_new(name, source.schema, model.schema) is not None:
            yield _Copy(f"vector of {name}", 0, size, size)
        else:
            ours.assign(theirs)
            yield _Copy(f"vector of {name}", size, size, size)


def _copy_projections(source: CTRModel, model: CTRModel) -> Iterator[_Copy]:
    for name, ours in model.embedder.projections.items():
        theirs = source.embedder.projections.get(name)
        size, taken = int(np.prod(ours.shape)), 0
        scale, their_scale = (one.embedder.scales.get(name) for one in (model, source))
        is_alike = theirs is not None and theirs.shape == ours.shape
        is_alike &= why_new(name, source.schema, model.schema) is None
        if is_alike and (scale is None) == (their_scale is None):
            ours.assign(theirs)
            if scale is not None:  # What it projects stays as large as it was.
                scale.assign(their_scale)
            taken = size
        yield _Copy(f"projection of {name}", taken, size, size)


def _copy_backbone(
    source: CTRModel, model: CTRModel, before: Fields, after: Fields
) -> Iterator[_Copy]:
    weights = _dense(source)
    old, new = _axes(source.backbone, before), _axes(model.backbone, after)
    for name, ours in _dense(model).items():
        theirs, size = weights.get(name), int(np.prod(ours.shape))
        # If the fields are equal, all entries are in the same place.
        is_declared = before == after or id(ours) in new
        if theirs is None or not is_declared:
            yield _Copy(name, 0, size, 0, is_declared)
            continue
        axes = ((), ()) if before == after else (old[id(theirs)], new[id(ours)])
        taken = _copy_entries(theirs, axes[0], ours, axes[1], name)
        yield _Copy(name, taken, size, int(np.prod(theirs.shape)))


def _copy_entries(theirs: tf.Variable, old: Axes, ours: tf.Variable, new: Axes, name: str) -> int:
    """Copies the entries that both weights have; returns their number."""
    matches = []
    for their_size, our_size, before, after in itertools.zip_longest(
        theirs.shape, ours.shape, old, new
    ):
        match = np.arange(our_size or 0)
        if before is not None and after is not None:
            match = places(before, after)
            if our_size is not None and (before.size, after.size) != (their_size, our_size):
                raise UserError(
                    f"Expected layouts of {name} that fit its {our_size} entries ({their_size} in "
                    f"the run), found {after.size} ({before.size}).",
                    "mend the method layouts of the model.",
                )
        elif their_size != our_size:
            return 0
        if our_size is not None:
            matches.append(match)
        elif (match < 0).any():  # The weight belongs to entries that are not all there.
            return 0
    targets = [np.flatnonzero(match >= 0) for match in matches]
    values = np.array(tf.convert_to_tensor(ours))
    sources = [match[match >= 0] for match in matches]
    values[np.ix_(*targets)] = np.array(tf.convert_to_tensor(theirs))[np.ix_(*sources)]
    ours.assign(values)
    return int(np.prod([len(places) for places in targets]))


def _dense(model: CTRModel) -> dict[str, tf.Variable]:
    """The weights of the backbone other than tables, by their path in it."""
    tables = {id(table) for table in single_variables(model.backbone.tables)}
    return {
        path.removeprefix(_BACKBONE): weight
        for path, weight in model.get_weight_paths().items()
        if path.startswith(_BACKBONE) and id(weight) not in tables
    }


def _axes(backbone: Backbone, fields: Fields) -> dict[int, Axes]:
    """Axes of the weights by id, as `layouts` declares them; {} if the model lacks the method."""
    if type(backbone).layouts is Backbone.layouts:
        return {}
    return {id(weight): axes for weight, axes in backbone.layouts(fields)}


def _fields_of(model: CTRModel) -> Fields:
    return Fields.of(model.schema, model.embedder.dims.embedding_size)


def _fields(fields: Fields) -> list[Any]:
    """Labels of all fields: of the user, the history and the pair."""
    return [block.label for block in (fields.user + fields.history + fields.pair).blocks]


def _names(fields: Iterator[Field]) -> list[str]:
    return list(dict.fromkeys(field.name for field in fields))


def _join(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
