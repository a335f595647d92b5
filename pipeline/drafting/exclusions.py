"""Columns that are left out of a schema, one rule each: the reason, or an empty text."""

from collections.abc import Callable, Iterable

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.drafting import names, several
from pipeline.drafting.columns import Column, follows
from pipeline.drafting.times import is_named_exactly, unit_of
from pipeline.log import column_types
from pipeline.log.values import NOT_FINITE, as_number
from preprocessing.features.feature import DType

LIST_TEXT = "a list written as a text: write it as a list, or its values between separators"
"""Why texts of lists are left out."""

_LISTS = (("[", "]"), ("{", "}"), ("(", ")"))
_MOST_WORDS = 4
_LONGEST_TEXT = 60
_MOSTLY_NUMBERS = 0.8
_DATE = r"^\d{1,4}(?:[-/. ]|, )\d{1,2}(?:[-/. ]|, )\d{2,4}\b"

Rule = Callable[[Column], str]


def unreadable(column: Column) -> str:
    """A column whose values are of a type that readers do not take."""
    return column.unreadable


def row_number(column: Column) -> str:
    """The index of a table, written along."""
    return "numbers of rows" if column_types.is_row_number(column.name) else ""


def empty(column: Column) -> str:
    """A column without values."""
    return "" if column.distinct else "no row has a value"


def constant(column: Column) -> str:
    """A column that says the same of every row."""
    is_constant = column.distinct == 1 and column.present == len(column.codes)
    return "every row has the same value" if is_constant else ""


def list_text(column: Column) -> str:
    """Texts of lists: [1, 2], which are no vectors."""
    if column.size:
        return ""
    for begin, end in _LISTS:
        is_list = pc.and_(pc.starts_with(column.values, begin), pc.ends_with(column.values, end))
        if pc.all(is_list).as_py():
            return LIST_TEXT
    return ""


def dates(column: Column) -> str:
    """Dates and times other than that of the row, in whatever form."""
    is_dated = pc.all(pc.match_substring_regex(column.values, _DATE)).as_py()
    is_named = is_named_exactly(column) or (
        names.mentions_time(column.name) and unit_of(column) is not None
    )
    if column.is_times or is_dated or is_named:
        return "a date or time beside that of the row: write it as a number, such as an age"
    return ""


def mixed_numbers(column: Column) -> str:
    """Numbers, some with fractions, among which a text stands for a missing one: NA."""
    if column.numbers is not None or not column.distinct:
        return ""
    _, faults = as_number(column.values, DType.FLOAT32)
    bad = faults[NOT_FINITE]
    if column.counts[bad].sum() > (1 - _MOSTLY_NUMBERS) * column.present:
        return ""
    has_fractions = pc.any(pc.match_substring(column.values, ".")).as_py()
    if not (has_fractions or names.mentions(column.name, names.NUMBER)):
        return ""
    example = pc.min(column.values.filter(pa.array(bad))).as_py()
    return f"numbers, but also {example!r}: leave the value empty where there is none"


def free_text(column: Column) -> str:
    """Sentences and addresses."""
    length = pc.mean(pc.utf8_length(column.values)).as_py()
    is_long = column.words_per_value > _MOST_WORDS or length > _LONGEST_TEXT
    return "free text" if is_long else ""


def prose(column: Column) -> str:
    """Sentences with commas, which are no values between separators."""
    return free_text(several.single_values(column)) if column.present else ""


def own_per_row(column: Column) -> str:
    """Ids of rows, which come back nowhere; numbers that measure may well differ."""
    is_measure = column.numbers is not None and (
        column.integers is None or names.mentions(column.name, names.NUMBER)
    )
    return "nearly every row has its own value" if column.is_own_per_row and not is_measure else ""


def copy_of(key: Column) -> Rule:
    """A rule: other names of the users or items that a key names."""

    def rule(column: Column) -> str:
        is_name = column.numbers is None or names.has_id(column.name)
        if is_name and follows(column, key) and follows(key, column):
            return f"another name for {key.name}"
        return ""

    return rule


def gives_away(label: Column, user: Column, item: Column) -> Rule:
    """A rule: what tells the label of its row, such as its opposite, was not known before it."""

    def rule(column: Column) -> str:
        if follows(column, user) or follows(column, item) or not follows(label, column):
            return ""
        return f"nearly every value has one {label.name}: as a feature it would give it away"

    return rule


SHAPES: tuple[Rule, ...] = (
    unreadable,
    row_number,
    empty,
    constant,
    list_text,
)
"""Rules that need to know nothing of other columns."""

CONTENTS: tuple[Rule, ...] = (dates, mixed_numbers, free_text, own_per_row)
"""Rules for what is neither key nor time nor label."""


def first_reason(column: Column, rules: Iterable[Rule]) -> str:
    """The reason of the first rule that leaves a column out; empty if none does."""
    return next(filter(None, (rule(column) for rule in rules)), "")
