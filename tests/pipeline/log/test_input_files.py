"""Which files --input names, and what they hold, whatever they are called."""

import gzip
import os
import re

import pytest

from pipeline.log import input_files, readers
from pipeline.log.input_files import list_inputs
from preprocessing.errors import UserError

TEXT = b"user_id,item_id\nu1,i1\nu2,i2\n"


def _names(tmp_path, patterns):
    found = list_inputs(patterns)
    assert [file.index for file in found] == list(range(len(found)))
    return [os.path.relpath(file.path, tmp_path) for file in found]


def _rows(path):
    (file,) = list_inputs(str(path))
    names = readers.columns_of_files([file])[file]
    batches = [b for part in readers.ranges(file) for b in readers.read(part, names)]
    assert not any(batch.rejections for batch in batches)
    columns = [[v for b in batches for v in b.columns[name].to_pylist()] for name in names]
    lines = [line for batch in batches for line in batch.lines.tolist()]
    return names, list(zip(*columns, strict=True)), lines


def test_globs_are_sorted_and_lists_keep_their_order(tmp_path):
    for name in ("b.csv", "a.csv", "c.jsonl"):
        (tmp_path / name).write_text("x")
    found = _names(tmp_path, f"{tmp_path}/c.jsonl, {tmp_path}/*.csv")
    assert found == ["c.jsonl", "a.csv", "b.csv"]


@pytest.mark.parametrize("again", ["a.csv", "./a.csv", "b/../a.csv"])
def test_a_file_that_is_named_twice_is_refused(tmp_path, again):
    for name in ("b.csv", "a.csv"):
        (tmp_path / name).write_text("x")
    with pytest.raises(UserError, match=r"every file once, found .*a.csv more than once"):
        list_inputs(f"{tmp_path}/*.csv,{tmp_path}/{again}")


def test_many_files_are_listed_in_linear_time(tmp_path, monkeypatch):
    """A quadratic count looks at 4·10^8 pairs of names and takes seconds."""
    paths = [tmp_path / f"part-{n:05d}.csv" for n in range(20_000)]
    monkeypatch.setattr(input_files, "_matches", lambda *_: paths)
    monkeypatch.setattr(input_files, "_input_file", lambda path, *_: path)
    compared = []

    class Name(str):
        __hash__ = str.__hash__

        def __eq__(self, other):
            compared.append(other)
            return str.__eq__(self, other)

    monkeypatch.setattr(input_files, "str", Name, raising=False)
    assert len(list_inputs("x")) == len(paths)
    assert len(compared) < 10 * len(paths)


@pytest.mark.parametrize("name", ["log[1].csv", "log*.csv", "what?.csv", "a[b.csv"])
def test_a_file_whose_name_looks_like_a_pattern_is_found(tmp_path, name):
    (tmp_path / name).write_bytes(TEXT)
    assert _names(tmp_path, f"{tmp_path}/{name}") == [name]


def test_a_name_that_is_a_file_and_a_pattern_of_others_is_refused(tmp_path):
    for name in ("log[1].csv", "log1.csv"):
        (tmp_path / name).write_bytes(TEXT)
    with pytest.raises(UserError, match=r"found '.*log\[1\].csv' to be both.*log1.csv matches it"):
        list_inputs(f"{tmp_path}/log[1].csv")
    assert _names(tmp_path, f"{tmp_path}/log[[]1].csv") == ["log[1].csv"]


def test_a_directory_of_spark_is_its_part_files(tmp_path):
    log = tmp_path / "log.csv"
    log.mkdir()
    parts = ("part-00001-b.csv", "part-00000-a.csv", "_SUCCESS", ".part-00000-a.csv.crc")
    for name in parts:
        (log / name).write_bytes(TEXT)
    expected = ["log.csv/part-00000-a.csv", "log.csv/part-00001-b.csv"]
    for pattern in ("log.csv", "log.csv/*", "*.csv"):
        assert _names(tmp_path, f"{tmp_path}/{pattern}") == expected
    assert _names(tmp_path, f"{log}/part-*") == expected
    (log / "day=1").mkdir()
    with pytest.raises(
        UserError, match=r"expected files in the directory .*, found .* day=1 in it"
    ):
        list_inputs(str(log))


def test_parts_without_rows_are_left_out_unless_all_are(tmp_path):
    contents = {"a": b"", "b": b"user_id,item_id\n", "c": TEXT, "d": gzip.compress(b""), "e": b"\n"}
    for name, content in contents.items():
        (tmp_path / f"{name}.csv").write_bytes(content)
    files = list_inputs(f"{tmp_path}/*.csv")
    columns = readers.columns_of_files(files)
    assert [(file.index, names) for file, names in columns.items()] == [(2, ["user_id", "item_id"])]
    with pytest.raises(UserError, match=r"expected rows in .*a.csv and 3 more, found none"):
        readers.columns_of_files([file for file in files if file not in columns])


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("nowhere.csv", "expected a file at .*nowhere.csv, found nothing"),
        ("nothing-*.csv", "expected files that match .*found none"),
        ("", "expected files that match .*found none"),
        ("a.txt", re.escape("ends in .csv, .csv.gz, .tsv, .tsv.gz, .jsonl, .jsonl.gz, .json, ")),
    ],
)
def test_inputs_that_are_not_there(tmp_path, pattern, message):
    directory = tmp_path / "empty" if not pattern else tmp_path
    directory.mkdir(exist_ok=True)
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(UserError, match=message):
        list_inputs(f"{directory}/{pattern}")
    with pytest.raises(UserError, match="at least one file"):
        list_inputs(" , ")


@pytest.mark.parametrize("path", ["az://c/a.csv", "hdfs:///logs/*.csv", "file:///a.csv"])
def test_other_file_systems_are_refused(path):
    with pytest.raises(UserError, match="--input: expected a path, s3://bucket/key or"):
        list_inputs(path)


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["no_mark", "mark"])
@pytest.mark.parametrize("is_packed", [False, True])
@pytest.mark.parametrize("ending", ["", ".gz"])
def test_what_a_text_file_holds_counts_and_not_its_name(tmp_path, mark, is_packed, ending):
    for kind, content, expected, lines in (
        ("csv", TEXT, [(b"u1", b"i1"), (b"u2", b"i2")], [2, 3]),
        ("jsonl", b'{"user_id": "u1"}\n\n{"user_id": "u2"}\n', [("u1",), ("u2",)], [1, 3]),
    ):
        path = tmp_path / f"log.{kind}{ending}"
        path.write_bytes(gzip.compress(mark + content) if is_packed else mark + content)
        names, rows, numbers = _rows(path)
        assert names == ["user_id", "item_id"][: len(names)]
        assert (rows, numbers) == (expected, lines)


def test_a_header_that_begins_like_a_container_is_text(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"ORC,item_id\no1,i1\n")
    assert _rows(tmp_path / "a.csv")[1] == [(b"o1", b"i1")]
