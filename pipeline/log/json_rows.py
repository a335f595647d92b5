"""Rows of JSON lines: objects with single values or, in columns of many values, with lists."""

import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from pipeline.log.raw_batch import InputFile, RawBatch, Rejection
from pipeline.log.vector_columns import numbers_of

Separator = str | re.Pattern[str] | None
"""What is between the values of a row: a text or a pattern; None if all rows are lists."""

_LARGE = 1 << 63  # orjson turns integers beyond 64 bits into floats


def read(
    file: InputFile,
    block: list[bytes],
    numbers: Sequence[int],
    columns: list[str],
    separators: Mapping[str, Separator],
) -> RawBatch:
    """The rows of some lines.

    Args:
        file: File that the lines are from.
        block: Lines.
        numbers: Number of each line.
        columns: Columns to read.
        separators: Separator of each column of many values, None if it holds lists only. These
            columns become Arrow lists; all others hold single values.
    """
    rows: list[dict[str, Any]] = []
    lines, rejections = [], []
    for number, raw in zip(numbers, block, strict=True):
        row, reason = parse_object(raw)
        if row is not None:
            values = {name: row.get(name) for name in columns}
            if any(isinstance(v, float) and abs(v) >= _LARGE for v in _single(values)):
                values = _with_exact_integers(raw, values)
            reason = _as_lists(values, separators)
        if reason:
            rejections.append(Rejection.of(file.path, number, reason, raw.rstrip(b"\r\n")))
        elif row is not None:
            rows.append(values)
            lines.append(number)
    arrays = {}
    for name in columns:
        column = [row[name] for row in rows]
        arrays[name] = _lists(column) if name in separators else _column(column)
    return RawBatch(file, arrays, np.array(lines, np.int64), rejections)


def _single(values: Mapping[str, object]) -> Iterator[object]:
    """The values of a row, those of lists one by one."""
    for value in values.values():
        if isinstance(value, list):
            yield from value
        else:
            yield value


def _as_lists(values: dict[str, object], separators: Mapping[str, Separator]) -> str:
    """Turns the values of columns of many values into lists; says why if a value is no such."""
    for name, value in values.items():
        if name not in separators:
            if isinstance(value, dict | list):
                takes = ' ("many" or "shape" in the schema takes lists)'
                hint = takes if isinstance(value, list) else ""
                return f"column {name!r}: expected one value, found a nested one{hint}"
            continue
        separator = separators[name]
        if isinstance(value, list):
            if any(isinstance(one, dict | list) for one in value):
                return f"column {name!r}: expected a list of single values, found a nested one"
        elif isinstance(value, dict):
            return f"column {name!r}: expected a list, found a nested value"
        elif value is None:
            values[name] = []
        elif separator is None:
            return f'column {name!r}: expected a list, found one value ("many" has no separator)'
        elif isinstance(separator, re.Pattern):
            # Numbers of a text are taken apart where those of CSV are.
            values[name] = numbers_of(value) if isinstance(value, str) else [value]
        else:
            values[name] = value.split(separator) if isinstance(value, str) else [value]
    return ""


def _lists(column: list[list[object]]) -> pa.ListArray:
    """Lists of values, of one type."""
    ends = itertools.accumulate(map(len, column), initial=0)
    values = _column(list(itertools.chain.from_iterable(column)))
    return pa.ListArray.from_arrays(pa.array(ends, pa.int32()), values)


def parse_object(line: bytes) -> tuple[dict[str, object] | None, str]:
    """The object of a line, or the reason why there is none; neither for a blank line."""
    try:
        row = orjson.loads(line)
    except orjson.JSONDecodeError:
        if not line.strip():
            return None, ""
        try:
            row = json.loads(line.decode("utf-8"))  # accepts NaN, which Python writes
        except UnicodeDecodeError:
            return None, "invalid UTF-8"
        except (ValueError, RecursionError):
            return None, "not JSON"
    return (row, "") if isinstance(row, dict) else (None, "not a JSON object")


def _with_exact_integers(line: bytes, values: dict[str, object]) -> dict[str, object]:
    """The values of a line, with integers beyond 64 bits as their texts."""

    def exact(digits: str) -> int | str:
        is_short = len(digits) <= len(str(-_LARGE))
        return int(digits) if is_short and abs(int(digits)) < _LARGE else digits

    row = json.loads(line, parse_int=exact)
    return {name: row.get(name) if isinstance(v, float | list) else v for name, v in values.items()}


def _column(values: list[object]) -> pa.Array:
    """Values of one type as they are; values of mixed types as texts."""
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
        texts = [v if v is None or isinstance(v, str) else repr(v) for v in values]
        return pa.array(texts, pa.string())
