"""Which columns name the user and the item of a row.

Names propose and data decides: a column whose name says user is none if every row has its own
value. Of several that names propose, the finest one is the key: each item_id has one category.
"""

from collections.abc import Sequence, Set

from pipeline.drafting import names
from pipeline.drafting.columns import Column, follows
from pipeline.drafting.decisions import Decision
from pipeline.drafting.times import unit_of
from preprocessing.features.encoder_specs import Vocabulary
from preprocessing.features.feature import Role

_WORDS: dict[Role, Set[str]] = {Role.USER: names.USER, Role.ITEM: names.ITEM}
_OTHER_WORDS = names.OUTCOME | names.REQUEST | names.NUMBER | names.BEHAVIOUR
_MOST_MISSING = 0.1
_LONGEST_ID = 3  # words
_CANDIDATES = 8
_LEAST_DISTINCT = 0.05


def key_fault(column: Column) -> str:
    """Why a column cannot be the key of users or items; empty if it can."""
    if column.distinct < 2:
        return "it has one value only"
    if column.missing > _MOST_MISSING:
        return f"{column.missing:.0%} of the rows lack it"
    if column.is_own_per_row:
        return "nearly every row has its own value"
    if column.is_times:
        return "its values are times"
    if column.numbers is not None and column.integers is None:
        return "its values are numbers with fractions"
    if column.words_per_value > _LONGEST_ID:
        return "its values are free text"
    return ""


def item_key(columns: Sequence[Column]) -> Decision | None:
    """The column that names the item of a row; None if no column can."""
    return _key(Role.ITEM, columns)


def user_key(columns: Sequence[Column], item: Column) -> Decision | None:
    """The column that names the user of a row; None if no column can.

    Args:
        columns: Columns other than the item.
        item: Column of the item. What has one value for each item may be its seller: it is taken
            only if no other name says user.
    """
    others = [column for column in columns if not follows(column, item)]
    is_named = any(names.fit(c.name, names.USER) and not key_fault(c) for c in others)
    return _key(Role.USER, others if is_named else columns)


def why_none(role: Role, columns: Sequence[Column]) -> str:
    """Why no column can be the user or the item, by the columns whose names say that they are."""
    named = [column for column in columns if names.fit(column.name, _WORDS[role])]
    faults = "; ".join(f"{column.name} cannot, {key_fault(column)}" for column in named)
    return f"no column can be the {role.value}" + (f" ({faults})" if faults else "")


def _key(role: Role, columns: Sequence[Column]) -> Decision | None:
    words = _WORDS[role]
    usable = [column for column in columns if not key_fault(column)]
    best_fit = max((names.fit(column.name, words) for column in usable), default=0)
    if best_fit == 0:
        return _unnamed_key(role, usable)
    named = [column for column in usable if names.fit(column.name, words) == best_fit]
    candidates = finest(named)
    key = min(candidates, key=_preference)
    reason = f"its name says {role.value}; {key.distinct:,} values come back in other rows"
    if len(named) > len(candidates):
        coarser = ", ".join(column.name for column in named if column not in candidates)
        reason += f"; it has one value each of {coarser}"
    doubt = ""
    if len(candidates) > 1:
        others = " or ".join(column.name for column in candidates if column is not key)
        reason += f"; {others} could be it as well"
        doubt = f"the {role.value} could be {key.name} or {others}: {_how_to_edit(role)}"
    return _decision(role, key, reason, doubt)


def _unnamed_key(role: Role, usable: Sequence[Column]) -> Decision | None:
    """The finest column that nothing speaks against, always in doubt; None if there is none."""
    (other_role,) = _WORDS.keys() - {role}
    other_words = _OTHER_WORDS | _WORDS[other_role]
    unclaimed = [
        column
        for column in usable
        if not names.mentions(column.name, other_words)
        and not names.mentions_time(column.name)
        and unit_of(column) is None
        and not column.is_binary
    ]
    unclaimed = sorted(unclaimed, key=lambda column: (-column.distinct, column.name))[:_CANDIDATES]
    most = max((column.distinct for column in unclaimed), default=0)
    unclaimed = [column for column in unclaimed if column.distinct > _LEAST_DISTINCT * most]
    candidates = sorted(finest(unclaimed), key=lambda column: (-column.distinct, column.name))
    if not candidates:
        return None
    key, others = candidates[0], ", ".join(column.name for column in candidates[1:])
    reason = f"no name says {role.value}; of what could be it, most values ({key.distinct:,})"
    alternatives = f" or {others}" if others else ""
    doubt = (
        f"no name says which column is the {role.value}, it could be {key.name}{alternatives}: "
        f"{_how_to_edit(role)}"
    )
    return _decision(role, key, reason, doubt)


def finest(candidates: Sequence[Column]) -> list[Column]:
    """The columns that do not follow from another one; of two names for one thing, one."""

    def is_needless(column: Column) -> bool:
        return any(
            follows(column, other)
            and (not follows(other, column) or _preference(other) < _preference(column))
            for other in candidates
            if other is not column
        )

    return [column for column in candidates if not is_needless(column)] or list(candidates)


def _preference(column: Column) -> tuple[bool, str]:
    return not names.has_id(column.name), column.name


def _how_to_edit(role: Role) -> str:
    return f'give the right one "role": "{role.value}" as the first of that role'


def _decision(role: Role, key: Column, reason: str, doubt: str) -> Decision:
    return Decision(
        column=key,
        role=role,
        reason=reason,
        encoder=Vocabulary(),
        in_history=role is Role.ITEM,
        doubt=doubt,
    )
