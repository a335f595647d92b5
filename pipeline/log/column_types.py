"""The types of columns that are understood: a closed list, checked before anything is read.

Columns of text files hold texts or JSON values; those of Parquet have a declared type.
"""

import re
from collections.abc import Callable, Mapping

import pyarrow as pa

from preprocessing.errors import UserError
from preprocessing.features.feature import DType, Feature

_ROW_NUMBERS = re.compile(r"(Unnamed: \d+(\.\d+)*|__index_level_\d+__)?")
_Test = Callable[[pa.DataType], bool]

_TEXTS: tuple[_Test, ...] = (
    pa.types.is_null,
    pa.types.is_string,
    pa.types.is_large_string,
    pa.types.is_string_view,
    pa.types.is_binary,
    pa.types.is_large_binary,
    pa.types.is_binary_view,
)
_NUMBERS: tuple[_Test, ...] = (
    pa.types.is_boolean,
    pa.types.is_integer,
    pa.types.is_float32,
    pa.types.is_float64,
    pa.types.is_decimal,
)
_UNDERSTOOD: dict[DType, tuple[str, tuple[_Test, ...]]] = {
    DType.STRING: ("texts, numbers or dates", (*_TEXTS, *_NUMBERS, pa.types.is_date)),
    DType.INT64: ("numbers", (*_TEXTS, *_NUMBERS)),
    DType.FLOAT32: ("numbers", (*_TEXTS, *_NUMBERS)),
    DType.DATETIME: ("dates or times", (*_TEXTS, pa.types.is_date, pa.types.is_timestamp)),
}
_LONGEST_SHOWN = 60
_LEAVE_OUT = "or name a schema that leaves the column out (--schema)."
_FIXES: tuple[tuple[_Test, str], ...] = (
    (pa.types.is_float16, f"write it as float32, {_LEAVE_OUT}"),
    (pa.types.is_time, f"write it as text or as a number, {_LEAVE_OUT}"),
    (pa.types.is_duration, f"write it as a number, {_LEAVE_OUT}"),
    (pa.types.is_temporal, f"write it as text, {_LEAVE_OUT}"),
    (lambda kind: isinstance(kind, pa.BaseExtensionType), f"write it as text, {_LEAVE_OUT}"),
    (pa.types.is_fixed_size_binary, f"write it as text, such as hexadecimal digits, {_LEAVE_OUT}"),
)
_ONE_VALUE = f"write one value per row, {_LEAVE_OUT}"
_SAY_MANY = (
    'say "many": {"max": 8} for the feature in the schema (docs/schema.md, Many values), write one '
    f"value per row, {_LEAVE_OUT}"
)


_SAY_VECTOR = (
    'say "dtype": "float32", "shape": [64], "encoder": {"kind": "vector"} with the length of the '
    f"lists in place of 64 (docs/schema.md, Vectors), {_LEAVE_OUT}"
)


def is_list(kind: pa.DataType) -> bool:
    """Whether a column of this type has a list of values in a row."""
    tests = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    return any(matches(kind) for matches in tests)


def is_text(kind: pa.DataType) -> bool:
    """Whether values of a type are texts, or all missing."""
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return any(test(kind) for test in _TEXTS)


def is_understood(kind: pa.DataType) -> bool:
    """Whether values of a type can become some type of a schema."""
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return any(test(kind) for _, tests in _UNDERSTOOD.values() for test in tests)


def is_row_number(name: str) -> bool:
    """Whether a name is one that pandas and R write for the index of a table."""
    return _ROW_NUMBERS.fullmatch(name) is not None


def check_many(
    path: str, file_format: str, types: Mapping[str, pa.DataType], feature: Feature
) -> None:
    """Checks that a column can be read as sets of values.

    Args:
        path: Path of the file.
        file_format: `csv`, `jsonl` or `parquet`.
        types: Types of the file's columns, as far as it declares them.
        feature: Feature of the column; it has many values.

    Raises:
        UserError: The column holds no lists, and no separator says what is between its values; or
            it holds values that cannot become the type that the schema says.
    """
    assert feature.many is not None
    kind = types.get(feature.column, pa.string())
    has_lists = is_list(kind)
    if not has_lists and file_format != "jsonl" and feature.many.separator is None:
        raise UserError(
            f"Expected lists of values in the column {feature.column!r} of {path}, found "
            f"{'texts' if is_text(kind) else f'the type {kind}'}.",
            f"say what separates the values of {feature.name!r} in the schema, such as "
            '"many": {"max": 8, "separator": "|"}.',
        )
    value_type = kind.value_type if has_lists else kind
    check(path, {feature.column: value_type}, feature.column, feature.dtype)


def check_vectors(path: str, types: Mapping[str, pa.DataType], feature: Feature) -> None:
    """Checks that a column can be read as vectors.

    Args:
        path: Path of the file.
        types: Types of the file's columns, as far as it declares them.
        feature: Feature of the column; its values are vectors.

    Raises:
        UserError: The column holds neither lists of numbers nor texts.
    """
    kind = types.get(feature.column, pa.string())
    tests = (*_NUMBERS, pa.types.is_float16)
    is_numbers = is_list(kind) and any(matches(kind.value_type) for matches in tests)
    if is_numbers or is_text(kind):
        return
    raise UserError(
        f"Expected lists of {feature.shape[0]} numbers in the column {feature.column!r} of {path}, "
        f"found the type {kind}.",
        "write lists of floats, or texts such as '0.1 0.2'.",
    )


def check(
    path: str, types: Mapping[str, pa.DataType], column: str, dtype: DType, is_time: bool = False
) -> None:
    """Checks that the values of a column can become the type that the schema says.

    Args:
        path: Path of the file.
        types: Types of the file's columns, as far as it declares them.
        column: Name of the column to check.
        dtype: Type of the column in the schema.
        is_time: Whether the role of the column is `timestamp`.

    Raises:
        UserError: The values cannot become that type.
    """
    value_type = declared_type = types.get(column, pa.string())
    if pa.types.is_dictionary(value_type):
        value_type = value_type.value_type
    expected, tests = _UNDERSTOOD[dtype]
    if any(matches(value_type) for matches in tests):
        return
    fix = next((fix for matches, fix in _FIXES if matches(value_type)), _ONE_VALUE)
    if is_list(value_type) and not is_time:
        fix = _SAY_VECTOR if pa.types.is_floating(value_type.value_type) else _SAY_MANY
    if is_time and (pa.types.is_timestamp(value_type) or pa.types.is_date(value_type)):
        fix = 'say "dtype": "datetime" in the schema.'
    elif is_time and any(matches(value_type) for matches in _NUMBERS):
        fix = 'say "dtype": "int64" in the schema.'
    shown_type = (
        declared_type
        if len(str(declared_type)) <= _LONGEST_SHOWN
        else f"{str(declared_type)[:_LONGEST_SHOWN]}..."
    )
    raise UserError(
        f"Expected {expected} in the column {column!r} of {path}, found the type {shown_type}.", fix
    )
