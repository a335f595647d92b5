"""Columns with several values in a row: lists, and texts of values between separators."""

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.drafting.columns import Column
from pipeline.log.value_sets import sets_of_texts
from preprocessing.features.many import Many
from preprocessing.values import value_sets

_SEPARATORS = ("|", ";", ",")
_LEAST_SEPARATED = 0.05
_LARGEST = 20


def taken_apart(column: Column) -> Column:
    """The column as one of many values, if its rows have several; else as it is."""
    separator = None if column.is_many or not column.distinct else separator_of(column)
    if separator is None:
        return column
    sets, _ = sets_of_texts(column.values, separator)
    rows = sets.take(pa.array(column.codes, mask=column.codes < 0))
    return Column.of(column.name, rows, is_many=True, separator=separator)


def many_of(column: Column) -> Many:
    """How many values a row of a column of many may have: as many as in the sample, up to 20."""
    _, sizes = value_sets.split(column.values)
    return Many(max=max(1, min(_LARGEST, int(sizes.max(initial=1)))), separator=column.separator)


def single_values(column: Column) -> Column:
    """The values of a column of many, as a column of one value per row."""
    values, _ = value_sets.split(column.values.take(pa.array(column.codes[column.codes >= 0])))
    return Column.of(column.name, values)


def separator_of(column: Column) -> str | None:
    """What separates the several values of a row of a column of texts; None if nothing does.

    A separator cuts the values into fewer different pieces, which come back in other values. Of a
    semicolon or comma there are also different numbers in each (a decimal comma is one in all).
    """
    for separator in _SEPARATORS:
        counts = pc.count_substring(column.values, separator)
        if pc.mean(pc.greater(counts, 0)).as_py() < _LEAST_SEPARATED:
            continue
        if separator == "|":
            return separator
        pieces = pc.utf8_trim_whitespace(
            pc.list_flatten(pc.split_pattern(column.values, separator))
        )
        varies = pc.count_distinct(counts).as_py() > 1
        if varies and pc.count_distinct(pieces).as_py() < column.distinct:
            return separator
    return None
