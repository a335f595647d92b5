"""The draft of a schema: a decision about every column of a sample."""

import dataclasses
import re
from collections.abc import Iterable, Sequence

from pipeline.drafting import exclusions, features, keys, labels, several, times, vectors
from pipeline.drafting.columns import Column
from pipeline.drafting.decisions import Decision, left_out
from pipeline.drafting.features import Keys
from preprocessing.example_keys import LABEL, REQUEST_ID, TIMESTAMP
from preprocessing.features.feature import ENCODED_ROLES, Role
from preprocessing.features.history import default_history
from preprocessing.schema import Schema

_ROLES = (
    *(Role.USER, Role.ITEM, Role.CONTEXT, Role.EVENT),
    *(Role.TIMESTAMP, Role.LABEL, Role.REQUEST, None),
)
_RESERVED = (LABEL, REQUEST_ID, TIMESTAMP)
_MOST_REJECTED = 0.01
_NUMBERS_IN_A_ROW = 2


@dataclasses.dataclass(frozen=True)
class Draft:
    """A schema with reasons.

    Attributes:
        decisions: One for each column, in the order of roles, the keys first.
        schema: The schema; None if no column can be the user or the item.
        doubts: What else could be meant, and what to edit then; without any the draft is certain.
    """

    decisions: tuple[Decision, ...]
    schema: Schema | None
    doubts: tuple[str, ...]

    @property
    def is_certain(self) -> bool:
        """Whether the data leaves no doubt about the schema."""
        return self.schema is not None and not self.doubts


def draft(columns: Iterable[Column]) -> Draft:
    """The draft for a log whose first rows have these columns, in any order."""
    decisions: list[Decision] = []
    candidates: list[Column] = []
    of_several: list[Column] = []
    for column in sorted(columns, key=lambda column: column.name):
        is_time = times.is_named_exactly(column)
        column = column if is_time or column.is_many else vectors.recognised(column)
        reason = exclusions.first_reason(column, exclusions.SHAPES)
        if reason and not is_time:
            decisions.append(left_out(column, reason))
            continue
        column = column if is_time or column.size else several.taken_apart(column)
        (of_several if column.is_many or column.size else candidates).append(column)
    item = keys.item_key(candidates)
    rest = _without(candidates, [item])
    user = None if item is None else keys.user_key(rest, item.column)
    if item is None or user is None:
        return _without_keys(decisions, item, [*rest, *of_several])
    rest = _without(rest, [user])
    decisions += [user, item, *_rows(rest, of_several, user.column, item.column)]
    decisions.sort(
        key=lambda one: (_ROLES.index(one.role), one not in (user, item), one.column.name)
    )
    doubts = [one.doubt for one in decisions if one.doubt]
    doubts += [*_rejections(decisions), *_header(decisions)]
    return Draft(tuple(decisions), _schema(decisions), tuple(doubts))


def _rows(
    columns: Sequence[Column], of_several: Sequence[Column], user: Column, item: Column
) -> list[Decision]:
    """The decisions about all columns but the keys.

    Those of many values and of vectors are features at most.
    """
    time = times.time(columns, user, item)
    rest = _without(columns, [time])
    has_time = time is not None and time.role is not None
    outcomes = labels.label(rest, user, item, has_time)
    rest = _without(rest, outcomes)
    label = next((one.column for one in outcomes if one.role is Role.LABEL), None)
    request = labels.request(rest, user, label is not None)
    rest = _without(rest, [request])
    request_column = None if request is None or request.role is None else request.column
    row_keys = Keys(user, item, request_column, label)
    copies = exclusions.copy_of(user), exclusions.copy_of(item)
    leaks = [] if label is None else [exclusions.gives_away(label, user, item)]
    rules = [*exclusions.SHAPES, *copies, *exclusions.CONTENTS, *leaks]
    decisions = [one for one in (time, *outcomes, request) if one is not None]
    for column in rest:
        reason = exclusions.first_reason(column, rules)
        if reason:
            decisions.append(left_out(column, reason))
        else:
            kinds = features.kinds_of_events(column)
            decisions.append(kinds or features.feature(column, row_keys))
    for column in of_several:
        shapes = (exclusions.prose,) if column.is_many else ()
        reason = exclusions.first_reason(column, (*shapes, *leaks))
        decisions.append(left_out(column, reason) if reason else features.feature(column, row_keys))
    return decisions


def _without(columns: Sequence[Column], decisions: Iterable[Decision | None]) -> list[Column]:
    """The columns that are not decided about."""
    decided = [decision.column for decision in decisions if decision is not None]
    return [column for column in columns if column not in decided]


def _without_keys(
    decisions: Sequence[Decision], item: Decision | None, rest: Sequence[Column]
) -> Draft:
    """The draft of a log that lacks a user or an item, with the reason for each column."""
    missing = Role.ITEM if item is None else Role.USER
    doubt = keys.why_none(missing, rest)
    undecided = [
        left_out(column, keys.key_fault(column) or f"not the {missing.value}") for column in rest
    ]
    known = [] if item is None else [item]
    return Draft((*known, *undecided, *decisions), None, (doubt,))


def _rejections(decisions: Sequence[Decision]) -> list[str]:
    """A doubt for each column without which a row is rejected and that too many rows lack."""
    needed = [
        next(one for one in decisions if one.role is Role.USER),
        next(one for one in decisions if one.role is Role.ITEM),
        *(one for one in decisions if one.role in (Role.TIMESTAMP, Role.LABEL)),
    ]
    return [
        f"{one.column.missing:.1%} of the rows lack {one.column.name} and would be rejected: fill "
        "it, or leave these rows out of the log"
        for one in needed
        if one.column.missing > _MOST_REJECTED
    ]


def _header(decisions: Sequence[Decision]) -> list[str]:
    """A doubt if names of columns are numbers: the file may begin with a row."""
    numbers = [one.column.name for one in decisions if one.column.name.isdecimal()]
    if len(numbers) < _NUMBERS_IN_A_ROW:
        return []
    return [f"the first line seems to be a row ({', '.join(numbers)}): write a header above it"]


def _schema(decisions: Sequence[Decision]) -> Schema:
    names = _names(decisions)
    records = [
        decision.record(name) for decision, name in zip(decisions, names, strict=True) if name
    ]
    in_history = [
        name for decision, name in zip(decisions, names, strict=True) if decision.in_history
    ]
    history = {"features": list(default_history(in_history))}
    return Schema.from_json({"features": records, "history": history}, "draft")


def _names(decisions: Sequence[Decision]) -> list[str]:
    """Names of features: those of the columns, made identifiers; empty for what is left out."""
    names: list[str] = []
    for decision in decisions:
        if decision.role is None:
            names.append("")
            continue
        name = re.sub(r"\W+", "_", decision.column.name).strip("_") or "column"
        name = name if name.isidentifier() else f"_{name}"
        if decision.role in ENCODED_ROLES and name in _RESERVED:
            name = f"{name}_value"
        while name in names:
            name = f"{name}_"
        names.append(name)
    return names
