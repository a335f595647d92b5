"""Cuts a CSV file into byte ranges that workers can read on their own.

The bytes around a place do not tell whether a record begins there: a line break may stand within
quotes. A file is therefore cut only if no quotation mark and no escape follows its first line; then
every line break ends a record. A file that has blank lines or lone carriage returns is not cut
either, so that lines are easy to number. All of the file has to be scanned for that, which takes
much less time than parsing it.
"""

from typing import BinaryIO, NamedTuple

import numpy as np

RANGE_BYTES = 1 << 24
"""Size of the ranges of a log."""

_LONGEST_LINE = 1 << 23


class ByteRange(NamedTuple):
    """Bytes from `start` up to `end`, which begin with the first byte of line `first_line`."""

    start: int
    end: int
    first_line: int


class RangeFile:
    """The bytes of a range as a file of their own.

    Args:
        file: File that holds the range.
        start: First byte of the range.
        end: End (exclusive) of the range.
    """

    def __init__(self, file: BinaryIO, start: int, end: int) -> None:
        self._file = file
        self._left = end - start
        file.seek(start)

    def read(self, size: int) -> bytes:
        """The next bytes, at most `size`; empty at the end of the range."""
        data = self._file.read(min(size, self._left))
        self._left -= len(data)
        return data


def cut(file: BinaryIO, range_bytes: int, escape: str | None = None) -> list[ByteRange]:
    """Ranges that cover a file, or none if it cannot be cut.

    Args:
        file: The file, at its first line.
        range_bytes: Size of all ranges but the last, apart from the rest of a line.
        escape: Character that escapes quotation marks and line breaks, or None.
    """
    ranges: list[ByteRange] = []
    start, line = file.tell(), 1
    while lines := file.read(range_bytes):
        line_rest = file.readline(_LONGEST_LINE)
        lines += line_rest
        is_break = np.frombuffer(lines, np.uint8) == ord("\n")
        is_long = len(line_rest) == _LONGEST_LINE
        if is_long or not _is_plain(lines, is_break, escape, is_first=not ranges):
            return []
        ranges.append(ByteRange(start, start + len(lines), line))
        start += len(lines)
        line += int(is_break.sum())
    return ranges


def _is_plain(lines: bytes, is_break: np.ndarray, escape: str | None, is_first: bool) -> bool:
    """Whether every line of a range is a record, and every line break ends one.

    Args:
        lines: The bytes of the range.
        is_break: Whether each byte is a line feed.
        escape: Escape character, or None.
        is_first: Whether the range is the first, whose first line may be a header with pairs of
            quotation marks.
    """
    if escape is not None and escape.encode() in lines:
        return False
    rows = lines
    if is_first:
        header, _, rows = lines.partition(b"\n")
        if header.count(b'"') % 2:
            return False
    if b'"' in rows or lines[:1] in b"\r\n" or (is_break[1:] & is_break[:-1]).any():
        return False
    if b"\r" not in lines:
        return True
    return b"\n\r" not in lines and lines.count(b"\r") == lines.count(b"\r\n")
