"""Impression logs: whole builds, compared with brute force.

Logs without request ids, whose rows are a request each, are in test_labelled_rows.py.
"""

import collections
import json
import shutil

import numpy as np
import pytest

from pipeline.arguments import BuildArguments
from pipeline.audit import audit
from pipeline.build_examples import build_examples
from preprocessing import dataset
from preprocessing.data_dir import DataDir
from preprocessing.errors import UserError
from tests.helpers.impression_logs import (
    MAX_LENGTH,
    assert_built,
    columns,
    rows_of_impressions,
    schema_file,
)
from tests.helpers.small_data_sets import read_examples, rewrite_split, shard_bytes
from tests.helpers.small_logs import write_log
from tests.reference import impressions


def _build(tmp_path, rows, output="data", schema=None, name="log.csv", **arguments):
    path = write_log(tmp_path / name, rows if isinstance(rows, dict) else columns(rows))
    return build_examples(
        BuildArguments(
            input=path,
            output=str(tmp_path / output),
            schema=schema or schema_file(tmp_path),
            **{"num_shards": 3, **arguments},
        )
    )


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("log.csv", {"protocol": "leave_last_out"}),
        ("log.jsonl", {"protocol": "leave_last_out", "train_prefixes": "all", "min_history": 2}),
        ("log.parquet", {"protocol": "time_split"}),
        ("log.csv", {"protocol": "time_split", "min_history": 0}),
    ],
)
def test_examples_are_those_of_brute_force(tmp_path, name, arguments):
    rows = rows_of_impressions()
    data = _build(tmp_path, rows, name=name, **arguments)
    cutoffs = tuple(data.manifest["cutoffs"].values())
    expected = impressions.split_requests(rows, max_length=MAX_LENGTH, cutoffs=cutoffs, **arguments)
    assert_built(data, rows, expected)
    assert audit(data.path) == {}


def test_vocabularies_hold_what_training_requests_show(tmp_path):
    rows = rows_of_impressions()
    data = _build(tmp_path, rows, protocol="leave_last_out")
    train = impressions.split_requests(rows, "leave_last_out", MAX_LENGTH)["train"]
    contained = {row for _, _, shown, history in train.values() for row in (*shown, *history)}
    counts = collections.Counter(row[1] for row in contained)
    words = sorted(counts, key=lambda word: (-counts[word], word.encode()))
    assert (data.vocab_dir / "item_id.txt").read_text().splitlines() == words
    users = sorted(user for user, _, _, _ in train.values())
    assert sorted((data.vocab_dir / "user_id.txt").read_text().splitlines()) == users


def test_the_order_of_candidates_does_not_tell_the_clicked_one(tmp_path):
    rows = sorted(rows_of_impressions(users=60), key=lambda row: (row[3], -row[4]))
    data = _build(tmp_path, rows, protocol="time_split", min_history=0)
    labels = [example["label"] for example in read_examples(data, "train").values()]
    mixed = [some for some in labels if len(some) > 1 and 0 < sum(some) < len(some)]
    assert 0.3 < np.mean([some[0] for some in mixed]) < 0.7


@pytest.mark.slow
def test_shards_do_not_depend_on_partitions_workers_or_file_order(tmp_path):
    rows = rows_of_impressions()
    path = write_log(tmp_path / "log.parquet", columns(rows))
    halves = [
        write_log(tmp_path / f"{n}.parquet", columns(half))
        for n, half in enumerate((rows[:150], rows[150:]))
    ]
    expected = shard_bytes(_build(tmp_path, rows, num_partitions=1).path)
    threads = ("--direct_num_workers=3", "--direct_running_mode=multi_threading")
    for number, more in enumerate(
        ({"input": path, "num_partitions": 4}, {"input": ",".join(halves), "beam_options": threads})
    ):
        output = tmp_path / f"other{number}"
        arguments = BuildArguments(
            output=str(output), schema=schema_file(tmp_path), num_shards=3, **more
        )
        assert shard_bytes(build_examples(arguments).path) == expected


def test_rows_that_contradict_their_request_are_rejected(tmp_path):
    log = columns(rows_of_impressions())
    bad = {
        "user_id": ["u0", "u1", "u1", "", "u1"],
        "item_id": ["i1"] * 5,
        "price": [1] * 5,
        "hour": [1, 1, 2, 1, 1],
        "time": [1] * 5,
        "session": ["new", "new", "new", "new", ""],
        "click": [0, 1, 1, 0, 0],
    }
    bad = {name: [*values, values[-1]] for name, values in bad.items()}
    bad["session"][-1], bad["click"][-1] = "other", 2
    log = {name: [*values, *bad[name]] for name, values in log.items()}
    data = _build(tmp_path, log, max_bad_fraction=0.1)
    rows = len(log["click"])
    rejected = [
        json.loads(line)
        for file in sorted((data.path / "rejected").iterdir())
        for line in file.read_text().splitlines()
    ]
    assert sorted((row["line"] - rows + 5, row["reason"]) for row in rejected) == [
        (2, "column 'user_id': another value than its request"),
        (3, "column 'user_id': another value than its request"),
        (4, "column 'user_id': missing value"),
        (5, "column 'session': missing value"),
        (6, "column 'click': neither 0 nor 1"),
    ]
    assert all(row["file"].endswith("log.csv") for row in rejected)
    assert sum(data.manifest["conservation"]["rejected"].values()) == 5


def test_filters_count_clicks_of_users_and_requests(tmp_path):
    rows = rows_of_impressions(users=30)
    data = _build(tmp_path, rows, min_user_events=6, max_user_events=5)
    clicks = collections.Counter(row[0] for row in rows if row[4])
    few = sum(clicks[row[0]] < 6 for row in rows)
    kept = [row for row in rows if clicks[row[0]] >= 6]
    recent = {
        group[0][3]
        for requests in impressions.requests_by_user(kept).values()
        for _, group in requests[-5:]
    }
    account = data.manifest["conservation"]["filtered"]
    assert account["min_user_events"] == few > 0
    assert account["max_user_events"] == sum(row[3] not in recent for row in kept) > 0


@pytest.mark.parametrize(
    ("without", "arguments", "message"),
    [
        ("label", {}, "found only 'session'. Fix: add the feature of role 'label'"),
        ("timestamp", {}, "Expected a feature of role 'timestamp'"),
        (None, {"negatives": 4}, "--negatives=4: expected no such flag for an impression log"),
        (None, {"min_item_events": 2}, "--min_item_events=2: expected no such flag"),
    ],
)
def test_what_an_impression_log_cannot_do_is_explained(tmp_path, without, arguments, message):
    schema = schema_file(tmp_path, without)
    with pytest.raises(UserError, match=message):
        _build(tmp_path, rows_of_impressions(), schema=schema, **arguments)


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    directory = tmp_path_factory.mktemp("sound")
    return _build(directory, rows_of_impressions(users=40), num_shards=1, train_prefixes="all").path


def _late_step(example):
    steps = example.feature_lists.feature_list["history/timestamp"].feature
    steps[-1].int64_list.value[0] = example.context.feature["timestamp"].int64_list.value[0]


def _lose_a_step(example):
    for steps in example.feature_lists.feature_list.values():
        del steps.feature[-1]


def _other_label(example):
    example.context.feature["label"].int64_list.value[0] = 2


def _no_click(example):
    values = example.context.feature["label"].int64_list.value
    values[:] = [0] * len(values)


@pytest.mark.parametrize(
    ("change", "check"),
    [
        (_late_step, "order"),
        (_lose_a_step, "complete"),
        (_other_label, "candidates"),
        (_no_click, "protocol"),
    ],
)
def test_the_auditor_finds_what_was_tampered_with(sound, tmp_path, change, check):
    data = DataDir.open(shutil.copytree(sound, tmp_path / "data"))
    assert audit(data.path) == {}

    def change_longest(examples):
        steps = (example.feature_lists.feature_list["history/timestamp"] for example in examples)
        lengths = [len(some.feature) for some in steps]
        change(examples[lengths.index(max(lengths))])

    rewrite_split(data, "test", change_longest)
    findings = audit(data.path)
    assert check in findings
    assert findings[check].examples


def test_models_train_on_requests_of_many_sizes(sound):
    batches = dataset.read(DataDir.open(sound), "train", batch_size=16, shuffle_seed=1)
    sizes = set()
    for batch in batches:
        candidates = np.count_nonzero(batch["candidate/item_id"], axis=1)
        sizes |= set(candidates.tolist())
        assert batch["label"].shape == batch["candidate/item_id"].shape
    assert len(sizes) > 2
