"""Columns of many values as sets in the one form of `preprocessing.values.value_sets`."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.log.column_types import is_list
from pipeline.log.values import LINE_BREAK, Faults, as_number, line_breaks
from preprocessing.features.feature import DType, Feature
from preprocessing.values import value_sets
from preprocessing.values.spelling import as_mask, spelled

HOLDS_SEPARATOR = "a value that holds U+001F, which is kept for separating values"


def as_sets(column: pa.Array, feature: Feature) -> tuple[pa.Array, Faults]:
    """Turns lists, or texts of values between separators, into sets.

    Args:
        column: [n] lists, or values of any type that `pipeline.log.column_types` takes for texts.
        feature: Feature of the column; it has many values.

    Returns:
        [n] sets, null where a row has no value; and the bad rows by reason.
    """
    if not is_list(column.type):
        return _of_texts(column, feature)
    sizes = pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False)
    row_of_value = np.repeat(np.arange(len(column)), sizes)
    texts, value_faults = _values(pc.list_flatten(column), feature)
    faults = {
        reason: np.bincount(row_of_value[bad], minlength=len(column)) > 0
        for reason, bad in value_faults.items()
    }
    return value_sets.join(texts, row_of_value, len(column)), faults


def _of_texts(column: pa.Array, feature: Feature) -> tuple[pa.Array, Faults]:
    """Sets of texts; each distinct text is taken apart once."""
    assert feature.many is not None
    separator = feature.many.separator
    assert separator is not None
    texts, faults = spelled(column)
    encoded = texts.dictionary_encode()
    lists = pc.split_pattern(encoded.dictionary, separator)
    sets, set_faults = as_sets(lists, feature)
    codes = encoded.indices.fill_null(len(sets)).to_numpy()
    more_faults = {reason: np.append(bad, False)[codes] for reason, bad in set_faults.items()}
    both = {
        reason: faults.get(reason, False) | more_faults.get(reason, np.zeros(len(column), bool))
        for reason in faults | more_faults
    }
    return sets.take(encoded.indices), both


def _values(column: pa.Array, feature: Feature) -> tuple[pa.Array, Faults]:
    """Single values as texts, null where one is missing; and the bad values by reason."""
    if feature.dtype is DType.INT64:
        integers, faults = as_number(column, feature.dtype)
        is_pad = pc.equal(integers, pa.scalar(feature.pad_value, integers.type))
        present = pc.if_else(pc.fill_null(is_pad, True), pa.scalar(None, integers.type), integers)
        return present.cast(pa.string()), faults
    texts, faults = spelled(column)
    holds = pc.fill_null(pc.match_substring(texts, value_sets.SEPARATOR), False)
    return texts, {**faults, LINE_BREAK: line_breaks(texts), HOLDS_SEPARATOR: as_mask(holds)}
