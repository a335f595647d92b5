"""The schema: the one place that describes the features of a log.

Readers, vocabularies, the example codec, embeddings, serving signatures and the client derive from
it, so that no feature name is typed twice. See docs/schema.md for the file format.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from preprocessing.errors import UserError
from preprocessing.example_keys import candidate_key, history_key
from preprocessing.features.derived import Derived
from preprocessing.features.feature import ENCODED_ROLES, UNITS, DType, Feature, Role
from preprocessing.features.history import History
from preprocessing.features.parsing import parse_feature, parse_history
from preprocessing.json_checks import array, check_keys, read_json
from preprocessing.storage import files
from preprocessing.storage.files import AnyPath

_ROLE_ORDER = (
    Role.USER,
    Role.CONTEXT,
    Role.ITEM,
    Role.EVENT,
    Role.REQUEST,
    Role.TIMESTAMP,
    Role.LABEL,
    Role.WEIGHT,
)


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
    def event_features(self) -> tuple[Feature, ...]:
        """Features of role `event`: what history events have and candidates lack."""
        return self.with_role(Role.EVENT)

    @property
    def step_features(self) -> tuple[Feature, ...]:
        """Everything that a step of a history has: item features, then those of events."""
        return (*self.history_features, *self.event_features)

    @property
    def request_fields(self) -> tuple[Feature, ...]:
        """What a caller of a served model sends once: user and context, the time if it is used."""
        fields = tuple(feature for feature in self.user_features if feature.derived is None)
        is_used = self.derived - {Derived.GAP_TO_PREVIOUS}
        return fields + self.with_role(Role.TIMESTAMP) if is_used else fields

    @property
    def event_fields(self) -> tuple[Feature, ...]:
        """What a caller of a served model sends of each event: its time too, if that is used."""
        fields = tuple(feature for feature in self.step_features if feature.derived is None)
        is_used = any(derived.is_gap for derived in self.derived)
        return fields + self.with_role(Role.TIMESTAMP) if is_used else fields

    @property
    def log_features(self) -> tuple[Feature, ...]:
        """The features that have a column in the log."""
        return tuple(feature for feature in self.features if feature.derived is None)

    @property
    def derived(self) -> frozenset[Derived]:
        """What features of the schema derive from times."""
        return frozenset(f.derived for f in self.features if f.derived is not None)

    @property
    def encoded_features(self) -> tuple[Feature, ...]:
        """Every feature that has an encoder, in the order of `features`."""
        return self.with_role(*ENCODED_ROLES)

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
    def weight(self) -> Feature | None:
        """The feature that weighs the sample of a row, or None if all samples weigh 1."""
        return next(iter(self.with_role(Role.WEIGHT)), None)

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
            parse_feature(record, f"{where}: features[{i}]")
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
            (Role.WEIGHT, 0, 1),
        ):
            count = sum(feature.role is role for feature in features)
            if count < lowest or (highest is not None and count > highest):
                raise UserError(
                    f"{where}: expected {'at least' if count < lowest else 'at most'} one feature "
                    f"of role {role.value!r}, found {count}."
                )
        history = parse_history(content.get("history", {}), features, f"{where}: history")
        schema = cls(features, history)
        for key in (schema.user_key, schema.item_key):
            if not key.is_categorical:
                raise UserError(
                    f"{where}: expected a categorical encoder for the key {key.name!r}, "
                    f"found {'vector' if key.is_vector else 'numeric'}."
                )
            if key.many is not None:
                raise UserError(
                    f"{where}: expected one value per row of the key {key.name!r}, found 'many'.",
                    "leave 'many' out; the first feature of role 'user' and that of role 'item' "
                    "identify users and items.",
                )
        _require_own_columns(schema, where)
        _require_times(schema, where)
        return schema


def encoded_keys(schema: Schema) -> list[tuple[str, Feature]]:
    """Every encoded feature of an example with its key."""
    return [
        *((feature.name, feature) for feature in schema.user_features),
        *((candidate_key(feature.name), feature) for feature in schema.item_features),
        *((history_key(feature.name), feature) for feature in schema.step_features),
    ]


def _require_own_columns(schema: Schema, where: str) -> None:
    """Raises `UserError` if a column of many values or numbers is read in another way as well."""
    columns = [feature.column for feature in schema.log_features]
    if schema.history.behaviours is not None:
        columns.append(schema.history.behaviours.column)
    for feature in schema.features:
        if feature.axes and columns.count(feature.column) > 1:
            what = "vectors" if feature.is_vector else "many values"
            raise UserError(
                f"{where}: expected one use of the column {feature.column!r}, which has {what}, "
                "found several.",
                "leave the other feature or rule out, or copy the column under another name.",
            )


def _require_times(schema: Schema, where: str) -> None:
    """Raises `UserError` if features derive from times that the log lacks or whose unit is open."""
    for feature in schema.features:
        if feature.derived is None:
            continue
        source = f'"from": {feature.derived.value!r}'
        expected = f"{where}: expected times for {feature.name!r} ({source})"
        if schema.timestamp is None:
            raise UserError(
                f"{expected}, found no feature of role 'timestamp'.",
                "add one, or leave the feature out.",
            )
        if schema.timestamp.dtype is not DType.DATETIME and schema.timestamp.unit is None:
            raise UserError(
                f"{expected} of a known unit, found int64 without 'unit'.",
                f'say "unit": "seconds" (or {", ".join([*UNITS][1:])}) for '
                f"{schema.timestamp.name!r}; positions have no unit, so leave the feature out "
                "where they stand for times.",
            )


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
