import codecs
import gzip
import json

import pyarrow as pa
import pytest

from pipeline.log import readers, text_files
from pipeline.log.csv_dialect import Dialect
from pipeline.log.input_files import list_inputs
from preprocessing.errors import UserError
from tests.helpers.small_logs import columns, random_events, write_log

NAMES = ["user_id", "item_id"]


def _read(path, names=NAMES):
    """All rows as (line, values) and all rejections as (line, reason)."""
    (file,) = list_inputs(str(path))
    rows, rejections = [], []
    for part in readers.ranges(file):
        for batch in readers.read(part, names):
            values = zip(*(batch.columns[name].to_pylist() for name in names), strict=True)
            rows += zip(batch.lines.tolist(), values, strict=True)
            rejections += [(r.line, r.reason) for r in batch.rejections]
            assert all(r.file == str(path) for r in batch.rejections)
            assert 0 <= batch.blocks_done <= readers.num_blocks(part)
    return rows, rejections


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz", "a.jsonl", "a.jsonl.gz", "a.parquet"])
def test_every_format_gives_the_rows_with_their_lines(tmp_path, name):
    log = columns(random_events())
    path = write_log(tmp_path / name, log)
    (file,) = list_inputs(path)
    assert readers.columns_of_files([file]) == {file: list(log)}
    rows, rejections = _read(path)
    first = 2 if "csv" in name else 1
    expected = zip(log["user_id"], log["item_id"], strict=True)
    assert [
        (line, tuple(v.decode() if isinstance(v, bytes) else v for v in values))
        for line, values in rows
    ] == list(enumerate(expected, first))
    assert not rejections


def test_csv_lines_with_a_wrong_number_of_fields_keep_the_count_of_lines(tmp_path):
    text = b"user_id,item_id\nu1,i1\nu2,i2,extra\nu3\nu4,i4\nu5,i5,x,y\n"
    (tmp_path / "a.csv").write_bytes(text)
    rows, rejections = _read(tmp_path / "a.csv")
    assert [line for line, _ in rows] == [2, 5]
    assert rejections == [
        (3, "too many fields: expected 2, found 3"),
        (4, "too few fields: expected 2, found 1"),
        (6, "too many fields: expected 2, found 4"),
    ]


def test_csv_line_numbers_hold_across_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr(text_files, "BLOCK_BYTES", 64)
    bad = {4, 5, 31, 32, 33, 100}
    lines = ["user_id,item_id"]
    lines += [f"u{n},i{n},x" if n in bad else f"u{n},i{n}" for n in range(2, 101)]
    (tmp_path / "a.csv").write_text("\n".join(lines) + "\n")
    rows, rejections = _read(tmp_path / "a.csv")
    assert rows == [(n, (b"u%d" % n, b"i%d" % n)) for n in range(2, 101) if n not in bad]
    assert {line for line, _ in rejections} == bad


@pytest.mark.parametrize("block_bytes", [64, 1 << 20])
def test_csv_lines_that_are_no_utf8_cost_no_other_line(tmp_path, monkeypatch, block_bytes):
    """Also with too many fields, at the end of a block, or in the middle of a character."""
    monkeypatch.setattr(text_files, "BLOCK_BYTES", block_bytes)
    lines = [b"user_id,item_id"] + [b"u%d,\xc3\xa4%d" % (n, n) for n in range(2, 101)]
    broken = {5: b"\xff,1,2", 6: b"\xfe\xff", 50: b"u50,\xc3,\xa4", 100: b"\xf0\x9f\x98"}
    values = {20: b"u20,\xf4\x8f\xbe\x80\xf4\x8f\xb8\x80", 31: b"u31,a\xe4b", 70: b"\xc3,i70"}
    for line, content in (broken | values).items():
        lines[line - 1] = content
    (tmp_path / "a.csv").write_bytes(b"\n".join(lines))
    rows, rejections = _read(tmp_path / "a.csv")
    assert [line for line, _ in rejections] == sorted(broken)
    assert rows == [
        (line, tuple(content.split(b",")))
        for line, content in enumerate(lines, 1)
        if line > 1 and line not in broken
    ]


def test_csv_excerpts_show_the_bytes_that_are_no_utf8(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"user_id,item_id\n\xff\xc3\xa4,1,2\n")
    (file,) = list_inputs(str(tmp_path / "a.csv"))
    (batch,) = readers.read(readers.ranges(file)[0], NAMES)
    assert batch.rejections[0].excerpt == "\\xffä,1,2"


def test_csv_without_a_header_is_given_one(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"u1,i1\nu2\nu3,i3\n")
    (file,) = list_inputs(str(tmp_path / "a.csv"), dialect=Dialect(header=("user_id", "item_id")))
    assert readers.columns_of_files([file]) == {file: NAMES}
    batches = list(readers.read(readers.ranges(file)[0], ["item_id"]))
    assert [value for b in batches for value in b.columns["item_id"].to_pylist()] == [b"i1", b"i3"]
    assert [line for b in batches for line in b.lines.tolist()] == [1, 3]
    assert [(r.line, r.excerpt) for b in batches for r in b.rejections] == [(2, "u2")]


def test_csv_quotes_commas_line_breaks_and_a_byte_order_mark(tmp_path):
    (tmp_path / "a.csv").write_bytes(b'\xef\xbb\xbfuser_id,item_id\n"u,""1",i1\nu2,"i\n2"\n')
    (file,) = list_inputs(str(tmp_path / "a.csv"))
    assert readers.columns_of_files([file]) == {file: NAMES}
    rows, rejections = _read(tmp_path / "a.csv")
    assert rows == [(2, (b'u,"1', b"i1"))]
    assert rejections == [(3, "line break in a value"), (4, "line break in a value")]


@pytest.mark.parametrize("block_bytes", [64, 1 << 20])
@pytest.mark.parametrize(
    ("opening", "closing", "reason"),
    [
        (b'"u10,i10', b'u13,"i13', "too few fields: expected 3, found 2"),
        (b'u10,"i10', b'u13"', "line break in a value"),
    ],
)
def test_every_line_between_two_stray_quotes_is_rejected_by_itself(
    tmp_path, monkeypatch, opening, closing, reason, block_bytes
):
    monkeypatch.setattr(text_files, "BLOCK_BYTES", block_bytes)
    lines = [b"user_id,item_id,text", *(b"u%d,i%d,t" % (n, n) for n in range(2, 41))]
    lines[9], lines[12] = opening + b",t", closing + b",t"
    lines[20] = b"u21,i21"
    (tmp_path / "a.csv").write_bytes(b"\n".join(lines))
    rows, rejections = _read(tmp_path / "a.csv")
    bad = {10, 11, 12, 13, 21}
    good = [n for n in range(2, 41) if n not in bad]
    assert rows == [(n, (b"u%d" % n, b"i%d" % n)) for n in good]
    assert rejections[:-1] == [(n, reason) for n in range(10, 14)]
    assert rejections[-1] == (21, "too few fields: expected 3, found 2")


@pytest.mark.parametrize("block_bytes", [64, 1 << 20])
def test_lines_of_text_in_columns_that_are_not_read_are_counted(tmp_path, monkeypatch, block_bytes):
    monkeypatch.setattr(text_files, "BLOCK_BYTES", block_bytes)
    (tmp_path / "a.csv").write_bytes(
        b'user_id,text,item_id\nu1,"a\nb\n\n""c""",i1\n\nu2,"",i2\r\nu3,"x, y\r\n",i3\nu4,t,i4'
    )
    rows, rejections = _read(tmp_path / "a.csv")
    assert rows == [(n, (b"u%d" % i, b"i%d" % i)) for i, n in enumerate((2, 7, 8, 10), 1)]
    assert not rejections
    (file,) = list_inputs(str(tmp_path / "a.csv"))
    batches = [b for part in readers.ranges(file) for b in readers.read(part, NAMES)]
    assert sum(batch.continued for batch in batches) == 4


@pytest.mark.parametrize("block_bytes", [64, 1 << 20])
@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz"])
@pytest.mark.parametrize("bad", [b'"u30,i30,t', b'u30,i30,"t'])
def test_a_quote_that_is_never_closed_is_located(tmp_path, monkeypatch, name, bad, block_bytes):
    monkeypatch.setattr(text_files, "BLOCK_BYTES", block_bytes)
    lines = [b"user_id,item_id,text", *(b'u%d,i%d,"t"' % (n, n) for n in range(2, 30))]
    content = b"\n".join([*lines, bad, *(b"u%d,i%d,t" % (n, n) for n in range(31, 100)), b""])
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    readers.columns_of_files(list_inputs(str(tmp_path / name)))
    with pytest.raises(UserError, match=rf"a record that begins in line 30 of .*{name} and does"):
        _read(tmp_path / name)


def test_json_lines_that_are_no_records(tmp_path):
    lines = [
        b'{"user_id": "u1", "item_id": 7}',
        b'{"user_id": "u2"',
        b"",
        b"[1, 2]",
        b'{"user_id": "\xff", "item_id": "i"}',
        b'{"user_id": "u6", "item_id": [1]}',
        b'{"item_id": "i7", "other": {}}',
    ]
    (tmp_path / "a.jsonl").write_bytes(b"\n".join(lines))
    rows, rejections = _read(tmp_path / "a.jsonl")
    assert rows == [(1, ("u1", "7")), (7, (None, "i7"))]
    assert rejections == [
        (2, "not JSON"),
        (4, "not a JSON object"),
        (5, "invalid UTF-8"),
        (
            6,
            "column 'item_id': expected one value, found a nested one "
            '("many" or "shape" in the schema takes lists)',
        ),
    ]


def _json_columns(tmp_path, *values):
    """The column of a JSON lines file with these values, as texts in JSON."""
    lines = "".join(f'{{"user_id": "u", "item_id": {value}}}\n' for value in values)
    (tmp_path / "a.jsonl").write_text(lines)
    (file,) = list_inputs(str(tmp_path / "a.jsonl"))
    (batch,) = readers.read(readers.ranges(file)[0], NAMES)
    assert not batch.rejections
    return batch.columns["item_id"]


def test_json_types_are_kept_unless_mixed(tmp_path):
    assert _json_columns(tmp_path, "1", "null", "3").type == pa.int64()
    mixed = _json_columns(tmp_path, "1", '"a"', "null", "2.5", "true", "1e16")
    assert mixed.to_pylist() == ["1", "a", None, "2.5", "True", "1e+16"]


def test_json_integers_beyond_64_bits_keep_their_digits(tmp_path):
    column = _json_columns(tmp_path, 2**64, 7, "1e30", -(2**70))
    assert column.to_pylist() == [str(2**64), "7", "1e+30", str(-(2**70))]
    assert _json_columns(tmp_path, 2**64 - 1, -1).to_pylist() == [str(2**64 - 1), "-1"]


def test_json_as_python_writes_it_may_hold_nan(tmp_path):
    assert str(_json_columns(tmp_path, "NaN", "1.5").to_pylist()) == "[nan, 1.5]"


def test_a_key_that_an_object_has_twice_is_two_columns(tmp_path):
    lines = b'{"user_id": 1, "item_id": 2}\n{"x": {"a": 1, "a": 2}, "item_id": 3, "item_id": 4}\n'
    (tmp_path / "a.jsonl").write_bytes(lines)
    (names,) = readers.columns_of_files(list_inputs(str(tmp_path / "a.jsonl"))).values()
    assert sorted(names) == ["item_id", "item_id", "user_id", "x"]


def test_a_json_line_of_20_mb_is_read(tmp_path):
    lines = [{"user_id": "u1", "item_id": "i1", "text": "x" * (20 << 20)}, {"user_id": "u2"}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert _read(tmp_path / "a.jsonl")[0] == [(1, ("u1", "i1")), (2, ("u2", None))]


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz"])
def test_a_csv_line_of_20_mb_is_named(tmp_path, name):
    content = b"user_id,item_id,text\n\nu1,i1,t\nu2,i2," + b"x" * (20 << 20) + b"\nu3,i3,t\n"
    (tmp_path / name).write_bytes(gzip.compress(content, 1) if name.endswith(".gz") else content)
    with pytest.raises(
        UserError, match=r"rows of at most 8 MiB, found .* in line 4 of .*"
    ) as caught:
        _read(tmp_path / name)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"", "expected rows in .*a.csv, found none"),
        ("a.jsonl.gz", b"", "expected rows in .*a.jsonl.gz, found none"),
        ("a.parquet", b"", "expected rows in .*a.parquet, found none"),
        ("a.csv", b"user_id,item_id\n", "expected rows in .*a.csv, found none"),
        ("a.jsonl", b"\n\n", "expected rows in .*a.jsonl, found none"),
        ("a.parquet", b"PAR1 nonsense", "expected parquet in .*a.parquet, found it unreadable"),
        ("a.csv", codecs.BOM_UTF16_LE + b"a\0,\0", "UTF-8 in .*, found UTF-16.*iconv -f UTF-16"),
        ("a.jsonl", '{"a": 1}\n'.encode("utf-16"), "expected UTF-8 in .*, found UTF-16"),
        ("a.csv", "a,b\n1,2\n".encode("utf-16-be"), "expected UTF-8 in .*, found UTF-16"),
        ("a.csv", "a,b\n1,2\n".encode("utf-32"), "found UTF-32.*iconv -f UTF-32 -t UTF-8"),
        ("a.csv", b"PK\x03\x04\x14\0\0", "expected text in .*a.csv, found a zip archive"),
        ("a.jsonl", b"PAR1\x15\x04\x15", "expected text in .*a.jsonl, found Parquet"),
        ("a.csv", b"\x28\xb5\x2f\xfd\x04\0", "expected text in .*a.csv, found zstd"),
        ("a.json", b'[\n{"user_id": 1}\n]\n', "object per line in .*, found an array.*jq -c"),
        ("a.json", b'\n  [{"user_id": 1}]', "object per line in .*, found an array"),
        ("a.json", b'{\n  "user_id": 1\n}\n', r"found none in its beginning \(not JSON: {\)"),
    ],
)
def test_files_that_are_no_logs(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        readers.columns_of_files(list_inputs(str(tmp_path / name)))


def test_a_truncated_gzip_file_is_named(tmp_path):
    whole = gzip.compress(
        b"user_id,item_id\n" + b"".join(b"u%d,i%d\n" % (i, i * i) for i in range(9999))
    )
    (tmp_path / "a.csv.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"a\.csv\.gz, found it unreadable"):
        _read(tmp_path / "a.csv.gz")
