"""Log files as Arrow batches with line numbers: CSV, JSON lines (both also gzipped) and Parquet.

Readers do not judge values: they find the columns, keep the types of the file and put aside the
lines that are no records at all. `pipeline.validation` judges.
"""

import contextlib
import csv
import dataclasses
import glob
import gzip
import io
import itertools
import pathlib
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import BinaryIO, NamedTuple, cast

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet

from pipeline import csv_records
from preprocessing.data_dir import require_local
from preprocessing.errors import UserError

BATCH_ROWS = 1 << 17
_BLOCK_BYTES = 1 << 23
_EXCERPT = 200
_SUFFIXES = {
    ".csv": "csv",
    ".csv.gz": "csv",
    ".jsonl": "jsonl",
    ".jsonl.gz": "jsonl",
    ".parquet": "parquet",
}
_READ_ERRORS = (pa.ArrowInvalid, OSError, EOFError, zlib.error)


class Rejection(NamedTuple):
    """A bad row: `line` is its line, `excerpt` the beginning of its raw content."""

    file: str
    line: int
    reason: str
    excerpt: str

    @classmethod
    def of(cls, file: str, line: int, reason: str, raw: object) -> "Rejection":
        """A rejection with the raw content cut short."""
        return cls(file, line, reason, str(raw)[:_EXCERPT])


@dataclasses.dataclass(frozen=True)
class InputFile:
    """One file of the log.

    Attributes:
        path: Where it is.
        index: Its place in the order of rows.
        format: `csv`, `jsonl` or `parquet`.
        size: In bytes, as stored.
    """

    path: str
    index: int
    format: str
    size: int


@dataclasses.dataclass(frozen=True)
class InputRange:
    """What one worker reads: a whole text file, or one row group of a Parquet file.

    Attributes:
        file: The file.
        row_group: Index of the row group; None for text files.
        first_line: Line number of the first row.
    """

    file: InputFile
    row_group: int | None
    first_line: int


@dataclasses.dataclass(frozen=True)
class RawBatch:
    """Rows as the file has them.

    Attributes:
        file: Where they come from.
        columns: Arrow array per column, all of one length.
        lines: int64, line number of each row. Parquet: number of the row, from 1. CSV: the header
            is line 1; blank lines and line breaks in columns that are not read do not count.
        rejections: Lines among them that are no records.
        blocks_done: How much of the range is read by now, in units of `num_blocks`.
    """

    file: InputFile
    columns: dict[str, pa.Array]
    lines: np.ndarray
    rejections: list[Rejection]
    blocks_done: int = 1


def list_inputs(patterns: str) -> list[InputFile]:
    """The files that --input names, in order; matches of a glob pattern are sorted by name.

    Raises:
        UserError: A file is missing, empty, of unknown format or named twice; a pattern matches
            nothing.
    """
    paths: list[str] = []
    for pattern in filter(None, (part.strip() for part in patterns.split(","))):
        require_local(pattern, "--input")
        matches = sorted(glob.glob(pattern)) if glob.has_magic(pattern) else [pattern]
        if not matches:
            raise UserError(
                f"--input: expected files that match {pattern!r}, found none.", "check the pattern."
            )
        paths += matches
    if not paths:
        raise UserError("--input: expected at least one file, found none.", "--input=log.csv")
    for path in paths:
        if paths.count(path) > 1:
            raise UserError(f"--input: expected every file once, found {path} more than once.")
    return [_input_file(path, index) for index, path in enumerate(paths)]


def _input_file(path: str, index: int) -> InputFile:
    name = pathlib.Path(path)
    if not name.is_file():
        found = "a directory" if name.is_dir() else "nothing"
        raise UserError(
            f"--input: expected a file at {path}, found {found}.",
            "give paths or quoted glob patterns, separated by commas.",
        )
    lower = name.name.lower()
    formats = [kind for suffix, kind in _SUFFIXES.items() if lower.endswith(suffix)]
    if not formats:
        raise UserError(
            f"--input: expected a file name that ends in {', '.join(_SUFFIXES)}, found {path}.",
            "convert or rename the file.",
        )
    size = name.stat().st_size
    if size == 0:
        raise UserError(
            f"--input: expected rows in {path}, found an empty file.", "leave it out of --input."
        )
    return InputFile(path, index, formats[0], size)


def column_names(file: InputFile) -> list[str]:
    """Columns of a file: of JSON lines, all keys of the first thousand lines.

    Raises:
        UserError: The file has no rows or cannot be read as its format.
    """
    try:
        if file.format == "parquet":
            parquet = pa.parquet.ParquetFile(file.path)
            names, has_rows = parquet.schema_arrow.names, parquet.metadata.num_rows > 0
        elif file.format == "csv":
            names, has_rows = _csv_header(file.path)
        else:
            names, has_rows = _json_keys(file.path)
    except _READ_ERRORS as error:
        raise _unreadable(file, error) from error
    if not has_rows:
        raise UserError(
            f"--input: expected rows in {file.path}, found none"
            f"{' below the header' if names else ''}.",
            "leave it out of --input.",
        )
    return names


def ranges(file: InputFile) -> list[InputRange]:
    """Splits a file into parts that can be read on their own."""
    if file.format != "parquet":
        return [InputRange(file, None, 2 if file.format == "csv" else 1)]
    metadata = pa.parquet.ParquetFile(file.path).metadata
    sizes = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
    firsts = itertools.accumulate(sizes, initial=1)
    return [InputRange(file, i, first) for i, first in zip(range(len(sizes)), firsts, strict=False)]


def read(part: InputRange, columns: Iterable[str]) -> Iterator[RawBatch]:
    """Reads the given columns of a part of a file.

    Raises:
        UserError: The file is cut short or damaged beyond single lines.
    """
    reader = {"csv": _read_csv, "jsonl": _read_json, "parquet": _read_parquet}[part.file.format]
    try:
        yield from reader(part, list(columns))
    except _READ_ERRORS as error:
        raise _unreadable(part.file, error) from error


def _unreadable(file: InputFile, error: Exception) -> UserError:
    return UserError(
        f"--input: expected {file.format} in {file.path}, found it unreadable: {error}.",
        "check that the file is complete and that its name tells its format.",
    )


def num_blocks(part: InputRange) -> int:
    """How many values `RawBatch.blocks_done` can take."""
    return 1 if part.row_group is not None else part.file.size // _BLOCK_BYTES + 1


@contextlib.contextmanager
def _open(path: str) -> Iterator[tuple[BinaryIO, Callable[[], int]]]:
    """The content of a text file, and a function that tells how many blocks are read by now."""
    with open(path, "rb") as stored:

        def blocks_done() -> int:
            return stored.tell() // _BLOCK_BYTES

        if path.lower().endswith(".gz"):
            with gzip.open(stored, "rb") as content:
                yield cast(BinaryIO, content), blocks_done
        else:
            yield stored, blocks_done


def _csv_header(path: str) -> tuple[list[str], bool]:
    with _open(path) as (binary, _):
        text = io.TextIOWrapper(binary, "utf-8-sig", errors="replace", newline="")
        try:
            header = next((record for record in csv.reader(text) if record), [])
        except csv.Error as error:
            raise pa.ArrowInvalid(str(error)) from error
        return header, any(line.strip() for line in text)


def _json_keys(path: str) -> tuple[list[str], bool]:
    keys: dict[str, None] = {}
    with _open(path) as (file, _):
        lines = [line for line in itertools.islice(file, 1000) if line.strip()]
    for line in lines:
        row, _ = _parse_json(line)
        keys.update(dict.fromkeys(row or ()))
    return list(keys), bool(lines)


def _read_parquet(part: InputRange, columns: list[str]) -> Iterator[RawBatch]:
    parquet = pa.parquet.ParquetFile(part.file.path)
    line = part.first_line
    for batch in parquet.iter_batches(BATCH_ROWS, row_groups=[part.row_group], columns=columns):
        lines = np.arange(line, line + batch.num_rows, dtype=np.int64)
        line += batch.num_rows
        yield RawBatch(part.file, {name: batch.column(name) for name in columns}, lines, [])


def _read_csv(part: InputRange, columns: list[str]) -> Iterator[RawBatch]:
    """Every column as bytes: types and encoding are judged later, row by row."""
    path = part.file.path
    num_fields = len(_csv_header(path)[0])
    try:
        with _open(path) as (file, blocks_done):
            for batch in csv_records.read(file, num_fields, columns, _BLOCK_BYTES):
                rejections = [Rejection.of(path, *bad) for bad in batch.bad]
                yield RawBatch(part.file, batch.columns, batch.lines, rejections, blocks_done())
    except csv_records.OpenQuoteError as error:
        with _open(path) as (file, _):
            line = csv_records.open_record(file, _BLOCK_BYTES)
        raise UserError(
            f"--input: expected every quotation mark closed, found a record that begins in line "
            f"{line} of {path} and does not end.",
            "mend that line; within quotes a quotation mark is written twice.",
        ) from error


def _read_json(part: InputRange, columns: list[str]) -> Iterator[RawBatch]:
    line = part.first_line
    with _open(part.file.path) as (file, blocks_done):
        while block := file.readlines(_BLOCK_BYTES):
            batch = _json_batch(part.file, block, line, columns)
            yield dataclasses.replace(batch, blocks_done=blocks_done())
            line += len(block)


def _json_batch(file: InputFile, block: list[bytes], line: int, columns: list[str]) -> RawBatch:
    rows, lines, rejections = [], [], []
    for number, raw in enumerate(block, line):
        row, reason = _parse_json(raw)
        if row is not None:
            nested = next((c for c in columns if isinstance(row.get(c), (dict, list))), None)
            reason = f"column {nested!r}: expected one value, found a nested one" if nested else ""
        if reason:
            text = raw.decode("utf-8", errors="backslashreplace").rstrip("\r\n")
            rejections.append(Rejection.of(file.path, number, reason, text))
        elif row is not None:
            rows.append(row)
            lines.append(number)
    arrays = {name: _json_column([row.get(name) for row in rows]) for name in columns}
    return RawBatch(file, arrays, np.array(lines, np.int64), rejections)


def _parse_json(line: bytes) -> tuple[dict[str, object] | None, str]:
    """The object of a line and the reason why there is none; neither for a blank line."""
    try:
        row = orjson.loads(line)
    except orjson.JSONDecodeError:
        if not line.strip():
            return None, ""
        try:
            line.decode("utf-8")
        except UnicodeDecodeError:
            return None, "invalid UTF-8"
        return None, "not JSON"
    return (row, "") if isinstance(row, dict) else (None, "not a JSON object")


def _json_column(values: list[object]) -> pa.Array:
    """Values of one type as they are; values of mixed types as the texts that they were."""
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
        texts = (
            value if value is None or isinstance(value, str) else orjson.dumps(value).decode()
            for value in values
        )
        return pa.array(texts, pa.string())
