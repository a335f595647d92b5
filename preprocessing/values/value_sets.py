"""Sets of values as texts: how the several values of a row travel through tables of a log.

A set is one text, its values sorted by their bytes, each once, joined by U+001F. So equal sets are
equal texts, and sorting, counting and dealing out rows need no further type of column. An empty set
is null.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

SEPARATOR = "\x1f"
"""Unit separator of ASCII; no value may hold it."""


def join(texts: pa.Array, row_of_text: np.ndarray, rows: int) -> pa.Array:
    r"""Sets from their values.

    Args:
        texts: [n] string, values in any order, repeated or not; nulls are left out.
        row_of_text: [n] int64, row that each value belongs to, in ascending order.
        rows: Number of rows.

    Returns:
        [rows] string; null where a row has no value.

    Example:
        >>> join(pa.array(["b", "a", "b", "c"]), np.array([0, 0, 0, 2]), 3).to_pylist()
        ['a\x1fb', None, 'c']
    """
    is_present = pc.is_valid(texts).to_numpy(zero_copy_only=False)
    encoded = texts.drop_null().dictionary_encode()
    values = encoded.dictionary
    order = pc.sort_indices(values.cast(pa.binary())).to_numpy().astype(np.int64)
    rank_of_value = np.empty(len(values), np.int64)
    rank_of_value[order] = np.arange(len(values))
    codes = encoded.indices.to_numpy()
    pairs = np.unique(row_of_text[is_present] * max(1, len(values)) + rank_of_value[codes])
    row, rank = np.divmod(pairs, max(1, len(values)))
    sizes = np.bincount(row, minlength=rows)
    splits = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32)
    sorted_values = values.take(pa.array(order)).take(pa.array(rank))
    sets = pc.binary_join(pa.ListArray.from_arrays(pa.array(splits), sorted_values), SEPARATOR)
    return pc.if_else(pa.array(sizes > 0), sets, pa.scalar(None, pa.string()))


def split(sets: pa.Array) -> tuple[pa.Array, np.ndarray]:
    """The values of sets, and how many each set has.

    Args:
        sets: [n] texts as `join` makes them.

    Returns:
        Values of all sets one after another, of the type of the texts; their numbers [n] int64.
    """
    lists = pc.split_pattern(sets, SEPARATOR)
    sizes = pc.fill_null(pc.list_value_length(lists), 0)
    return pc.list_flatten(lists), sizes.to_numpy(zero_copy_only=False).astype(np.int64)
