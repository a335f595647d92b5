"""Columns of vectors: lists of numbers, or texts of as many numbers each."""

import dataclasses
import re

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.drafting.columns import Column
from pipeline.log.values import as_number
from pipeline.log.vector_columns import numbers_of
from preprocessing.features.feature import DType
from preprocessing.storage.arrow_buffers import from_buffers
from preprocessing.values.farmhash import fingerprint64

SEVERAL_LENGTHS = "lists of numbers, of several lengths"
"""Why lists of numbers are left out."""

_SHORTEST = 2
_SHORTEST_OF_TEXT = 3
_LENGTH = re.compile(r"\d+")


def texts_of_lists(column: pa.Array) -> pa.Array:
    """Lists of numbers as texts that are equal if the lists are: length and fingerprint.

    Args:
        column: [n] lists of numbers; an empty one is missing.
    """
    sizes = pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False)
    numbers, _ = as_number(pc.list_flatten(column), DType.FLOAT32)
    flat = numbers.fill_null(np.nan).to_numpy(zero_copy_only=False).astype("<f4")
    bounds = np.concatenate([[0], np.cumsum(sizes)]) * flat.itemsize
    prints = fingerprint64(from_buffers(flat.view(np.uint8), bounds))
    texts = pc.binary_join_element_wise(
        pa.array(sizes.astype(np.int64)).cast(pa.string()), pa.array(prints).cast(pa.string()), ":"
    )
    return pc.if_else(pa.array(sizes > 0), texts, pa.scalar(None, pa.string()))


def of_lists(column: Column) -> Column:
    """A column of `texts_of_lists` as one of vectors, or as one that cannot be read."""
    lengths = {int(_LENGTH.match(text)[0]) for text in column.values.to_pylist()}  # type: ignore[index]
    if not lengths:
        return column
    if len(lengths) > 1 or min(lengths) < _SHORTEST:
        return dataclasses.replace(column, unreadable=SEVERAL_LENGTHS)
    return dataclasses.replace(column, size=lengths.pop())


def recognised(column: Column) -> Column:
    """The column as one of vectors, if its texts are as many numbers each, some with fractions."""
    lengths = set()
    for text in column.values.to_pylist():
        parts = numbers_of(text)
        if len(parts) < _SHORTEST_OF_TEXT or not all(map(_is_number, parts)):
            return column
        lengths.add(len(parts))
    has_fractions = bool(pc.any(pc.match_substring(column.values, ".")).as_py())
    if len(lengths) != 1 or not has_fractions:
        return column
    return dataclasses.replace(column, size=lengths.pop())


def _is_number(text: str) -> bool:
    try:
        return bool(np.isfinite(float(text)))
    except ValueError:
        return False
