"""Limits of the numbers in a dataclass: declared in its fields, checked and shown from there.

`rate: float = limited(0.5, above=0, at_most=1)` is a field in (0, 1].
"""

import dataclasses
import math
from typing import Any, NamedTuple, TypeVar

from preprocessing.errors import UserError

KEY = "limit"
"""Key of a field's `Limit` in its metadata."""

_T = TypeVar("_T")


class Limit(NamedTuple):
    """The interval of the numbers that a field may hold.

    Attributes:
        at_least: Lower bound that is part of the interval.
        above: Lower bound that is not.
        at_most: Upper bound that is part of the interval.
        below: Upper bound that is not.
    """

    at_least: float = -math.inf
    above: float = -math.inf
    at_most: float = math.inf
    below: float = math.inf

    def admits(self, value: Any) -> bool:
        """Whether a number, or each number of a tuple, is in the interval; None always is."""
        numbers = value if isinstance(value, tuple) else (value,)
        return all(
            number is None
            or (self.at_least <= number <= self.at_most and self.above < number < self.below)
            for number in numbers
        )

    def condition(self, value: Any) -> str:
        """The limit of a value in words: ">= 1", "> 0", "in [0, 1)"; for a tuple "each >= 1"."""
        is_open = self.above >= self.at_least
        lower = self.above if is_open else self.at_least
        if math.isinf(min(self.at_most, self.below)):
            text = f"{'>' if is_open else '>='} {lower}"
        else:
            upper = f"{self.below})" if self.below <= self.at_most else f"{self.at_most}]"
            text = f"in {'(' if is_open else '['}{lower}, {upper}"
        return f"each {text}" if isinstance(value, tuple) else text


def limited(default: _T, **bounds: float) -> _T:
    """A field of a dataclass with a default and a limit.

    Args:
        default: Default of the field: a number, a tuple of numbers, or None.
        **bounds: Bounds as in `Limit`.
    """
    return dataclasses.field(default=default, metadata={KEY: Limit(**bounds)})


def of(kind: type) -> dict[str, Limit]:
    """The limits of a class by field; a derived class with another default keeps the limit."""
    return {
        field.name: field.metadata[KEY]
        for base in reversed(kind.__mro__)
        if dataclasses.is_dataclass(base)
        for field in dataclasses.fields(base)
        if KEY in field.metadata
    }


def check(settings: object, prefix: str) -> None:
    """Raises `UserError` for the first value beyond the limit of its field.

    Args:
        settings: Instance of a dataclass; None has no limits.
        prefix: What precedes the name of a field where it is set, such as "train." or "--".
    """
    for name, limit in of(type(settings)).items():
        value = getattr(settings, name)
        if not limit.admits(value):
            shown = list(value) if isinstance(value, tuple) else value
            raise UserError(f"Expected {prefix}{name} {limit.condition(value)}, found {shown}.")


def with_limit(meaning: str, kind: type, name: str) -> str:
    """The help text of a flag, with the limit of the field that it sets as the last sentence."""
    limit = of(kind).get(name)
    return f"{meaning} Must be {limit.condition(None)}." if limit else meaning
