"""Requests as people write them, checked and converted to inputs of the signature.

    {"user_id": "u1", "history": [{"item_id": "i1", "category_id": "c1"}, ...],
     "candidates": [{"item_id": "i2", "category_id": "c1"}, ...]}

The history is oldest first. The fields of a request follow from the schema or, without it, from
the metadata of the served model. A field of many values holds a list: `"genres": ["a", "b"]`; so
does one of vectors: `"text": [0.1, 0.2]`. If the model uses times, the request and its events have
them under the name of the schema's times, in the unit of the schema; with a schema of dates (dtype
datetime) ISO texts will do.
"""

import dataclasses
import datetime
import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from preprocessing.errors import UserError
from preprocessing.features.feature import PAD_VALUES, DType, Feature
from preprocessing.json_checks import did_you_mean
from preprocessing.schema import Schema
from preprocessing.values.spelling import EXACT_BELOW, InexactError, spell

HISTORY, CANDIDATES = "history", "candidates"
HISTORY_INPUT, CANDIDATE_INPUT = "history_", "candidate_"
_DTYPES = {"DT_STRING": DType.STRING, "DT_INT64": DType.INT64, "DT_FLOAT": DType.FLOAT32}
_EXPECTED = {
    DType.STRING: "a string or an exact number",
    DType.INT64: "an integer",
    DType.FLOAT32: "a number",
    DType.DATETIME: "a time (ISO text, or microseconds since 1970)",
}


@dataclasses.dataclass(frozen=True)
class Field:
    """One field of a request.

    Attributes:
        dtype: Type of a value.
        default: Value of a field that is missing; None if it may not be.
        is_many: Whether the field holds a list of values, in any order and of any length.
        size: How many numbers a vector of the field has; 0 for a field of other values.
    """

    dtype: DType
    default: str | int | float | None = None
    is_many: bool = False
    size: int = 0

    @property
    def is_list(self) -> bool:
        """Whether a value is a list."""
        return self.is_many or self.size > 0

    @property
    def type_name(self) -> str:
        """The type of a value, or of a list of values, for people."""
        if self.size:
            return f"list of {self.size} numbers"
        dtype = DType.INT64 if self.dtype is DType.DATETIME else self.dtype  # as models take it
        return f"list of {dtype.value}" if self.is_many else dtype.value


@dataclasses.dataclass(frozen=True)
class RequestFormat:
    """The fields of a request.

    Attributes:
        user: User and context fields, at the top level of a request.
        history: Fields of an event.
        candidate: Fields of a candidate.
    """

    user: Mapping[str, Field]
    history: Mapping[str, Field]
    candidate: Mapping[str, Field]

    @classmethod
    def from_schema(cls, schema: Schema) -> "RequestFormat":
        """The format that a schema asks for, with its defaults for missing fields."""
        return cls(
            _fields(schema.request_fields),
            _fields(schema.event_fields),
            _fields(schema.item_features),
        )

    @classmethod
    def from_signature(cls, signature: Mapping[str, Any]) -> "RequestFormat":
        """The format that a served model asks for.

        Args:
            signature: Description of `serving_default` in the reply to the metadata call.

        Raises:
            UserError: The model was not written by serving.export.
        """
        user, history, candidate = {}, {}, {}
        optional = signature.get("defaults", {})
        # Sorted because a protobuf map has no order: the same request always gets the same error.
        for name, tensor in sorted(signature["inputs"].items()):
            dtype = _DTYPES.get(tensor["dtype"])
            dimensions = tensor["tensor_shape"]["dim"]
            rank = len(dimensions)
            of_item = name.startswith((HISTORY_INPUT, CANDIDATE_INPUT)) and rank > 1
            axes = rank - 1 - of_item
            if dtype is None or axes not in (0, 1):
                break
            size = int(dimensions[-1]["size"]) if axes and dtype is DType.FLOAT32 else 0
            # A missing value; the model knows the default that stands in for it.
            missing = math.nan if dtype is DType.FLOAT32 and not size else PAD_VALUES[dtype]
            default = missing if name in optional else None
            field = Field(dtype, default, is_many=axes == 1 and not size, size=size)
            if not of_item:
                user[name] = field
            elif name.startswith(HISTORY_INPUT):
                history[name.removeprefix(HISTORY_INPUT)] = field
            else:
                candidate[name.removeprefix(CANDIDATE_INPUT)] = field
        if not (user and history and candidate):
            raise UserError(
                "Expected a model with user, history_ and candidate_ inputs, found "
                f"{', '.join(sorted(signature['inputs']))}.",
                "serve a model that ctr-export wrote.",
            )
        return cls(user, history, candidate)

    def require_equal(self, other: "RequestFormat", here: str, there: str) -> None:
        """Raises `UserError` with a diff unless both ask for the same fields of the same types."""
        mine, theirs = self._types(), other._types()
        if mine != theirs:
            differences = [
                f"{name}: {mine.get(name, 'absent')} here, {theirs.get(name, 'absent')} there"
                for name in sorted(mine.keys() | theirs.keys())
                if mine.get(name) != theirs.get(name)
            ]
            raise UserError(
                f"Expected one schema, found two: {here} and {there} differ in "
                f"{'; '.join(differences)}.",
                "use the assets/schema.json of the served version.",
            )

    def inputs(self, request: Any, where: str) -> dict[str, list[Any]]:
        """Converts a request to inputs of `serving_default` with B = 1.

        Args:
            request: Request as parsed JSON.
            where: Name of the request in error messages, such as "requests.jsonl:3".

        Raises:
            UserError: A field is missing, unknown, or of the wrong type.

        Example:
            >>> from preprocessing.schema_inference import infer_schema
            >>> fields = RequestFormat.from_schema(infer_schema(["user_id", "item_id"]))
            >>> request = {"user_id": "u1", "history": [], "candidates": [{"item_id": "i1"}]}
            >>> fields.inputs(request, "request")
            {'user_id': ['u1'], 'history_item_id': [[]], 'candidate_item_id': [['i1']]}
        """
        _require_object(request, where)
        _require_known(request, [*self.user, HISTORY, CANDIDATES], where)
        inputs: dict[str, list[Any]] = {
            name: _of_one_width(field, [_value(request, name, field, where)])
            for name, field in self.user.items()
        }
        for key, prefix, fields in (
            (HISTORY, HISTORY_INPUT, self.history),
            (CANDIDATES, CANDIDATE_INPUT, self.candidate),
        ):
            if key not in request:
                raise _missing(key, request, where)
            rows = request[key]
            if not isinstance(rows, list):
                raise UserError(f"{where}: expected a list as {key!r}, found {_shown(rows)}.")
            columns: dict[str, list[Any]] = {name: [] for name in fields}
            for i, row in enumerate(rows):
                place = f"{where}: {key}[{i}]"
                _require_object(row, place)
                # An event may have all fields of a candidate; the model ignores the further ones.
                _require_known(row, {**self.candidate, **fields}, place)
                for name, field in fields.items():
                    columns[name].append(_value(row, name, field, place))
            if not rows and any(field.is_list for field in fields.values()):
                # A step of padding, as JSON cannot say how wide no steps are.
                columns = {name: [_padding(field)] for name, field in fields.items()}
            inputs |= {
                prefix + name: [_of_one_width(fields[name], column)]
                for name, column in columns.items()
            }
        if not request[CANDIDATES]:
            raise UserError(f"{where}: expected at least one candidate, found none.")
        return inputs

    def _types(self) -> dict[str, str]:
        groups = (
            ("", self.user),
            (HISTORY_INPUT, self.history),
            (CANDIDATE_INPUT, self.candidate),
        )
        return {
            prefix + name: field.type_name
            for prefix, fields in groups
            for name, field in fields.items()
        }


def _fields(features: Iterable[Feature]) -> dict[str, Field]:
    return {f.name: Field(f.dtype, f.default, f.many is not None, *f.shape) for f in features}


def _padding(field: Field) -> Any:
    """The value of a field in a step that is none."""
    pad = PAD_VALUES[field.dtype]
    return [pad] * max(1, field.size) if field.is_list else pad


def _of_one_width(field: Field, column: list[Any]) -> list[Any]:
    """The values of a column; lists are padded to the length of the longest, at least 1."""
    return widened(column, 1, PAD_VALUES[field.dtype]) if field.is_many else column


def widened(column: list[list[Any]], least: int, pad: str | int | float) -> list[list[Any]]:
    """Lists of values, padded to the length of the longest and to at least `least` values."""
    width = max([least, *map(len, column)])
    return [values + [pad] * (width - len(values)) for values in column]


def _value(record: Mapping[str, Any], name: str, field: Field, where: str) -> Any:
    value = record.get(name)
    if value is None and field.default is not None:
        return [field.default] * max(1, field.size) if field.is_list else field.default
    if name not in record:
        raise _missing(name, record, where)
    if field.size:
        return _vector(value, name, field, where)
    if field.is_many:
        return _values(value, name, field, where)
    return _single(value, name, field, where)


def _values(value: Any, name: str, field: Field, where: str) -> list[Any]:
    """The values of a field that has many; None has none."""
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if value is None:
        return []
    if not isinstance(value, (list, tuple)):
        raise UserError(
            f"{where}: expected a list of values as {name!r}, found {_shown(value)}.",
            f'for example {json.dumps(name)}: ["a", "b"]; an empty list is fine.',
        )
    return [_single(one, name, field, where) for one in value]


def _vector(value: Any, name: str, field: Field, where: str) -> list[Any]:
    """The numbers of a vector; None is a vector of zeros, as a missing one is in the data set."""
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if value is None:
        return [0.0] * field.size
    if not isinstance(value, (list, tuple)) or len(value) != field.size:
        found = f"{len(value)}" if isinstance(value, (list, tuple)) else _shown(value)
        raise UserError(f"{where}: expected {field.size} numbers as {name!r}, found {found}.")
    return [_single(one, name, field, where) for one in value]


def _single(value: Any, name: str, field: Field, where: str) -> Any:
    """One value in the type of its field."""
    if isinstance(value, np.generic):
        value = value.item()
    try:
        return _CONVERSIONS[field.dtype](value)
    except (InexactError, TypeError, ValueError):
        expected = _EXPECTED[field.dtype]
        raise UserError(
            f"{where}: expected {expected} as {name!r}, found {_shown(value)}."
        ) from None


def _missing(name: str, record: Mapping[str, Any], where: str) -> UserError:
    present = ", ".join(sorted(record)) or "nothing"
    return UserError(f"{where}: expected the field {name!r}, found {present}.")


def _require_object(value: Any, where: str) -> None:
    if not isinstance(value, dict):
        raise UserError(f"{where}: expected an object, found {_shown(value)}.")


def _require_known(record: Mapping[str, Any], known: Iterable[str], where: str) -> None:
    known = list(known)
    for name in record:
        if name not in known:
            raise UserError(
                f"{where}: unknown field {name!r}; known are {', '.join(known)}.",
                did_you_mean(name, known) or "leave it out.",
            )


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _as_text(value: Any) -> str:
    """The spelling of a value in the data set; "" for a text that means a missing value."""
    text = spell(value)
    if text is None and not isinstance(value, str):
        raise TypeError(value)
    return text or ""


def _as_integer(value: Any) -> int:
    """An integer, or a whole float, as data frames store integers beside missing values."""
    if not isinstance(value, (int, float)) or not math.isfinite(value) or value != int(value):
        raise TypeError(value)
    if isinstance(value, float) and abs(value) >= EXACT_BELOW:
        raise InexactError(value)
    return int(value)


def _as_float(value: Any) -> float:
    """A number; None becomes NaN, which the encoders take for a missing number."""
    if value is None:
        return math.nan
    if not isinstance(value, (int, float)):
        raise TypeError(value)
    return value


def _as_time(value: Any) -> int:
    """Microseconds since 1970 of an ISO text or a datetime, in UTC if it names no other zone."""
    if isinstance(value, str):
        value = datetime.datetime.fromisoformat(value.replace("Z", "+00:00"))
    if not isinstance(value, datetime.datetime):
        return _as_integer(value)
    if value.tzinfo is None:
        value = value.replace(tzinfo=datetime.timezone.utc)
    return (value - _EPOCH) // datetime.timedelta(microseconds=1)


_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)
_CONVERSIONS = {
    DType.STRING: _as_text,
    DType.INT64: _as_integer,
    DType.FLOAT32: _as_float,
    DType.DATETIME: _as_time,
}
