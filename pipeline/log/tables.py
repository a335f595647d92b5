"""Arrow tables between the stages of the job.

Counts travel inside Beam elements, as bytes. Events and requests, which grow with the log, go to
files of the work directory, and elements only refer to them: a runner that keeps groups in memory,
like the embedded one, then keeps only references.
"""

import contextlib
import itertools
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from preprocessing.storage import files
from preprocessing.storage.files import AnyPath


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


Reference = tuple[str, int]
"""A part of a file that `write_parts` wrote: path of the file, number of the part."""


def write_parts(path: AnyPath, parts: Sequence[pa.Table]) -> list[Reference]:
    """Writes tables of one schema, at least one and none without rows, as parts of a file."""
    with _new_file(path, parts[0].schema) as writer:
        for part in parts:
            writer.write_batch(part.combine_chunks().to_batches()[0])
    return [(str(path), number) for number in range(len(parts))]


def read_part(reference: Reference) -> pa.Table:
    """Reads a part of a file, memory-mapped if it is on this machine."""
    path, number = reference
    with files.random_access(files.path(path)) as source:
        return pa.Table.from_batches([pa.ipc.open_file(source).get_batch(number)])


def write_pieces(path: AnyPath, pieces: Iterable[pa.Table]) -> None:
    """Writes tables of one schema to a file as they come; there is no file without any."""
    rest = iter(pieces)
    first = next(rest, None)
    if first is not None:
        with _new_file(path, first.schema) as writer:
            for piece in itertools.chain([first], rest):
                writer.write_table(piece)


def read_pieces(path: AnyPath) -> Iterator[pa.Table]:
    """Yields what `write_pieces` wrote, one batch of rows after the other; nothing without a file.

    Only one of them has to be in memory, and none if the file is on this machine: it is mapped.
    """
    if path.exists():
        with files.random_access(path) as source:
            reader = pa.ipc.open_file(source)
            for number in range(reader.num_record_batches):
                yield pa.Table.from_batches([reader.get_batch(number)])


def write(path: AnyPath, table: pa.Table) -> None:
    """Writes a table as a file of its own."""
    with _new_file(path, table.schema) as writer:
        writer.write_table(table)


@contextlib.contextmanager
def _new_file(path: AnyPath, schema: pa.Schema) -> Iterator[pa.RecordBatchFileWriter]:
    """Writes a file that is never seen unfinished, so that repeated work is harmless."""
    with files.create(path) as file, pa.ipc.new_file(file, schema) as writer:
        yield writer


def read(path: AnyPath) -> pa.Table:
    """Reads a table, memory-mapped if it is on this machine."""
    with files.random_access(path) as source:
        return pa.ipc.open_file(source).read_all()


def schema(path: AnyPath) -> pa.Schema:
    """The columns of a table in a file."""
    with files.random_access(path) as source:
        return pa.ipc.open_file(source).schema


def read_buckets(directory: AnyPath, key: str) -> pa.Table:
    """Reads the tables of a directory as one.

    Args:
        directory: Directory of files that hold different keys, at least one.
        key: Column by which the rows are sorted, if there are several files.
    """
    parts = [read(path) for path in files.children(directory, "*.arrow")]
    return parts[0] if len(parts) == 1 else pa.concat_tables(parts).sort_by(key)


def bucket_path(directory: AnyPath, bucket: int) -> AnyPath:
    """The file of a bucket in a directory that `read_buckets` reads."""
    return directory / f"{bucket:05d}.arrow"


def read_bucket(directory: AnyPath, bucket: int) -> pa.Table:
    """Reads one table of a directory; there is no file for a bucket without rows."""
    path = bucket_path(directory, bucket)
    if path.exists():
        return read(path)
    return schema(files.children(directory, "*.arrow")[0]).empty_table()


def one_array(column: pa.ChunkedArray) -> pa.Array:
    """A column of a table as one contiguous array, not copied if it is one already."""
    if column.num_chunks == 1:
        return column.chunk(0)  # `combine_chunks` would copy, and so read all of a mapped file.
    column = column.combine_chunks()
    return pa.concat_arrays(column.chunks) if isinstance(column, pa.ChunkedArray) else column


def with_dictionaries(table: pa.Table) -> pa.Table:
    """The table with columns of one chunk each, those of texts as dictionary arrays."""
    columns = {name: one_array(table[name]) for name in table.column_names}
    return pa.table(
        {
            name: column.dictionary_encode() if pa.types.is_string(column.type) else column
            for name, column in columns.items()
        }
    )


def decoded(column: pa.Array) -> pa.Array:
    """The column with its values in place of dictionary indices."""
    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column


def distinct(column: pa.Array) -> tuple[pa.Array, np.ndarray]:
    """The distinct values of a column without nulls, and the place of each value among them."""
    encoded = column.dictionary_encode()
    return encoded.dictionary, encoded.indices.to_numpy()


def group_starts(column: pa.Array) -> np.ndarray:
    """First row of each run of equal values, then the number of rows: int64 [groups + 1]."""
    if not len(column):
        return np.zeros(1, np.int64)
    if pa.types.is_dictionary(column.type):
        column = column.indices
    changes = pc.not_equal(column[1:], column[:-1]).to_numpy(zero_copy_only=False)
    inner = np.flatnonzero(changes) + 1
    return np.concatenate([[0], inner, [len(column)]]).astype(np.int64)


def codes(column: pa.ChunkedArray) -> np.ndarray:
    """An integer per value, equal for equal values: int64 [rows]."""
    return one_array(column).dictionary_encode().indices.to_numpy().astype(np.int64)
