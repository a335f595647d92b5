"""Checks of the auditor that what features derive from times follows from the times of the request.

Nothing here is shared with the build: the calendar is that of NumPy and Python, and the interval of
a gap is the number of binary digits of its seconds.

Shapes: B requests, L history length.
"""

from collections.abc import Iterator

import numpy as np

from pipeline.auditing.requests import Requests, Verdict
from preprocessing.example_keys import history_key
from preprocessing.features.derived import Derived
from preprocessing.features.feature import DType
from preprocessing.schema import Schema

_UNITS = {"seconds": "s", "milliseconds": "ms", "microseconds": "us", "nanoseconds": "ns"}
_FIRST_ID, _UNDEFINED = 2, 0
_MOST_DIGITS = 30


def verdicts(schema: Schema, batch: Requests) -> Iterator[Verdict]:
    """Yields a verdict for each feature that derives from times."""
    for feature in schema.features:
        if feature.derived is None:
            continue
        if feature.is_gap:
            key = history_key(feature.name)
            wrong_BL = batch.values[key] != _gap_ids(schema, batch, feature.derived)
            bad_B = (wrong_BL & batch.is_event_BL).any(axis=1)
        else:
            key = feature.name
            bad_B = batch.values[key] != _calendar_ids(schema, batch, feature.derived)
        yield Verdict("times", bad_B, f"{key} does not follow from its times")


def _gap_ids(schema: Schema, batch: Requests, derived: Derived) -> np.ndarray:
    times_BL = _times(schema, batch.history_time_BL)
    if derived is Derived.GAP_TO_REQUEST:
        gap_BL = _times(schema, batch.timestamp_B)[:, None] - times_BL
    else:
        gap_BL = np.diff(times_BL, axis=1, prepend=times_BL[:, :1])
    seconds_BL = np.floor(gap_BL / np.timedelta64(1, "s"))
    digits_BL = np.minimum(np.frexp(np.maximum(seconds_BL, 0.0))[1], _MOST_DIGITS)
    ids_BL = _FIRST_ID + digits_BL.astype(np.int64)
    if derived is Derived.GAP_TO_PREVIOUS:
        ids_BL[:, :1] = _UNDEFINED
    return ids_BL


def _calendar_ids(schema: Schema, batch: Requests, derived: Derived) -> np.ndarray:
    times_B = _times(schema, batch.timestamp_B)
    days_B = times_B.astype("M8[D]")
    if derived is Derived.HOUR:
        return _FIRST_ID + ((times_B - days_B) // np.timedelta64(1, "h")).astype(np.int64)
    days, row_B = np.unique(days_B, return_inverse=True)
    weekdays = [day.weekday() for day in days.tolist()]
    return _FIRST_ID + np.array(weekdays, np.int64)[row_B]


def _times(schema: Schema, times: np.ndarray) -> np.ndarray:
    """Times as datetime64 of their unit."""
    assert schema.timestamp is not None
    is_datetime = schema.timestamp.dtype is DType.DATETIME
    unit = "us" if is_datetime else _UNITS[schema.timestamp.unit or "seconds"]
    return times.astype(f"M8[{unit}]")
