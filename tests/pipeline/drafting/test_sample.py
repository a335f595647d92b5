"""pipeline.drafting.sample: the first rows of a log, in every format."""

import datetime
import json

import pyarrow as pa
import pyarrow.parquet
import pytest

from pipeline.drafting import sample
from pipeline.drafting.vectors import SEVERAL_LENGTHS
from pipeline.log import readers
from pipeline.log.input_files import list_inputs
from tests.helpers.small_logs import columns, random_events, write_log


def _read(path, rows=sample.ROWS):
    read = sample.read(readers.columns_of_files(list_inputs(str(path))), rows)
    return {column.name: column for column in read.columns}, read.rows


@pytest.mark.parametrize("name", ["log.csv", "log.jsonl.gz", "log.parquet"])
def test_the_first_rows_are_read(tmp_path, name):
    log = columns(random_events())
    read, rows = _read(write_log(tmp_path / name, log), 50)
    assert rows == 50
    assert [*read] == sorted(log)
    for column in read.values():
        texts = [column.values[code].as_py() for code in column.codes]
        assert texts == [str(value) for value in log[column.name][:50]]


def test_rows_go_on_in_the_next_file(tmp_path):
    write_log(tmp_path / "a.csv", {"x": [1, 2, 3], "y": [1, 1, 1]})
    write_log(tmp_path / "b.csv", {"x": [4, 5, 6], "z": [1, 1, 1]})
    read, rows = _read(tmp_path, 5)
    assert rows == 5
    assert read["x"].values.to_pylist() == ["1", "2", "3", "4", "5"]
    assert (read["y"].present, read["z"].present) == (3, 2)


def test_what_json_nests_is_named_and_the_rest_is_read(tmp_path):
    rows = [{"x": i, "l": [1, i], "v": [0.5, i / 3], "r": {"a": i}, "n": None} for i in range(5)]
    (tmp_path / "log.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows) + "no\n")
    read, rows = _read(tmp_path / "log.jsonl")
    assert rows == 5
    assert {name: column.unreadable for name, column in read.items()} == {
        "x": "",
        "n": "",
        "l": "",
        "v": "",
        "r": sample.RECORD,
    }
    assert (read["v"].size, read["v"].distinct, read["l"].size) == (2, 5, 0)
    assert read["l"].is_many
    assert sorted(read["l"].values.to_pylist()) == ["0\x1f1", "1", "1\x1f2", "1\x1f3", "1\x1f4"]


def test_types_of_parquet_that_hold_no_single_values_are_named(tmp_path):
    table = pa.table({
        "x": pa.array(["a", "b"]).dictionary_encode(),
        "time": pa.array([datetime.datetime(2024, 1, 1, 7, 30)] * 2, pa.timestamp("us", "UTC")),
        "l": [[1], [2]],
        "e": [[0.5], [0.25, 2]],
        "v": pa.array([[0.5, 1], [2, 3]], pa.list_(pa.float32(), 2)),
        "r": [{"a": 1}] * 2,
        "h": pa.array([1, 2], pa.duration("s")),
    })  # fmt: skip
    pa.parquet.write_table(table, tmp_path / "log.parquet")
    read, _ = _read(tmp_path / "log.parquet")
    assert {name: column.unreadable for name, column in read.items()} == {
        "x": "",
        "time": "",
        "l": "",
        "e": SEVERAL_LENGTHS,
        "v": "",
        "r": sample.RECORD,
        "h": "the type duration[s] is none that can be read",
    }
    assert read["time"].is_times
    assert (read["v"].size, read["v"].distinct) == (2, 2)


def test_a_name_that_stands_twice_is_not_read(tmp_path):
    (tmp_path / "log.csv").write_text("x,y,x\n1,2,3\n")
    read, _ = _read(tmp_path / "log.csv")
    assert read["x"].unreadable == "its name stands twice in the header"
    assert read["y"].values.to_pylist() == ["2"]
