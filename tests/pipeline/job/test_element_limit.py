"""No element of a pipeline grows with the log: builds with a small limit give the same bytes."""

import numpy as np
import pytest

from pipeline.arguments import BuildArguments
from pipeline.build_examples import build_examples
from pipeline.job import build
from pipeline.requests import events, time_bins
from tests.helpers import expiring
from tests.helpers.inline_runner import LargeElementError, inline
from tests.helpers.small_logs import write_log

MOST_BYTES = 1 << 16
EVENTS = 12_000


def _log(path, users, items, seed=0):
    """As many distinct times as events, far apart and close together."""
    rng = np.random.default_rng(seed)
    times = np.where(np.arange(EVENTS) % 2, 10**9, 1) + np.arange(EVENTS) * 7
    times[0] = -(10**15)
    return write_log(
        path,
        {
            "user_id": [f"user {n}" for n in rng.integers(0, users, EVENTS)],
            "item_id": [f"item {n}" for n in rng.integers(0, items, EVENTS)],
            "timestamp": rng.permutation(times).tolist(),
        },
    )


def _build(tmp_path, output, most_bytes, users=50, items=300, **arguments):
    path = _log(tmp_path / "log.parquet", users, items)
    with inline(0, most_bytes):
        return build_examples(
            BuildArguments(input=path, output=str(tmp_path / output), num_shards=2, **arguments)
        )


def _content(data):
    return {
        str(path.relative_to(data.path)): path.read_bytes()
        for path in data.path.rglob("*")
        if path.is_file() and path.suffix not in (".html", ".md")
    }


@pytest.mark.parametrize("arguments", [{"protocol": "time_split"}, {"protocol": "day"}])
def test_times_pass_a_small_limit(tmp_path, monkeypatch, arguments):
    arguments = {"num_partitions": 3, **arguments}
    whole = _build(tmp_path, "whole", None, **arguments)
    with pytest.raises(LargeElementError):
        _build(tmp_path, "refused", MOST_BYTES, **arguments)
    monkeypatch.setattr(time_bins, "MAX_BINS", 1000)
    assert _content(_build(tmp_path, "small", MOST_BYTES, **arguments)) == _content(whole)


@pytest.mark.parametrize(
    "arguments",
    [
        {"protocol": "leave_last_out", "users": 3000, "items": 4000},
        {"protocol": "time_split", "users": 4000, "items": 3000, "train_from": "10"},
        {"protocol": "leave_last_out", "users": 2000, "items": 4000, "min_item_events": 2}
        | {"core_filter": "fixed_point", "negative_sampling": "available"},
    ],
)
def test_users_and_items_pass_a_small_limit(tmp_path, monkeypatch, arguments):
    arguments = {"num_partitions": 64, **arguments}
    monkeypatch.setattr(time_bins, "MAX_BINS", 1000)
    monkeypatch.setattr(events, "PARTITIONS_PER_BUCKET", 64)
    whole = _build(tmp_path, "whole", None, **arguments)
    with pytest.raises(LargeElementError):
        _build(tmp_path, "refused", MOST_BYTES, **arguments)
    monkeypatch.setattr(events, "PARTITIONS_PER_BUCKET", 4)
    assert _content(_build(tmp_path, "small", MOST_BYTES, **arguments)) == _content(whole)


def test_a_base_and_what_expires_are_the_same_in_buckets(tmp_path, monkeypatch):
    monkeypatch.setattr(build, "_SMALL_PARTITION_BYTES", 500)
    contents = []
    for name, per_bucket in (("whole", 16), ("small", 1)):
        monkeypatch.setattr(events, "PARTITIONS_PER_BUCKET", per_bucket)
        directory = tmp_path / name
        directory.mkdir()
        sets = expiring.chain(directory, (0, 3, 5, 7))
        assert sets[-1].manifest["tails"]["num_files"] == 8
        content = [_content(data) for data in sets]
        for files in content:
            del files["manifest.json"]  # it names the directories
        contents.append(content)
    assert contents[0] == contents[1]
