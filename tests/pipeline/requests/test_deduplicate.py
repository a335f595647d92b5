"""A log that was delivered twice, in part or as a whole, is the log that was delivered once."""

import hashlib

import numpy as np
import pytest

from pipeline.arguments import BuildArguments
from pipeline.audit import audit
from pipeline.build_examples import build_examples
from preprocessing.errors import UserError
from tests.helpers import impression_logs
from tests.helpers.inline_runner import inline
from tests.helpers.small_logs import columns, random_events, write_log


def _built(tmp_path, name, **arguments):
    with inline():
        return build_examples(
            BuildArguments(output=str(tmp_path / name), num_shards=2, num_partitions=3, **arguments)
        )


def _content(data):
    """SHA-256 of what a model is trained on."""
    paths = [*data.path.glob("*.tfrecord.gz"), *(data.path / "vocab").iterdir()]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def _twice(tmp_path, log):
    """The log as a file, and the same file with a second one that repeats a part of its rows."""
    rows = np.random.default_rng(3).permutation(len(log["user_id"]))[:60]
    once = write_log(tmp_path / "log.csv", log)
    part = {name: [values[row] for row in rows] for name, values in log.items()}
    return once, f"{once},{write_log(tmp_path / 'part.csv', part)}", len(rows)


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"min_item_events": 3, "min_user_events": 3},
        {"min_item_events": 3, "min_user_events": 3, "core_filter": "fixed_point"},
        {"protocol": "time_split"},
        {"negative_sampling": "available_popularity"},
    ],
    ids=["all", "filters", "core", "time split", "available"],
)
def test_clicks_that_are_delivered_twice_count_once(tmp_path, more):
    once, twice, repeats = _twice(tmp_path, columns(random_events(users=40)))
    expected = _built(tmp_path, "once", input=once, **more)
    data = _built(tmp_path, "twice", input=twice, deduplicate=True, **more)
    assert _content(data) == _content(expected)
    filtered = data.manifest["conservation"]["filtered"]
    assert filtered.pop("duplicate") == repeats
    assert filtered == expected.manifest["conservation"]["filtered"]
    assert [file["used"] for file in data.manifest["inputs"]][1] == 0
    assert audit(data.path) == {}
    assert _content(_built(tmp_path, "as it is", input=twice, **more)) != _content(expected)


@pytest.mark.parametrize("without", [None, "request"])
def test_impressions_that_are_delivered_twice_count_once(tmp_path, without):
    rows = impression_logs.rows_of_impressions()
    rows = list({(user, item, time, label): row for row in rows
                 for user, item, time, _, label in [row]}.values())  # fmt: skip
    log = impression_logs.columns(rows)
    once, twice, repeats = _twice(tmp_path, log)
    schema = impression_logs.schema_file(tmp_path, without=without)
    expected = _built(tmp_path, "once", input=once, schema=schema)
    data = _built(tmp_path, "twice", input=twice, schema=schema, deduplicate=True)
    assert _content(data) == _content(expected)
    assert data.manifest["conservation"]["filtered"]["duplicate"] == repeats
    assert audit(data.path) == {}


def test_nothing_else_is_a_repetition(tmp_path):
    """The same item at another time, and another item at the same time, are events."""
    log = {
        "user_id": ["a"] * 6,
        "item_id": ["x", "y", "x", "x", "z", "y"],
        "timestamp": [1, 1, 2, 1, 3, 1],
    }
    path = write_log(tmp_path / "log.csv", log)
    data = _built(tmp_path, "data", input=path, deduplicate=True, negatives=0)
    assert data.manifest["conservation"] == {
        "read": 6, "used": 4, "filtered": {"duplicate": 2}, "rejected": {},
    }  # fmt: skip


def test_without_times_there_is_no_telling(tmp_path):
    path = write_log(tmp_path / "log.csv", {"user_id": ["a", "a"], "item_id": ["x", "x"]})
    with pytest.raises(UserError, match="--deduplicate: expected a log with a timestamp or a pos"):
        _built(tmp_path, "data", input=path, deduplicate=True)
