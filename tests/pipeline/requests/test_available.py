"""Negatives that had appeared by the time of their request: frequencies, order, the audit.

That no other item is drawn, and which requests are left out, is compared with brute force on nasty
logs in test_properties_job.py.
"""

import collections
import json
import shutil

import numpy as np
import pytest
from scipy.stats import chisquare

from pipeline.arguments import BuildArguments
from pipeline.audit import Audit
from pipeline.build_examples import build_examples
from pipeline.experiments import TABLES, planned_runs
from pipeline.requests import appearances
from pipeline.requests.event_order import Places
from preprocessing.data_dir import DataDir
from preprocessing.errors import UserError
from tests.helpers.inline_runner import inline
from tests.helpers.small_data_sets import read_examples, rewrite_split
from tests.helpers.small_logs import columns, random_events, write_log
from tests.reference.job import Job

MODES = ("available", "available_popularity")


def _build(directory, events, sampling, names=("user_id", "item_id", "timestamp"), **arguments):
    """Builds from (user, item, time); `number` tells unknown items of candidates apart, too."""
    vocabulary = {"kind": "vocabulary"}
    number = {"kind": "numeric", "normalisation": "none"}
    features = [
        {"name": "user_id", "role": "user", "dtype": "string", "encoder": vocabulary},
        {"name": "item_id", "role": "item", "dtype": "string", "encoder": vocabulary},
        {"name": "number", "role": "item", "dtype": "float32", "encoder": number},
        {"name": "timestamp", "role": "timestamp", "dtype": "int64"},
    ]
    schema = directory / "schema.json"
    schema.write_text(json.dumps({"features": features[: 1 + len(names)]}))
    log = {name: [event[place] for event in events] for place, name in enumerate(names)}
    log["number"] = [int(item[1:]) for item in log["item_id"]]
    with inline():
        return build_examples(
            BuildArguments(
                input=write_log(directory / "log.parquet", log),
                output=str(directory / sampling),
                schema=str(schema),
                num_shards=1,
                negative_sampling=sampling,
                **arguments,
            )
        )


def _job(events, **arguments):
    rows = [(*event, "", row) for row, event in enumerate(events)]
    return Job(rows, max_length=100, split_fraction=0.8, only_available=True, **arguments)


def _negatives(example):
    candidates = zip(example["candidate/number"], example["label"], strict=True)
    return [f"i{int(number)}" for number, label in candidates if not label]


SPARSE = [
    *(("first", f"i{60 + n}", 0) for n in range(5)),  # nobody else has clicked anything by then
    *random_events(seed=4, users=40, items=50),
]


def _crowded():
    """400 users with the same two items, after some clicks on eight others and before many more."""
    rng = np.random.default_rng(0)
    items = rng.choice(8, 400, p=np.arange(1, 9) / 36)
    early = [(f"early{n % 80}", f"i{item}", n) for n, item in enumerate(items)]
    crowd = [(f"u{n}", item, 1000) for n in range(400) for item in ("i100", "i101")]
    return early + crowd + [(f"late{n % 9}", f"i{200 + n}", 2000 + n) for n in range(600)]


@pytest.fixture(scope="module")
def crowded(tmp_path_factory):
    directory = tmp_path_factory.mktemp("crowded")
    arguments = {"protocol": "time_split", "validation_fraction": 0.01}
    return {mode: _build(directory, _crowded(), mode, **arguments) for mode in MODES}


@pytest.fixture(scope="module")
def crowded_job():
    return _job(_crowded(), protocol="time_split", validation_fraction=0.01, negatives=1)


@pytest.mark.parametrize("mode", MODES)
def test_items_are_drawn_alike_or_by_their_counts_so_far(crowded, crowded_job, mode):
    job = crowded_job
    positive = next(some[0] for name, some in job.requests["train"].items() if name[0] == "u")
    drawable = sorted(job.drawable("train", positive))
    assert drawable == [f"i{n}" for n in range(8)]
    so_far = collections.Counter(event[1] for event in job.appeared("train", positive))
    weights = {"available": np.ones(8), "available_popularity": [so_far[i] for i in drawable]}

    examples = read_examples(crowded[mode], "train")
    drawn = collections.Counter(
        item for name, example in examples.items() if name[0] == "u" for item in _negatives(example)
    )
    assert sorted(drawn) == drawable
    for kind, some in weights.items():
        expected = np.array(some) / np.sum(some) * drawn.total()
        p_value = chisquare([drawn[item] for item in drawable], expected).pvalue
        assert p_value > 0.01 if kind == mode else p_value < 1e-6


@pytest.mark.parametrize("mode", MODES)
def test_in_a_log_without_times_items_appear_in_the_order_of_rows(tmp_path, mode):
    events = [(user, item, 0) for user, item, _ in random_events(seed=3, users=30, items=60)]
    data = _build(
        tmp_path, events, mode, names=("user_id", "item_id"), train_prefixes="all", negatives=2
    )
    job = _job(
        events,
        protocol="leave_last_out",
        train_prefixes="all",
        negatives=2,
        validation_fraction=0.1,
    )
    for split, requests in job.requests.items():
        examples = read_examples(data, split)
        assert examples.keys() == requests.keys()
        for name, (positive, _) in requests.items():
            assert set(_negatives(examples[name])) <= job.drawable(split, positive)
    audited = Audit(data.path)
    assert audited.run() == {}
    assert "available    not proved: the log has no times" in audited.remarks()


@pytest.fixture(scope="module")
def sparse(tmp_path_factory):
    """The first requests of all come before any item that they could draw."""
    directory = tmp_path_factory.mktemp("sparse")
    return _build(directory, SPARSE, "available", train_prefixes="all")


def test_what_is_left_out_is_counted_and_said(sparse):
    job = _job(
        SPARSE,
        protocol="leave_last_out",
        train_prefixes="all",
        negatives=1,
        validation_fraction=0.1,
    )
    left_out = {name: split["requests_left_out"] for name, split in sparse.stats["splits"].items()}
    assert left_out == job.left_out
    assert left_out["train"] > 0
    assert sparse.findings[0].startswith(f"train leaves out {left_out['train']} of ")


def test_the_audit_finds_a_negative_that_had_not_appeared(sparse, tmp_path):
    data = DataDir.open(shutil.copytree(sparse.path, tmp_path / "data"))
    latest = {}

    def see(examples):
        for example in examples:
            values = {key: f.int64_list.value for key, f in example.context.feature.items()}
            item = values["candidate/item_id"][list(values["label"]).index(1)]
            latest[item] = min(latest.get(item, 10**9), values["timestamp"][0])
            steps = example.feature_lists.feature_list
            for step, time in zip(
                steps["history/item_id"].feature, steps["history/timestamp"].feature, strict=True
            ):
                (item,), (time,) = step.int64_list.value, time.int64_list.value
                latest[item] = min(latest.get(item, 10**9), time)

    def change(examples):
        example = min(examples, key=lambda e: e.context.feature["timestamp"].int64_list.value[0])
        values = {key: f.int64_list.value for key, f in example.context.feature.items()}
        item = max((i for i in latest if i > 1), key=latest.get)
        assert latest[item] > values["timestamp"][0]
        values["candidate/item_id"][list(values["label"]).index(0)] = item

    rewrite_split(data, "train", see)
    assert Audit(data.path).run() == {}
    rewrite_split(data, "train", change)
    finding = Audit(data.path).run()["available"]
    assert finding.count == 1
    assert finding.examples[0].endswith("a negative had not appeared by then")


def test_runs_are_merged_in_blocks(tmp_path, monkeypatch):
    """However small the blocks are, the same bytes follow."""
    events = random_events(seed=5, users=40, days=9)  # many ties
    shards = []
    for block in (16_384, 3):
        monkeypatch.setattr(appearances, "_BLOCK", block)
        directory = tmp_path / str(block)
        directory.mkdir()
        data = _build(directory, events, MODES[1], num_partitions=5, train_prefixes="all")
        shards.append([path.read_bytes() for path in data.shards("train")])
    assert shards[0] == shards[1]


def test_places_are_found_by_time_and_then_by_row():
    rng = np.random.default_rng(0)
    places = Places(rng.integers(0, 5, 60), rng.permutation(60))
    ordered = places.take(places.order())
    pairs = list(zip(*ordered, strict=True))
    assert pairs == sorted(pairs)
    wanted = Places(rng.integers(-1, 6, 99), rng.integers(-1, 61, 99))
    expected = [sum(pair <= one for pair in pairs) for one in zip(*wanted, strict=True)]
    assert ordered.up_to(wanted).tolist() == expected


def test_places_of_a_user_alone_are_refused(tmp_path):
    log = columns(random_events())
    log["position"] = log.pop("timestamp")
    with pytest.raises(
        UserError, match="available: expected times that users share, found position"
    ):
        build_examples(
            BuildArguments(
                input=write_log(tmp_path / "log.csv", log),
                output=str(tmp_path / "data"),
                negative_sampling="available",
            )
        )


def test_experiments_take_such_data(crowded):
    (named,) = planned_runs.open_data([str(crowded["available"].path)], TABLES["deminet/2"])
    assert named.data.manifest["arguments"]["negative_sampling"] == "available"
