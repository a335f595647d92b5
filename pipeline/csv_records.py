"""CSV as Arrow batches whose rows know their lines, with nothing lost at an unpaired quote.

A record is one line, or several if line breaks are quoted. Of a record that is bad every line
counts as a row and is bad: what makes one bad record of many rows is a quotation mark without a
partner. A line break in a column that is read makes a record bad; in one that is not read it is of
no interest. A quotation mark that is still open at the end of the file leaves unknown what the rest
of the file was meant to be, so such a file cannot be read.
"""

import codecs
import contextlib
import csv
import io
import re
from collections.abc import Iterator, Sequence
from typing import BinaryIO, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

_LINE_BREAK = re.compile(r"\r\n?|\n")

# Arrow cannot show a bad record that is no UTF-8. While it parses, a byte that is none is written
# as two private characters; the first of these, should a text hold it, is doubled. What Python's
# "surrogateescape" makes of byte 0x80 + n is 0xDC80 + n.
_ESCAPE = "\U0010fe00"
_ESCAPED = {ord(_ESCAPE): _ESCAPE * 2} | {
    0xDC80 + n: _ESCAPE + chr(0x10FF80 + n) for n in range(128)
}
_CHARACTERS = {sequence: chr(code) for code, sequence in _ESCAPED.items()}
_ESCAPE_SEQUENCE = re.compile(f"{_ESCAPE}.")


class OpenQuoteError(Exception):
    """A record does not end within the file, or not within a length that a record can have."""


class BadLine(NamedTuple):
    """A line that is no row: its number, why, and what it holds."""

    line: int
    reason: str
    text: str


class CsvBatch(NamedTuple):
    """Some rows.

    Attributes:
        columns: Binary array per column, all of one length.
        lines: int64, line of each row; a header is line 1. Blank lines, and line breaks in
            columns that are not read, do not count.
        bad: Lines among them that are no rows.
    """

    columns: dict[str, pa.Array]
    lines: np.ndarray
    bad: list[BadLine]


class _BadRecord(NamedTuple):
    """A record that is no row; `number` counts records from 1, with the header if there is one."""

    number: int
    reason: str
    text: str


class _Source:
    """A file as Arrow shall see it: valid UTF-8, and a last line that tells if quotes are closed.

    Args:
        file: The file.
        mark: The line. Unless a quote is open it becomes a record of its own.
    """

    closed = False

    def __init__(self, file: BinaryIO, mark: str) -> None:
        self._file = file
        self._mark = f"\n{mark}\n".encode()
        self._decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        self._ready = b""
        self.has_quotes = False
        self.has_escapes = False

    def read(self, size: int) -> bytes:
        """The next bytes, as many as asked for unless it is the end; empty after the mark."""
        while len(self._ready) < size and self._mark:
            data = self._file.read(size)
            self._ready += self._valid(data, is_last=not data)
            if not data:
                self._ready += self._mark
                self._mark = b""
        data, self._ready = self._ready[:size], self._ready[size:]
        self.has_quotes = self.has_quotes or b'"' in data
        return data

    def close(self) -> None:
        """Leaves the file to its owner."""
        self.closed = True

    def _valid(self, data: bytes, is_last: bool) -> bytes:
        if data.isascii() and not self._decoder.getstate()[0]:
            return data  # the rest is about as slow as parsing
        text = self._decoder.decode(data, is_last)
        if _ESCAPE not in text:
            with contextlib.suppress(UnicodeEncodeError):
                return text.encode()
        self.has_escapes = True
        return text.translate(_ESCAPED).encode()


class _Lines:
    """Turns numbers of records into numbers of lines, one batch after another."""

    def __init__(self) -> None:
        self._additional = 0

    def number(
        self, records: np.ndarray, bad: list[_BadRecord]
    ) -> tuple[np.ndarray, list[BadLine]]:
        """The lines of good records, which are given by number, and of the bad ones among them."""
        lines = records + self._additional
        bad_lines: list[BadLine] = []
        for record in sorted(bad):
            first = record.number + self._additional
            text = _raw(record.text).decode("utf-8", errors="backslashreplace")
            texts = _LINE_BREAK.split(text)
            bad_lines += [BadLine(first + i, record.reason, text) for i, text in enumerate(texts)]
            self._additional += len(texts) - 1
            lines[np.searchsorted(records, record.number, "right") :] += len(texts) - 1
        return lines, bad_lines


def read(
    file: BinaryIO, header: Sequence[str], has_header: bool, columns: list[str], block_bytes: int
) -> Iterator[CsvBatch]:
    """Reads columns of a CSV file as bytes: types and encoding are not judged.

    Arrow calls `skip` for every record with another number of fields than the header, with the
    number of the record; the numbers of the good ones are those in between.

    Args:
        file: The file, at its beginning.
        header: Names of all columns.
        has_header: Whether the first record of the file holds them.
        columns: Which to read.
        block_bytes: Read at once. No record may be longer.

    Raises:
        OpenQuoteError: A quotation mark is never closed; `open_record` tells where.
        pa.ArrowInvalid: The file is no CSV.
    """
    bad: list[_BadRecord] = []
    mark = "\0" + "," * len(header)  # a field too many, so that it is never a row
    ended = False

    def skip(row: pa.csv.InvalidRow) -> str:
        nonlocal ended
        if row.text == mark:
            ended = True
            return "skip"
        many = row.actual_columns > row.expected_columns
        expected = f"expected {row.expected_columns}, found {row.actual_columns}"
        reason = f"too {'many' if many else 'few'} fields: {expected}"
        bad.append(_BadRecord(row.number, reason, row.text))
        return "skip"

    source = _Source(file, mark)
    reader = pa.csv.open_csv(
        source,
        # Numbers of skipped records are known in the single-threaded reader only.
        pa.csv.ReadOptions(
            use_threads=False,
            block_size=block_bytes,
            column_names=None if has_header else list(header),
        ),
        pa.csv.ParseOptions(newlines_in_values=True, invalid_row_handler=skip),
        pa.csv.ConvertOptions(
            check_utf8=False,
            strings_can_be_null=False,
            include_columns=columns,
            column_types=dict.fromkeys(columns, pa.binary()),
        ),
    )
    lines, next_record, reported = _Lines(), 1 + has_header, 0
    for batch in _batches(reader):
        skipped = np.array([record.number for record in bad[reported:]], np.int64)
        records = np.arange(next_record, next_record + batch.num_rows + len(skipped))
        records = np.setdiff1d(records, skipped)[: batch.num_rows]
        last = int(records[-1]) if len(records) else next_record - 1
        passed = int(np.searchsorted(skipped, last))
        found = bad[reported : reported + passed]
        reported, next_record = reported + passed, last + 1
        if source.has_quotes:
            broken = _line_breaks(batch)
            found += [
                _BadRecord(int(records[row]), "line break in a value", _text(batch, row))
                for row in np.flatnonzero(broken)
            ]
            batch, records = batch.filter(pa.array(~broken)), records[~broken]
        arrays = [_restored(a) if source.has_escapes else a for a in batch.columns]
        yield CsvBatch(dict(zip(columns, arrays, strict=True)), *lines.number(records, found))
    if not ended:
        raise OpenQuoteError
    empty = {name: pa.array([], pa.binary()) for name in columns}
    yield CsvBatch(empty, *lines.number(np.zeros(0, np.int64), bad[reported:]))


def open_record(file: BinaryIO, block_bytes: int) -> int:
    """The line in which the record begins for which `read` raised `OpenQuoteError`.

    Args:
        file: The file, at its beginning.
        block_bytes: As given to `read`.
    """
    text = io.TextIOWrapper(file, "utf-8-sig", errors="replace", newline="")
    reader = csv.reader(text)
    first, following = 1, 1
    limit = csv.field_size_limit(block_bytes // 4)  # a UTF-8 character has at most four bytes
    try:
        for _ in reader:
            first, following = following, reader.line_num + 1
    except csv.Error:
        first = following
    finally:
        csv.field_size_limit(limit)
        text.detach()
    return first


def _batches(reader: pa.csv.CSVStreamingReader) -> Iterator[pa.RecordBatch]:
    try:
        yield from reader
    except pa.ArrowInvalid as error:
        if "straddling" in str(error):  # a record that is longer than a block
            raise OpenQuoteError from error
        raise


def _line_breaks(batch: pa.RecordBatch) -> np.ndarray:
    """Rows with a line break in any column, bool."""
    found = np.zeros(batch.num_rows, bool)
    for column in batch.columns:
        for character in "\r\n":
            found |= pc.find_substring(column, character).to_numpy() >= 0
    return found


def _restored(column: pa.Array) -> pa.Array:
    """A column as the file has it, without escapes."""
    rows = np.flatnonzero(pc.find_substring(column, _ESCAPE.encode()).to_numpy() >= 0)
    if not len(rows):
        return column
    values = pa.array([_raw(column[row].as_py().decode()) for row in rows], pa.binary())
    has_escapes = np.zeros(len(column), bool)
    has_escapes[rows] = True
    return pc.replace_with_mask(column, pa.array(has_escapes), values)


def _raw(text: str) -> bytes:
    """The bytes of a text with escapes."""
    text = _ESCAPE_SEQUENCE.sub(lambda match: _CHARACTERS[match[0]], text)
    return text.encode("utf-8", "surrogateescape")


def _text(batch: pa.RecordBatch, row: int) -> str:
    """The values of a row."""
    return b",".join(column[row].as_py() for column in batch.columns).decode()
