"""The schema: the one place that describes the features of a log.

Readers, vocabularies, the example codec, embeddings, serving signatures and the client derive from
it, so that no feature name is typed twice. See docs/schema.md for the file format.
"""

import dataclasses
import enum
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from preprocessing import encoder_specs, labels
from preprocessing.encoder_specs import Bucketised, Encoder, Hash, Numeric, Vocabulary
from preprocessing.errors import UserError
from preprocessing.json_checks import (
    array,
    check_keys,
    did_you_mean,
    integer,
    member,
    read_json,
    string,
)
from preprocessing.storage import files
from preprocessing.storage.files import AnyPath
from preprocessing.values.spelling import InexactError, spell

PAD_ID = 0
"""Encoded id of padding. Ids 1..k are out of vocabulary, real values follow."""

TIMESTAMP = "timestamp"
REQUEST_ID = "request_id"
REQUEST_USER = "request/user"
"""Key of the raw user of a request. No feature can have it: their names are identifiers."""
REQUEST_INDEX = "request/index"
"""Key of the index of the positive among the events of its user; impression logs have none."""
LABEL = "label"

POSITION = "position"
"""Column of a canonical log without times: the place of an event among those of its user."""


class Role(str, enum.Enum):
    """The kind of thing that a feature describes."""

    USER = "user"
    ITEM = "item"
    CONTEXT = "context"
    LABEL = "label"
    TIMESTAMP = "timestamp"
    REQUEST = "request"


class DType(str, enum.Enum):
    """Type of a raw value; DATETIME, for times only, becomes microseconds since 1970 in UTC."""

    STRING = "string"
    INT64 = "int64"
    FLOAT32 = "float32"
    DATETIME = "datetime"


_FEATURE_ROLES = (Role.USER, Role.ITEM, Role.CONTEXT)
_ROLE_ORDER = (Role.USER, Role.CONTEXT, Role.ITEM, Role.REQUEST, Role.TIMESTAMP, Role.LABEL)
_PAD_VALUES: dict[DType, str | int | float] = {
    DType.STRING: "",
    DType.INT64: -1,
    DType.FLOAT32: 0.0,
}
_DEFAULT_TYPES: dict[DType, tuple[type, ...]] = {
    DType.STRING: (str,),
    DType.INT64: (int,),
    DType.FLOAT32: (int, float),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Feature:
    """One column of the log.

    Attributes:
        name: Name of the feature in examples, tensors and requests; an identifier.
        column: Name of its column in the raw log.
        role: Kind of thing that the feature describes. The first feature of role `user` is the key
            by which events are grouped; the first of role `item` identifies the item.
        dtype: Type of a raw value, in the log and in serving requests.
        encoder: Specification of how raw values become ids or floats; None for label, timestamp and
            request.
        default: Value in place of a missing one; None rejects rows with a missing value.
        positive: Rule by which values of a label are positive; None if the values are 0 and 1.
        description: Text for readers of the schema; not part of the hash.
    """

    name: str
    column: str
    role: Role
    dtype: DType
    encoder: Encoder | None = None
    default: str | int | float | None = None
    positive: labels.Positive | None = None
    description: str = ""

    @property
    def is_categorical(self) -> bool:
        """True if encoded values are ids of an embedding table (False: one float)."""
        return self.encoder is not None and not isinstance(self.encoder, Numeric)

    @property
    def pad_value(self) -> str | int | float:
        """Raw value that stands for "no event here" in serving requests."""
        return _PAD_VALUES[self.dtype]

    def to_json(self) -> dict[str, Any]:
        """The record of this feature in schema.json."""
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
        if self.positive is not None:
            record["positive"] = str(self.positive)
        if self.description:
            record["description"] = self.description
        return record


@dataclasses.dataclass(frozen=True, kw_only=True)
class Behaviours:
    """Filter on the events that count as behaviour: their `column` holds one of `values`."""

    column: str
    values: tuple[str, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class History:
    """The behaviour sequence of a request: the most recent `max_length` events before it.

    Attributes:
        max_length: Largest length L, in events. Longer histories keep their most recent events.
        features: Names of the item features that each event carries, in the order in which the
            vertical convolutions of MISS see them. The item key comes first.
        behaviours: Filter on events, or None if every event counts.
    """

    max_length: int = 50
    features: tuple[str, ...]
    behaviours: Behaviours | None = None


@dataclasses.dataclass(frozen=True)
class Schema:
    """All features of a log and the shape of its histories.

    The order in which features are given only determines the keys. They are kept in one order: by
    role, keys first, item features as in the history, the others by name. Schemas of equal hash are
    therefore equal, and so are the examples and models that derive from them.
    """

    features: tuple[Feature, ...]
    history: History

    def __post_init__(self) -> None:
        """Puts the features in order."""
        object.__setattr__(self, "features", _in_order(self.features, self.history))

    def with_role(self, *roles: Role) -> tuple[Feature, ...]:
        """The features of these roles, in the order of `features`."""
        return tuple(feature for feature in self.features if feature.role in roles)

    @property
    def user_features(self) -> tuple[Feature, ...]:
        """Features of role `user` and `context`: the fields that a request carries once."""
        return self.with_role(Role.USER, Role.CONTEXT)

    @property
    def item_features(self) -> tuple[Feature, ...]:
        """Features of role `item`: the fields of a candidate."""
        return self.with_role(Role.ITEM)

    @property
    def history_features(self) -> tuple[Feature, ...]:
        """The item features that each history event carries, in the order of the history."""
        return tuple(self[name] for name in self.history.features)

    @property
    def extra_features(self) -> tuple[Feature, ...]:
        """The item features of candidates that history events lack."""
        return tuple(f for f in self.item_features if f.name not in self.history.features)

    @property
    def encoded_features(self) -> tuple[Feature, ...]:
        """Every feature that has an encoder, in the order of `features`."""
        return self.with_role(*_FEATURE_ROLES)

    @property
    def user_key(self) -> Feature:
        """The feature by which events are grouped."""
        return self.with_role(Role.USER)[0]

    @property
    def item_key(self) -> Feature:
        """The feature that identifies an item."""
        return self.item_features[0]

    @property
    def timestamp(self) -> Feature | None:
        """The time column, or None if time is the order of the rows."""
        return next(iter(self.with_role(Role.TIMESTAMP)), None)

    @property
    def request(self) -> Feature | None:
        """The feature that names the request of a row, or None if no rows share a request."""
        return next(iter(self.with_role(Role.REQUEST)), None)

    @property
    def is_impression_log(self) -> bool:
        """Whether rows are labelled candidates, of own or shared requests, rather than clicks."""
        return bool(self.with_role(Role.LABEL))

    def __getitem__(self, name: str) -> Feature:
        for feature in self.features:
            if feature.name == name:
                return feature
        raise KeyError(name)

    def to_json(self) -> dict[str, Any]:
        """The content of schema.json."""
        history: dict[str, Any] = {
            "max_length": self.history.max_length,
            "features": list(self.history.features),
        }
        if self.history.behaviours is not None:
            history["behaviours"] = {
                "column": self.history.behaviours.column,
                "values": list(self.history.behaviours.values),
            }
        return {"features": [f.to_json() for f in self.features], "history": history}

    def save(self, path: str | AnyPath) -> None:
        """Writes schema.json."""
        text = json.dumps(self.to_json(), indent=2) + "\n"
        files.path(path).write_text(text, encoding="utf-8")

    def hash(self) -> str:
        """SHA-256 over everything but the descriptions, as 64 hexadecimal digits."""
        content = self.to_json()
        for record in content["features"]:
            record.pop("description", None)
        canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()

    def diff(self, other: "Schema") -> list[str]:
        """Differences from `other`, one per line; empty if the hashes are equal."""
        mine, theirs = _flatten(self.to_json()), _flatten(other.to_json())
        return [
            f"{key}: {mine.get(key, 'absent')!r} here, {theirs.get(key, 'absent')!r} there"
            for key in sorted(mine.keys() | theirs.keys())
            if mine.get(key) != theirs.get(key) and not key.endswith(".description")
        ]

    def require_equal(self, other: "Schema", here: str, there: str) -> None:
        """Raises `UserError` with a diff unless both schemas have the same hash."""
        if self.hash() != other.hash():
            raise UserError(
                f"Expected one schema, found two: {here} and {there} differ in "
                f"{'; '.join(self.diff(other))}.",
                "use the schema that the data was built with, or build the data anew.",
            )

    @classmethod
    def load(cls, path: str | AnyPath) -> "Schema":
        """Reads and checks schema.json.

        Raises:
            UserError: The file is missing, not JSON, or not a valid schema.
        """
        fix = "check --schema, or leave it out for a log with user_id, item_id, timestamp."
        return cls.from_json(read_json(files.path(path, "--schema"), "a schema", fix), str(path))

    @classmethod
    def from_json(cls, content: Any, where: str = "schema") -> "Schema":
        """Builds a checked schema from the content of schema.json.

        Args:
            content: Parsed JSON.
            where: Name of the content in error messages.

        Raises:
            UserError: Unknown or missing keys, unknown roles, duplicate names, no user or item.
        """
        check_keys(content, {"features", "history"}, {"features"}, where)
        features = tuple(
            _feature(record, f"{where}: features[{i}]")
            for i, record in enumerate(array(content["features"], f"{where}: features"))
        )
        names = [feature.name for feature in features]
        for name in names:
            if names.count(name) > 1:
                raise UserError(f"{where}: expected unique feature names, found {name!r} twice.")
        for role, lowest, highest in (
            (Role.USER, 1, None),
            (Role.ITEM, 1, None),
            (Role.TIMESTAMP, 0, 1),
            (Role.LABEL, 0, 1),
            (Role.REQUEST, 0, 1),
        ):
            count = sum(feature.role is role for feature in features)
            if count < lowest or (highest is not None and count > highest):
                raise UserError(
                    f"{where}: expected {'at least' if count < lowest else 'at most'} one feature "
                    f"of role {role.value!r}, found {count}."
                )
        history = _history(content.get("history", {}), features, f"{where}: history")
        schema = cls(features, history)
        for key in (schema.user_key, schema.item_key):
            if not key.is_categorical:
                raise UserError(
                    f"{where}: expected a categorical encoder for the key {key.name!r}, "
                    "found numeric."
                )
        return schema


def candidate_key(name: str) -> str:
    """Name of an item feature of the candidates in an example."""
    return f"candidate/{name}"


def history_key(name: str) -> str:
    """Name of an item feature (or the timestamp) of the history in an example."""
    return f"history/{name}"


def encoded_keys(schema: Schema) -> list[tuple[str, Feature]]:
    """Every encoded feature of an example with its key."""
    return [
        *((feature.name, feature) for feature in schema.user_features),
        *((candidate_key(feature.name), feature) for feature in schema.item_features),
        *((history_key(feature.name), feature) for feature in schema.history_features),
    ]


def _in_order(features: tuple[Feature, ...], history: History) -> tuple[Feature, ...]:
    """The features by role; within a role the key, then features of the history, then by name."""
    user_key = next((f.name for f in features if f.role is Role.USER), None)
    # The history begins with the item key.
    first_names = (user_key, *history.features)

    def place(feature: Feature) -> tuple[int, int, str]:
        name = feature.name
        rank = first_names.index(name) if name in first_names else len(first_names)
        return _ROLE_ORDER.index(feature.role), rank, name

    return tuple(sorted(features, key=place))


def default_history(items: Sequence[str]) -> tuple[str, ...]:
    """Default order of item features in a history: the key, category_id, then by name."""
    key, *other_names = items
    return (key, *sorted(other_names, key=lambda name: (name != "category_id", name)))


def _feature(record: Any, where: str) -> Feature:
    check_keys(
        record,
        {"name", "column", "role", "dtype", "encoder", "default", "positive", "description"},
        {"name", "role", "dtype"},
        where,
    )
    name = record["name"]
    if not isinstance(name, str) or not name.isidentifier():
        raise UserError(f"{where}: expected an identifier as 'name', found {name!r}.")
    where = f"{where} ({name})"
    role = member(Role, record["role"], f"{where}: role")
    dtype = member(DType, record["dtype"], f"{where}: dtype")
    encoder = None
    if role in _FEATURE_ROLES:
        if name in (TIMESTAMP, REQUEST_ID, LABEL):
            raise UserError(
                f"{where}: expected a name other than {TIMESTAMP}, {REQUEST_ID} and {LABEL} for "
                f"role {role.value!r}: examples use these for themselves.",
                "choose another 'name' and keep the column's with \"column\".",
            )
        if "encoder" not in record:
            raise UserError(
                f"{where}: expected an 'encoder' for role {role.value!r}, found none.",
                'for example "encoder": {"kind": "vocabulary"}.',
            )
        encoder = encoder_specs.parse(record["encoder"], f"{where}: encoder")
        if isinstance(encoder, (Numeric, Bucketised)) and dtype is DType.STRING:
            raise UserError(f"{where}: expected a numeric dtype for {encoder.kind}, found string.")
        if isinstance(encoder, (Vocabulary, Hash)) and dtype is DType.FLOAT32:
            raise UserError(
                f"{where}: expected dtype string or int64 for {encoder.kind}, found float32."
            )
    for key in ("encoder", "default") if role not in _FEATURE_ROLES else ():
        if key in record:
            raise UserError(f"{where}: expected no {key!r} for role {role.value!r}, found one.")
    if dtype is DType.DATETIME and role is not Role.TIMESTAMP:
        raise UserError(
            f"{where}: expected dtype string, int64 or float32 for role {role.value!r}, found "
            f"{dtype.value}."
        )
    return Feature(
        name=name,
        column=string(record.get("column", name), f"{where}: column"),
        role=role,
        dtype=dtype,
        encoder=encoder,
        default=_default(record.get("default"), dtype, f"{where}: default"),
        positive=_positive(record, role, dtype, where),
        description=record.get("description", ""),
    )


def _default(value: Any, dtype: DType, where: str) -> Any:
    """The default of a feature if it is of the feature's type and not its pad value."""
    if value is None:
        return None
    if not isinstance(value, _DEFAULT_TYPES[dtype]) or isinstance(value, bool):
        raise UserError(f"{where}: expected a value of dtype {dtype.value}, found {value!r}.")
    if dtype is not DType.FLOAT32 and value == _PAD_VALUES[dtype]:
        raise UserError(f"{where}: expected another value than {value!r}, which means padding.")
    return _spelled(value, where) if dtype is DType.STRING else value


def _spelled(value: Any, where: str) -> str:
    """A text value as the data pipeline spells it; words for a missing value stay as they are."""
    try:
        return spell(value) or str(value)
    except (InexactError, TypeError):
        raise UserError(f"{where}: expected a text or an exact number, found {value!r}.") from None


def _positive(
    record: Mapping[str, Any], role: Role, dtype: DType, where: str
) -> labels.Positive | None:
    """The rule "positive" of a record, if any; only a numeric label may have it."""
    if "positive" not in record:
        return None
    if role is not Role.LABEL or dtype is DType.STRING:
        raise UserError(
            f"{where}: expected 'positive' for the role 'label' and dtype int64 or float32 only, "
            f"found it for the role {role.value!r} and dtype {dtype.value}."
        )
    return labels.parse(record["positive"], dtype is DType.INT64, f"{where}: positive")


def _history(record: Any, features: tuple[Feature, ...], where: str) -> History:
    check_keys(record, {"max_length", "features", "behaviours"}, (), where)
    items = [feature.name for feature in features if feature.role is Role.ITEM]
    names = tuple(array(record.get("features", [*default_history(items)]), f"{where}: features"))
    for name in names:
        if name not in items:
            raise UserError(
                f"{where}: expected names of item features ({', '.join(items)}), found {name!r}.",
                did_you_mean(name, items),
            )
        if names.count(name) > 1:
            raise UserError(f"{where}: expected each feature once, found {name!r} twice.")
    if not names or names[0] != items[0]:
        raise UserError(f"{where}: expected the item key {items[0]!r} first, found {list(names)}.")
    behaviours = None
    if "behaviours" in record:
        rule = record["behaviours"]
        check_keys(rule, {"column", "values"}, {"column", "values"}, f"{where}: behaviours")
        values = array(rule["values"], f"{where}: behaviours: values")
        behaviours = Behaviours(
            column=string(rule["column"], f"{where}: behaviours: column"),
            values=tuple(_spelled(value, f"{where}: behaviours: values") for value in values),
        )
    max_length = integer(record.get("max_length", 50), f"{where}: max_length", 1)
    return History(max_length=max_length, features=names, behaviours=behaviours)


def _flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """Leaves of a JSON value by dotted path; features are keyed by name, not by position."""
    if isinstance(value, Mapping):
        items = [(f"{prefix}.{key}".lstrip("."), child) for key, child in value.items()]
    elif isinstance(value, list) and value and isinstance(value[0], Mapping):
        items = [(f"{prefix}[{child['name']}]", child) for child in value]
        items.append((f"{prefix}.order", [child["name"] for child in value]))
    else:
        return {prefix: value}
    return {
        leaf: leaf_value
        for path, child in items
        for leaf, leaf_value in _flatten(child, path).items()
    }
