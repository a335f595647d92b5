"""Columns of many values as sets in the one form of `preprocessing.values.value_sets`."""

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.log.column_types import is_list
from pipeline.log.values import LINE_BREAK, Faults, as_number, line_breaks
from preprocessing.features.feature import PAD_VALUES, DType, Feature
from preprocessing.values import value_sets
from preprocessing.values.spelling import as_mask, spelled

HOLDS_SEPARATOR = "a value that holds U+001F, which is kept for separating values"

_Values = Callable[[pa.Array], tuple[pa.Array, Faults]]
"""Function from a column of single values to their texts, null where one is missing, and the bad
ones by reason."""


def as_sets(column: pa.Array, feature: Feature) -> tuple[pa.Array, Faults]:
    """Turns lists, or texts of values between separators, into sets.

    Args:
        column: [n] lists, or values of any type that `pipeline.log.column_types` takes for texts.
        feature: Feature of the column; it has many values.

    Returns:
        [n] sets, null where a row has no value; and the bad rows by reason.
    """
    assert feature.many is not None
    values = _integers if feature.dtype is DType.INT64 else _texts
    if is_list(column.type):
        return _of_lists(column, values)
    return _of_texts(column, feature.many.separator, values)


def sets_of_texts(column: pa.Array, separator: str | None) -> tuple[pa.Array, Faults]:
    """As `as_sets`, of texts; lists need no separator."""
    if is_list(column.type):
        return _of_lists(column, _texts)
    return _of_texts(column, separator, _texts)


def _of_lists(column: pa.Array, texts_of: _Values) -> tuple[pa.Array, Faults]:
    """Sets of lists."""
    sizes = pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False)
    row_of_value = np.repeat(np.arange(len(column)), sizes)
    texts, value_faults = texts_of(pc.list_flatten(column))
    faults = {
        reason: np.bincount(row_of_value[bad], minlength=len(column)) > 0
        for reason, bad in value_faults.items()
    }
    return value_sets.join(texts, row_of_value, len(column)), faults


def _of_texts(
    column: pa.Array, separator: str | None, texts_of: _Values
) -> tuple[pa.Array, Faults]:
    """Sets of texts of values between separators; each distinct text is taken apart once."""
    assert separator is not None
    texts, faults = spelled(column)
    encoded = texts.dictionary_encode()
    sets, set_faults = _of_lists(pc.split_pattern(encoded.dictionary, separator), texts_of)
    codes = encoded.indices.fill_null(len(sets)).to_numpy()
    for reason, bad in set_faults.items():
        faults[reason] = faults.get(reason, False) | np.append(bad, False)[codes]
    return sets.take(encoded.indices), faults


def _integers(column: pa.Array) -> tuple[pa.Array, Faults]:
    """Integers as texts; -1 means padding in requests, so it is missing here."""
    integers, faults = as_number(column, DType.INT64)
    is_pad = pc.fill_null(pc.equal(integers, PAD_VALUES[DType.INT64]), True)
    present = pc.if_else(is_pad, pa.scalar(None, integers.type), integers)
    return present.cast(pa.string()), faults


def _texts(column: pa.Array) -> tuple[pa.Array, Faults]:
    """Texts in their one spelling."""
    texts, faults = spelled(column)
    holds = pc.fill_null(pc.match_substring(texts, value_sets.SEPARATOR), False)
    return texts, {**faults, LINE_BREAK: line_breaks(texts), HOLDS_SEPARATOR: as_mask(holds)}
