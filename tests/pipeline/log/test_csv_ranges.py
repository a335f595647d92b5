"""CSV files in byte ranges: the same rows, lines and rejections as in one piece."""

import io

import pytest

from pipeline.log import csv_ranges, readers
from pipeline.log.csv_dialect import Dialect

COLUMNS = ["user_id", "item_id", "timestamp"]


def _log(rows, line_break="\n", header=True, end=True):
    lines = [",".join(COLUMNS)] * header
    lines += [f"u{n % 7},i{n}\xe9,{n}" + ",too,many" * (n % 10 == 3) for n in range(rows)]
    return (line_break.join(lines) + line_break * end).encode()


def _read(path, **file):
    part = readers.InputFile(str(path), 0, "csv", path.stat().st_size, **file)
    parts = readers.ranges(part)
    batches = [batch for part in parts for batch in readers.read(part, ["item_id", "timestamp"])]
    rows = [
        (line, *values)
        for batch in batches
        for line, *values in zip(
            batch.lines.tolist(), *(c.to_pylist() for c in batch.columns.values()), strict=True
        )
    ]
    return len(parts), rows, [r for batch in batches for r in batch.rejections]


@pytest.mark.parametrize("line_break", ["\n", "\r\n"], ids=["lf", "crlf"])
@pytest.mark.parametrize("header", [True, False], ids=["header", "no_header"])
@pytest.mark.parametrize("end", [True, False], ids=["ended", "not_ended"])
def test_ranges_hold_the_rows_of_the_file(tmp_path, monkeypatch, line_break, header, end):
    path = tmp_path / "log.csv"
    path.write_bytes(_log(100, line_break, header, end))
    file = {} if header else {"dialect": Dialect(header=tuple(COLUMNS))}
    whole = _read(path, **file)
    assert whole[0] == 1
    assert [row[0] for row in whole[1]] == [1 + header + n for n in range(100) if n % 10 != 3]
    assert [bad.line for bad in whole[2]] == [1 + header + n for n in range(3, 100, 10)]
    for size, fewest in ((1, 100), (64, 10), (300, 4), (1000, 2)):
        monkeypatch.setattr(csv_ranges, "RANGE_BYTES", size)
        parts, *content = _read(path, **file)
        assert parts >= fewest
        assert content == list(whole[1:])


def test_ranges_cover_the_file_and_begin_with_their_line():
    content = _log(50)
    ranges = csv_ranges.cut(io.BytesIO(content), 100)
    assert [r.start for r in ranges] == [0, *(r.end for r in ranges[:-1])]
    assert ranges[-1].end == len(content)
    lines = content.split(b"\n")
    for part in ranges:
        assert content[part.start : part.end].split(b"\n")[0] == lines[part.first_line - 1]


@pytest.mark.parametrize(
    "content",
    [
        b'user_id,item_id\nu,"i\nv",1\n' * 9,
        b'user_id,item_id\nu,i"\n' * 9,
        b'user_id,"item\n_id"\nu,i\nu,i\n',
        b"user_id,item_id\nu,i\n\nu,j\n",
        b"user_id,item_id\r\nu,i\r\n\r\nu,j\r\n",
        b"\nuser_id,item_id\nu,i\nu,j\n",
        b"user_id,item_id\ru,i\ru,j\r",
        b"user_id,item_id\nu,i\ru,j\n",
    ],
    ids=["quoted", "stray_quote", "header", "blank", "blank_crlf", "blank_first", "cr", "lone_cr"],
)
def test_files_whose_lines_are_not_records_stay_whole(content):
    for size in (1, 16, 1000):
        assert csv_ranges.cut(io.BytesIO(content), size) == []


def test_quotes_in_the_header_do_not_keep_a_file_whole():
    content = b'"user_id","item_id"\n' + b"u,i\n" * 20
    assert [r.first_line for r in csv_ranges.cut(io.BytesIO(content), 30)] == [1, 5, 13, 21]


def test_a_file_without_line_breaks_is_not_held_in_memory(monkeypatch):
    monkeypatch.setattr(csv_ranges, "_LONGEST_LINE", 100)
    file = io.BytesIO(b"a,b\n" + b"x" * 5000)
    assert csv_ranges.cut(file, 10) == []
    assert file.tell() <= 110


def test_a_range_is_a_file_that_ends():
    part = csv_ranges.RangeFile(io.BytesIO(bytes(range(100))), 10, 25)
    pieces = [part.read(4) for _ in range(5)]
    assert b"".join(pieces) == bytes(range(10, 25))
    assert [len(piece) for piece in pieces] == [4, 4, 4, 3, 0]
