"""Units of time: microseconds for dtype datetime; of integers what the schema says, if it does."""

import numpy as np

from preprocessing.features.feature import UNITS, DType
from preprocessing.schema import Schema

UNIT = "microseconds since 1970-01-01T00:00:00Z"
"""Unit of times of dtype datetime."""

_TICKS_PER_SECOND = 1_000_000


def is_datetime(schema: Schema) -> bool:
    """Whether times are dates, of a known unit and zero."""
    return schema.timestamp is not None and schema.timestamp.dtype is DType.DATETIME


def ticks_per_second(schema: Schema) -> int:
    """Number of units in a second; times whose unit is unknown are assumed to be seconds."""
    if schema.timestamp is not None and schema.timestamp.unit is not None:
        return UNITS[schema.timestamp.unit]
    return _TICKS_PER_SECOND if is_datetime(schema) else 1


def text(schema: Schema, time: int) -> str:
    """A time in ISO form and at full resolution, in UTC; its digits if the unit is unknown."""
    if not is_datetime(schema):
        return str(time)
    moment = np.datetime64(time, "us")
    return str(np.datetime_as_string(moment, unit="auto", timezone="UTC"))
