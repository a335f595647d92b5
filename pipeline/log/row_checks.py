"""Checks raw rows column by column: each becomes an event, is filtered, or is rejected.

Events carry the features of the schema with their declared types, and internal columns whose names
no feature can have (feature names are identifiers).
"""

import dataclasses
from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.log.json_rows import Separator
from pipeline.log.raw_batch import RawBatch, Rejection
from pipeline.log.value_sets import as_sets
from pipeline.log.values import (
    LINE_BREAK,
    as_number,
    as_time,
    line_breaks,
    with_reasons_of_times,
)
from pipeline.log.vector_columns import NUMBERS, as_vectors
from preprocessing.features.feature import DType, Feature, Role
from preprocessing.schema import Schema
from preprocessing.values.spelling import as_mask, spelled

TIME, FILE, LINE = "#time", "#file", "#line"
"""Columns of an event: timestamp (0 if the log has none), index of its file, line in it."""

LABEL, REQUEST = "#label", "#request"
"""Further columns of an impression: 1 if positive, else 0; text that names its request."""

WEIGHT = "#weight"
"""Column of an event: weight of its sample, float32, if the schema has a feature for it."""

_COLUMNS = {
    Role.TIMESTAMP: TIME,
    Role.LABEL: LABEL,
    Role.REQUEST: REQUEST,
    Role.WEIGHT: WEIGHT,
}


@dataclasses.dataclass(frozen=True)
class Validated:
    """Outcome of the checks of a batch; every row is counted exactly once.

    Attributes:
        events: One column per encoded feature, then TIME, LABEL, REQUEST and WEIGHT if the schema
            has them, `defaulted_column` of each encoded feature with a default, FILE, LINE.
        filtered: Number of rows taken out, by rule: `behaviours` of the schema, or the rules of
            the adapter of a published log.
        rejections: Bad rows.
        defaulted: Number of values of the events that are the default of their feature because the
            log has none, by feature.
    """

    events: pa.Table
    filtered: Mapping[str, int]
    rejections: list[Rejection]
    defaulted: Mapping[str, int]

    @property
    def read(self) -> int:
        """Rows of the batch."""
        return self.events.num_rows + sum(self.filtered.values()) + len(self.rejections)


def defaulted_column(name: str) -> str:
    """Column of an event: whether a feature has its default because the log has no value."""
    return f"#defaulted/{name}"


def columns_of(schema: Schema) -> list[str]:
    """Columns of the log that the schema uses, each once."""
    columns = [feature.column for feature in schema.log_features]
    if schema.history.behaviours is not None:
        columns.append(schema.history.behaviours.column)
    return list(dict.fromkeys(columns))


def separators_of(schema: Schema) -> dict[str, Separator]:
    """The separator of each column of many values or of vectors; None if it holds lists only."""
    separators: dict[str, Separator] = {f.column: NUMBERS for f in schema.features if f.is_vector}
    many = {f.column: f.many.separator for f in schema.features if f.many is not None}
    return separators | many


def validate(batch: RawBatch, schema: Schema) -> Validated:
    """Turns raw rows into events.

    A missing value (null, NaN, a text of `spelling.MISSING`, or the reserved pad value of a
    categorical integer) takes the default of its feature. Without a default it stays null for
    numeric and bucketised encoders, which have a place for it, and rejects the row otherwise. Of
    many values missing ones are left out, and a set of none is null; the default of a vector is one
    of zeros. A label is 0 or 1, or whether
    the rule of the schema holds for it.

    Args:
        batch: Raw rows with all columns of the schema.
        schema: Schema that the rows should follow.
    """
    batch = batch.without(~_behaviours(batch, schema), "behaviours")
    num_rows = len(batch.lines)
    good = np.ones(num_rows, bool)
    rejections = list(batch.rejections)
    arrays: dict[str, pa.Array] = {}
    for feature in schema.log_features:
        name = _COLUMNS.get(feature.role, feature.name)
        arrays[name], reasons = _judge(batch.columns[feature.column], feature)
        for reason, bad in reasons:
            rejections += [
                batch.rejection(row, reason) for row in np.flatnonzero(bad & good).tolist()
            ]
            good &= ~bad
    defaulted = {}
    for feature in schema.log_features:
        name = _COLUMNS.get(feature.role, feature.name)
        array = arrays[name]
        if feature.default is not None:
            is_null = pc.is_null(array)
            if feature.encoder is not None:
                arrays[defaulted_column(name)] = is_null
            if count := int((as_mask(is_null) & good).sum()):
                defaulted[feature.name] = count
            arrays[name] = pc.fill_null(array, _default(feature, array.type))
    arrays.setdefault(TIME, pa.array(np.zeros(num_rows, np.int64)))
    arrays[FILE] = pa.array(np.full(num_rows, batch.file.index, np.int32))
    arrays[LINE] = pa.array(batch.lines)
    events = pa.table(arrays)
    if not good.all():
        events = events.filter(pa.array(good))
    return Validated(events, batch.filtered, rejections, defaulted)


def _default(feature: Feature, column_type: pa.DataType) -> pa.Scalar:
    """The default of a feature as a value of its column."""
    if feature.is_vector:
        return pa.scalar(bytes(column_type.byte_width), column_type)
    return pa.scalar(feature.default).cast(column_type)


def _behaviours(batch: RawBatch, schema: Schema) -> np.ndarray:
    """Rows whose behaviour counts, bool."""
    behaviours = schema.history.behaviours
    if behaviours is None:
        return np.ones(len(batch.lines), bool)
    texts = spelled(batch.columns[behaviours.column]).texts
    is_counted = pc.is_in(texts, value_set=pa.array(behaviours.values, pa.string()))
    return is_counted.to_numpy(zero_copy_only=False)


def _judge(column: pa.Array, feature: Feature) -> tuple[pa.Array, list[tuple[str, np.ndarray]]]:
    """Returns a column with the type of its feature, and pairs of a reason and the bad rows.

    Missing values are null, whether or not the feature has a default. Bad rows hold any value of
    the right type. Reasons name no values, so that they can be counted.
    """
    where = f"column {feature.column!r}"
    if feature.many is not None:
        array, faults = as_sets(column, feature)
    elif feature.is_vector:
        array, faults = as_vectors(column, feature)
    elif feature.dtype is DType.STRING:
        array, faults = spelled(column)
        faults = {**faults, LINE_BREAK: line_breaks(array)}
    elif feature.dtype is DType.DATETIME:
        array, faults = as_time(column)
    else:
        array, faults = as_number(column, feature.dtype)
    if feature.dtype is DType.INT64 and feature.is_categorical and feature.many is None:
        is_pad = pc.equal(array, pa.scalar(feature.pad_value, array.type))
        array = pc.if_else(pc.fill_null(is_pad, True), pa.scalar(None, array.type), array)
    if feature.role is Role.TIMESTAMP:
        faults = with_reasons_of_times(column, faults)
    reasons = [(f"{where}: {reason}", bad) for reason, bad in faults.items()]
    kinds = ("vocabulary", "hash", "vector")
    is_needed = feature.encoder is None or feature.encoder.kind in kinds
    if is_needed and feature.default is None and feature.many is None:
        # Only the first reason of a bad row counts.
        reasons.append((f"{where}: missing value", as_mask(pc.is_null(array))))
    if feature.role is Role.LABEL:
        if feature.positive is None:
            is_label = pc.is_in(array, value_set=pa.array([0, 1], array.type))
            reasons.append((f"{where}: neither 0 nor 1", ~as_mask(is_label)))
        else:
            array = feature.positive.holds(array)
        array = pc.cast(array, pa.int8(), safe=False)
    if feature.role is Role.WEIGHT:
        is_negative = pc.fill_null(pc.less(array, 0), False)
        reasons.append((f"{where}: a weight below 0", as_mask(is_negative)))
        array = pc.cast(array, pa.float32(), safe=False)
    if feature.role is Role.REQUEST:
        array = pc.cast(array, pa.string())
    return array, reasons
