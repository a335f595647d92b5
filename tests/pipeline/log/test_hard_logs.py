"""Logs with a huge user or huge ids, and logs in many parts."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from pipeline import build_examples as build
from pipeline.arguments import BuildArguments
from pipeline.audit import audit
from pipeline.job import build as stages
from pipeline.log import csv_ranges
from tests.helpers.small_data_sets import read_examples, shard_bytes

EVENTS = 1_000_000


def _arguments(tmp_path, log, output="data", **arguments):
    return BuildArguments(input=str(log), output=str(tmp_path / output), num_shards=2, **arguments)


@pytest.mark.slow
def test_of_a_user_with_a_million_events_the_most_recent_are_kept(tmp_path):
    few = [("a", f"i{n}", n) for n in range(5)]
    user = pa.array(["a"] * len(few) + ["robot"]).take(
        pa.array(np.repeat([*range(len(few)), len(few)], [1] * len(few) + [EVENTS]))
    )
    item = np.append(np.arange(len(few)), np.arange(EVENTS) % 50_000)
    table = pa.table(
        {
            "user_id": user,
            "item_id": pa.array(item).cast(pa.string()),
            "timestamp": np.append(np.arange(len(few)), np.arange(EVENTS)),
        }
    )
    pa.parquet.write_table(table, tmp_path / "log.parquet")
    data = build.build_examples(_arguments(tmp_path, tmp_path / "log.parquet"))
    account = data.manifest["conservation"]
    assert account["read"] == EVENTS + len(few)
    assert account["filtered"]["max_user_events"] == EVENTS - 10_000
    example = read_examples(data, "test")["robot:9999"]
    assert example["history/timestamp"] == list(range(EVENTS - 51, EVENTS - 1))
    assert example["timestamp"] == [EVENTS - 1]


def test_an_id_of_ten_kilobytes_is_an_id_like_any_other(tmp_path):
    long_item, long_user = "i" * 10_000, "ü" * 5_000
    rows = [(user, f"i{n}", n) for user in ("a", "b") for n in range(5)]
    rows += [(long_user, item, 9) for item in (long_item, "i7", "i8", "i1")]
    lines = ["user_id,item_id,timestamp", *(",".join(map(str, row)) for row in rows)]
    log = tmp_path / "log.csv"
    log.write_text("\n".join(lines), encoding="utf-8")
    data = build.build_examples(_arguments(tmp_path, log))
    assert audit(data.path) == {}
    assert long_item in (data.vocab_dir / "item_id.txt").read_text(encoding="utf-8").splitlines()
    example = read_examples(data, "test")[f"{long_user}:3"]
    items = data.encoders["item_id"].decode(np.array(example["history/item_id"]))
    assert items.tolist()[:2] == [long_item, "i7"]  # the third is of no training request


def test_shards_do_not_depend_on_how_the_log_is_cut_and_dealt(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    lines = [
        f"u{rng.integers(40)},i{rng.integers(60)},{n}" + ",bad" * (n % 200 == 7)
        for n in range(1000)
    ]
    log = tmp_path / "log.csv"
    log.write_text("\n".join(["user_id,item_id,timestamp", *lines]) + "\n")
    arguments = {"protocol": "time_split", "negatives": 2}
    whole = build.build_examples(_arguments(tmp_path, log, "whole", **arguments))
    monkeypatch.setattr(csv_ranges, "RANGE_BYTES", 3000)
    monkeypatch.setattr(stages, "_SMALL_PARTITION_BYTES", 2000)
    cut = build.build_examples(_arguments(tmp_path, log, "cut", **arguments))
    assert shard_bytes(cut.path) == shard_bytes(whole.path)
    # Tails are kept in files of their own for each part that the log is dealt into.
    manifests = [{**each.manifest, "tails": ""} for each in (cut, whole)]
    assert manifests[0] == manifests[1]
    rejected = [
        sorted(line for path in data.path.glob("rejected/*") for line in path.open())
        for data in (whole, cut)
    ]
    assert rejected[0] == rejected[1]
    assert len(rejected[0]) == 5
