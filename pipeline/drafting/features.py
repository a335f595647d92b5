"""What a feature describes, and how its values become ids or numbers.

What is known of a row only after it happened, such as the kind of an action or the time spent, is a
feature of events: histories have it, candidates do not.
"""

import dataclasses

import numpy as np

from pipeline.drafting import names, several
from pipeline.drafting.columns import (
    ALWAYS,
    FOLLOWS,
    Column,
    agreement,
    follows,
    variance_explained,
)
from pipeline.drafting.decisions import Decision
from preprocessing.features.encoder_specs import Encoder, Numeric, Vector, Vocabulary
from preprocessing.features.feature import DType, Role

UNKNOWN = "unknown"
"""Default of categories."""

_FEW_VALUES = 2
_SKEW = 2
_TELLING = 0.3
_MOST_KINDS = 20


@dataclasses.dataclass(frozen=True)
class Keys:
    """The columns that a row is about.

    Attributes:
        user: Column of the user.
        item: Column of the item.
        request: Column of the request; None without one.
        label: Column of the label; None without one.
    """

    user: Column
    item: Column
    request: Column | None = None
    label: Column | None = None


def feature(column: Column, keys: Keys) -> Decision:
    """The decision about a column that is neither key nor time nor label nor left out."""
    role, why_role, doubt = role_of(column, keys)
    if column.is_many:
        between = "a list" if column.separator is None else f"separated by {column.separator}"
        return Decision(
            column=column,
            role=role,
            reason=f"{why_role}; several values in a row, {between}",
            encoder=Vocabulary(),
            many=several.many_of(column),
            in_history=role is Role.ITEM and follows(column, keys.item),
            doubt=doubt,
        )
    if column.size:
        once = ", which a pretrained table holds once per item" * follows(column, keys.item)
        return Decision(
            column=column,
            role=role,
            reason=f"{why_role}; vectors of {column.size} numbers{once}",
            dtype=DType.FLOAT32,
            encoder=Vector(),
            shape=(column.size,),
            default=0.0 if column.missing else None,
            doubt=doubt,
        )
    encoder, why_encoder = encoder_of(column)
    is_number = isinstance(encoder, Numeric)
    return Decision(
        column=column,
        role=role,
        reason=f"{why_role}; {why_encoder}",
        dtype=DType.FLOAT32 if is_number else DType.STRING,
        encoder=encoder,
        default=default_of(column, encoder),
        in_history=role is Role.ITEM and not is_number and follows(column, keys.item),
        doubt=doubt,
    )


def kinds_of_events(column: Column) -> Decision | None:
    """The decision about kinds of events (view, buy); None for any other column.

    There is a doubt, because a history, or what is to be predicted, may want some of them only.
    """
    is_kind = names.mentions(column.name, names.BEHAVIOUR) and column.numbers is None
    if not is_kind or column.distinct > _MOST_KINDS:
        return None
    encoder = Vocabulary()
    kinds = ", ".join(sorted(column.values.to_pylist()))
    return Decision(
        column=column,
        role=Role.EVENT,
        reason=f"kinds of events ({kinds}), all of which count",
        encoder=encoder,
        default=default_of(column, encoder),
        doubt=f"rows of all kinds in {column.name} count: history.behaviours names some",
    )


def known_later(column: Column) -> Decision:
    """The decision about a number that is known after its row only, in a log without a label."""
    encoder, why = number_encoder(column)
    return Decision(
        column=column,
        role=Role.EVENT,
        reason=f"an outcome, known after the row only; {why}",
        dtype=DType.FLOAT32,
        encoder=encoder,
    )


def role_of(column: Column, keys: Keys) -> tuple[Role, str, str]:
    """The role of a feature, why, and a doubt about it if there is one.

    A feature describes the user if nearly every user of the sample has one value, the item if
    nearly every item has one. Where neither has, it describes the moment or, if requests have
    several values, the candidate.
    """
    by_user, by_item = agreement(column, keys.user), agreement(column, keys.item)
    if by_user is None and by_item is None:
        return _role_by_name(column)
    of_user, of_item = by_user or 0.0, by_item or 0.0
    if of_user >= FOLLOWS and (of_user, not _is_named_item(column)) >= (of_item, True):
        return Role.USER, f"nearly every user has one value ({_percent(of_user)})", ""
    if of_item >= FOLLOWS:
        return Role.ITEM, f"nearly every item has one value ({_percent(of_item)})", ""
    shares = f"neither users ({_percent(of_user)}) nor items ({_percent(of_item)}) have one value"
    if keys.request is not None and not follows(column, keys.request, ALWAYS):
        return Role.ITEM, f"{shares}, nor have requests: it describes the candidate", ""
    doubt = ""
    tells_item = max(of_item, variance_explained(column, keys.item))
    if keys.label is None and tells_item >= max(_TELLING, of_user):
        doubt = (
            f"{column.name} may describe the item, and would then tell which candidate was "
            'clicked: if so, give it the role "item"'
        )
    return Role.CONTEXT, shares, doubt


def _role_by_name(column: Column) -> tuple[Role, str, str]:
    """The role of a feature of a sample in which neither users nor items come back."""
    if names.mentions(column.name, names.USER):
        return Role.USER, "its name says user; too few users come back to see", ""
    if names.mentions(column.name, names.ITEM):
        return Role.ITEM, "its name says item; too few items come back to see", ""
    return Role.CONTEXT, "too few users and items come back to see what it describes", ""


def _is_named_item(column: Column) -> bool:
    return names.mentions(column.name, names.ITEM)


def _percent(share: float) -> str:
    return f"{max(0.0, share):.0%}"


def encoder_of(column: Column) -> tuple[Encoder, str]:
    """The encoder of a feature, and why.

    Numbers with fractions are numbers. Whole numbers may as well be codes: they are numbers only if
    their name says so.
    """
    if column.numbers is None:
        return Vocabulary(), "texts"
    if column.distinct <= _FEW_VALUES:
        return Vocabulary(), "few values"
    if column.integers is not None:
        if names.mentions(column.name, names.CODE):
            return Vocabulary(), "codes, by its name"
        if not names.mentions(column.name, names.NUMBER):
            return Vocabulary(), "whole numbers that may be codes (numeric if they measure)"
    return number_encoder(column)


def number_encoder(column: Column) -> tuple[Numeric, str]:
    """The encoder of numbers that measure, and why."""
    assert column.numbers is not None
    values = np.repeat(column.numbers, column.counts)
    if values.min() >= 0 and values.mean() > _SKEW * np.median(values):
        return Numeric(normalisation="log_standard"), "numbers, few of them large"
    return Numeric(), "numbers"


def default_of(column: Column, encoder: Encoder) -> str | float | None:
    """What stands in for missing values, if the sample misses any: for numbers their median."""
    if not column.missing:
        return None
    if not isinstance(encoder, Numeric) or column.numbers is None:
        return UNKNOWN
    return float(f"{np.median(np.repeat(column.numbers, column.counts)):.4g}")
