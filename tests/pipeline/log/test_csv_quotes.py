"""CSV as Spark, MySQL, Hive and Excel write it: every line is a row, or is said to be none."""

import csv
import io
import random
import re

import pytest

from pipeline.log import csv_ranges, csv_records, readers, text_files
from pipeline.log.csv_dialect import Dialect
from pipeline.log.csv_lines import EndlessRecordError
from pipeline.log.input_files import list_inputs
from preprocessing.errors import UserError

NAMES = ["user_id", "item_id"]
HINT = r" (a backslash in it may be an escape: --csv_escape='\')"


def _read(path, content, dialect=None, names=NAMES):
    """Rows as (line, *values), rejections as (line, reason), lines that continue a value."""
    path.write_bytes(content)
    (file,) = list_inputs(str(path), dialect=dialect or Dialect())
    batches = [b for part in readers.ranges(file) for b in readers.read(part, names)]
    rows = [
        (line, *values)
        for batch in batches
        for line, *values in zip(
            batch.lines.tolist(), *(batch.columns[n].to_pylist() for n in names), strict=True
        )
    ]
    rejections = [(bad.line, bad.reason) for batch in batches for bad in batch.rejections]
    return rows, rejections, sum(batch.continued for batch in batches)


def _log(texts, line_break=b"\n"):
    """A log with a column of texts, as they stand in the file, that is not read."""
    lines = [b"user_id,text,item_id", *(b"u%d,%b,i%d" % (n, t, n) for n, t in enumerate(texts))]
    return line_break.join([*lines, b""])


def _expected(lines):
    return [(line, b"u%d" % n, b"i%d" % n) for n, line in enumerate(lines)]


@pytest.mark.parametrize("line_break", [b"\n", b"\r\n", b"\r"], ids=["lf", "crlf", "cr"])
def test_rows_swallowed_by_an_escaped_quote_are_rejected_one_by_one(tmp_path, line_break):
    """Quoted as RFC 4180 has it, rows 3 to 7 are one with the user of row 3, the item of row 7."""
    texts = [b"t"] * 10
    texts[3] = texts[7] = rb'"27\""'
    rows, rejections, continued = _read(tmp_path / "a.csv", _log(texts, line_break))
    good = [n for n in range(10) if not 3 <= n <= 7]
    assert rows == [row for row in _expected(range(2, 12)) if row[0] - 2 in good]
    reason = "text behind a closing quotation mark" + HINT
    assert rejections == [(n + 2, reason) for n in range(3, 8)]
    assert continued == 0


@pytest.mark.parametrize("block_bytes", [64, 1 << 20])
def test_escaped_quotes_are_read_with_csv_escape(tmp_path, monkeypatch, block_bytes):
    monkeypatch.setattr(text_files, "BLOCK_BYTES", block_bytes)
    texts = [
        rb'"27\""',
        rb'"\"\""',
        rb'"a \"b\", c"',
        rb'"\\"',
        rb'"a\,b"',
        rb"C:\dir",
        b'"x ""y"""',
    ]
    rows, rejections, continued = _read(
        tmp_path / "a.csv", _log(texts * 9), Dialect(escape="\\"), ["user_id", "item_id", "text"]
    )
    assert not rejections
    assert not continued
    assert [row[:3] for row in rows] == _expected(range(2, 65))
    values = [b'27"', b'""', b'a "b", c', b"\\", b"a,b", rb"C:\dir", b'x "y"']
    assert [row[3] for row in rows] == values * 9


def test_what_mysql_writes_is_read(tmp_path):
    r"""`SELECT ... INTO OUTFILE`: tabs, line breaks and escapes behind an escape, NULL as \N."""
    content = b"user_id\ttext\titem_id\n7\ta\\\tb\\\nc\\\\\t\\N\n\\N\tx\\N\\\\N\ti\\\\N\n"
    dialect = Dialect.from_flags("tab", "\\")
    rows, rejections, continued = _read(tmp_path / "a.csv", content, dialect)
    assert rows == [(2, b"7", b""), (4, b"", rb"i\N")]
    assert (rejections, continued) == ([], 1)
    rows, rejections, _ = _read(tmp_path / "a.csv", content, dialect, ["text"])
    assert rows == [(4, rb"x\N\N")]
    assert rejections == [(2, "line break in a value"), (3, "line break in a value")]


def test_without_the_flag_escaped_delimiters_and_line_breaks_are_rejected_with_a_hint(tmp_path):
    content = b"user_id,text,item_id\nu0,a\\,b,i0\nu1,a\\\nb,i1\nu2,t,i2\n"
    rows, rejections, _ = _read(tmp_path / "a.csv", content)
    assert rows == [(5, b"u2", b"i2")]
    assert rejections == [
        (2, "too many fields: expected 3, found 4" + HINT),
        (3, "too few fields: expected 3, found 2" + HINT),
        (4, "too few fields: expected 3, found 2"),
    ]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("comma", b'user_id,text,item_id\nu0,"a;b",i0\nu1,"say ""hi""",i1\n'),
        ("semicolon", b'\xef\xbb\xbfuser_id;text;item_id\r\nu0;"a;b";i0\r\nu1;"say ""hi""";i1\r\n'),
        ("pipe", b'user_id|text|item_id\nu0|"a|b"|i0\nu1|27" wide|i1'),
        ("tab", b'user_id\ttext\titem_id\nu0\t"a\tb"\ti0\nu1\t27" wide\ti1\n'),
    ],
)
def test_delimiters_of_excel_and_databases(tmp_path, name, content):
    delimiter = {"comma": ",", "semicolon": ";", "pipe": "|", "tab": "tab"}[name]
    dialect = Dialect.from_flags(delimiter, None)
    rows, rejections, continued = _read(tmp_path / "a.csv", content, dialect)
    assert (rows, rejections, continued) == (_expected([2, 3]), [], 0)


@pytest.mark.parametrize("text", [b'"a\nb"', b'"a, b\nc"', b'"a\n\n, ""b""\r\n\n"', b'"\n"'])
def test_text_of_several_lines_is_read_and_counted(tmp_path, text):
    texts = [b"t", text, b"t", text, b'"t"']
    rows, rejections, continued = _read(tmp_path / "a.csv", _log(texts))
    lines = len(re.findall(rb"\r\n|\n", text))
    assert rows == _expected([2, 3, 4 + lines, 5 + lines, 6 + 2 * lines])
    assert not rejections
    assert continued == 2 * lines


def test_rows_between_two_stray_quotes_are_no_text(tmp_path):
    """The quotation marks are in pairs, but each of the lines has the delimiters of a row."""
    texts = [b"t", b'"27 inch', b"t", b"a", b'27"', b"t"]
    rows, rejections, continued = _read(tmp_path / "a.csv", _log(texts))
    assert rows == [row for row in _expected(range(2, 8)) if row[0] in (2, 7)]
    assert rejections == [(n, "rows within quotation marks") for n in range(3, 7)]
    assert continued == 0


@pytest.mark.parametrize("text", [b'"a"b', b'"a"b"', b'"a"\x00'])
def test_text_behind_a_closing_quote_is_rejected_even_in_a_column_that_is_not_read(tmp_path, text):
    rows, rejections, _ = _read(tmp_path / "a.csv", _log([b"t", text, b'a"b', b'"t"']))
    assert rows == [(2, b"u0", b"i0"), (4, b"u2", b"i2"), (5, b"u3", b"i3")]
    assert rejections == [(3, "text behind a closing quotation mark")]


def test_lines_after_blank_ones_keep_their_numbers(tmp_path):
    content = b"\nuser_id,item_id\n\nu0,i0\r\n\r\n\r\nu1\n\n\nu2,i2\ru3,i3,x\r\r"
    rows, rejections, _ = _read(tmp_path / "a.csv", content)
    assert rows == [(4, b"u0", b"i0"), (10, b"u2", b"i2")]
    assert [line for line, _ in rejections] == [7, 11]


def test_an_open_quote_of_a_file_with_escapes_is_refused_with_the_flag(tmp_path):
    with pytest.raises(UserError, match=r"begins in line 3 of .*--csv_escape='\\'") as caught:
        _read(tmp_path / "a.csv", _log([b"t", rb'"27\""', b"t"]))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("escape", [None, "\\"])
def test_the_number_of_ranges_changes_nothing(tmp_path, monkeypatch, escape):
    """Also of files that begin with a mark, have text of several lines, or use the escape."""
    logs = [
        b"\xef\xbb\xbf" + _log([b"t"] * 40),
        _log([rb"a\,b" if n % 7 == 3 else b"t" for n in range(40)]),
        _log([rb'"a\"b"' if n % 7 == 3 else b'"x, y"' for n in range(40)]),
        _log([b'"a\nb"' if n % 7 == 3 else b"t" for n in range(40)]),
        _log([b"\\" if n % 7 == 3 else b"t" for n in range(40)]),
    ]
    for number, content in enumerate(logs):
        dialect = Dialect(escape=escape)
        monkeypatch.setattr(csv_ranges, "RANGE_BYTES", 1 << 24)
        whole = _read(tmp_path / "a.csv", content, dialect)
        for size in (1, 50, 300):
            monkeypatch.setattr(csv_ranges, "RANGE_BYTES", size)
            assert _read(tmp_path / "a.csv", content, dialect) == whole
        (file,) = list_inputs(str(tmp_path / "a.csv"), dialect=dialect)
        is_cut = len(readers.ranges(file)) > 1
        assert is_cut == (number == 0 or (escape is None and number in (1, 4)))


@pytest.mark.parametrize(
    ("delimiter", "escape", "message"),
    [
        (",,", None, "--csv_delimiter: expected one ASCII character .* found ',,'"),
        ("", None, "--csv_delimiter: expected one ASCII character"),
        ('"', None, "--csv_delimiter: expected one ASCII character"),
        (",", '"', "--csv_escape: .* quotation mark .which needs no flag if it is written twice"),
        (",", "é", "--csv_escape: expected one ASCII character"),
        ("|", "|", "--csv_escape: expected another character than the delimiter"),
    ],
)
def test_dialects_that_cannot_be(delimiter, escape, message):
    with pytest.raises(UserError, match=message):
        Dialect.from_flags(delimiter, escape)


@pytest.mark.parametrize("name", ["tab", "TAB", "\\t", "\t"])
def test_a_tab_has_names(name):
    assert Dialect.from_flags(name, None) == Dialect("\t")


def _automaton(data: bytes, escape: int | None):
    """Records as (line, lines, values, is_malformed); and the line where an open one begins."""
    special = {*b'",\r\n', escape}
    records, place, line = [], 0, 1
    while place < len(data):
        first, values, value, malformed, state, blank = line, [], b"", False, "start", True
        ended = False
        while place < len(data) and not ended:
            code, following = data[place], data[place + 1 : place + 2]
            is_escaped = code == escape and following and following[0] in special
            if is_escaped:
                following = data[place + 1 : place + 3]
                text = following if following == b"\r\n" else following[:1]
                line += text[-1] in b"\r\n"
                malformed |= state == "closed"
                state, blank = ("quoted" if state == "quoted" else "plain"), False
                value, place = value + text, place + 1 + len(text)
                continue
            place += 1
            if code in b"\r\n" and not (code == 13 and following == b"\n"):
                line += 1
            if state == "quoted":
                if code != 34:
                    value += bytes([code])
                elif following == b'"':
                    value, place = value + b'"', place + 1
                else:
                    state = "closed"
            elif code in b"\r\n":
                ended = not (code == 13 and following == b"\n")
            elif code == 44:
                values, value, state, blank = [*values, value], b"", "start", False
            elif code == 34 and state == "start":
                state, blank = "quoted", False
            else:
                malformed |= state == "closed"
                state, blank, value = "plain", False, value + bytes([code])
        if state == "quoted":
            return records, first
        if not blank:
            records.append((first, line - first + (not ended), [*values, value], malformed))
    return records, None


@pytest.mark.parametrize("seed", range(12))
def test_records_and_lines_are_those_of_an_independent_automaton(seed):
    """Of texts made of what troubles parsers; Python's csv counts the records likewise."""
    rng = random.Random(seed)
    pieces = [
        *(
            b'"',
            b",",
            b"\n",
            b"\n",
            b"\r\n",
            b"\r",
            b"a",
            b'""',
            b',"',
            b'",',
            b"\\",
            b'\\"',
            b"\\N",
        ),
        *(b"\xff", b"\xc3\xa4", "\U0010fe00".encode(), b'\n"a","b"\n', b"x,y\n", b"x,y,z\n"),
    ]
    for _ in range(40):
        names = [f"c{n}" for n in range(rng.choice([2, 3]))]
        body = b"".join(rng.choice(pieces) for _ in range(rng.randrange(1, 50)))
        data, escape = ",".join(names).encode() + b"\n" + body, rng.choice([None, "\\"])
        records, unclosed = _automaton(data, ord(escape) if escape else None)
        arguments = (names, True, ["c0"], 1 << rng.choice([9, 16]), Dialect(",", escape))
        if unclosed is not None:
            with pytest.raises(EndlessRecordError) as caught:
                list(csv_records.read(io.BytesIO(data), *arguments))
            assert caught.value.line == unclosed
            continue
        batches = list(csv_records.read(io.BytesIO(data), *arguments))
        lines = re.split(rb"\r\n?|\n", data)
        rows, bad_lines, continued = [], set(), 0
        for first, count, values, malformed in records[1:]:
            is_null = escape and values[0] == b"\\N"
            value = b"" if is_null else values[0]
            is_broken = b"\n" in value or b"\r" in value
            is_bad = malformed or is_broken or len(values) != len(names)
            commas = [line.count(b",") for line in lines[first - 1 : first - 1 + count]]
            if is_bad or (count > 1 and min(commas) >= len(names) - 1):
                bad_lines |= set(range(first, first + count))
            else:
                rows, continued = [*rows, (first, value)], continued + count - 1
        assert rows == [
            pair
            for batch in batches
            for pair in zip(batch.lines.tolist(), batch.columns["c0"].to_pylist(), strict=True)
        ]
        assert {line.line for batch in batches for line in batch.bad} == bad_lines
        assert sum(batch.continued for batch in batches) == continued
        if escape is None:
            text = io.StringIO(data.decode("latin-1"), newline="")
            assert sum(map(bool, csv.reader(text))) == len(records)
