"""Columns of vectors, lists of numbers or texts of them, in the one form of `values.vectors`.

A text is numbers with spaces, commas, semicolons or bars between them, perhaps in brackets:
`0.1 0.2`, `[0.1, 0.2]`. No number holds any of these, so a schema need not say which it is.

Shapes: n rows, D numbers of a vector.
"""

import re

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.log.column_types import is_list
from pipeline.log.values import NOT_FINITE, Faults, as_number
from preprocessing.features.feature import DType, Feature
from preprocessing.values import vectors
from preprocessing.values.spelling import MISSING, as_mask, cast, without_missing

_BRACKETS = "[](){} \t"
_SEPARATORS = r"\s*[\s,;|]\s*"

NUMBERS = re.compile(_SEPARATORS)
"""Pattern of what is between the numbers of a text."""


def as_vectors(column: pa.Array, feature: Feature) -> tuple[pa.Array, Faults]:
    """Turns lists of numbers, or texts of them, into vectors.

    Args:
        column: [n] lists, or values of any type that can be read as text.
        feature: Feature of the column; its values are vectors.

    Returns:
        [n] vectors, null where a row has no number; and the bad rows by reason.
    """
    (size,) = feature.shape
    if is_list(column.type):
        return _of_lists(column, size)
    texts, not_text = cast(column, pa.string())
    encoded = without_missing(texts).dictionary_encode()
    words = pc.utf8_trim(encoded.dictionary, characters=_BRACKETS)
    words = pc.if_else(pc.equal(words, ""), pa.scalar(None, words.type), words)
    distinct, distinct_faults = _of_lists(pc.split_pattern_regex(words, _SEPARATORS), size)
    codes = encoded.indices.fill_null(len(distinct)).to_numpy()
    faults = {reason: np.append(bad, False)[codes] for reason, bad in distinct_faults.items()}
    faults[NOT_FINITE] |= not_text
    return distinct.take(encoded.indices), faults


def numbers_of(text: str) -> list[str]:
    """The numbers of a text, taken apart as `as_vectors` does; none of one that means missing."""
    words = text.strip(_BRACKETS)
    return [] if text in MISSING or not words else NUMBERS.split(words)


def _of_lists(column: pa.Array, size: int) -> tuple[pa.Array, Faults]:
    """Vectors of lists; an empty list is a missing vector."""
    sizes_n = pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False)
    values = pc.list_flatten(column)
    numbers, value_faults = as_number(values, DType.FLOAT32)
    is_bad = np.any(list(value_faults.values()), axis=0) | as_mask(pc.is_null(numbers))
    row_of_value = np.repeat(np.arange(len(column)), sizes_n)
    bad_n = np.bincount(row_of_value[is_bad], minlength=len(column)) > 0
    is_missing_n, is_whole_n = sizes_n == 0, sizes_n == size
    numbers_nD = np.zeros((len(column), size), np.float32)
    whole = numbers.to_numpy(zero_copy_only=False)[is_whole_n[row_of_value]]
    numbers_nD[is_whole_n] = whole.reshape(-1, size)
    numbers_nD[bad_n] = 0.0
    faults = {
        f"a vector of another length than {size}": ~is_whole_n & ~is_missing_n,
        NOT_FINITE: bad_n,
    }
    return vectors.pack(numbers_nD, is_missing_n), faults
