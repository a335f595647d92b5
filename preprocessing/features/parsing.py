"""Features and histories from their records in schema.json."""

from collections.abc import Mapping
from typing import Any

from preprocessing.errors import UserError
from preprocessing.example_keys import LABEL, REQUEST_ID, TIMESTAMP
from preprocessing.features import encoder_specs, labels, many
from preprocessing.features.derived import Derived
from preprocessing.features.encoder_specs import (
    Bucketised,
    Encoder,
    Hash,
    Numeric,
    Vector,
    Vocabulary,
)
from preprocessing.features.feature import ENCODED_ROLES, PAD_VALUES, UNITS, DType, Feature, Role
from preprocessing.features.history import Behaviours, History, default_history
from preprocessing.features.many import Many
from preprocessing.json_checks import (
    array,
    check_keys,
    choice,
    did_you_mean,
    integer,
    member,
    string,
)
from preprocessing.values.spelling import InexactError, spell

_DEFAULT_TYPES: dict[DType, tuple[type, ...]] = {
    DType.STRING: (str,),
    DType.INT64: (int,),
    DType.FLOAT32: (int, float),
}

_KEYS = frozenset(
    ("name", "column", "role", "dtype", "encoder", "default")
    + ("many", "shape", "positive", "unit", "description")
)


def parse_feature(record: Any, where: str) -> Feature:
    """The feature that a record of schema.json describes.

    Raises:
        UserError: Unknown keys, a missing key, or a value that the role or the type excludes.
    """
    is_derived = isinstance(record, Mapping) and "from" in record
    if is_derived:
        check_keys(record, {"name", "role", "from", "description"}, {"name", "role"}, where)
    else:
        check_keys(record, _KEYS, {"name", "role", "dtype"}, where)
    name = record["name"]
    if not isinstance(name, str) or not name.isidentifier():
        raise UserError(f"{where}: expected an identifier as 'name', found {name!r}.")
    where = f"{where} ({name})"
    role = member(Role, record["role"], f"{where}: role")
    if role in ENCODED_ROLES and name in (TIMESTAMP, REQUEST_ID, LABEL):
        raise UserError(
            f"{where}: expected a name other than {TIMESTAMP}, {REQUEST_ID} and {LABEL} for "
            f"role {role.value!r}: examples use these for themselves.",
            "choose another 'name' and keep the column's with \"column\".",
        )
    if is_derived:
        return _derived(record, role, where)
    dtype = member(DType, record["dtype"], f"{where}: dtype")
    encoder = None
    if role in ENCODED_ROLES:
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
    if role is Role.WEIGHT and dtype is DType.STRING:
        raise UserError(f"{where}: expected a numeric dtype for role 'weight', found string.")
    excluded_keys = {"encoder"} if role is Role.WEIGHT else {"encoder", "default"}
    for key in excluded_keys & record.keys() if role not in ENCODED_ROLES else ():
        raise UserError(f"{where}: expected no {key!r} for role {role.value!r}, found one.")
    if dtype is DType.DATETIME and role is not Role.TIMESTAMP:
        raise UserError(
            f"{where}: expected dtype string, int64 or float32 for role {role.value!r}, found "
            f"{dtype.value}."
        )
    default = _default(record.get("default"), dtype, f"{where}: default")
    if role is Role.WEIGHT and default is not None and default < 0:
        raise UserError(f"{where}: expected a weight of 0 or more as 'default', found {default}.")
    return Feature(
        name=name,
        column=string(record.get("column", name), f"{where}: column"),
        role=role,
        dtype=dtype,
        encoder=encoder,
        default=default,
        many=_many(record, role, encoder, where),
        shape=_shape(record, dtype, encoder, default, where),
        positive=_positive(record, role, dtype, where),
        unit=_unit(record, role, dtype, where),
        description=record.get("description", ""),
    )


def parse_history(record: Any, features: tuple[Feature, ...], where: str) -> History:
    """The histories that schema.json describes, of a log of these features.

    Raises:
        UserError: Unknown keys, or features that are no item features or not led by the key.
    """
    check_keys(record, {"max_length", "features", "behaviours"}, (), where)
    items = [feature.name for feature in features if feature.role is Role.ITEM]
    # A vector for each event is what a schema has to ask for.
    usual = [f.name for f in features if f.role is Role.ITEM and not f.is_vector]
    default = [*default_history(usual or items)]
    names = tuple(array(record.get("features", default), f"{where}: features"))
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


def _derived(record: Mapping[str, Any], role: Role, where: str) -> Feature:
    """The feature of a record that says "from", whose type and encoder follow from that."""
    derived = member(Derived, record["from"], f"{where}: from")
    expected = Role.EVENT if derived.is_gap else Role.CONTEXT
    if role is not expected:
        raise UserError(
            f'{where}: expected the role {expected.value!r} for "from": {derived.value!r}, found '
            f"{role.value!r}."
        )
    return Feature(
        name=record["name"],
        column="",
        role=role,
        dtype=DType.INT64,
        encoder=derived.encoder,
        derived=derived,
        description=record.get("description", ""),
    )


def _unit(record: Mapping[str, Any], role: Role, dtype: DType, where: str) -> str | None:
    """The unit of a record, if any; only times that are integers may have one."""
    if "unit" not in record:
        return None
    if role is not Role.TIMESTAMP or dtype is not DType.INT64:
        raise UserError(
            f"{where}: expected 'unit' for the role 'timestamp' and dtype int64 only, found it for "
            f"the role {role.value!r} and dtype {dtype.value}.",
            "leave it out; times of dtype datetime are microseconds.",
        )
    return choice(record["unit"], UNITS, f"{where}: unit")


def _default(value: Any, dtype: DType, where: str) -> Any:
    """The default of a feature if it is of the feature's type and not its pad value."""
    if value is None:
        return None
    if not isinstance(value, _DEFAULT_TYPES[dtype]) or isinstance(value, bool):
        raise UserError(f"{where}: expected a value of dtype {dtype.value}, found {value!r}.")
    if dtype is not DType.FLOAT32 and value == PAD_VALUES[dtype]:
        raise UserError(f"{where}: expected another value than {value!r}, which means padding.")
    return _spelled(value, where) if dtype is DType.STRING else value


def _spelled(value: Any, where: str) -> str:
    """A text value as the data pipeline spells it; words for a missing value stay as they are."""
    try:
        return spell(value) or str(value)
    except (InexactError, TypeError):
        raise UserError(f"{where}: expected a text or an exact number, found {value!r}.") from None


def _many(
    record: Mapping[str, Any], role: Role, encoder: Encoder | None, where: str
) -> Many | None:
    """The record "many" of a feature, if any; only ids of a table can be combined."""
    if "many" not in record:
        return None
    if not isinstance(encoder, (Vocabulary, Hash)):
        kind = f"role {role.value!r}" if encoder is None else f"the encoder {encoder.kind!r}"
        raise UserError(
            f"{where}: expected 'many' for user, context, item and event features with the encoder "
            f"'vocabulary' or 'hash' only, found it for {kind}.",
            "leave 'many' out, or give each value a column of its own.",
        )
    return many.parse(record["many"], f"{where}: many")


def _shape(
    record: Mapping[str, Any], dtype: DType, encoder: Encoder | None, default: Any, where: str
) -> tuple[int, ...]:
    """The shape of the values of a vector; () for other features."""
    hint = 'for example "dtype": "float32", "shape": [64], "encoder": {"kind": "vector"}.'
    if not isinstance(encoder, Vector):
        if "shape" in record:
            raise UserError(f"{where}: expected 'shape' with the encoder 'vector' only.", hint)
        return ()
    if "shape" not in record or dtype is not DType.FLOAT32:
        found = f"dtype {dtype.value}" if "shape" in record else "no 'shape'"
        raise UserError(
            f"{where}: expected dtype float32 and a 'shape' with the encoder 'vector', found "
            f"{found}.",
            hint,
        )
    if default not in (None, 0):
        raise UserError(
            f"{where}: expected 0, for a vector of zeros, as 'default' of a vector, found "
            f"{default}."
        )
    sizes = array(record["shape"], f"{where}: shape")
    if len(sizes) != 1:
        raise UserError(f"{where}: expected one number, the length, as 'shape', found {sizes}.")
    return (integer(sizes[0], f"{where}: shape", 1),)


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
