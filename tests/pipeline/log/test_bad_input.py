"""Every mistake of a user is one line that names it, or a line in rejected/."""

import json

import pytest

from pipeline.arguments import BuildArguments
from pipeline.build_examples import build_examples
from preprocessing.errors import UserError
from preprocessing.schema_inference import infer_schema
from tests.helpers.small_logs import columns, random_events, write_log


def _rows(num_users=30):
    return [f"u{u},i{(7 * u + n) % 50},{100 * n + u}" for u in range(num_users) for n in range(5)]


def _csv(tmp_path, lines, header="user_id,item_id,timestamp"):
    path = tmp_path / "log.csv"
    path.write_bytes("\n".join([header, *lines, ""]).encode("utf-8", errors="surrogateescape"))
    return str(path)


def _build(path, tmp_path, **arguments):
    return build_examples(
        BuildArguments(input=path, output=str(tmp_path / "data"), num_shards=1, **arguments)
    )


def _rejected(tmp_path):
    files = sorted((tmp_path / "data" / "rejected").glob("part-*.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def test_bad_rows_are_written_down_and_the_rest_is_used(tmp_path):
    lines = _rows(100)
    lines[10:10] = ["u1,i1,soon", "u1,i1,5,more", "u1,i1", "u1,\udcff,6", ",i1,7"]
    data = _build(_csv(tmp_path, lines), tmp_path, max_bad_fraction=0.05)
    rejected = sorted(_rejected(tmp_path), key=lambda record: record["line"])
    assert [(record["line"], record["reason"]) for record in rejected] == [
        (12, "column 'timestamp': not an integer"),
        (13, "too many fields: expected 3, found 4"),
        (14, "too few fields: expected 3, found 2"),
        (15, "column 'item_id': invalid UTF-8"),
        (16, "column 'user_id': missing value"),
    ]
    assert "soon" in rejected[0]["excerpt"]
    assert all(record["file"].endswith("log.csv") for record in rejected)
    account = data.manifest["conservation"]
    assert account["read"] == 505
    assert account["rejected"] == {record["reason"]: 1 for record in rejected}
    assert account["used"] == 500


def test_too_many_bad_rows_fail_the_build_and_stay_to_be_read(tmp_path):
    path = _csv(tmp_path, [*_rows(), "u1,i1,soon", "u2,i1,soon", "u3,i1"])
    with pytest.raises(
        UserError,
        match=r"at most 1.00% bad rows, found 3 of 153 \(2 x column 'timestamp': not an integer; "
        r"1 x too few fields: expected 3, found 2\)",
    ):
        _build(path, tmp_path)
    assert len(_rejected(tmp_path)) == 3
    assert not (tmp_path / "data" / "_COMPLETED").exists()
    _build(path, tmp_path, max_bad_fraction=0.02)  # what a failed build left is no obstacle
    assert len(_rejected(tmp_path)) == 3


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("a,b,time", "Expected the columns user_id and item_id, found a, b, time"),
        ("user_id,item_id,item_id", "Expected the column 'item_id' in .*log.csv, found it twice"),
    ],
)
def test_columns_that_are_not_those_of_the_schema(tmp_path, header, message):
    with pytest.raises(UserError, match=message):
        _build(_csv(tmp_path, _rows(), header), tmp_path)


def test_a_column_missing_in_one_file_is_named_before_anything_is_written(tmp_path):
    good = write_log(tmp_path / "good.parquet", columns(random_events()))
    log = columns(random_events())
    del log["category_id"]
    bad = write_log(tmp_path / "bad.parquet", log)
    with pytest.raises(UserError, match=r"the column 'category_id' in .*bad.parquet, found only"):
        _build(f"{good},{bad}", tmp_path)
    assert not (tmp_path / "data").exists()


def test_a_time_of_another_type_is_refused(tmp_path):
    schema = infer_schema(["user_id", "item_id", "timestamp"]).to_json()
    schema["features"][-1]["dtype"] = "string"
    (tmp_path / "schema.json").write_text(json.dumps(schema))
    with pytest.raises(UserError, match="Expected dtype int64 or datetime for the timestamp"):
        _build(_csv(tmp_path, _rows()), tmp_path, schema=str(tmp_path / "schema.json"))


def test_nothing_left_after_filtering_is_explained(tmp_path):
    path = _csv(tmp_path, _rows())
    with pytest.raises(UserError, match=r"found none \(rows filtered: {'min_user_events': 150}\)"):
        _build(path, tmp_path, min_user_events=6)
    with pytest.raises(UserError, match="found none"):
        _build(path, tmp_path, min_item_events=1000, protocol="time_split")
    with pytest.raises(UserError, match="found none"):
        _build(path, tmp_path, min_item_events=1000)


def test_a_log_without_a_single_event_is_explained(tmp_path):
    schema = infer_schema(["user_id", "item_id", "timestamp"]).to_json()
    schema["history"]["behaviours"] = {"column": "timestamp", "values": ["buy"]}
    (tmp_path / "schema.json").write_text(json.dumps(schema))
    with pytest.raises(UserError, match="found none among 150 rows. Fix: check history.behaviours"):
        _build(_csv(tmp_path, _rows()), tmp_path, schema=str(tmp_path / "schema.json"))


def test_a_complete_data_set_is_replaced_only_on_demand(tmp_path):
    path = _csv(tmp_path, _rows())
    _build(path, tmp_path)
    with pytest.raises(UserError, match="found a complete one. Fix: .*--overwrite"):
        _build(path, tmp_path, seed=2)
    data = _build(path, tmp_path, seed=2, overwrite=True)
    assert data.manifest["arguments"]["seed"] == 2


def test_what_a_killed_build_left_is_removed(tmp_path):
    output = tmp_path / "data"
    (output / "_work" / "events").mkdir(parents=True)
    (output / "vocab").mkdir()
    left = [
        ".train-00003-of-00016.tfrecord.gz.4711.tmp",
        ".manifest.json.4711.tmp",
        "test-00000-of-00004.tfrecord.gz",
        "schema.json",
        "vocab/.item_id.txt.4711.tmp",
    ]
    for name in left:
        (output / name).write_text("")
    _build(_csv(tmp_path, _rows()), tmp_path)
    assert sorted(path.name for path in output.iterdir()) == [
        "_COMPLETED", "manifest.json", "schema.json", "stats.json", "tails",
        *(f"{split}-00000-of-00001.tfrecord.gz" for split in ("test", "train", "validation")),
        "vocab",
    ]  # fmt: skip


@pytest.mark.parametrize("output", ["s3:/bucket/data", "s3:///data", "hdfs:/data"])
def test_other_file_systems_are_refused(tmp_path, monkeypatch, output):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="--output: expected a path, s3://bucket/key or"):
        build_examples(BuildArguments(input=_csv(tmp_path, _rows()), output=output))
    assert [path.name for path in tmp_path.iterdir()] == ["log.csv"]


def test_positions_are_no_times(tmp_path):
    path = _csv(tmp_path, _rows(), "user_id,item_id,position")
    with pytest.raises(UserError, match="expected times that users share, found position"):
        _build(path, tmp_path, protocol="time_split")
    path = _csv(tmp_path, [f"{row},1" for row in _rows()], "user_id,item_id,position,timestamp")
    with pytest.raises(UserError, match="found both timestamp and position"):
        _build(path, tmp_path)


def test_lines_swallowed_by_a_stray_quote_are_rejected_and_counted(tmp_path):
    lines = _rows(100)
    lines[10], lines[13] = '"' + lines[10], lines[13].replace(",", ',"', 1)
    data = _build(_csv(tmp_path, lines), tmp_path)
    reason = "too few fields: expected 3, found 2"
    assert data.manifest["conservation"]["read"] == 500
    assert data.manifest["conservation"]["rejected"] == {reason: 4}
    assert [(record["line"], record["reason"]) for record in _rejected(tmp_path)] == [
        (line, reason) for line in range(12, 16)
    ]
    assert _rejected(tmp_path)[1]["excerpt"] == lines[11]


def test_foreign_files_are_never_removed(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "thesis.tex").write_text("years of work")
    with pytest.raises(
        UserError, match="expected an empty directory or a data set, found .*thesis"
    ):
        _build(_csv(tmp_path, _rows()), tmp_path, overwrite=True)
    assert (tmp_path / "data" / "thesis.tex").exists()
    (tmp_path / "data" / "thesis.tex").rename(tmp_path / "data" / "notes.json")
    with pytest.raises(UserError, match="found .*notes.json"):
        _build(_csv(tmp_path, _rows()), tmp_path, overwrite=True)
    assert (tmp_path / "data" / "notes.json").exists()
    (tmp_path / "file").write_text("")
    arguments = BuildArguments(input=_csv(tmp_path, _rows()), output=str(tmp_path / "file"))
    with pytest.raises(UserError, match="expected a directory, found a file"):
        build_examples(arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"protocol": "random"}, "--protocol: expected one of leave_last_out, time_split"),
        ({"train_prefixes": "first"}, "--train_prefixes: expected one of last, all"),
        ({"negative_sampling": "hard"}, "--negative_sampling: expected one of"),
    ],
)
def test_arguments_out_of_range(tmp_path, arguments, message):
    with pytest.raises(UserError, match=message):
        BuildArguments(input="log.csv", output=str(tmp_path), **arguments).check()


@pytest.mark.parametrize("mode", ["in_memory", "multi_threading"])
def test_a_workers_error_reaches_the_user_as_it_was(tmp_path, mode):
    path = write_log(tmp_path / "log.csv.gz", columns(random_events(users=4000)))
    content = (tmp_path / "log.csv.gz").read_bytes()
    (tmp_path / "log.csv.gz").write_bytes(content[:-20_000])
    with pytest.raises(UserError) as caught:
        _build(path, tmp_path, beam_options=(f"--direct_running_mode={mode}",))
    message = str(caught.value)
    assert message.startswith("--input: expected csv in ")
    assert message.endswith("check that the file is complete and that its name tells its format.")
    assert "\n" not in message
