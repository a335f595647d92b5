"""What is said of a log: short, printable, with the fix, and nothing left out in silence."""

import json
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet
import pytest

from pipeline import data_card
from pipeline.arguments import BuildArguments
from pipeline.build_examples import build_examples
from pipeline.log.raw_batch import Rejection
from preprocessing.errors import UserError, shown
from tests.helpers.inline_runner import inline

CONTROL = "\x1b[31m\x07\x9b2J\u202e\udcff\n\t"


def _rows(delimiter=","):
    rows = [
        (f"u{u}", f"i{(7 * u + n) % 50}", str(100 * n + u)) for u in range(30) for n in range(5)
    ]
    return [delimiter.join(row) for row in rows]


def _build(tmp_path, log, **arguments):
    with inline():
        return build_examples(
            BuildArguments(input=str(log), output=str(tmp_path / "data"), num_shards=1, **arguments)
        )


def _csv(tmp_path, lines, header="user_id,item_id,timestamp", name="log.csv"):
    (tmp_path / name).write_text("\n".join([header, *lines, ""]), errors="surrogateescape")
    return tmp_path / name


def _rejected(tmp_path):
    (file,) = (tmp_path / "data" / "rejected").glob("part-*.jsonl")
    return file.read_bytes()


@pytest.mark.parametrize(
    "value", [CONTROL, CONTROL.encode("utf-8", "surrogateescape"), {1: CONTROL}]
)
def test_what_a_file_holds_is_shown_printable_and_cut(value):
    assert shown(value).isprintable()
    assert "31m" in shown(value)
    long = shown(value * 10_000 if not isinstance(value, dict) else "\x1b" * 10_000, 50)
    assert len(long) == 50
    assert long.endswith("…")
    assert shown("plain é 中 \\") == "plain é 中 \\"


def test_a_user_error_is_one_printable_line_whose_fix_survives():
    error = UserError(f"Expected x, found {CONTROL * 10_000}.", "do\n  this.")
    assert str(error).isprintable()
    assert str(error).endswith("… Fix: do this.")
    assert len(str(error)) <= 2000
    assert str(UserError(str(error))) == str(error)  # as workers' errors arrive


def test_a_rejection_is_printable_whatever_it_quotes():
    bad = Rejection.of(f"a{CONTROL}.csv", 3, f"column {CONTROL}", CONTROL * 10_000)
    assert all(text.isprintable() for text in (bad.file, bad.reason, bad.excerpt))
    assert len(bad.excerpt) <= 200


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_rejected_rows_are_printable_and_cut_in_every_format(tmp_path, kind):
    text = "\x1b[31m\x9b" + "x" * 100_000
    rows = [row.split(",") for row in _rows()] + [["u1", "i1", text]]
    log = tmp_path / f"log.{kind}"
    columns = dict(zip(("user_id", "item_id", "timestamp"), zip(*rows, strict=True), strict=True))
    if kind == "csv":
        _csv(tmp_path, [",".join(row) for row in rows])
    elif kind == "jsonl":
        lines = [dict(zip(columns, row, strict=True)) for row in rows]
        log.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
    else:
        pa.parquet.write_table(pa.table({name: list(some) for name, some in columns.items()}), log)
    _build(tmp_path, log)
    content = _rejected(tmp_path).decode()
    assert content.rstrip("\n").isprintable()
    assert len(content) < 1000
    assert json.loads(content)["line"] == len(rows) + (kind == "csv")


def test_no_control_byte_of_a_header_or_name_reaches_the_terminal(tmp_path):
    _csv(tmp_path, ["1,2"], "user_id,\x1b[31m\x07" + "x" * 5000, "lo\x1bg.csv")
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.build_examples", f"--input={tmp_path}/lo\x1bg.csv",
         f"--output={tmp_path}/data"],
        capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    message = done.stderr.decode().rstrip("\n")
    assert message.startswith(
        "error: Expected the columns user_id and item_id, found user_id, \\x1b"
    )
    assert message.isprintable()
    assert len(message) < 2100


@pytest.mark.parametrize(
    ("delimiter", "flag"),
    [("\t", "tab"), (";", "';'"), ("|", "'|'")],
    ids=["tab", "semicolon", "pipe"],
)
@pytest.mark.parametrize("has_schema", [False, True])
def test_a_header_with_another_delimiter_is_refused_with_the_flag(
    tmp_path, delimiter, flag, has_schema
):
    header = delimiter.join(["user_id", "item_id", "timestamp"])
    log = _csv(tmp_path, _rows(delimiter), header)
    arguments = {}
    if has_schema:
        _build(tmp_path, _csv(tmp_path, _rows(), name="other.csv"))
        arguments = {"schema": str(tmp_path / "data" / "schema.json"), "overwrite": True}
    with pytest.raises(UserError, match="name what separates") as caught:
        _build(tmp_path, log, **arguments)
    assert f"--csv_delimiter={flag}" in str(caught.value)
    data = _build(tmp_path, log, csv_delimiter=flag.strip("'"), **arguments)
    assert data.manifest["conservation"]["read"] == 150
    assert data.manifest["arguments"]["csv_delimiter"] == flag.strip("'")


def test_a_log_with_escaped_quotes_is_refused_with_the_flag_and_read_with_it(tmp_path):
    """Every row has a text that is not read; two of them end in an escaped quotation mark."""
    rows = [f'{row},"27\\""' if n in (10, 52) else f"{row},t" for n, row in enumerate(_rows())]
    log = _csv(tmp_path, rows, "user_id,item_id,timestamp,text")
    (tmp_path / "plain").mkdir()
    _build(tmp_path / "plain", _csv(tmp_path, _rows(), name="plain.csv"))
    schema = str(tmp_path / "plain" / "data" / "schema.json")
    with pytest.raises(UserError, match=r"found 43 of 150 \(43 x .*--csv_escape='\\'") as caught:
        _build(tmp_path, log, schema=schema)
    assert str(caught.value).isprintable()
    data = _build(tmp_path, log, schema=schema, csv_escape="\\")
    assert data.manifest["conservation"]["read"] == 150
    assert not data.manifest["conservation"]["rejected"]
    for split in ("train", "validation", "test"):
        name = f"{split}-00000-of-00001.tfrecord.gz"
        plain = (tmp_path / "plain" / "data" / name).read_bytes()
        assert (tmp_path / "data" / name).read_bytes() == plain


@pytest.mark.parametrize("index", ["", "Unnamed: 0", "Unnamed: 0.1", "__index_level_0__"])
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_row_numbers_of_pandas_are_no_feature(tmp_path, capsys, index, kind):
    rows = [row.split(",") for row in _rows()]
    log = tmp_path / f"log.{kind}"
    if kind == "csv":
        header = f"{index},user_id,item_id,timestamp"
        _csv(tmp_path, [f"{n},{row}" for n, row in enumerate(_rows())], header)
    else:
        columns = zip(*rows, strict=True)
        names = ("user_id", "item_id", "timestamp")
        table = {index: range(len(rows)), **dict(zip(names, columns, strict=True))}
        pa.parquet.write_table(pa.table({name: list(some) for name, some in table.items()}), log)
    data = _build(tmp_path, log)
    assert [f.name for f in data.schema.features] == ["user_id", "item_id", "timestamp"]
    assert f"Left out, as numbers of rows: {index!r}\n" in capsys.readouterr().out


def test_text_of_several_lines_is_said_in_the_output_the_manifest_and_the_card(tmp_path, capsys):
    rows = [f'{row},"a\nb"' if n % 50 == 0 else f"{row},t" for n, row in enumerate(_rows())]
    log = _csv(tmp_path, rows, "user_id,item_id,timestamp,text")
    _csv(tmp_path, [], name="none.csv")
    (tmp_path / "plain").mkdir()
    plain = _build(tmp_path / "plain", _csv(tmp_path, _rows(), name="plain.csv"))
    capsys.readouterr()
    schema = str(plain.path / "schema.json")
    data = _build(tmp_path, f"{log},{tmp_path}/none.csv", schema=schema)
    said = capsys.readouterr().err
    assert [file["continued"] for file in data.manifest["inputs"]] == [3, 0]
    data_card.write_card(data.path)
    markdown = (data.path / "data_card.md").read_text()
    page = (data.path / "data_card.html").read_text()
    for text in (said, markdown, page):
        assert "3 lines are no rows but continue a quoted value" in text
        assert "1 of 2 files have no rows" in text
    assert f"| {log} | 150 | 150 | 0 | 0 | 3 |" in markdown
