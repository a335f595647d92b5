"""A bijection of the ids of a table that puts neighbours far apart.

Id i of a table of n rows stands at place (i * m) mod n, with m near n times the golden ratio and
coprime to n: so ids of any range are spread evenly, for any n.
"""

import functools
import math
from typing import Any

from models.keras import tf

_GOLDEN = (math.sqrt(5.0) - 1.0) / 2.0


def places_of(ids: Any, rows: int) -> Any:
    """The places of ids in a table, integers of the same type and shape.

    Args:
        ids: int64, from 0 to below `rows`: an array or a tensor.
        rows: Number of rows of the table, below 3e9.

    Example:
        >>> import numpy as np
        >>> places_of(np.arange(8), 8)
        array([0, 5, 2, 7, 4, 1, 6, 3])
    """
    return ids * _multiplier(rows) % rows


def looked_up(table: tf.Variable, ids: tf.Tensor) -> tf.Tensor:
    """The rows [..., width] of ids [...] of a table whose rows are spread.

    Rows travel once for all their places, and gradients are summed before they travel.
    """
    distinct_U, position = tf.unique(tf.reshape(ids, [-1]))
    rows_Uw = tf.nn.embedding_lookup(table, places_of(distinct_U, table.shape[0]))
    return tf.gather(rows_Uw, tf.reshape(position, tf.shape(ids)))


@functools.cache
def _multiplier(rows: int) -> int:
    """The number next to `rows` times the golden ratio that is coprime to `rows`."""
    middle = max(1, round(rows * _GOLDEN))
    return next(
        number
        for distance in range(rows + 1)
        for number in (middle + distance, middle - distance)
        if number > 0 and math.gcd(number, rows) == 1
    )
