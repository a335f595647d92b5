"""Arrow tables between the stages of the job: as bytes in Beam elements, as files in between."""

import os
import pathlib
from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


def to_bytes(table: pa.Table) -> bytes:
    """A table as one Beam element (Arrow IPC stream; slices carry their own rows only)."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def from_bytes(data: bytes) -> pa.Table:
    """The table of a Beam element, without copying."""
    return pa.ipc.open_stream(data).read_all()


def concat(elements: Iterable[bytes]) -> pa.Table:
    """The rows of several Beam elements of one schema; at least one is expected."""
    return pa.concat_tables([from_bytes(data) for data in elements])


def write(path: pathlib.Path, table: pa.Table) -> None:
    """Writes a table under a temporary name, then renames, so that retried work is harmless."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with pa.ipc.new_file(temporary, table.schema) as writer:
        writer.write_table(table)
    os.replace(temporary, path)


def read(path: pathlib.Path) -> pa.Table:
    """Reads a table, memory-mapped."""
    with pa.memory_map(str(path)) as source:
        return pa.ipc.open_file(source).read_all()


def one_array(column: pa.ChunkedArray) -> pa.Array:
    """A column of a table as one contiguous array."""
    column = column.combine_chunks()
    return pa.concat_arrays(column.chunks) if isinstance(column, pa.ChunkedArray) else column


def group_starts(column: pa.Array) -> np.ndarray:
    """First row of each run of equal values, then the number of rows: int64 [groups + 1]."""
    if not len(column):
        return np.zeros(1, np.int64)
    changes = pc.not_equal(column[1:], column[:-1]).to_numpy(zero_copy_only=False)
    inner = np.flatnonzero(changes) + 1
    return np.concatenate([[0], inner, [len(column)]]).astype(np.int64)


def codes(column: pa.ChunkedArray) -> np.ndarray:
    """An integer per value, equal for equal values: int64 [rows]."""
    return one_array(column).dictionary_encode().indices.to_numpy().astype(np.int64)
