"""Features that follow from times: the hour and weekday of a request, and the gaps of its events.

They have no column in the log. Integers stand for their values: hours and days of the week count
from 0, gaps are whole seconds. The functions take NumPy arrays as well as tensors, so that jobs and
graphs compute the same.

Times are integers, of which a second has `ticks`; they count from 1970 in UTC.
"""

import enum
from typing import Any

from preprocessing.features.encoder_specs import Bucketised

_HOUR, _DAY = 3600, 86_400
_EPOCH_WEEKDAY = 3  # 1970-01-01 was a Thursday
_LONGEST_GAP = 29  # 2^29 seconds are 17 years


class Derived(str, enum.Enum):
    """What a feature follows from: the key "from" in schema.json."""

    HOUR = "hour"
    WEEKDAY = "weekday"
    GAP_TO_REQUEST = "gap_to_request"
    GAP_TO_PREVIOUS = "gap_to_previous"

    @property
    def is_gap(self) -> bool:
        """Whether the value belongs to an event; otherwise it belongs to a request."""
        return self in (Derived.GAP_TO_REQUEST, Derived.GAP_TO_PREVIOUS)

    @property
    def encoder(self) -> Bucketised:
        """An id per hour or day of the week; of gaps one per power of two seconds."""
        if self is Derived.HOUR:
            return Bucketised(boundaries=tuple(map(float, range(1, 24))))
        if self is Derived.WEEKDAY:
            return Bucketised(boundaries=tuple(map(float, range(1, 7))))
        return Bucketised(boundaries=tuple(float(1 << k) for k in range(_LONGEST_GAP + 1)))


def of_request(derived: Derived, times: Any, ticks: int) -> Any:
    """The hour, 0 to 23, or the day of the week, from Monday = 0, of the times of requests.

    Args:
        derived: HOUR or WEEKDAY.
        times: Times of requests, int64 of any shape.
        ticks: Number of units of time in a second.

    Returns:
        int64 in the shape of `times`.

    Example:
        >>> import numpy as np
        >>> of_request(Derived.WEEKDAY, np.array([0, -1]), ticks=1)
        array([3, 2])
    """
    if derived is Derived.HOUR:
        return times // (_HOUR * ticks) % 24
    return (times // (_DAY * ticks) + _EPOCH_WEEKDAY) % 7


def gap(earlier: Any, later: Any, ticks: int) -> Any:
    """Whole seconds from earlier times to later ones, int64; negative if it is the other way."""
    return (later - earlier) // ticks
