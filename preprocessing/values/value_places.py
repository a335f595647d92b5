"""Where values stand in an array of distinct ones, looked up many times.

Arrow puts all values of the array into a hash table for every call, which for millions of items
costs more than the rest of the work on a partition. Here fingerprints are sorted once; a call then
searches for those of its own values, and compares what it finds.

Shapes: M values of the array, n values to look up.
"""

import functools

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from preprocessing.values.farmhash import fingerprint64

_FEW = 1 << 16  # values whose table costs nothing to speak of
_MANY = 4  # to search for a value costs as much as to put a few into a table


class ValuePlaces:
    """Finds values in an array.

    Args:
        values: [M] distinct texts or integers without nulls.

    Example:
        >>> ValuePlaces(pa.array(["b", "a"])).find(pa.array(["a", None, "c", "b"]))
        array([ 1, -1, -1,  0])
    """

    def __init__(self, values: pa.Array) -> None:
        self.values = values

    def __len__(self) -> int:
        return len(self.values)

    def find(self, column: pa.Array | pa.ChunkedArray) -> np.ndarray:
        """The place of each value of a column, int64 [n]; -1 for others and for nulls."""
        if isinstance(column, pa.ChunkedArray):
            column = column.combine_chunks()
        is_sorted = len(self) > _FEW and len(column) * _MANY < len(self)
        index = self._index if is_sorted else None
        if index is None:
            return pc.fill_null(pc.index_in(column, self.values), -1).to_numpy().astype(np.int64)
        keys_M, place_M = index
        if column.type != self.values.type:
            column = column.cast(self.values.type)
        rank_n = np.searchsorted(keys_M, _keys(column))
        rank_n[rank_n == len(keys_M)] = 0
        places_n = place_M[rank_n].astype(np.int64)
        is_equal_n = pc.equal(self.values.take(pa.array(places_n)), column).fill_null(False)
        return np.where(is_equal_n.to_numpy(zero_copy_only=False), places_n, -1)

    @functools.cached_property
    def _index(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Keys in ascending order and the place of each; None if two values share a key."""
        keys_M = _keys(self.values)
        place_M = np.argsort(keys_M)
        keys_M = keys_M[place_M]
        if (keys_M[1:] == keys_M[:-1]).any():
            return None
        return keys_M, place_M.astype(np.int32 if len(self) < 2**31 else np.int64)


def _keys(values: pa.Array) -> np.ndarray:
    """A number for each value: integers themselves, fingerprints of texts; any for nulls."""
    if pa.types.is_integer(values.type):
        return pc.fill_null(values, 0).to_numpy()
    return fingerprint64(pc.fill_null(values, "").cast(pa.large_string()))
