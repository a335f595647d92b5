"""Logs with a label and no request ids: every row is a request of its own."""

import json

import numpy as np
import pytest

from pipeline.arguments import BuildArguments
from pipeline.audit import audit
from pipeline.build_examples import build_examples
from preprocessing.errors import UserError
from tests.helpers.impression_logs import (
    MAX_LENGTH,
    assert_built,
    columns,
    rows_of_impressions,
    schema_file,
)
from tests.helpers.inline_runner import inline
from tests.helpers.small_data_sets import read_examples, rewrite_split, shard_bytes
from tests.helpers.small_logs import write_log
from tests.reference import impressions

STEPS = "history/timestamp"


def _rows(**options):
    """Labelled rows in random order, many of one user at one time, with their request ids."""
    return impressions.with_own_requests(rows_of_impressions(**{"days": 40, **options}))


def _arguments(tmp_path, log, name="log.csv", label=(), **arguments):
    return BuildArguments(
        input=write_log(tmp_path / name, log),
        output=str(tmp_path / "data"),
        schema=schema_file(tmp_path, "request", label),
        **{"num_shards": 3, **arguments},
    )


def _log(rows):
    """The columns of a log that has no request ids."""
    log = columns(rows)
    del log["session"]
    return log


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("log.csv", {"protocol": "leave_last_out"}),
        ("log.jsonl", {"protocol": "leave_last_out", "train_prefixes": "all", "min_history": 2}),
        ("log.parquet", {"protocol": "time_split"}),
        ("log.csv", {"protocol": "time_split", "min_history": 0}),
    ],
)
def test_every_row_is_a_request_after_what_its_user_clicked_before(tmp_path, name, arguments):
    rows = _rows()
    with inline():
        data = build_examples(_arguments(tmp_path, _log(rows), name, **arguments))
    cutoffs = tuple(data.manifest["cutoffs"].values())
    expected = impressions.split_requests(
        rows, max_length=MAX_LENGTH, cutoffs=cutoffs, aims_at_all=True, **arguments
    )
    assert_built(data, rows, expected)
    assert audit(data.path) == {}
    for split in expected:
        labels = [example["label"] for example in read_examples(data, split).values()]
        assert {len(some) for some in labels} == {1}
        assert {label for (label,) in labels} == {0, 1}


def test_rows_of_one_user_and_time_do_not_see_each_other(tmp_path):
    log = {
        "user_id": ["u"] * 6,
        "item_id": ["a", "b", "c", "d", "e", "f"],
        "price": [1] * 6,
        "hour": [1] * 6,
        "time": [1, 5, 5, 5, 7, 7],
        "click": [1, 1, 0, 1, 1, 0],
    }
    with inline():
        data = build_examples(
            _arguments(tmp_path, log, num_shards=1, train_prefixes="all", min_history=0)
        )
    requests = {}
    for split in ("train", "validation", "test"):
        requests |= read_examples(data, split)
    histories = {name: example["history/timestamp"] for name, example in requests.items()}
    assert histories == {
        "u:0": [], "u:1": [1], "u:2": [1], "u:3": [1], "u:4": [1, 5, 5], "u:5": [1, 5, 5],
    }  # fmt: skip
    assert list(read_examples(data, "validation")) == ["u:4"]
    assert audit(data.path) == {}


def test_the_auditor_sees_a_step_at_the_time_of_its_row(tmp_path):
    with inline():
        data = build_examples(_arguments(tmp_path, _log(_rows()), num_shards=1))

    def change(examples):
        with_history = (e for e in examples if e.feature_lists.feature_list[STEPS].feature)
        example = next(with_history)
        time = example.context.feature["timestamp"].int64_list.value[0]
        last = example.feature_lists.feature_list[STEPS].feature[-1]
        last.int64_list.value[0] = time

    assert audit(data.path) == {}
    rewrite_split(data, "test", change)
    assert "order" in audit(data.path)


def test_shards_do_not_depend_on_format_partitions_or_workers(tmp_path):
    rows = _rows(users=40)
    with inline():
        expected = build_examples(_arguments(tmp_path, _log(rows), num_partitions=1))
    halves = [
        write_log(tmp_path / f"{n}.parquet", _log(half))
        for n, half in enumerate((rows[:150], rows[150:]))
    ]
    other = BuildArguments(
        input=",".join(halves),
        output=str(tmp_path / "other"),
        schema=schema_file(tmp_path, "request"),
        num_shards=3,
        num_partitions=4,
        beam_options=("--direct_num_workers=3", "--direct_running_mode=multi_threading"),
    )
    assert shard_bytes(build_examples(other).path) == shard_bytes(expected.path)


@pytest.mark.parametrize(
    ("rule", "dtype", "is_positive", "has_requests"),
    [
        (">=4", "int64", lambda rating: rating >= 4, False),
        ("> 3.5", "float32", lambda rating: rating > 3.5, False),
        ("<=2", "int64", lambda rating: rating <= 2, True),
        ("<2.0", "float32", lambda rating: rating < 2, True),
        ("== 5", "int64", lambda rating: rating == 5, False),
    ],
)
def test_ratings_become_labels(tmp_path, rule, dtype, is_positive, has_requests):
    rng = np.random.default_rng(3)
    rows = rows_of_impressions() if has_requests else _rows()
    ratings = rng.integers(1, 11, len(rows)) / 2
    if dtype == "int64":
        ratings = ratings.astype(int)
    log = columns(rows) if has_requests else _log(rows)
    log["click"] = ratings.tolist()
    labelled = [
        (*row[:4], int(is_positive(rating))) for row, rating in zip(rows, ratings, strict=True)
    ]
    arguments = _arguments(tmp_path, log, protocol="time_split", min_history=0)
    schema_file(  # where the arguments say
        tmp_path, None if has_requests else "request", {"dtype": dtype, "positive": rule}
    )
    with inline():
        data = build_examples(arguments)
    assert 0 < sum(row[4] for row in labelled) < len(labelled)
    expected = impressions.split_requests(
        labelled,
        "time_split",
        MAX_LENGTH,
        min_history=0,
        cutoffs=tuple(data.manifest["cutoffs"].values()),
        aims_at_all=not has_requests,
    )
    assert_built(data, labelled, expected)


def test_a_rating_that_is_missing_or_no_number_is_rejected_and_counted(tmp_path):
    rows = _rows(users=40)
    log = _log(rows)
    log["click"] = ["", "nan", "four", *map(str, range(len(rows) - 3))]
    label = {"dtype": "float32", "positive": ">=100"}
    with inline():
        data = build_examples(_arguments(tmp_path, log, label=label, max_bad_fraction=0.1))
    account = data.manifest["conservation"]
    assert account["rejected"] == {
        "column 'click': missing value": 2,
        "column 'click': not a finite number": 1,
    }
    used = account["used"] + sum(account["filtered"].values())
    assert account["read"] == len(rows) == used + 3


def test_a_canonical_log_with_a_label_needs_no_schema(tmp_path, capsys):
    rows = _rows()
    log = {
        "user_id": [row[0] for row in rows],
        "item_id": [row[1] for row in rows],
        "label": [row[4] for row in rows],
        "timestamp": [row[2] for row in rows],
    }
    arguments = BuildArguments(
        input=write_log(tmp_path / "log.csv", log), output=str(tmp_path / "data"), num_shards=1
    )
    with inline():
        data = build_examples(arguments)
    assert '"role": "label"' in capsys.readouterr().out
    assert [feature.name for feature in data.schema.item_features] == ["item_id"]
    assert data.stats["splits"]["train"]["candidates"] == data.num_requests("train")
    assert audit(data.path) == {}


def test_a_log_without_positives_says_so_if_nothing_is_left_to_train_on(tmp_path):
    log = {**_log(rows := _rows()), "click": [0] * len(rows)}
    with inline(), pytest.raises(UserError, match="in a log with 0 positives.*check the label"):
        build_examples(_arguments(tmp_path, log, protocol="time_split"))


@pytest.mark.parametrize("label", [0, 1])
def test_labels_of_one_kind_are_built_and_said(tmp_path, label):
    log = {**_log(rows := _rows(users=40)), "click": [label] * len(rows)}
    with inline():
        data = build_examples(_arguments(tmp_path, log, protocol="time_split", min_history=0))
    assert data.findings[0].startswith(f"all {len(rows)} labels are {label}: ")
    assert any("no training request has a history" in line for line in data.findings) == (not label)
    assert audit(data.path) == {}


def test_an_empty_split_is_built_and_said(tmp_path):
    """Between two busy times lies one of users who did nothing before."""
    log = _log(rows := _rows(users=40))
    last = max(log["time"])
    new = {"user_id": [f"n{n}" for n in range(60)], "item_id": ["i1"] * 60, "price": [1] * 60}
    new |= {"hour": [1] * 60, "time": [last + 1] * 60, "click": [1] * 60}
    late = {name: [*values[:40]] for name, values in log.items()} | {"time": [last + 2] * 40}
    log = {name: [*log[name], *new[name], *late[name]] for name in log}
    size = len(rows) + 100
    with inline():
        data = build_examples(
            _arguments(
                tmp_path,
                log,
                protocol="time_split",
                split_fraction=1 - 50 / size,
                validation_fraction=60.5 / (size - 40),
            )
        )
    assert data.manifest["cutoffs"] == {"train_end": last, "validation_end": last + 1}
    assert data.num_requests("validation") == 0
    assert data.findings[0].startswith("validation has no requests")
    assert audit(data.path) == {}


def test_the_schema_on_disk_keeps_the_rule(tmp_path):
    rows = _rows()
    label = {"positive": " >= 1.0"}
    with inline():
        data = build_examples(_arguments(tmp_path, _log(rows), label=label))
    written = json.loads((data.path / "schema.json").read_text())
    assert [f["positive"] for f in written["features"] if "positive" in f] == [">=1"]
