"""The first rows of a log, column by column, whatever its format."""

import dataclasses
import itertools
from collections.abc import Iterator, Mapping

import numpy as np
import orjson
import pyarrow as pa

from pipeline.drafting.columns import Column
from pipeline.drafting.vectors import of_lists, texts_of_lists
from pipeline.log import column_types, readers
from pipeline.log.raw_batch import InputFile
from pipeline.log.value_sets import sets_of_texts
from preprocessing.values.spelling import spelled

ROWS = 100_000
"""Number of rows that a draft looks at."""


@dataclasses.dataclass(frozen=True)
class Sample:
    """The first rows of a log.

    Attributes:
        columns: Its columns, by name.
        rows: Number of rows.
    """

    columns: tuple[Column, ...]
    rows: int


def read(columns: Mapping[InputFile, list[str]], rows: int = ROWS) -> Sample:
    """The first rows of a log.

    Args:
        columns: Columns of each file that has rows, see `readers.columns_of_files`.
        rows: Number of rows to stop at.

    Raises:
        UserError: A file cannot be read.
    """
    names = sorted(set(itertools.chain.from_iterable(columns.values())))
    unreadable: dict[str, str] = {}
    lists: set[str] = set()
    vectors: set[str] = set()
    texts: dict[str, list[pa.Array]] = {name: [] for name in names}
    count = 0
    for file, header in columns.items():
        if count >= rows:
            break
        unreadable |= _unreadable(file, header)
        lists |= _lists(file)
        vectors |= _vectors(file)
        readable = [name for name in sorted(set(header)) if name not in unreadable]
        for batch in readers.batches(file, readable, dict.fromkeys(lists)):
            size = min(len(batch.lines), rows - count)
            count += size
            for name in names:
                column = batch.columns.get(name)
                texts[name].append(
                    pa.nulls(size, pa.string())
                    if column is None
                    else texts_of_lists(column[:size])
                    if name in vectors
                    else _texts(column[:size])
                )
            if count >= rows:
                break

    def column_of(name: str) -> Column:
        if name in unreadable:
            return Column(name, np.full(count, -1), pa.array([], pa.string()), unreadable[name])
        values = pa.chunked_array(texts[name], pa.string()).combine_chunks()
        if name in vectors:
            return of_lists(Column.of(name, values))
        return Column.of(name, values, name in lists)

    return Sample(tuple(map(column_of, names)), count)


def _texts(column: pa.Array) -> pa.Array:
    """Values in their one spelling, so that a draft does not depend on the format of a file."""
    if column_types.is_list(column.type):
        return sets_of_texts(column, None)[0]
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    return column.cast(pa.string()) if pa.types.is_timestamp(column.type) else spelled(column).texts


def _unreadable(file: InputFile, header: list[str]) -> dict[str, str]:
    """Why columns of a file cannot be read, by name."""
    reasons = {
        name: "its name stands twice in the header" for name in header if header.count(name) > 1
    }
    for name, kind in readers.column_types(file).items():
        is_list = _is_list_of_values(kind) or _is_vector(kind)
        if not (column_types.is_understood(kind) or is_list):
            unknown = f"the type {kind} is none that can be read"
            reasons[name] = RECORD if pa.types.is_nested(kind) else unknown
    if file.format == "jsonl":
        reasons |= _nested_keys(file)
    return reasons


def _is_list_of_values(kind: pa.DataType) -> bool:
    """Whether a Parquet type holds lists of codes or texts, rather than of measured numbers."""
    if not column_types.is_list(kind) or pa.types.is_fixed_size_list(kind):
        return False
    is_measured = pa.types.is_floating(kind.value_type)
    return column_types.is_understood(kind.value_type) and not is_measured


def _is_vector(kind: pa.DataType) -> bool:
    """Whether a Parquet type holds lists of floats, or lists of numbers of one length."""
    if not column_types.is_list(kind):
        return False
    is_sized = pa.types.is_fixed_size_list(kind) and pa.types.is_integer(kind.value_type)
    return is_sized or pa.types.is_floating(kind.value_type)


def _vectors(file: InputFile) -> set[str]:
    """Columns of a file with a vector in a row, by its types or its first lines."""
    if file.format != "jsonl":
        return {name for name, kind in readers.column_types(file).items() if _is_vector(kind)}
    return {name for name, values in _first_lists(file).items() if _are_vectors(values)}


def _lists(file: InputFile) -> set[str]:
    """Columns of a file with a list of values in a row, by its types or its first lines."""
    if file.format != "jsonl":
        return {n for n, kind in readers.column_types(file).items() if column_types.is_list(kind)}
    return {name for name, value in _first_values(file) if isinstance(value, list)}


def _first_values(file: InputFile) -> Iterator[tuple[str, object]]:
    """Keys and values of the first lines of a file of JSON lines."""
    for line in readers.first_lines(file):
        try:
            row = orjson.loads(line)
        except orjson.JSONDecodeError:
            continue  # The reader rejects the line, or reads what Python wrote.
        yield from row.items() if isinstance(row, dict) else ()


def _nested_keys(file: InputFile) -> dict[str, str]:
    """What keys of JSON lines hold in place of values that can be read, by the first lines."""
    records = {name for name, value in _first_values(file) if isinstance(value, dict)}
    records |= {
        name
        for name, values in _first_lists(file).items()
        if any(isinstance(one, list | dict) for value in values for one in value)
    }
    return dict.fromkeys(sorted(records), RECORD)


def _first_lists(file: InputFile) -> dict[str, list[list[object]]]:
    """The lists of the first lines of a file of JSON lines, by key."""
    lists: dict[str, list[list[object]]] = {}
    for name, value in _first_values(file):
        if isinstance(value, list):
            lists.setdefault(name, []).append(value)
    return lists


def _are_vectors(values: list[list[object]]) -> bool:
    """Whether lists of JSON are vectors: of one length, and numbers, some with fractions."""
    numbers = [one for value in values for one in value]
    return (
        len({len(value) for value in values if value}) == 1
        and all(isinstance(one, int | float | None) for one in numbers)
        and any(isinstance(one, float) and not one.is_integer() for one in numbers)
    )


RECORD = "a record or map: write its parts as columns of their own"
