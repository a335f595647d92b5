"""Vectors of values in a Parquet file: the columns `value` and `vector`, a row per value.

Shapes: V values, W width of a vector.
"""

from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from preprocessing.errors import UserError
from preprocessing.storage import files
from preprocessing.values.spelling import spelled

VALUE, VECTOR = "value", "vector"
"""Columns of the file."""


class VectorTable(NamedTuple):
    """The content of a file of vectors.

    Attributes:
        values: [V] string, distinct values in their one spelling.
        vectors_VW: float32 [V, W], finite.
    """

    values: pa.Array
    vectors_VW: np.ndarray


def width(location: str, flag: str) -> int:
    """The width of the vectors in a file; reads no more than its first rows.

    Args:
        location: Path of the file.
        flag: Setting that names it, for error messages.

    Raises:
        UserError: There is no such file, or it has not the two columns.
    """
    with _opened(location, flag) as file:
        first = next(file.iter_batches(batch_size=1, columns=[VECTOR]), None)
        if first is None or not len(first):
            raise UserError(f"{flag}: expected a row per value in {location}, found none.")
        sizes = pc.list_value_length(first.column(0)).to_pylist()
    if not sizes[0]:
        raise UserError(
            f"{flag}: expected a vector of numbers in each row of {location}, found none in the "
            "first one."
        )
    return int(sizes[0])


def read(location: str, flag: str) -> VectorTable:
    """Reads a file of vectors.

    Args:
        location: Path of the file.
        flag: Setting that names it, for error messages.

    Raises:
        UserError: There is no such file or it has not the two columns; vectors of several widths,
            or numbers that are missing or infinite; a value that is missing or stands twice.

    Example:
        >>> pq.write_table(pa.table({"value": [7.0, 8.0], "vector": [[1, 2], [3, 4]]}), "v.parquet")
        >>> table = read("v.parquet", "--set=pretrained.item_id")
        >>> table.values.to_pylist(), table.vectors_VW.tolist()
        (['7', '8'], [[1.0, 2.0], [3.0, 4.0]])
    """
    with _opened(location, flag) as file:
        table = file.read([VALUE, VECTOR]).combine_chunks()
    values, faults = spelled(_array(table, VALUE))
    for row in (int(np.argmax(bad)) for bad in faults.values() if bad.any()):
        found = table.column(VALUE)[row].as_py()
        raise UserError(f"{flag}: expected ids or texts in {location}, found {found!r}.")
    _check_values(values, location, flag)
    return VectorTable(values, _vectors(_array(table, VECTOR), location, flag))


def _array(table: pa.Table, name: str) -> pa.Array:
    column = table.column(name)
    return column.chunk(0) if column.num_chunks else pa.array([], column.type)


def _opened(location: str, flag: str) -> pq.ParquetFile:
    """The file, once it is known to have both columns."""
    try:
        file = pq.ParquetFile(files.random_access(files.path(location, flag)))
    except (OSError, pa.ArrowInvalid) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"{flag}: expected a Parquet file with the columns {VALUE!r} and {VECTOR!r}, found "
            f"none at {location}: {reason}",
            "check the path.",
        ) from None
    schema = file.schema_arrow
    if VALUE not in schema.names or VECTOR not in schema.names:
        raise UserError(
            f"{flag}: expected the columns {VALUE!r} and {VECTOR!r} in {location}, found "
            f"{', '.join(schema.names)}.",
            "rename the columns.",
        )
    if not is_numbers(schema.field(VECTOR).type):
        raise UserError(
            f"{flag}: expected lists of floats as {VECTOR!r} in {location}, found "
            f"{schema.field(VECTOR).type}."
        )
    return file


def is_numbers(kind: pa.DataType) -> bool:
    """Whether a type of Arrow is one of lists of numbers."""
    types = pa.types
    is_list = types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
    return is_list and (types.is_floating(kind.value_type) or types.is_integer(kind.value_type))


def _check_values(values: pa.Array, location: str, flag: str) -> None:
    """Raises `UserError` unless each value is there, and stands once."""
    if values.null_count:
        row = pc.index(pc.is_null(values), True).as_py()
        raise UserError(
            f"{flag}: expected a {VALUE!r} in each row of {location}, found none in row {row}.",
            "leave such rows out.",
        )
    counts: Any = pc.value_counts(values)
    repeated = counts.filter(pc.greater(counts.field("counts"), 1))
    if len(repeated):
        raise UserError(
            f"{flag}: expected each value of {location} once, found "
            f"{repeated[0]['values'].as_py()!r} {repeated[0]['counts'].as_py()} times.",
            "keep one row per value.",
        )


def _vectors(column: pa.Array, location: str, flag: str) -> np.ndarray:
    """The vectors as float32 [V, W]."""
    sizes = pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False)
    other = sizes != sizes[0]
    if other.any() or not sizes[0]:
        row = int(np.argmax(other))
        raise UserError(
            f"{flag}: expected vectors of one length in {location}, found {sizes[0]} numbers in "
            f"row 0 and {sizes[row]} in row {row}."
        )
    numbers = pc.list_flatten(column).cast(pa.float32(), safe=False)
    flat = numbers.to_numpy(zero_copy_only=False).astype(np.float32, copy=False)
    vectors_VW = flat.reshape(len(column), sizes[0])
    is_bad = ~np.isfinite(vectors_VW).all(axis=1)
    if is_bad.any():
        row = int(np.argmax(is_bad))
        raise UserError(
            f"{flag}: expected finite numbers in {location}, found "
            f"{vectors_VW[row][~np.isfinite(vectors_VW[row])][0]} in row {row}."
        )
    return vectors_VW
