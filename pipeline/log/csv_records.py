"""Reads CSV as Arrow batches with the line of each row, and loses no row at a quotation mark.

A record is one line, or several if line breaks are quoted. Every line of a bad record counts as a
bad row, because a quotation mark without a partner, or one that was meant to be escaped, makes one
bad record of many rows. A line break in a column that is read makes a record bad. In a column that
is not read it is part of some text, and its lines are counted, unless these look like rows of their
own. If a quotation mark is still open at the end of the file, nobody knows what the rest of the
file was meant to be, so such a file cannot be read.
"""

import codecs
import contextlib
import re
from collections.abc import Iterator, Sequence
from typing import BinaryIO, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from pipeline.log.csv_dialect import Dialect
from pipeline.log.csv_lines import RecordLines, TakenLines, split_lines

# Arrow cannot show a bad record that is not UTF-8, and drops an escape before any character. While
# it parses, a byte that is not UTF-8 and a character behind an escape are written as two private
# characters each; if a text holds the first of these itself, it is doubled. Python's
# "surrogateescape" turns byte 0x80 + n into 0xDC80 + n.
_ESCAPE = "\U0010fe00"
_ESCAPED = {ord(_ESCAPE): _ESCAPE * 2} | {
    0xDC80 + n: _ESCAPE + chr(0x10FF80 + n) for n in range(128)
}
_ESCAPED_ASCII = [(_ESCAPE + chr(0x10FF00 + n)).encode() for n in range(128)]
_CHARACTERS = {sequence: chr(code) for code, sequence in _ESCAPED.items()} | {
    sequence.decode(): chr(code) for code, sequence in enumerate(_ESCAPED_ASCII)
}
_ESCAPE_SEQUENCE = re.compile(f"{_ESCAPE}.")


class BadLine(NamedTuple):
    """A line that is no row: its number, the reason, and its content."""

    line: int
    reason: str
    text: bytes


class CsvBatch(NamedTuple):
    """Some rows.

    Attributes:
        columns: Binary array per column, all of one length.
        lines: int64, line with which each row begins; a header is line 1.
        bad: Lines between them that are no rows.
        continued: Number of lines that the rows take beyond their first.
    """

    columns: dict[str, pa.Array]
    lines: np.ndarray
    bad: list[BadLine]
    continued: int


class _BadRecord(NamedTuple):
    """A record that is no row; `number` counts records from 1, with the header if there is one."""

    number: int
    reason: str
    text: str


class _Source:
    """A file as Arrow shall see it: valid UTF-8, and nothing escaped but by quotation marks.

    Args:
        file: The file.
        dialect: Dialect of the file.
        lines: Record lines that are found in every piece that is read, or None.
    """

    closed = False

    def __init__(self, file: BinaryIO, dialect: Dialect, lines: RecordLines | None) -> None:
        self._file = file
        self._lines = lines
        self._decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        self._escape = None if dialect.escape is None else dialect.escape.encode()
        if self._escape is not None:
            escape, delimiter = re.escape(self._escape), re.escape(dialect.delimiter.encode())
            special = rb'(\r\n|["\r\n]|%b|%b)' % (escape, delimiter)
            self._escaped = re.compile(escape + special)
        self._ready = b""
        self._held = b""
        self._ended = False
        self.has_escapes = False

    def read(self, size: int) -> bytes:
        """The next `size` bytes, fewer at the end of the file."""
        while len(self._ready) < size and not self._ended:
            data = self._file.read(size)
            self._ended = not data
            if self._lines is not None:
                self._lines.add(data, is_last=self._ended)
            self._ready += self._unescaped(self._valid(data))
        data, self._ready = self._ready[:size], self._ready[size:]
        return data

    def close(self) -> None:
        """Marks the source as closed; the owner of the file closes the file."""
        self.closed = True

    def _valid(self, data: bytes) -> bytes:
        if data.isascii() and not self._decoder.getstate()[0]:
            return data  # decoding is about as slow as parsing
        text = self._decoder.decode(data, self._ended)
        if _ESCAPE not in text:
            with contextlib.suppress(UnicodeEncodeError):
                return text.encode()
        self.has_escapes = True
        return text.translate(_ESCAPED).encode()

    def _unescaped(self, data: bytes) -> bytes:
        if self._escape is None:
            return data
        data, self._held = self._held + data, b""
        if self._escape not in data:
            return data
        if not self._ended and (count := self._incomplete(data)):
            data, self._held = data[:-count], data[-count:]
        data, num_escapes = self._escaped.subn(
            lambda match: b"".join(_ESCAPED_ASCII[code] for code in match[1]), data
        )
        self.has_escapes = self.has_escapes or num_escapes > 0
        return data

    def _incomplete(self, data: bytes) -> int:
        """Number of bytes at the end that are an escape whose character may be incomplete."""
        whole = data.removesuffix(b"\r")
        is_escape = (len(whole) - len(whole.rstrip(self._escape))) % 2
        return len(data) - len(whole) + 1 if is_escape else 0


class _Judge:
    """Finds the lines of records, and which records are bad.

    Args:
        columns: Names of the columns that are read.
        dialect: Dialect of the file.
        source: The file.
        lines: Lines of the records, found from the bytes; None if every record is a line.
    """

    def __init__(
        self, columns: list[str], dialect: Dialect, source: _Source, lines: RecordLines | None
    ) -> None:
        self._columns = columns
        self._dialect = dialect
        self._source = source
        self._lines = lines
        self._next = 1

    def batch(
        self, arrays: list[pa.Array], records: np.ndarray, bad: list[_BadRecord], last: int
    ) -> CsvBatch:
        """The next rows.

        Args:
            arrays: Columns of the rows.
            records: Numbers of the rows' records.
            bad: Records between them, up to the last one, that have too many or too few values.
            last: Number of the last record, good or bad.
        """
        if self._source.has_escapes:
            arrays = [_restored(array) for array in arrays]
        if self._dialect.escape is not None:
            arrays = [self._without_nulls(array) for array in arrays]
        taken_lines = self._taken(last)
        reasons = {record.number: record.reason for record in bad}
        texts = {record.number: _raw(record.text) for record in bad}
        continued, is_good = 0, np.ones(len(records), bool)
        for number, odd in taken_lines.odd.items():
            texts[number] = odd.text
            row = int(np.searchsorted(records, number))
            if number in reasons or row == len(records) or records[row] != number:
                continue  # it is already bad, or it is the header
            is_broken = any(_has_line_break(array[row].as_py()) for array in arrays)
            reason = odd.reason or ("line break in a value" if is_broken else "")
            if reason:
                reasons[number], is_good[row] = reason, False
            else:
                continued += int(taken_lines.count_R[number - self._next]) - 1
        lines = taken_lines.first_R[records - self._next]
        bad_lines: list[BadLine] = []
        for number in sorted(reasons):
            reason = reasons[number] + self._dialect.hint(texts[number])
            first = int(taken_lines.first_R[number - self._next])
            bad_lines += [
                BadLine(first + i, reason, text)
                for i, text in enumerate(split_lines(texts[number]))
            ]
        if not is_good.all():
            mask = pa.array(is_good)
            arrays, lines = [array.filter(mask) for array in arrays], lines[is_good]
        self._next = last + 1
        return CsvBatch(dict(zip(self._columns, arrays, strict=True)), lines, bad_lines, continued)

    def _taken(self, last: int) -> TakenLines:
        if self._lines is not None:
            return self._lines.take(last)
        numbers = np.arange(self._next, last + 1)
        return TakenLines(numbers, np.ones_like(numbers), {})

    def _without_nulls(self, array: pa.Array) -> pa.Array:
        r"""The column with empty values in place of `\N`."""
        is_null = pc.equal(array, pa.scalar(f"{self._dialect.escape}N".encode()))
        return pc.if_else(is_null, pa.scalar(b""), array)


def read(
    file: BinaryIO,
    header: Sequence[str],
    has_header: bool,
    columns: list[str],
    block_bytes: int,
    dialect: Dialect,
    is_plain: bool = False,
) -> Iterator[CsvBatch]:
    """Reads columns of a CSV file as bytes: types and encoding are not judged.

    Arrow calls `skip` with every record whose number of fields differs from the header's. The call
    gives the number of the record; good records have the numbers in between.

    Args:
        file: The file, at its beginning.
        header: Names of all columns.
        has_header: Whether the first record of the file holds them.
        columns: Names of the columns to read.
        block_bytes: Number of bytes to read at once. No record may be longer.
        dialect: Dialect of the file.
        is_plain: Whether it is known that every line is a record (see `pipeline.log.csv_ranges`).

    Raises:
        EndlessRecordError: A quotation mark is never closed, or a record is too long.
        pa.ArrowInvalid: The file is no CSV.
    """
    bad: list[_BadRecord] = []

    def skip(row: pa.csv.InvalidRow) -> str:
        is_too_many = row.actual_columns > row.expected_columns
        expected = f"expected {row.expected_columns}, found {row.actual_columns}"
        reason = f"too {'many' if is_too_many else 'few'} fields: {expected}"
        bad.append(_BadRecord(row.number, reason, row.text))
        return "skip"

    lines = None if is_plain else RecordLines(dialect, len(header))
    source = _Source(file, dialect, lines)
    judge = _Judge(columns, dialect, source, lines)
    next_record, reported = 1 + has_header, 0
    with _explained(lines):
        reader = pa.csv.open_csv(
            source,
            # Numbers of skipped records are known in the single-threaded reader only.
            pa.csv.ReadOptions(
                use_threads=False,
                block_size=block_bytes,
                column_names=None if has_header else list(header),
            ),
            pa.csv.ParseOptions(
                delimiter=dialect.delimiter, newlines_in_values=True, invalid_row_handler=skip
            ),
            pa.csv.ConvertOptions(
                check_utf8=False,
                strings_can_be_null=False,
                include_columns=columns,
                column_types=dict.fromkeys(columns, pa.binary()),
            ),
        )
        for batch in reader:
            if lines is not None and lines.unclosed is not None:
                raise lines.unclosed
            skipped = np.array([record.number for record in bad[reported:]], np.int64)
            records = np.arange(next_record, next_record + batch.num_rows + len(skipped))
            records = np.setdiff1d(records, skipped)[: batch.num_rows]
            last = int(records[-1]) if len(records) else next_record - 1
            num_judged = int(np.searchsorted(skipped, last))
            yield judge.batch(batch.columns, records, bad[reported : reported + num_judged], last)
            reported, next_record = reported + num_judged, last + 1
    if lines is not None and lines.unclosed is not None:
        raise lines.unclosed
    if remaining_bad := bad[reported:]:
        no_values = [pa.array([], pa.binary())] * len(columns)
        yield judge.batch(no_values, np.zeros(0, np.int64), remaining_bad, remaining_bad[-1].number)
        next_record = remaining_bad[-1].number + 1
    if lines is not None:
        lines.require(next_record - 1)


@contextlib.contextmanager
def _explained(lines: RecordLines | None) -> Iterator[None]:
    """Raises `EndlessRecordError` in place of Arrow's error about a record without an end."""
    try:
        yield
    except pa.ArrowInvalid as error:
        problem = None if lines is None else lines.unclosed
        if lines is not None and "straddling" in str(error):  # a record is longer than a block
            problem = problem or lines.longest
        if problem is None:
            raise
        raise problem from error


def _has_line_break(value: bytes) -> bool:
    return b"\n" in value or b"\r" in value


def _restored(column: pa.Array) -> pa.Array:
    """A column as the file has it, with the private characters of `_Source` replaced."""
    rows = np.flatnonzero(pc.find_substring(column, _ESCAPE.encode()).to_numpy() >= 0)
    if not len(rows):
        return column
    values = pa.array([_raw(column[row].as_py().decode()) for row in rows], pa.binary())
    has_escapes = np.zeros(len(column), bool)
    has_escapes[rows] = True
    return pc.replace_with_mask(column, pa.array(has_escapes), values)


def _raw(text: str) -> bytes:
    """The bytes of a text that holds the private characters of `_Source`."""
    text = _ESCAPE_SEQUENCE.sub(lambda match: _CHARACTERS[match[0]], text)
    return text.encode("utf-8", "surrogateescape")
