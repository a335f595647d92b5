"""Log files as Arrow batches with line numbers: CSV, JSON lines (both also gzipped) and Parquet.

The messages of a partition of a topic are read as the lines of a file of JSON lines.

Readers do not check values: they find the columns, keep the types of the file and reject only the
lines that are no records. `pipeline.log.row_checks` checks values.
"""

import csv
import dataclasses
import io
import itertools
import json
import pathlib
import types
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import BinaryIO, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from pipeline.log import csv_ranges, csv_records, int96, json_rows, text_files, topic_files
from pipeline.log.csv_lines import EndlessRecordError
from pipeline.log.json_rows import Separator, parse_object
from pipeline.log.raw_batch import InputFile, RawBatch, Rejection
from pipeline.log.text_files import open_text
from pipeline.log.topics.topic import Messages
from pipeline.log.values import TOO_FINE
from preprocessing.errors import UserError, shown
from preprocessing.storage import files

BATCH_ROWS = 1 << 17
_FIRST_LINES = 1000
_OF_ONE_SIZE = "Expected all lists to be of size"
_READ_ERRORS = (pa.ArrowInvalid, OSError, EOFError, zlib.error)


@dataclasses.dataclass(frozen=True)
class InputRange:
    """The input of one worker: a row group of a Parquet file, a text file or a part of either.

    Attributes:
        file: The file, or the messages of a partition.
        number: Index of the row group or of the part; None for a whole text file.
        first_line: Line number of the first row.
        start: First byte of a part of a text file.
        end: End (exclusive) of the part; None at the end of the file.
        messages: The part of messages; None for a file.
    """

    file: InputFile
    number: int | None
    first_line: int
    start: int = 0
    end: int | None = None
    messages: Messages | None = None


def columns_of_files(log: Sequence[InputFile]) -> dict[InputFile, list[str]]:
    """Columns of each file that has rows; JSON lines have all keys of the first thousand lines.

    All partitions of a topic have the same columns: the keys of the first thousand messages of any.

    Raises:
        UserError: No file has rows, or one cannot be read as its format.
    """
    columns = {}
    if log[0].messages is not None:
        return _columns_of_topic(log)
    for file in log:
        names, has_rows = _columns(file)
        if has_rows:
            columns[file] = names
    if not columns:
        more_files = f" and {len(log) - 1} more" if len(log) > 1 else ""
        raise UserError(
            f"--input: expected rows in {log[0].path}{more_files}, found none.", "check the files."
        )
    return columns


def _columns_of_topic(log: Sequence[InputFile]) -> dict[InputFile, list[str]]:
    """The columns of the partitions of a topic that have messages to read."""
    topic = log[0].path.rpartition("/")[0]
    with topic_files.first_values(log, _FIRST_LINES) as values:
        names, has_rows = _json_keys(topic, values, "message")
    if not has_rows:
        raise topic_files.nothing_new(log)
    return {file: names for file in log if file.size}


def _columns(file: InputFile) -> tuple[list[str], bool]:
    """The columns of a file, and whether it has rows."""
    try:
        if file.format == "parquet":
            parquet = _parquet(file) if file.size else None
            if parquet is None:
                return [], False
            return parquet.schema_arrow.names, parquet.metadata.num_rows > 0
        if file.format == "csv":
            return _csv_header(file)
        with open_text(file.path) as (lines, _):
            return _json_keys(file.path, itertools.islice(lines, _FIRST_LINES), "line")
    except _READ_ERRORS as error:
        raise _unreadable(file, error) from error


def column_types(file: InputFile) -> dict[str, pa.DataType]:
    """Types of the columns of a file; empty for text files, whose values have no declared type."""
    if file.format != "parquet":
        return {}
    schema = _parquet(file).schema_arrow
    return dict(zip(schema.names, schema.types, strict=True))


def ranges(file: InputFile) -> list[InputRange]:
    """Splits a file into parts that can be read on their own."""
    if file.messages is not None:
        cut = enumerate(topic_files.cut(file.messages))
        return [InputRange(file, number, 1, messages=part) for number, part in cut]
    if file.format != "parquet":
        has_header = file.format == "csv" and file.dialect.header is None
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
    return InputRange(file, None, 1 + (file.format == "csv" and file.dialect.header is None))


def _cut_csv(file: InputFile) -> list[csv_ranges.ByteRange]:
    """Parts of a large CSV file on this machine; a remote file would have to be fetched twice."""
    is_local = isinstance(files.path(file.path), pathlib.Path)
    if not is_local or file.size <= csv_ranges.RANGE_BYTES or text_files.is_gzipped(file.path):
        return []
    with open_text(file.path) as (content, _):
        return csv_ranges.cut(content, csv_ranges.RANGE_BYTES, file.dialect.escape)


def read(
    part: InputRange,
    columns: Iterable[str],
    separators: Mapping[str, Separator] = types.MappingProxyType({}),
) -> Iterator[RawBatch]:
    """Reads the given columns of a part of a file.

    Args:
        part: Part to read.
        columns: Columns to read.
        separators: Separator of each column of many values or of vectors, None if it holds lists
            only. JSON has no types of columns, so these tell what a list may stand in.

    Raises:
        UserError: The file is cut short or damaged beyond single lines.
    """
    names = list(columns)
    try:
        if part.file.format == "jsonl":
            yield from _read_json(part, names, separators)
        else:
            yield from (_read_csv if part.file.format == "csv" else _read_parquet)(part, names)
    except _READ_ERRORS as error:
        raise _unreadable(part.file, error) from error


def batches(
    file: InputFile,
    columns: Iterable[str],
    separators: Mapping[str, Separator] = types.MappingProxyType({}),
) -> Iterator[RawBatch]:
    """The given columns of a file from its first row on, one part after the other; see `read`.

    Raises:
        UserError: The file is cut short or damaged beyond single lines.
    """
    # Finding the ranges of a text file would read all of it.
    is_cut = file.format == "parquet" or file.messages is not None
    parts = ranges(file) if is_cut else [_whole(file)]
    names = list(columns)
    for part in parts:
        yield from read(part, names, separators)


def first_batch(file: InputFile, columns: Iterable[str]) -> Iterator[RawBatch]:
    """The first rows of a file as its only batch; none if it has no rows.

    Raises:
        UserError: The file is cut short or damaged beyond single lines.
    """
    yield from itertools.islice(batches(file, columns), 1)


def _unreadable(file: InputFile, error: Exception) -> UserError:
    if _OF_ONE_SIZE in str(error):
        return UserError(
            f"--input: expected a value in each row of lists of a fixed size in {file.path}, found "
            f"rows without one, which Arrow cannot read: {error}.",
            "write the column as lists of any size, or lists of zeros for missing ones.",
        )
    return UserError(
        f"--input: expected {file.format} in {file.path}, found it unreadable: {error}.",
        "check that the file is complete and that its name tells its format.",
    )


def num_blocks(part: InputRange) -> int:
    """Number of blocks of a range, which `RawBatch.blocks_done` counts."""
    if part.file.format == "parquet":
        return 1
    if part.messages is not None:
        return topic_files.num_blocks(part.messages)
    end = part.file.size if part.end is None else part.end
    return (end - part.start) // text_files.BLOCK_BYTES + 1


def _csv_header(file: InputFile) -> tuple[list[str], bool]:
    """The columns, and whether the file has any row."""
    dialect = file.dialect
    with open_text(file.path) as (binary, _):
        text = io.TextIOWrapper(binary, "utf-8", errors="replace", newline="")
        records = csv.reader(text, delimiter=dialect.delimiter, escapechar=dialect.escape)
        try:
            header = dialect.header or next((record for record in records if record), [])
        except csv.Error as error:
            raise pa.ArrowInvalid(str(error)) from error
        return list(header), any(line.strip() for line in text)


def _json_keys(path: str, lines: Iterable[bytes], unit: str) -> tuple[list[str], bool]:
    """Keys of the first lines, twice if a line repeats them; and whether there are lines.

    Args:
        path: Name of what they come from.
        lines: The lines.
        unit: What they are called there.
    """
    keys: dict[str, None] = {}
    twice: set[str] = set()
    reason, is_first = "", True
    for line in lines:
        if not line.strip():
            continue
        if is_first and line.lstrip().startswith(b"["):
            example = f", for example: jq -c '.[]' {path} > log.jsonl" if unit == "line" else "."
            raise UserError(
                f"--input: expected one JSON object per {unit} in {path}, found an array.",
                f"write one object per {unit}{example}",
            )
        is_first = False
        row, problem = parse_object(line)
        reason = reason or f"{problem}: {shown(line.rstrip(), 80)}"
        keys.update(dict.fromkeys(row or ()))
        if row is not None:
            twice.update(_repeated_keys(line))
    if not keys and not is_first:
        raise UserError(
            f"--input: expected one JSON object per {unit} in {path}, found none in its beginning "
            f"({reason}).",
            f"write every object as a {unit} of its own.",
        )
    return [*keys, *sorted(twice)], not is_first


def _repeated_keys(line: bytes) -> list[str]:
    """Keys that the object of a line has more than once."""
    names: list[str] = []

    def collect(pairs: list[tuple[str, object]]) -> None:
        names[:] = [name for name, _ in pairs]  # the outermost object comes last

    json.loads(line, object_pairs_hook=collect)
    return [name for name in names if names.count(name) > 1]


def _parquet(file: InputFile, int96_unit: str = "us") -> pa.parquet.ParquetFile:
    """Opens a file; times of type INT96, which have no unit, are read in the given unit."""
    path = files.path(file.path)
    local = isinstance(path, pathlib.Path)
    source = path if local else files.random_access(path)
    return pa.parquet.ParquetFile(source, coerce_int96_timestamp_unit=int96_unit)


def _read_parquet(part: InputRange, columns: list[str]) -> Iterator[RawBatch]:
    parquet = _parquet(part.file)
    line = part.first_line
    legacy = int96.names(parquet, columns)
    batches = parquet.iter_batches(BATCH_ROWS, row_groups=[part.number], columns=columns)
    fine_batches: Iterator[pa.RecordBatch] = itertools.repeat(pa.RecordBatch.from_pydict({}))
    if legacy:
        nanoseconds = _parquet(part.file, "ns")
        fine_batches = nanoseconds.iter_batches(
            BATCH_ROWS, row_groups=[part.number], columns=legacy
        )
    for batch, fine_batch in zip(batches, fine_batches, strict=False):
        lines = np.arange(line, line + batch.num_rows, dtype=np.int64)
        line += batch.num_rows
        raw = RawBatch(part.file, {name: batch.column(name) for name in columns}, lines, [])
        for name in legacy:
            is_cut = int96.is_cut(raw.columns[name], fine_batch[name])
            raw = raw.rejecting(is_cut, f"column {name!r}: {TOO_FINE}")
        yield raw


def _read_csv(part: InputRange, columns: list[str]) -> Iterator[RawBatch]:
    """Reads every column as bytes: types and encoding are checked later, row by row."""
    file, dialect = part.file, part.file.dialect
    header, _ = _csv_header(file)
    has_header = dialect.header is None and not part.number
    lines_before = part.first_line - 1 - has_header
    is_plain = part.end is not None
    try:
        with open_text(file.path) as (content, blocks_done):
            if part.end is not None:
                content = cast(BinaryIO, csv_ranges.RangeFile(content, part.start, part.end))
            for batch in csv_records.read(
                content, header, has_header, columns, text_files.BLOCK_BYTES, dialect, is_plain
            ):
                yield RawBatch(
                    file,
                    batch.columns,
                    batch.lines + lines_before,
                    [
                        Rejection.of(file.path, b.line + lines_before, b.reason, b.text)
                        for b in batch.bad
                    ],
                    batch.continued,
                    blocks_done() - part.start // text_files.BLOCK_BYTES,
                )
    except EndlessRecordError as error:
        raise _endless(file, error) from error


def _endless(file: InputFile, error: EndlessRecordError) -> UserError:
    where = f"a record that begins in line {error.line} of {file.path} and does not end"
    if not error.is_quoted:
        longest = f"{text_files.BLOCK_BYTES >> 20} MiB"
        return UserError(
            f"--input: expected rows of at most {longest}, found {where} within that.",
            "shorten or leave out that line.",
        )
    return UserError(
        f"--input: expected every quotation mark closed, found {where}"
        f"{file.dialect.hint(error.text)}.",
        "mend that line; within quotes a quotation mark is written twice.",
    )


def _read_json(
    part: InputRange, columns: list[str], separators: Mapping[str, Separator]
) -> Iterator[RawBatch]:
    if part.messages is not None:
        yield from topic_files.read(part.file, part.messages, columns, separators)
        return
    for first_line, lines, blocks_done in read_lines(part.file.path):
        numbers = range(first_line, first_line + len(lines))
        batch = json_rows.read(part.file, lines, numbers, columns, separators)
        yield dataclasses.replace(batch, blocks_done=blocks_done)


def first_lines(file: InputFile) -> list[bytes]:
    """The first lines of a file of JSON lines, or the first messages of a partition."""
    if file.messages is not None:
        with topic_files.first_values([file], _FIRST_LINES) as values:
            return list(values)
    _, lines, _ = next(read_lines(file.path), (1, [], 0))
    return lines[:_FIRST_LINES]


def read_lines(path: str) -> Iterator[tuple[int, list[bytes], int]]:
    """Yields blocks of a text file: number of the first line, lines, number of blocks so far."""
    line = 1
    with open_text(path) as (file, blocks_done):
        while block := file.readlines(text_files.BLOCK_BYTES):
            yield line, block, blocks_done()
            line += len(block)
