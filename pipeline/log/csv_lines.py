"""Finds which lines of a CSV file make up its records, from its bytes alone.

The parser (Arrow) numbers records, not lines, and trusts quotation marks: one that does not close
where its value ends, because it was meant to be escaped or has no partner, makes one record of many
rows. This module counts the lines of each record, and finds the records that cannot be what was
meant.

Shape suffixes: P places in a buffer, R records.
"""

import re
import threading
from typing import NamedTuple

import numpy as np

from pipeline.log.csv_dialect import Dialect

_LF, _CR, _QUOTE = b'\n\r"'
_LINE_BREAK = re.compile(rb"\r\n?|\n")


class EndlessRecordError(Exception):
    """A record does not end within the file, or not within a length that can be read.

    Args:
        line: Line in which the record begins.
        text: Beginning of the record.
        is_quoted: Whether a quotation mark in the record is not closed.
    """

    def __init__(self, line: int, text: bytes, is_quoted: bool) -> None:
        super().__init__(line, text, is_quoted)
        self.line, self.text, self.is_quoted = line, text, is_quoted


class OddRecord(NamedTuple):
    """A record of several lines, or one whose quotation marks are not in pairs.

    Attributes:
        text: Bytes of the record.
        reason: Reason why the record cannot be what was meant; empty if it can.
    """

    text: bytes
    reason: str


class TakenLines(NamedTuple):
    """Lines of some records, as returned by `RecordLines.take`.

    Attributes:
        first_R: int64, line with which each record begins.
        count_R: int64, number of lines of each record.
        odd: Odd records, by number.
    """

    first_R: np.ndarray
    count_R: np.ndarray
    odd: dict[int, OddRecord]


class RecordLines:
    """Follows a file, piece by piece, and finds the lines of its records.

    Records are numbered from 1. Blank lines count as lines, not as records. Arrow reads ahead in a
    thread of its own, so that pieces may be added while records are taken.

    Args:
        dialect: Dialect of the file.
        num_columns: Number of values that a record should have.

    Attributes:
        unclosed: The record that the end of the file cuts off, if it does.
        longest: The longest record so far.
    """

    def __init__(self, dialect: Dialect, num_columns: int) -> None:
        self._delimiter = dialect.delimiter.encode()
        delimiter = re.escape(self._delimiter)
        self._quoted = re.compile(rb'(?<![^%b\r\n])"[^"]*(?:""[^"]*)*("?)' % delimiter)
        self._escaped = None
        if dialect.escape is not None:
            escape = re.escape(dialect.escape.encode())
            self._escaped = re.compile(rb'%b(?:\r\n|["%b%b\r\n])' % (escape, escape, delimiter))
        self._is_separator = np.zeros(256, bool)
        self._is_separator[[ord(dialect.delimiter), _LF, _CR]] = True
        self._num_columns = num_columns
        self._rest = b""
        self._line = 1  # line of the first byte of the rest
        self._lock = threading.Lock()  # guards all attributes below
        self._num_taken = 0
        self._num_added = 0
        self._first_R = [np.zeros(0, np.int64)]
        self._count_R = [np.zeros(0, np.int64)]
        self._odd: dict[int, OddRecord] = {}
        self.unclosed: EndlessRecordError | None = None
        self.longest = EndlessRecordError(1, b"", is_quoted=False)
        self._most_bytes = 0

    def add(self, data: bytes, is_last: bool) -> None:
        """Takes the next piece of the file.

        Args:
            data: Bytes of the piece.
            is_last: Whether the file ends with this piece.
        """
        buffer = self._rest + data
        plain = buffer
        if self._escaped is not None:  # of the same length, with escapes masked
            plain = self._escaped.sub(lambda match: b"x" * len(match[0]), buffer)
        line_ends_P = _line_ends(buffer, is_last)
        ends_R = line_ends_P if plain is buffer else _line_ends(plain, is_last)
        malformed_P, is_quoted = np.zeros(0, np.int64), False
        if b'"' in plain:
            opening_P, closing_P, malformed_P = self._quotes(plain)
            is_within = np.searchsorted(opening_P, ends_R) > np.searchsorted(closing_P, ends_R)
            ends_R = ends_R[~is_within]
            is_quoted = len(opening_P) > len(closing_P)
        num_used = int(ends_R[-1]) + 1 if len(ends_R) else 0
        rest = buffer[num_used:]
        rest_line = self._line + int(np.searchsorted(line_ends_P, num_used))
        if len(rest) > self._most_bytes:
            self._most_bytes = len(rest)
            self.longest = EndlessRecordError(rest_line, rest, is_quoted)
        if is_last and rest:
            if is_quoted:
                self.unclosed = EndlessRecordError(rest_line, rest, is_quoted)
            ends_R = np.append(ends_R, len(buffer))
            line_ends_P = np.append(line_ends_P, len(buffer))
            rest = b""
        with self._lock:
            self._add_records(buffer, line_ends_P, ends_R, malformed_P)
        self._rest, self._line = rest, rest_line

    def take(self, last: int) -> TakenLines:
        """Lines of the next records; each record can be taken once.

        Args:
            last: Number of the last record to take.
        """
        if last > self._num_added:
            self.require(last)
        with self._lock:
            first_R, count_R = np.concatenate(self._first_R), np.concatenate(self._count_R)
            num_new = last - self._num_taken
            self._first_R, self._count_R = [first_R[num_new:]], [count_R[num_new:]]
            self._num_taken = last
            odd = {number: self._odd.pop(number) for number in sorted(self._odd) if number <= last}
        return TakenLines(first_R[:num_new], count_R[:num_new], odd)

    def require(self, records: int) -> None:
        """Raises `AssertionError` unless the lines so far make up that many records."""
        if records != self._num_added:
            raise AssertionError(f"{records} records, but {self._num_added} in their lines")

    def _quotes(self, plain: bytes) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Places of marks that open a value, that close one, and of text behind the latter.

        If marks open and close in turns, and every value begins and ends with one, counting tells
        them apart. Otherwise a regular expression looks for every quoted value.
        """
        bytes_P = np.frombuffer(plain, np.uint8)
        place_Q = np.flatnonzero(bytes_P == _QUOTE)
        opening, closing = place_Q[0::2], place_Q[1::2]
        no_text = np.zeros(0, np.int64)
        if self._begins(bytes_P, opening, closing) and self._ends(bytes_P, opening, closing):
            return opening, closing, no_text
        spans = [
            (match.start(), match.end() - 1, match.end(1) - match.start(1))
            for match in self._quoted.finditer(plain)
        ]
        opening, closing, is_closed = np.array(spans, np.int64).reshape(-1, 3).T
        closing = closing[is_closed == 1]
        behind_P = closing[closing + 1 < len(plain)] + 1
        return opening, closing, behind_P[~self._is_separator[bytes_P[behind_P]]]

    def _begins(self, bytes_P: np.ndarray, opening: np.ndarray, closing: np.ndarray) -> bool:
        """Whether each mark that should open a value begins it, or is the second of a pair."""
        is_pair = np.zeros(len(opening), bool)
        is_pair[1:] = opening[1:] == closing[: len(opening) - 1] + 1
        follows_separator = self._is_separator[bytes_P[opening - 1]]
        return bool((is_pair | follows_separator | (opening == 0)).all())

    def _ends(self, bytes_P: np.ndarray, opening: np.ndarray, closing: np.ndarray) -> bool:
        """Whether each mark that should close a value ends it, or is the first of a pair."""
        is_pair = np.zeros(len(closing), bool)
        pairs = min(len(closing), len(opening) - 1)
        is_pair[:pairs] = opening[1:][:pairs] == closing[:pairs] + 1
        is_end = closing + 1 == len(bytes_P)
        precedes_separator = self._is_separator[bytes_P[np.minimum(closing + 1, len(bytes_P) - 1)]]
        return bool((is_pair | precedes_separator | is_end).all())

    def _add_records(
        self, buffer: bytes, line_ends_P: np.ndarray, ends_R: np.ndarray, malformed_P: np.ndarray
    ) -> None:
        """Keeps the lines of the records that end at some places of the buffer."""
        if not len(ends_R):
            return
        bounds = np.concatenate([[0], ends_R + 1])
        starts_R, lengths_R = bounds[:-1], np.diff(bounds) - 1
        bytes_P = np.frombuffer(buffer, np.uint8)
        blank_R = (lengths_R == 0) | ((lengths_R == 1) & (bytes_P[starts_R] == _CR))
        line_R = np.searchsorted(line_ends_P, np.append(starts_R, ends_R[-1] + 1))
        count_R = np.diff(line_R)
        malformed_R = np.zeros(len(ends_R), bool)
        malformed_R[np.searchsorted(ends_R, malformed_P[malformed_P <= ends_R[-1]])] = True
        number_R = self._num_added + np.cumsum(~blank_R)
        for row in np.flatnonzero(((count_R > 1) | malformed_R) & ~blank_R).tolist():
            text = buffer[starts_R[row] : ends_R[row]]
            if ends_R[row] < len(buffer) and bytes_P[ends_R[row]] == _LF:
                text = text.removesuffix(b"\r")
            reason = "text behind a closing quotation mark" if malformed_R[row] else ""
            if not reason and self._holds_rows(text):
                reason = "rows within quotation marks"
            self._odd[int(number_R[row])] = OddRecord(text, reason)
        row = int(lengths_R.argmax())
        if lengths_R[row] > self._most_bytes:
            self._most_bytes = int(lengths_R[row])
            self.longest = EndlessRecordError(self._line + int(line_R[row]), b"", is_quoted=False)
        self._first_R.append(self._line + line_R[:-1][~blank_R])
        self._count_R.append(count_R[~blank_R])
        self._num_added = int(number_R[-1])

    def _holds_rows(self, text: bytes) -> bool:
        """Whether each line of a record has as many values as a row, as if nothing were quoted."""
        fewest = self._num_columns - 1
        lines = split_lines(text)
        return fewest > 0 and all(line.count(self._delimiter) >= fewest for line in lines)


def split_lines(text: bytes) -> list[bytes]:
    """The lines of a record."""
    return _LINE_BREAK.split(text)


def _line_ends(data: bytes, is_last: bool) -> np.ndarray:
    r"""Places of the last byte of each line break (`\n`, `\r\n` or `\r`), int64 [P]."""
    bytes_P = np.frombuffer(data, np.uint8)
    is_end = bytes_P == _LF
    if b"\r" in data:
        is_return = bytes_P == _CR
        is_return[:-1] &= ~is_end[1:]
        is_return[-1:] &= is_last  # the next piece may begin with its line feed
        is_end |= is_return
    return np.flatnonzero(is_end)
