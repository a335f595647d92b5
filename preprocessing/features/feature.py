"""One feature of a log: what it describes, the type of its values, how they are encoded."""

import dataclasses
import enum
from typing import Any

from preprocessing.example_keys import TIMESTAMP
from preprocessing.features import encoder_specs, labels
from preprocessing.features.derived import Derived
from preprocessing.features.encoder_specs import Encoder, Numeric, Vector
from preprocessing.features.many import Many

PAD_ID = 0
"""Encoded id of padding. Ids 1..k are out of vocabulary, real values follow."""


class Role(str, enum.Enum):
    """The kind of thing that a feature describes."""

    USER = "user"
    ITEM = "item"
    CONTEXT = "context"
    EVENT = "event"
    LABEL = "label"
    WEIGHT = "weight"
    TIMESTAMP = "timestamp"
    REQUEST = "request"


class DType(str, enum.Enum):
    """Type of a raw value; DATETIME, for times only, becomes microseconds since 1970 in UTC."""

    STRING = "string"
    INT64 = "int64"
    FLOAT32 = "float32"
    DATETIME = "datetime"


ENCODED_ROLES = (Role.USER, Role.ITEM, Role.CONTEXT, Role.EVENT)
"""Roles of features that have an encoder."""
UNITS = {"seconds": 1, "milliseconds": 1_000, "microseconds": 1_000_000, "nanoseconds": 10**9}
"""Units of times that are integers, each with its number in a second."""
PAD_VALUES: dict[DType, str | int | float] = {
    DType.STRING: "",
    DType.INT64: -1,
    DType.FLOAT32: 0.0,
    DType.DATETIME: -1,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Feature:
    """One column of the log, or what follows from the times of the log.

    Attributes:
        name: Name of the feature in examples, tensors and requests; an identifier.
        column: Name of its column in the raw log; "" if it has none.
        role: Kind of thing that the feature describes. The first feature of role `user` is the key
            by which events are grouped; the first of role `item` identifies the item.
        dtype: Type of a raw value, in the log and in serving requests.
        encoder: Specification of how raw values become ids or floats; None for label, weight,
            timestamp and request.
        default: Value in place of a missing one; None rejects rows with a missing value. Of many
            values, the only one of a set that would be empty; None leaves such sets empty.
        many: How many values a row may have; None for exactly one.
        shape: Shape of a value: (D,) for a vector of D numbers, () for a single value.
        positive: Rule by which values of a label are positive; None if the values are 0 and 1.
        unit: Unit of the integers of a timestamp, one of `UNITS`; None if only the log knows it.
        derived: What the values follow from, if not from a column of the log.
        description: Text for readers of the schema; not part of the hash.
    """

    name: str
    column: str
    role: Role
    dtype: DType
    encoder: Encoder | None = None
    default: str | int | float | None = None
    many: Many | None = None
    shape: tuple[int, ...] = ()
    positive: labels.Positive | None = None
    unit: str | None = None
    derived: Derived | None = None
    description: str = ""

    @property
    def is_categorical(self) -> bool:
        """True if encoded values are ids of an embedding table (False: floats)."""
        return self.encoder is not None and not isinstance(self.encoder, (Numeric, Vector))

    @property
    def is_vector(self) -> bool:
        """True if a value is a vector of numbers."""
        return bool(self.shape)

    @property
    def is_gap(self) -> bool:
        """Whether values are times between an event and its request, or the event before it."""
        return self.derived is not None and self.derived.is_gap

    @property
    def key_name(self) -> str:
        """Its name in the keys of examples; times have one name for all schemas."""
        return TIMESTAMP if self.role is Role.TIMESTAMP else self.name

    @property
    def axes(self) -> int:
        """Number of axes that one row's value adds to a tensor: 1 for many values or a vector."""
        return int(self.many is not None or self.is_vector)

    @property
    def value_shape(self) -> tuple[int, ...]:
        """Shape of one row's value in batches: () or, for many values, (`max`,), or `shape`."""
        return self.shape if self.many is None else (self.many.max,)

    @property
    def pad_value(self) -> str | int | float:
        """Raw value that stands for "no event here" in serving requests."""
        return PAD_VALUES[self.dtype]

    def to_json(self) -> dict[str, Any]:
        """The record of this feature in schema.json."""
        description = {"description": self.description} if self.description else {}
        if self.derived is not None:
            names = {"name": self.name, "role": self.role.value, "from": self.derived.value}
            return names | description
        record: dict[str, Any] = {
            "name": self.name,
            "column": self.column,
            "role": self.role.value,
            "dtype": self.dtype.value,
        }
        if self.encoder is not None:
            record["encoder"] = encoder_specs.to_json(self.encoder)
        if self.default is not None:
            record["default"] = self.default
        if self.many is not None:
            record["many"] = self.many.to_json()
        if self.shape:
            record["shape"] = list(self.shape)
        if self.positive is not None:
            record["positive"] = str(self.positive)
        if self.unit is not None:
            record["unit"] = self.unit
        return record | description
