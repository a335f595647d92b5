"""The schema: the one place where the features of a log are described.

Readers, vocabularies, the example codec, embeddings, serving signatures and the client derive from
it, so that no feature name is typed twice. See docs/schema.md for the file format.
"""

import dataclasses
import difflib
import enum
import hashlib
import json
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

from preprocessing.errors import UserError

PAD_ID = 0
"""Encoded id of padding. Ids 1..k are out of vocabulary, real values follow."""

TIMESTAMP = "timestamp"
REQUEST_ID = "request_id"
LABEL = "label"


class Role(str, enum.Enum):
    """What a feature describes."""

    USER = "user"
    ITEM = "item"
    CONTEXT = "context"
    LABEL = "label"
    TIMESTAMP = "timestamp"
    REQUEST = "request"


class DType(str, enum.Enum):
    """Type of a raw value."""

    STRING = "string"
    INT64 = "int64"
    FLOAT32 = "float32"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """Ids by count in the training data; rarer values share `oov_buckets` ids."""

    kind: str = dataclasses.field(default="vocabulary", init=False)
    min_count: int = 1
    oov_buckets: int = 1

    def check(self) -> None:
        """Raises `ValueError` on values out of range."""
        _at_least("min_count", self.min_count, 1)
        _at_least("oov_buckets", self.oov_buckets, 1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Hash:
    """Ids by a 64-bit fingerprint of the value, modulo `buckets`."""

    kind: str = dataclasses.field(default="hash", init=False)
    buckets: int

    def check(self) -> None:
        """Raises `ValueError` on values out of range."""
        _at_least("buckets", self.buckets, 2)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Numeric:
    """One float: as it is, standardised, or standardised after sign(x) log(1 + |x|)."""

    kind: str = dataclasses.field(default="numeric", init=False)
    normalisation: str = "standard"

    def check(self) -> None:
        """Raises `ValueError` on an unknown normalisation."""
        _one_of("normalisation", self.normalisation, ("none", "standard", "log_standard"))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bucketised:
    """Ids by the interval that a number falls into: boundaries given, or training quantiles."""

    kind: str = dataclasses.field(default="bucketised", init=False)
    boundaries: tuple[float, ...] = ()
    quantiles: int = 0

    def check(self) -> None:
        """Raises `ValueError` unless exactly one of boundaries and quantiles is given."""
        if bool(self.boundaries) == bool(self.quantiles):
            raise ValueError("expected either 'boundaries' or 'quantiles'")
        if list(self.boundaries) != sorted(set(self.boundaries)):
            raise ValueError("expected 'boundaries' in increasing order")


Encoder = Vocabulary | Hash | Numeric | Bucketised
_ENCODERS: dict[str, type[Encoder]] = {
    "vocabulary": Vocabulary,
    "hash": Hash,
    "numeric": Numeric,
    "bucketised": Bucketised,
}
_FEATURE_ROLES = (Role.USER, Role.ITEM, Role.CONTEXT)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Feature:
    """One column of the log.

    Attributes:
        name: Name in examples, tensors and requests; an identifier.
        column: Name in the raw log.
        role: What it describes. The first feature of role `user` is the key by which events are
            grouped; the first of role `item` identifies the item.
        dtype: Type of a raw value, in the log and in serving requests.
        encoder: How raw values become ids or floats; None for label, timestamp and request.
        default: Stands in for a missing value; None rejects rows that miss it.
        description: For readers of the schema; not part of the hash.
    """

    name: str
    column: str
    role: Role
    dtype: DType
    encoder: Encoder | None = None
    default: str | int | float | None = None
    description: str = ""

    @property
    def is_categorical(self) -> bool:
        """True if encoded values are ids of an embedding table (False: one float)."""
        return self.encoder is not None and not isinstance(self.encoder, Numeric)

    @property
    def pad_value(self) -> str | int | float:
        """Raw value that stands for "no event here" in serving requests."""
        return {DType.STRING: "", DType.INT64: -1, DType.FLOAT32: 0.0}[self.dtype]

    def to_json(self) -> dict[str, Any]:
        """The record of this feature in schema.json."""
        record: dict[str, Any] = {
            "name": self.name,
            "column": self.column,
            "role": self.role.value,
            "dtype": self.dtype.value,
        }
        if self.encoder is not None:
            record["encoder"] = {
                key: list(value) if isinstance(value, tuple) else value
                for key, value in dataclasses.asdict(self.encoder).items()
            }
        if self.default is not None:
            record["default"] = self.default
        if self.description:
            record["description"] = self.description
        return record


@dataclasses.dataclass(frozen=True, kw_only=True)
class Behaviours:
    """Which events count as behaviour: those whose `column` holds one of `values`."""

    column: str
    values: tuple[str, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class History:
    """The behaviour sequence of a request: the most recent `max_length` events before it.

    Attributes:
        max_length: L, in events. Of longer histories the most recent events are kept.
        features: Names of the item features that each event carries, in the order in which the
            vertical convolutions of MISS see them. The item key comes first.
        behaviours: Filter on events, or None if every event counts.
    """

    max_length: int = 50
    features: tuple[str, ...]
    behaviours: Behaviours | None = None


@dataclasses.dataclass(frozen=True)
class Schema:
    """All features of a log and the shape of its histories."""

    features: tuple[Feature, ...]
    history: History

    def with_role(self, *roles: Role) -> tuple[Feature, ...]:
        """The features of these roles, in schema order."""
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
        """The item features that each history event carries, in the order of the schema file."""
        return tuple(self[name] for name in self.history.features)

    @property
    def encoded_features(self) -> tuple[Feature, ...]:
        """Every feature that has an encoder, in schema order."""
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

    def save(self, path: str | pathlib.Path) -> None:
        """Writes schema.json."""
        pathlib.Path(path).write_text(json.dumps(self.to_json(), indent=2) + "\n", encoding="utf-8")

    def hash(self) -> str:
        """SHA-256 over everything but the descriptions, as 64 hexadecimal digits."""
        content = self.to_json()
        for record in content["features"]:
            record.pop("description", None)
        canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()

    def diff(self, other: "Schema") -> list[str]:
        """What `other` says otherwise, one line per difference; empty if the hashes are equal."""
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
    def load(cls, path: str | pathlib.Path) -> "Schema":
        """Reads and checks schema.json.

        Raises:
            UserError: The file is missing, not JSON, or says something that is not understood.
        """
        try:
            content = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise UserError(
                f"Expected a schema file, found none at {path}.",
                "check --schema, or leave it out for a log with user_id, item_id, timestamp.",
            ) from None
        except (UnicodeDecodeError, json.JSONDecodeError) as error:
            raise UserError(f"Expected JSON in {path}, found a syntax error: {error}.") from None
        return cls.from_json(content, str(path))

    @classmethod
    def from_json(cls, content: Any, where: str = "schema") -> "Schema":
        """Builds a checked schema from the content of schema.json.

        Args:
            content: Parsed JSON.
            where: Named in error messages.

        Raises:
            UserError: Unknown or missing keys, unknown roles, duplicate names, no user or item.
        """
        _check_keys(content, {"features", "history"}, {"features"}, where)
        features = tuple(
            _feature(record, f"{where}: features[{i}]")
            for i, record in enumerate(content["features"])
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
            found = sum(feature.role is role for feature in features)
            if found < lowest or (highest is not None and found > highest):
                raise UserError(
                    f"{where}: expected {'at least' if found < lowest else 'at most'} one feature "
                    f"of role {role.value!r}, found {found}."
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


def infer_schema(columns: Iterable[str], max_length: int = 50) -> Schema:
    """The schema of a canonical log: user_id, item_id, perhaps timestamp, further item columns.

    Every id is read as a string and gets a vocabulary. A column `position` counts as row order and
    is left out.

    Args:
        columns: Column names of the log.
        max_length: L, in events.

    Raises:
        UserError: The log has no user_id or no item_id.
    """
    columns = list(columns)
    for needed in ("user_id", "item_id"):
        if needed not in columns:
            raise UserError(
                f"Expected the columns user_id and item_id, found {', '.join(columns)}.",
                "name a schema file with --schema.",
            )

    def categorical(name: str, role: Role) -> Feature:
        return Feature(name=name, column=name, role=role, dtype=DType.STRING, encoder=Vocabulary())

    items = ["item_id"] + [
        c for c in columns if c not in ("user_id", "item_id", "timestamp", "position")
    ]
    features = [categorical("user_id", Role.USER)]
    features += [categorical(name, Role.ITEM) for name in items]
    if "timestamp" in columns:
        features.append(
            Feature(name=TIMESTAMP, column=TIMESTAMP, role=Role.TIMESTAMP, dtype=DType.INT64)
        )
    return Schema(tuple(features), History(max_length=max_length, features=tuple(items)))


def _feature(record: Any, where: str) -> Feature:
    _check_keys(
        record,
        {"name", "column", "role", "dtype", "encoder", "default", "description"},
        {"name", "role", "dtype"},
        where,
    )
    name = record["name"]
    if not isinstance(name, str) or not name.isidentifier():
        raise UserError(f"{where}: expected an identifier as 'name', found {name!r}.")
    where = f"{where} ({name})"
    role = _enum(Role, record["role"], f"{where}: role")
    dtype = _enum(DType, record["dtype"], f"{where}: dtype")
    encoder = None
    if role in _FEATURE_ROLES:
        if "encoder" not in record:
            raise UserError(
                f"{where}: expected an 'encoder' for role {role.value!r}, found none.",
                'for example "encoder": {"kind": "vocabulary"}.',
            )
        encoder = _encoder(record["encoder"], f"{where}: encoder")
        if isinstance(encoder, (Numeric, Bucketised)) and dtype is DType.STRING:
            raise UserError(f"{where}: expected a numeric dtype for {encoder.kind}, found string.")
        if isinstance(encoder, (Vocabulary, Hash)) and dtype is DType.FLOAT32:
            raise UserError(
                f"{where}: expected dtype string or int64 for {encoder.kind}, found float32."
            )
    elif "encoder" in record:
        raise UserError(f"{where}: expected no 'encoder' for role {role.value!r}, found one.")
    return Feature(
        name=name,
        column=record.get("column", name),
        role=role,
        dtype=dtype,
        encoder=encoder,
        default=record.get("default"),
        description=record.get("description", ""),
    )


def _encoder(record: Any, where: str) -> Encoder:
    kind = record.get("kind") if isinstance(record, Mapping) else None
    if kind not in _ENCODERS:
        raise UserError(f"{where}: expected 'kind' of {', '.join(_ENCODERS)}, found {kind!r}.")
    fields = {field.name: field for field in dataclasses.fields(_ENCODERS[kind])}
    required = {
        name
        for name, field in fields.items()
        if field.init and field.default is dataclasses.MISSING
    }
    _check_keys(record, set(fields), required, where)
    values = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in record.items()
        if key != "kind"
    }
    encoder = _ENCODERS[kind](**values)
    try:
        encoder.check()
    except (TypeError, ValueError) as error:
        raise UserError(f"{where}: {error}.") from None
    return encoder


def _history(record: Any, features: tuple[Feature, ...], where: str) -> History:
    _check_keys(record, {"max_length", "features", "behaviours"}, set(), where)
    items = [feature.name for feature in features if feature.role is Role.ITEM]
    chosen = tuple(record.get("features", items))
    for name in chosen:
        if name not in items:
            raise UserError(
                f"{where}: expected names of item features ({', '.join(items)}), found {name!r}."
            )
    if not chosen or chosen[0] != items[0]:
        raise UserError(f"{where}: expected the item key {items[0]!r} first, found {list(chosen)}.")
    max_length = record.get("max_length", 50)
    if not isinstance(max_length, int) or max_length < 1:
        raise UserError(f"{where}: expected a positive 'max_length', found {max_length!r}.")
    behaviours = None
    if "behaviours" in record:
        _check_keys(
            record["behaviours"], {"column", "values"}, {"column", "values"}, f"{where}: behaviours"
        )
        behaviours = Behaviours(
            column=record["behaviours"]["column"],
            values=tuple(str(value) for value in record["behaviours"]["values"]),
        )
    return History(max_length=max_length, features=chosen, behaviours=behaviours)


def _check_keys(record: Any, known: set[str], required: set[str], where: str) -> None:
    if not isinstance(record, Mapping):
        raise UserError(f"{where}: expected an object, found {type(record).__name__}.")
    for key in record:
        if key not in known:
            close = difflib.get_close_matches(key, sorted(known), 1)
            hint = f"did you mean {close[0]!r}?" if close else f"known keys: {sorted(known)}."
            raise UserError(f"{where}: unknown key {key!r}.", hint)
    for key in sorted(required - set(record)):
        raise UserError(f"{where}: expected the key {key!r}, found {sorted(record)}.")


def _enum(kind: type[Any], value: Any, where: str) -> Any:
    try:
        return kind(value)
    except ValueError:
        choices = ", ".join(member.value for member in kind)
        close = difflib.get_close_matches(str(value), choices.split(", "), 1)
        raise UserError(
            f"{where}: expected one of {choices}, found {value!r}.",
            f"did you mean {close[0]!r}?" if close else "",
        ) from None


def _flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """Leaves of a JSON value by dotted path; features are keyed by name, not by position."""
    if isinstance(value, Mapping):
        items = [(f"{prefix}.{key}".lstrip("."), child) for key, child in value.items()]
    elif isinstance(value, list) and value and isinstance(value[0], Mapping):
        items = [(f"{prefix}[{child['name']}]", child) for child in value]
        items.append((f"{prefix}.order", [child["name"] for child in value]))
    else:
        return {prefix: value}
    return {leaf: found for path, child in items for leaf, found in _flatten(child, path).items()}


def _at_least(name: str, value: int, lowest: int) -> None:
    if not isinstance(value, int) or value < lowest:
        raise ValueError(
            f"expected '{name}' to be an integer of at least {lowest}, found {value!r}"
        )


def _one_of(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"expected '{name}' to be one of {', '.join(choices)}, found {value!r}")
