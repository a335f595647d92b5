"""Which column says when a row happened, and in what unit."""

from collections.abc import Sequence

import numpy as np

from pipeline.drafting import names
from pipeline.drafting.columns import Column, follows
from pipeline.drafting.decisions import Decision
from pipeline.log.values import as_time
from preprocessing.features.feature import DType, Role

_YEAR_1990, _YEAR_2050 = 631_152_000, 2_524_608_000
_UNITS = {
    1: "seconds",
    1_000: "milliseconds",
    1_000_000: "microseconds",
    1_000_000_000: "nanoseconds",
}
_UNKNOWN_UNIT = "whole numbers of a unit that only the log knows"
_ISO = "ISO dates or times"
_POSITION = "position"
_EXACT = 2


def unit_of(column: Column) -> str | None:
    """What times of a column are: ISO texts, or a unit since 1970 by their size; else None."""
    if column.is_times:
        return _ISO
    if column.integers is None:
        return None
    for per_second, unit in _UNITS.items():
        if _YEAR_1990 * per_second <= column.integers.min() and (
            column.integers.max() <= _YEAR_2050 * per_second
        ):
            return f"{unit} since 1970"
    return None


def time(columns: Sequence[Column], user: Column, item: Column) -> Decision | None:
    """The column of times; None if there is none, and the order of rows has to do.

    Args:
        columns: Columns other than the keys.
        user: Column of the user. What has one value for each user (a date of birth) is no time of
            a row.
        item: Column of the item, likewise.
    """
    candidates = [column for column in columns if column.distinct > 1 and _is_time(column)]
    of_rows = [c for c in candidates if not (follows(c, user) or follows(c, item))] or candidates
    named = [column for column in of_rows if names.mentions_time(column.name)] or of_rows
    if not named:
        return _position(columns, user) or _unreadable_time(columns, user, item)
    finest = [c for c in named if not any(_is_coarser(c, other) for other in named)] or named
    chosen = min(finest, key=lambda column: (-names.fit(column.name, names.TIME), column.name))
    unit = unit_of(chosen) or _UNKNOWN_UNIT
    doubt = ""
    others = ", ".join(column.name for column in finest if column is not chosen)
    if others:
        doubt = (
            f"the time could be {chosen.name} or {others}: give the one at which the row happened "
            'the role "timestamp"'
        )
    elif unit != _ISO and not _says_time(chosen.name, unit):
        doubt = f'{chosen.name} may be no time: if so, take its record with "timestamp" out'
    return _decision(chosen, unit, doubt)


def _is_time(column: Column) -> bool:
    """Whether values are times by themselves, or whole numbers that a name calls times."""
    is_named = names.mentions_time(column.name) and column.integers is not None
    return unit_of(column) is not None or (is_named and not column.is_binary)


def _says_time(name: str, unit: str) -> bool:
    """Whether a name is clear enough for whole numbers: fully, if their size tells no unit."""
    if unit == _UNKNOWN_UNIT:
        return names.fit(name, names.TIME) == _EXACT
    return names.mentions_time(name)


def is_named_exactly(column: Column) -> bool:
    """Whether a name says nothing but that the column is a time."""
    return names.fit(column.name, names.TIME) == _EXACT


def _is_coarser(column: Column, other: Column) -> bool:
    """Whether a column is a rounded form of another (a date beside a time), or the same times.

    It is if it never goes back while the other one goes on or stays.
    """
    if column is other:
        return False
    has_both = (column.codes >= 0) & (other.codes >= 0)
    times, other_times = (_ticks(one)[one.codes[has_both]] for one in (column, other))
    if not _is_function(times, of=other_times):
        return False
    return not _is_function(other_times, of=times) or other.name < column.name


def _ticks(column: Column) -> np.ndarray:
    """The distinct values as integers in the order of time."""
    if column.integers is not None:
        return column.integers
    return as_time(column.values)[0].to_numpy()


def _is_function(times: np.ndarray, of: np.ndarray) -> bool:
    """Whether times are a function of others that never goes down."""
    order = np.lexsort((times, of))
    steps, steps_of = np.diff(times[order]), np.diff(of[order])
    return bool((steps >= 0).all() and (steps[steps_of == 0] == 0).all())


def _position(columns: Sequence[Column], user: Column) -> Decision | None:
    """The column position, if it is the place of a row among those of its user: all differ."""
    for column in columns:
        if column.name == _POSITION and column.integers is not None:
            places = set(zip(user.codes.tolist(), column.codes.tolist(), strict=True))
            if len(places) == len(column.codes):
                return _decision(column, "the place of a row among those of its user", "")
    return None


def _unreadable_time(columns: Sequence[Column], user: Column, item: Column) -> Decision | None:
    """A column that is a time by its name but whose values are not understood, left out."""
    for column in columns:
        is_of_key = follows(column, user) or follows(column, item)
        if not is_named_exactly(column) or column.distinct == 1 or is_of_key:
            continue
        problem = column.unreadable
        if column.distinct:
            problem = f"values such as {column.example()!r} are neither ISO dates nor whole numbers"
        if problem:
            doubt = f"{column.name} is a time by its name, but rows count in the order of the file"
            return Decision(
                column=column,
                role=None,
                reason=f"a time by its name, but {problem}",
                doubt=f"{doubt}: write ISO dates or whole numbers",
            )
    return None


def _decision(column: Column, unit: str, doubt: str) -> Decision:
    return Decision(
        column=column,
        role=Role.TIMESTAMP,
        reason=unit,
        dtype=DType.DATETIME if unit == _ISO else DType.INT64,
        doubt=doubt,
    )
