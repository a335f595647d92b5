"""The number of shards follows from the size of the data, and from nothing else."""

import pytest

from pipeline.arguments import DEFAULT_SHARDS, BuildArguments
from pipeline.build_examples import build_examples
from pipeline.requests import shard_sizes
from preprocessing import splits
from tests.helpers import built_logs, many_logs
from tests.helpers.inline_runner import inline
from tests.helpers.small_data_sets import shard_bytes
from tests.helpers.small_logs import columns, random_events, write_log


def _sizes(data):
    return {
        split: sum(shard["bytes"] for shard in data.manifest["splits"][split]["shards"])
        for split in splits.SPLITS
    }


def _estimate(data):
    counters = {}
    for split in splits.SPLITS:
        described = data.stats["splits"][split]
        lengths = described["history_length"].items()
        steps = sum(int(length) * count for length, count in lengths)
        for what, number in (
            ("requests", described["requests"]),
            ("steps", steps),
            ("candidates", described["candidates"]),
        ):
            counters[f"size/{split}/{what}"] = number
    return shard_sizes.estimate(data.schema, counters, data.stats["cardinality"])


@pytest.mark.parametrize("protocol", ["leave_last_out", "time_split"])
def test_the_estimate_is_right_within_a_half(tmp_path, protocol):
    data = built_logs.of_300_users(tmp_path, protocol=protocol, train_prefixes="all", num_shards=1)
    sizes = _sizes(data)
    for split, estimated in _estimate(data).items():
        assert sizes[split] / 1.5 < estimated < sizes[split] * 1.5


def _build(tmp_path, name, order=0, **arguments):
    log = tmp_path / "log.csv"
    if not log.exists():  # a log that was written later is another one
        write_log(log, columns(random_events()))
    with inline(order):
        return build_examples(
            BuildArguments(
                input=str(log), output=str(tmp_path / name), protocol="time_split", **arguments
            )
        )


def test_a_small_log_has_as_many_as_ever(tmp_path):
    data = _build(tmp_path, "data")
    assert [len(data.shards(split)) for split in splits.SPLITS] == [DEFAULT_SHARDS, 4, 4]
    assert data.manifest["arguments"]["num_shards"] == DEFAULT_SHARDS
    assert shard_bytes(_build(tmp_path, "asked", num_shards=16).path) == shard_bytes(data.path)


def test_a_large_log_has_more_whoever_builds_it(tmp_path, monkeypatch):
    monkeypatch.setattr(shard_sizes, "SHARD_BYTES", 600)
    data = _build(tmp_path, "data")
    number = data.manifest["arguments"]["num_shards"]
    estimated = _estimate(data)
    assert number > DEFAULT_SHARDS
    assert number == shard_sizes.num_shards(estimated)
    assert estimated["train"] <= 600 * len(data.shards("train"))
    assert max(estimated["validation"], estimated["test"]) <= 600 * len(data.shards("test"))
    for order, partitions in ((1, 1), (2, 7)):
        other = _build(tmp_path, f"other-{order}", order, num_partitions=partitions)
        assert shard_bytes(other.path) == shard_bytes(data.path)
    asked = _build(tmp_path, "asked", num_shards=number)
    assert shard_bytes(asked.path) == shard_bytes(data.path)
    assert asked.manifest["arguments"] == data.manifest["arguments"]


def test_impressions_are_counted_too(tmp_path, monkeypatch):
    monkeypatch.setattr(shard_sizes, "SHARD_BYTES", 1000)
    content = many_logs.schema()
    content["features"].append({"name": "label", "role": "label", "dtype": "int64"})
    log = many_logs.rows(longest=14)
    for number, row in enumerate(log):
        row["label"] = number % 2
    arguments = {"negatives": 0, "protocol": "time_split", "train_prefixes": "last"}
    data = many_logs.write_data(tmp_path, log, content, num_shards=None, **arguments)
    assert data.manifest["arguments"]["num_shards"] == shard_sizes.num_shards(_estimate(data))


@pytest.mark.parametrize("shard_size", [600, 256 << 20])
def test_a_complete_data_set_is_not_built_again(tmp_path, monkeypatch, capfd, shard_size):
    monkeypatch.setattr(shard_sizes, "SHARD_BYTES", shard_size)
    _build(tmp_path, "data")
    _build(tmp_path, "data", resume=True)
    assert "is complete: nothing to resume" in capfd.readouterr().err
