"""Log files as Arrow batches with line numbers: CSV, JSON lines (both also gzipped) and Parquet.

Readers do not judge values: they find the columns, keep the types of the file and put aside the
lines that are no records at all. `pipeline.validation` judges.
"""

import contextlib
import csv
import dataclasses
import gzip
import io
import itertools
import json
import pathlib
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import BinaryIO, cast

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet

from pipeline import csv_ranges, csv_records, int96
from pipeline.raw_batch import InputFile, RawBatch, Rejection
from pipeline.values import TOO_FINE
from preprocessing import files
from preprocessing.errors import UserError

BATCH_ROWS = 1 << 17
_BLOCK_BYTES = 1 << 23
_SUFFIXES = {
    ".csv": "csv",
    ".csv.gz": "csv",
    ".jsonl": "jsonl",
    ".jsonl.gz": "jsonl",
    ".json": "jsonl",
    ".json.gz": "jsonl",
    ".parquet": "parquet",
}
_READ_ERRORS = (pa.ArrowInvalid, OSError, EOFError, zlib.error)


@dataclasses.dataclass(frozen=True)
class InputRange:
    """What one worker reads: a row group of a Parquet file, a text file or a part of it.

    Attributes:
        file: The file.
        number: Index of the row group or of the part; None for a whole text file.
        first_line: Line number of the first row.
        start: First byte of a part of a text file.
        end: The byte after its last one; None at the end of the file.
    """

    file: InputFile
    number: int | None
    first_line: int
    start: int = 0
    end: int | None = None


def list_inputs(
    patterns: str, flag: str = "--input", header: tuple[str, ...] | None = None
) -> list[InputFile]:
    """The files that a flag names, in order; matches of a glob pattern are sorted by name.

    Args:
        patterns: Paths and glob patterns, separated by commas.
        flag: Named in error messages.
        header: See `InputFile`.

    Raises:
        UserError: A file is missing, empty, of unknown format or named twice; a pattern matches
            nothing.
    """
    paths: list[str] = []
    for pattern in filter(None, (part.strip() for part in patterns.split(","))):
        matches = [str(path) for path in files.find(pattern, flag)]
        if not matches:
            raise UserError(
                f"{flag}: expected files that match {pattern!r}, found none.", "check the pattern."
            )
        paths += matches
    if not paths:
        raise UserError(f"{flag}: expected at least one file, found none.", f"{flag}=log.csv")
    for path in paths:
        if paths.count(path) > 1:
            raise UserError(f"{flag}: expected every file once, found {path} more than once.")
    return [
        dataclasses.replace(_input_file(path, index, flag), header=header)
        for index, path in enumerate(paths)
    ]


def _input_file(path: str, index: int, flag: str) -> InputFile:
    name = files.path(path, flag)
    if not name.is_file():
        found = "a directory" if name.is_dir() else "nothing"
        raise UserError(
            f"{flag}: expected a file at {path}, found {found}.",
            "give paths or quoted glob patterns, separated by commas.",
        )
    lower = name.name.lower()
    formats = [kind for suffix, kind in _SUFFIXES.items() if lower.endswith(suffix)]
    if not formats:
        raise UserError(
            f"{flag}: expected a file name that ends in {', '.join(_SUFFIXES)}, found {path}.",
            "convert or rename the file.",
        )
    size = name.stat().st_size
    if size == 0:
        raise UserError(
            f"{flag}: expected rows in {path}, found an empty file.", f"leave it out of {flag}."
        )
    return InputFile(path, index, formats[0], size)


def column_names(file: InputFile) -> list[str]:
    """Columns of a file: of JSON lines, all keys of the first thousand lines.

    Raises:
        UserError: The file has no rows or cannot be read as its format.
    """
    try:
        if file.format == "parquet":
            parquet = _parquet(file)
            names, has_rows = parquet.schema_arrow.names, parquet.metadata.num_rows > 0
        elif file.format == "csv":
            names, has_rows = _csv_header(file)
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


def column_types(file: InputFile) -> dict[str, pa.DataType]:
    """Types of the columns of a file; empty for text files, whose values have no declared type."""
    if file.format != "parquet":
        return {}
    schema = _parquet(file).schema_arrow
    return dict(zip(schema.names, schema.types, strict=True))


def ranges(file: InputFile) -> list[InputRange]:
    """Splits a file into parts that can be read on their own."""
    if file.format != "parquet":
        has_header = file.format == "csv" and file.header is None
        parts = _cut_csv(file) if file.format == "csv" else []
        if len(parts) < 2:
            return [_whole(file)]
        return [
            InputRange(file, i, part.first_line + (has_header and i == 0), part.start, part.end)
            for i, part in enumerate(parts)
        ]
    metadata = _parquet(file).metadata
    sizes = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
    firsts = itertools.accumulate(sizes, initial=1)
    return [InputRange(file, i, first) for i, first in zip(range(len(sizes)), firsts, strict=False)]


def _whole(file: InputFile) -> InputRange:
    """All of a text file."""
    return InputRange(file, None, 1 + (file.format == "csv" and file.header is None))


def _cut_csv(file: InputFile) -> list[csv_ranges.ByteRange]:
    """Parts of a large CSV file on this machine; others would have to be fetched twice."""
    path = files.path(file.path)
    is_plain = isinstance(path, pathlib.Path) and not file.path.lower().endswith(".gz")
    if not is_plain or file.size <= csv_ranges.RANGE_BYTES:
        return []
    with path.open("rb") as content:
        return csv_ranges.cut(content, csv_ranges.RANGE_BYTES)


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


def first_batch(file: InputFile, columns: Iterable[str]) -> Iterator[RawBatch]:
    """The first rows of a file as its only batch; none if it has no rows.

    Raises:
        UserError: As for `read`.
    """
    # A look at the ranges of a text file is a look at all of it.
    parts = ranges(file)[:1] if file.format == "parquet" else [_whole(file)]
    for part in parts:
        yield from itertools.islice(read(part, columns), 1)


def _unreadable(file: InputFile, error: Exception) -> UserError:
    return UserError(
        f"--input: expected {file.format} in {file.path}, found it unreadable: {error}.",
        "check that the file is complete and that its name tells its format.",
    )


def num_blocks(part: InputRange) -> int:
    """How many values `RawBatch.blocks_done` can take."""
    if part.file.format == "parquet":
        return 1
    end = part.file.size if part.end is None else part.end
    return (end - part.start) // _BLOCK_BYTES + 1


@contextlib.contextmanager
def open_text(path: str) -> Iterator[tuple[BinaryIO, Callable[[], int]]]:
    """The content of a text file, and a function that tells how many blocks are read by now."""
    with files.path(path).open("rb") as stored:

        def blocks_done() -> int:
            return stored.tell() // _BLOCK_BYTES

        if path.lower().endswith(".gz"):
            with gzip.open(stored, "rb") as content:
                yield cast(BinaryIO, content), blocks_done
        else:
            yield stored, blocks_done


def _csv_header(file: InputFile) -> tuple[list[str], bool]:
    """The columns, and whether the file has any row."""
    with open_text(file.path) as (binary, _):
        text = io.TextIOWrapper(binary, "utf-8-sig", errors="replace", newline="")
        try:
            header = file.header or next((record for record in csv.reader(text) if record), [])
        except csv.Error as error:
            raise pa.ArrowInvalid(str(error)) from error
        return list(header), any(line.strip() for line in text)


def _json_keys(path: str) -> tuple[list[str], bool]:
    keys: dict[str, None] = {}
    with open_text(path) as (file, _):
        lines = [line for line in itertools.islice(file, 1000) if line.strip()]
    for line in lines:
        row, _ = _parse_json(line)
        keys.update(dict.fromkeys(row or ()))
    return list(keys), bool(lines)


def _parquet(file: InputFile, int96_unit: str = "us") -> pa.parquet.ParquetFile:
    """Opens a file; its times of type INT96, which know no unit, are read in the given one."""
    path = files.path(file.path)
    local = isinstance(path, pathlib.Path)
    source = path if local else files.random_access(path)
    return pa.parquet.ParquetFile(source, coerce_int96_timestamp_unit=int96_unit)


def _read_parquet(part: InputRange, columns: list[str]) -> Iterator[RawBatch]:
    parquet = _parquet(part.file)
    line = part.first_line
    legacy = int96.names(parquet, columns)
    batches = parquet.iter_batches(BATCH_ROWS, row_groups=[part.number], columns=columns)
    exact: Iterator[pa.RecordBatch] = itertools.repeat(pa.RecordBatch.from_pydict({}))
    if legacy:
        nanoseconds = _parquet(part.file, "ns")
        exact = nanoseconds.iter_batches(BATCH_ROWS, row_groups=[part.number], columns=legacy)
    for batch, fine in zip(batches, exact, strict=False):
        lines = np.arange(line, line + batch.num_rows, dtype=np.int64)
        line += batch.num_rows
        raw = RawBatch(part.file, {name: batch.column(name) for name in columns}, lines, [])
        for name in legacy:
            is_cut = int96.is_cut(raw.columns[name], fine[name])
            raw = raw.rejecting(is_cut, f"column {name!r}: {TOO_FINE}")
        yield raw


def _read_csv(part: InputRange, columns: list[str]) -> Iterator[RawBatch]:
    """Every column as bytes: types and encoding are judged later, row by row."""
    path = part.file.path
    header, _ = _csv_header(part.file)
    has_header = part.file.header is None and not part.start
    before = part.first_line - 1 - has_header
    try:
        with open_text(path) as (file, blocks_done):
            content = file
            if part.end is not None:
                content = cast(BinaryIO, csv_ranges.RangeFile(file, part.start, part.end))
            for batch in csv_records.read(content, header, has_header, columns, _BLOCK_BYTES):
                rejections = [
                    Rejection.of(path, bad.line + before, bad.reason, bad.text) for bad in batch.bad
                ]
                done = blocks_done() - part.start // _BLOCK_BYTES
                lines = batch.lines + before
                yield RawBatch(part.file, batch.columns, lines, rejections, done)
    except csv_records.OpenQuoteError as error:
        with open_text(path) as (file, _):
            line = csv_records.open_record(file, _BLOCK_BYTES)
        raise UserError(
            f"--input: expected every quotation mark closed, found a record that begins in line "
            f"{line} of {path} and does not end.",
            "mend that line; within quotes a quotation mark is written twice.",
        ) from error


def _read_json(part: InputRange, columns: list[str]) -> Iterator[RawBatch]:
    for first_line, lines, blocks_done in read_lines(part.file.path):
        batch = _json_batch(part.file, lines, first_line, columns)
        yield dataclasses.replace(batch, blocks_done=blocks_done)


def read_lines(path: str) -> Iterator[tuple[int, list[bytes], int]]:
    """Blocks of a text file: number of the first line, lines, how many blocks are read by now."""
    line = 1
    with open_text(path) as (file, blocks_done):
        while block := file.readlines(_BLOCK_BYTES):
            yield line, block, blocks_done()
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
    raws = [block[number - line] for number in lines]
    arrays = {name: _json_column([row.get(name) for row in rows], name, raws) for name in columns}
    return RawBatch(file, arrays, np.array(lines, np.int64), rejections)


def _parse_json(line: bytes) -> tuple[dict[str, object] | None, str]:
    """The object of a line and the reason why there is none; neither for a blank line."""
    try:
        row = orjson.loads(line)
    except orjson.JSONDecodeError:
        if not line.strip():
            return None, ""
        try:
            row = json.loads(line.decode("utf-8"))  # knows NaN, as Python writes it
        except UnicodeDecodeError:
            return None, "invalid UTF-8"
        except (ValueError, RecursionError):
            return None, "not JSON"
    return (row, "") if isinstance(row, dict) else (None, "not a JSON object")


def _json_column(values: list[object], name: str, lines: list[bytes]) -> pa.Array:
    """Values of one type as they are; values of mixed types as the texts that they were.

    Integers of more than 64 bits, which orjson reads as floats, are read anew.

    Args:
        values: Of a column, by row.
        name: Of the column.
        lines: What the rows were parsed from.
    """
    array = _typed(values)
    if array is None or pa.types.is_floating(array.type):
        for row, value in enumerate(values):
            if isinstance(value, float) and abs(value) >= 2.0**63:
                values[row] = json.loads(lines[row])[name]
        array = _typed(values)
    if array is not None:
        return array
    return pa.array(
        [v if v is None or isinstance(v, str) else repr(v) for v in values], pa.string()
    )


def _typed(values: list[object]) -> pa.Array | None:
    """Values of one type; None if they are of several."""
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
        return None
