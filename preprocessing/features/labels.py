"""Rules for positive labels, if the log has values other than 0 and 1 (ratings, seconds)."""

import dataclasses
import re
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from preprocessing.errors import UserError

_COMPARE = {
    ">=": pc.greater_equal,
    "<=": pc.less_equal,
    "==": pc.equal,
    ">": pc.greater,
    "<": pc.less,
}
_LARGEST_FLOAT32 = 2.0**128 - 2.0**104
_RULE = re.compile(r"\s*(>=|<=|==|>|<)\s*([+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?)\s*")


@dataclasses.dataclass(frozen=True)
class Positive:
    """A comparison with a number; the values for which it holds are positive.

    Attributes:
        comparison: One of `>=`, `<=`, `==`, `>`, `<`.
        threshold: Number that values are compared with; an int if whole, however it was written.
    """

    comparison: str
    threshold: int | float

    def holds(self, values: pa.Array) -> pa.Array:
        """Whether each value is positive.

        Args:
            values: Numbers. The threshold is cast to their type: 4.1 as float32 is a number other
                than 4.1, and must still equal the 4.1 of the log.

        Returns:
            Boolean array, null where a value is null.
        """
        threshold: Any = self.threshold
        if pa.types.is_floating(values.type):
            threshold = float(threshold)
        return _COMPARE[self.comparison](values, pa.scalar(threshold, values.type))

    def __str__(self) -> str:
        return f"{self.comparison}{self.threshold!r}"


def parse(text: Any, is_integer: bool, where: str) -> Positive:
    """Parses the rule "positive" of a label, such as ">=4".

    Args:
        text: Text of the rule in schema.json.
        is_integer: Whether labels are int64 rather than float32.
        where: Name of the setting in error messages.

    Raises:
        UserError: The text is no comparison with a number, or the label's type cannot hold the
            number.
    """
    match = _RULE.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise UserError(
            f"{where}: expected >=, >, <=, < or == and a number, found {text!r}.",
            'for example "positive": ">=4".',
        )
    threshold = _number(match[2])
    if is_integer and not (isinstance(threshold, int) and -(2**63) <= threshold < 2**63):
        raise UserError(
            f"{where}: expected a whole number of 64 bits for dtype int64, found {text!r}.",
            'give the label the dtype "float32".',
        )
    if not is_integer and abs(threshold) > _LARGEST_FLOAT32:
        raise UserError(f"{where}: expected a number that float32 can hold, found {text!r}.")
    return Positive(match[1], threshold)


def _number(text: str) -> int | float:
    """A number, as an int if it is whole."""
    try:
        return int(text)
    except ValueError:
        value = float(text)
    return int(value) if value.is_integer() else value
