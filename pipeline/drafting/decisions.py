"""What is decided about a column, and why."""

import dataclasses
from typing import Any

from pipeline.drafting.columns import Column
from preprocessing.features.encoder_specs import Encoder
from preprocessing.features.feature import DType, Feature, Role
from preprocessing.features.many import Many


@dataclasses.dataclass(frozen=True, kw_only=True)
class Decision:
    """The part of a column in the schema.

    Attributes:
        column: The column.
        role: Its role; None if it is left out.
        reason: Why, for people.
        dtype: Type of its values.
        encoder: Encoder of a user, item, context or event feature.
        default: Stands in for missing values.
        many: How many values a row may have; None for one.
        shape: How many numbers a vector has; () for a single value.
        positive: Rule of a label whose values are other than 0 and 1.
        in_history: Whether the events of a history carry it; of item features.
        doubt: What else could be meant, and what to edit then; empty if the data leaves no doubt.
    """

    column: Column
    role: Role | None
    reason: str
    dtype: DType = DType.STRING
    encoder: Encoder | None = None
    default: str | float | None = None
    many: Many | None = None
    shape: tuple[int, ...] = ()
    positive: str | None = None
    in_history: bool = False
    doubt: str = ""

    def record(self, name: str) -> dict[str, Any]:
        """The record of the feature in schema.json.

        Args:
            name: Name of the feature.
        """
        assert self.role is not None
        feature = Feature(
            name=name,
            column=self.column.name,
            role=self.role,
            dtype=self.dtype,
            encoder=self.encoder,
            default=self.default,
            many=self.many,
            shape=self.shape,
            description=self.reason,
        )
        positive = {} if self.positive is None else {"positive": self.positive}
        return feature.to_json() | positive


def left_out(column: Column, reason: str) -> Decision:
    """The decision to leave a column out."""
    return Decision(column=column, role=None, reason=reason)
