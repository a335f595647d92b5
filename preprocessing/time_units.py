"""Units of time: microseconds for dtype datetime; of integers what the schema says, if it does."""

import numpy as np

from preprocessing.features.feature import UNITS, DType
from preprocessing.schema import Schema

UNIT = "microseconds since 1970-01-01T00:00:00Z"
"""Unit of times of dtype datetime."""

_TICKS_PER_SECOND = 1_000_000
_NUMPY_UNITS = {"seconds": "s", "milliseconds": "ms", "microseconds": "us", "nanoseconds": "ns"}
EARLIEST, LATEST = 631_152_000, 4_102_444_800
"""1990 and 2100 in seconds since 1970: between them a time of an unknown unit may be in seconds."""


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


def readable(schema: Schema, time: int) -> str:
    """A time for readers: as `text`, and in ISO form too if the schema says the unit of integers.

    What is plausible in seconds, of an unknown unit, has the day of these seconds behind it.
    """
    unit = None if schema.timestamp is None else schema.timestamp.unit
    if unit is not None:
        moment = np.datetime64(time, _NUMPY_UNITS[unit])
        return str(np.datetime_as_string(moment, unit="auto", timezone="UTC"))
    if is_datetime(schema) or not EARLIEST <= time < LATEST:
        return text(schema, time)
    return f"{time} ({np.datetime64(time, 's').astype('datetime64[D]')} if in seconds)"


def brief(schema: Schema, time: int) -> str:
    """A time in a few characters: as `readable`, but without digits if it is a day in seconds."""
    has_unit = schema.timestamp is not None and schema.timestamp.unit is not None
    if has_unit or is_datetime(schema) or not EARLIEST <= time < LATEST:
        return readable(schema, time)
    return str(np.datetime64(time, "s").astype("datetime64[D]"))
