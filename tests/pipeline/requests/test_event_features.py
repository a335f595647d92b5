"""Features of events from the log to the examples: values, vocabularies, gaps, bytes, audits."""

import datetime
import json

import numpy as np
import pyarrow as pa
import pytest

from pipeline import audit, validate
from preprocessing import dataset, splits
from preprocessing.data_dir import DataDir
from preprocessing.features.feature import UNITS
from preprocessing.storage.tfrecord import read_records
from tests.helpers import event_logs


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return event_logs.write_data(tmp_path_factory.mktemp("events"))


def _requests(data, split="train"):
    """The examples of a split as (request id, features with times of events), padding cut."""
    import tensorflow as tf

    records = [record for shard in data.shards(split) for record in read_records(shard)]
    parsed = dataset.parse(data.schema, tf.constant(records), with_event_times=True)
    arrays = {key: value.numpy() for key, value in parsed.items()}
    for row, name in enumerate(arrays["request_id"]):
        length = np.count_nonzero(arrays["history/item_id"][row])
        yield (
            name.decode(),
            {
                key: values[row][:length] if key.startswith("history/") else values[row]
                for key, values in arrays.items()
            },
        )


def _log_of_users():
    log = event_logs.rows()
    by_user = {}
    for row in log:
        by_user.setdefault(row["user_id"], []).append(row)
    return by_user


def test_steps_have_the_values_of_their_rows_and_candidates_have_none(data):
    by_user = _log_of_users()
    count = 0
    for split in splits.SPLITS:
        for name, request in _requests(data, split):
            user, index = name.split(":")
            steps = by_user[user][max(0, int(index) - 6) : int(index)]
            for feature in ("action", "coupon", "dwell", "price"):
                raw = [row[feature] for row in steps]
                expected = data.encoders[feature].encode(raw)
                np.testing.assert_array_equal(request[f"history/{feature}"], expected)
                assert f"candidate/{feature}" not in request
                assert feature not in request
            count += 1
    assert count > 100


def test_times_give_gaps_hours_and_weekdays(data):
    by_user = _log_of_users()
    for name, request in _requests(data):
        user, index = name.split(":")
        row = by_user[user][int(index)]
        steps = by_user[user][max(0, int(index) - 6) : int(index)]
        moment = datetime.datetime.fromtimestamp(row["timestamp"], datetime.timezone.utc)
        assert request["hour"] == 2 + moment.hour
        assert request["weekday"] == 2 + moment.weekday()
        ages = [2 + (row["timestamp"] - step["timestamp"]).bit_length() for step in steps]
        np.testing.assert_array_equal(request["history/age"], ages)
        pauses = [
            2 + (later["timestamp"] - step["timestamp"]).bit_length()
            for step, later in zip(steps, steps[1:], strict=False)
        ]
        np.testing.assert_array_equal(request["history/pause"], [0, *pauses])


def test_a_vocabulary_of_events_counts_events_of_training_histories_once(tmp_path):
    log = event_logs.rows()
    for row in log:
        row["action"] = f"{row['user_id']}-{row['timestamp']}-{row['item_id']}"
    data = event_logs.write_data(tmp_path, event_logs.ACTION, log=log)
    held = {i for _, request in _requests(data) for i in request["history/action"].tolist()}
    assert held == set(range(2, data.encoders["action"].cardinality))


def test_the_audit_confirms_all(data):
    assert audit.audit(data.path) == {}


@pytest.mark.parametrize("feature", ["age", "pause", "hour", "weekday"])
def test_the_audit_finds_a_wrong_bucket(tmp_path, feature, monkeypatch):
    built = event_logs.write_data(tmp_path)
    audited = audit.Audit(built.path)
    batches = audit.request_batches

    def changed(data, split):
        for batch in batches(data, split):
            key = feature if feature in batch.values else f"history/{feature}"
            batch.values[key][...] = np.where(batch.values[key] > 3, 3, 4)
            yield batch

    monkeypatch.setattr(audit, "request_batches", changed)
    findings = audited.run()
    assert "does not follow from its times" in findings["times"].examples[0]


def test_formats_and_workers_give_the_same_bytes(tmp_path):
    shards = set()
    for number, name in enumerate(("log.csv", "log.jsonl", "log.parquet", "log.csv.gz")):
        path = tmp_path / str(number)
        path.mkdir()
        log = event_logs.write(path / name, event_logs.rows())
        built = event_logs.write_data(path, input=log, num_partitions=1 + 3 * number)
        files = built.manifest["files"]
        hashes = {s["sha256"] for part in built.manifest["splits"].values() for s in part["shards"]}
        shards.add((frozenset(hashes), json.dumps(files, sort_keys=True)))
    assert len(shards) == 1


@pytest.mark.parametrize("unit", ["seconds", "milliseconds", "microseconds", "nanoseconds"])
def test_units_change_nothing_but_the_times(tmp_path, unit):
    factor = UNITS[unit]
    log = [row | {"timestamp": row["timestamp"] * factor + factor - 1} for row in event_logs.rows()]
    content = event_logs.schema(*event_logs.TIMES, unit=unit)
    scaled = event_logs.write_data(tmp_path / "scaled", content=content, log=log)
    plain = event_logs.write_data(tmp_path / "plain", *event_logs.TIMES)
    ours, theirs = (dict(_requests(each)) for each in (scaled, plain))
    assert ours.keys() == theirs.keys()
    for name, request in ours.items():
        for key in ("history/age", "history/pause", "hour", "weekday"):
            np.testing.assert_array_equal(request[key], theirs[name][key])


def test_dates_are_microseconds(tmp_path):
    log = event_logs.rows()
    for row in log:
        row["timestamp"] = datetime.datetime.fromtimestamp(row["timestamp"], datetime.timezone.utc)
    content = event_logs.schema(*event_logs.TIMES, unit=None)
    content["features"][3]["dtype"] = "datetime"
    dates = event_logs.write_data(tmp_path / "dates", content=content, log=log)
    plain = event_logs.write_data(tmp_path / "plain", *event_logs.TIMES)
    ours, theirs = (dict(_requests(each)) for each in (dates, plain))
    for name, request in ours.items():
        for key in ("history/age", "history/pause", "hour", "weekday"):
            np.testing.assert_array_equal(request[key], theirs[name][key])
    assert audit.audit(dates.path) == {}


def test_impression_logs_have_them_too(tmp_path):
    log = event_logs.rows()
    for number, row in enumerate(log):
        row["label"] = int(number % 3 > 0)
    content = event_logs.schema(*event_logs.EVENTS, *event_logs.TIMES)
    content["features"].append({"name": "label", "role": "label", "dtype": "int64"})
    data = event_logs.write_data(tmp_path, content=content, log=log, negatives=0)
    assert audit.audit(data.path) == {}
    by_user = _log_of_users()
    for name, request in _requests(data, "test"):
        user, index = name.split(":")
        row = by_user[user][int(index)]
        times = request["history/timestamp"]
        ages = [2 + int(row["timestamp"] - time).bit_length() for time in times]
        np.testing.assert_array_equal(request["history/age"], ages)
        pauses = [2 + int(gap).bit_length() for gap in np.diff(times)]
        np.testing.assert_array_equal(request["history/pause"][1:], pauses)
        assert not request["history/pause"][:1].any()


def test_requests_of_several_candidates_have_one_time(tmp_path):
    log = event_logs.rows(longest=20)
    for number, row in enumerate(log):
        row |= {"label": number % 2, "session": f"{row['user_id']}-{number // 2}"}
    content = event_logs.schema(*event_logs.TIMES)
    content["features"] += [
        {"name": "label", "role": "label", "dtype": "int64"},
        {"name": "session", "role": "request", "dtype": "string"},
    ]
    data = event_logs.write_data(tmp_path, content=content, log=log, negatives=0)
    assert audit.audit(data.path) == {}
    assert data.num_requests("train")


def test_views_carts_and_purchases_stand_in_one_history(tmp_path):
    content = event_logs.schema(event_logs.ACTION)
    content["history"]["behaviours"] = {"column": "action", "values": ["view", "buy"]}
    data = event_logs.write_data(tmp_path, content=content)
    assert set(data.encoders["action"].vocabulary.to_pylist()) == {"view", "buy"}


def test_a_schema_without_them_gives_the_bytes_of_before(tmp_path):
    plain = event_logs.write_data(tmp_path / "plain", content=event_logs.schema(unit=None))
    more = event_logs.write_data(tmp_path / "more", *event_logs.EVENTS, event_logs.AGE)
    for (name, before), (other, after) in zip(_requests(plain), _requests(more), strict=True):
        assert name == other
        for key, values in before.items():
            np.testing.assert_array_equal(values, after[key])


def test_drift_compares_events_and_gaps(data, tmp_path):
    other = event_logs.write_data(tmp_path, log=event_logs.rows(seed=3))
    drifts = {drift.name: drift for drift in validate.compare(data, other)}
    for name in ("action", "coupon", "dwell", "price", "age", "pause", "hour", "weekday"):
        assert 0.0 <= drifts[name].distance <= 1.0
    assert all(drift.distance == 0 for drift in validate.compare(data, data))


def test_statistics_of_gaps_are_lower_ends_of_intervals(data):
    described = data.stats["splits"]["train"]["features"]["history/age"]
    steps = sum(len(request["history/age"]) for _, request in _requests(data))
    assert described["count"] == steps
    assert set(described["percentiles"]) <= {0.0, *(float(1 << k) for k in range(30))}
    pauses = data.stats["splits"]["train"]["features"]["history/pause"]
    assert pauses["missing"] == data.num_requests("train")


def test_open_data_sets_know_their_events(data):
    opened = DataDir.open(data.path)
    assert [feature.name for feature in opened.schema.event_features] == [
        "action", "age", "coupon", "dwell", "pause", "price",
    ]  # fmt: skip
    assert pa.types.is_large_string(opened.encoders["action"].vocabulary.type)
