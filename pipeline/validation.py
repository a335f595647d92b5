"""Column-wise judgement of raw rows: each becomes an event, is filtered, or is rejected.

Events carry the features of the schema with their declared types, and three columns of ours whose
names no feature can have (feature names are identifiers).
"""

import dataclasses

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.readers import RawBatch, Rejection
from preprocessing.schema import DType, Feature, Role, Schema

TIME, FILE, LINE = "#time", "#file", "#line"
"""Columns of an event: timestamp (0 if the log has none), index of its file, line in it."""

_TYPES = {DType.STRING: pa.string(), DType.INT64: pa.int64(), DType.FLOAT32: pa.float32()}
_NAMES = {DType.STRING: "text", DType.INT64: "an integer", DType.FLOAT32: "a finite number"}


@dataclasses.dataclass(frozen=True)
class Validated:
    """What became of the rows of a batch; every row is counted exactly once.

    Attributes:
        events: One column per encoded feature, then TIME, FILE, LINE.
        filtered: Rows that the behaviour filter of the schema took out.
        rejections: Bad rows.
    """

    events: pa.Table
    filtered: int
    rejections: list[Rejection]

    @property
    def read(self) -> int:
        """Rows of the batch."""
        return self.events.num_rows + self.filtered + len(self.rejections)


def columns_of(schema: Schema) -> list[str]:
    """Columns of the log that the schema uses, each once."""
    columns = [feature.column for feature in schema.features]
    if schema.history.behaviours is not None:
        columns.append(schema.history.behaviours.column)
    return list(dict.fromkeys(columns))


def validate(batch: RawBatch, schema: Schema) -> Validated:
    """Turns raw rows into events.

    A missing value (null, NaN, an empty text, or the reserved pad value of a categorical integer)
    takes the default of its feature. Without a default it stays null for numeric and bucketised
    encoders, which have a place for it, and rejects the row otherwise.

    Args:
        batch: Raw rows with all columns of the schema.
        schema: What they should be.
    """
    num_rows = len(batch.lines)
    kept = _behaviours(batch, schema)
    good = kept.copy()
    rejections = list(batch.rejections)
    arrays: dict[str, pa.Array] = {}
    for feature in schema.with_role(Role.USER, Role.ITEM, Role.CONTEXT, Role.TIMESTAMP):
        array, reasons = _judge(batch.columns[feature.column], feature)
        name = TIME if feature.role is Role.TIMESTAMP else feature.name
        arrays[name] = array
        for reason, bad in reasons:
            for row in np.flatnonzero(bad & good):
                raw = {key: column[row].as_py() for key, column in batch.columns.items()}
                line = int(batch.lines[row])
                rejections.append(Rejection.of(batch.file.path, line, reason, raw))
            good &= ~bad
    arrays.setdefault(TIME, pa.array(np.zeros(num_rows, np.int64)))
    arrays[FILE] = pa.array(np.full(num_rows, batch.file.index, np.int32))
    arrays[LINE] = pa.array(batch.lines)
    events = pa.table(arrays).filter(pa.array(good))
    return Validated(events, int(num_rows - kept.sum()), rejections)


def _behaviours(batch: RawBatch, schema: Schema) -> np.ndarray:
    """Rows whose behaviour counts, bool."""
    behaviours = schema.history.behaviours
    if behaviours is None:
        return np.ones(len(batch.lines), bool)
    text, _ = _as_text(batch.columns[behaviours.column])
    found = pc.is_in(text, value_set=pa.array(behaviours.values, pa.string()))
    return found.to_numpy(zero_copy_only=False)


def _judge(array: pa.Array, feature: Feature) -> tuple[pa.Array, list[tuple[str, np.ndarray]]]:
    """A column with the type of its feature, and which of its rows are bad for which reason.

    Bad rows hold any value of the right type. Reasons name no values, so that they can be counted.
    """
    where = f"column {feature.column!r}"
    if feature.dtype is DType.STRING:
        array, bad = _as_text(array)
        broken = pc.fill_null(pc.match_substring_regex(array, r"[\r\n]"), False)
        reasons = [
            (f"{where}: invalid UTF-8", bad),
            (f"{where}: line break in a value", _mask(broken)),
        ]
    else:
        array, bad = _as_number(array, feature.dtype)
        reasons = [(f"{where}: not {_NAMES[feature.dtype]}", bad)]
    if feature.dtype is DType.STRING or feature.is_categorical:
        is_pad = pc.equal(array, pa.scalar(feature.pad_value, array.type))
        array = pc.if_else(pc.fill_null(is_pad, True), pa.scalar(None, array.type), array)
    if feature.default is not None:
        array = pc.fill_null(array, pa.scalar(feature.default).cast(array.type))
    elif feature.role is Role.TIMESTAMP or feature.encoder.kind in ("vocabulary", "hash"):  # type: ignore[union-attr]
        reasons.append((f"{where}: missing value", _mask(pc.is_null(array)) & ~bad))
    return array, reasons


def _as_text(array: pa.Array) -> tuple[pa.Array, np.ndarray]:
    """A column of any scalar type as texts, empty and absent ones as null; and which are no UTF-8.

    Floats that are all whole numbers are ids that once had a missing value beside them (a habit
    of pandas): 7.0 becomes "7".
    """
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if pa.types.is_floating(array.type):
        array = pc.if_else(pc.is_nan(array), pa.scalar(None, array.type), array)
        whole = pc.cast(array, pa.int64(), safe=False)
        if pc.all(pc.equal(whole.cast(array.type, safe=False), array)).as_py() is not False:
            array = whole
    array, bad = _cast(array, pa.string())
    empty = pc.equal(array, "")
    return pc.if_else(pc.fill_null(empty, True), pa.scalar(None, pa.string()), array), bad


def _as_number(array: pa.Array, dtype: DType) -> tuple[pa.Array, np.ndarray]:
    """A column as int64 or float32, NaN as null; and which rows hold no such number.

    Date and time types become seconds since 1970.
    """
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if pa.types.is_temporal(array.type):
        array = pc.cast(array, pa.timestamp("s"), safe=False).cast(pa.int64())
    bad = np.zeros(len(array), bool)
    if not (pa.types.is_integer(array.type) or pa.types.is_floating(array.type)):
        array, bad = _as_text(array)
    array, not_a_number = _cast(array, pa.float64() if dtype is DType.FLOAT32 else pa.int64())
    bad |= not_a_number
    if dtype is DType.FLOAT32:
        array = pc.cast(
            pc.if_else(pc.is_nan(array), pa.scalar(None, array.type), array), pa.float32()
        )
        bad |= _mask(pc.fill_null(pc.is_inf(array), False))
    return array, bad


def _cast(array: pa.Array, to: pa.DataType) -> tuple[pa.Array, np.ndarray]:
    """Casts a column; rows that cannot be cast become null and are marked.

    NaN is null when integers are wanted. The column is cast at once; only if that fails is every
    distinct value tried.
    """
    if pa.types.is_floating(array.type) and pa.types.is_integer(to):
        array = pc.if_else(pc.is_nan(array), pa.scalar(None, array.type), array)
    try:
        return pc.cast(array, to), np.zeros(len(array), bool)
    except pa.ArrowInvalid:
        encoded = array.dictionary_encode()
        values = [
            _cast_one(encoded.dictionary[i : i + 1], to) for i in range(len(encoded.dictionary))
        ]
        cast = pa.array(values, to).take(encoded.indices)
        return cast, _mask(pc.and_(pc.is_null(cast), pc.is_valid(array)))


def _cast_one(value: pa.Array, to: pa.DataType) -> object:
    try:
        return pc.cast(value, to)[0].as_py()
    except pa.ArrowInvalid:
        return None


def _mask(array: pa.Array) -> np.ndarray:
    return np.asarray(array.to_numpy(zero_copy_only=False), bool)
