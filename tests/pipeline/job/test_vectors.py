"""Builds of logs with vectors: equal bytes, and what NumPy says."""

import collections
import json

import numpy as np
import pyarrow as pa
import pytest

from pipeline.audit import audit
from pipeline.validate import compare
from preprocessing.errors import UserError
from preprocessing.storage.tfrecord import read_records
from tests.helpers import built_logs, vector_logs
from tests.helpers.small_data_sets import shard_bytes
from tests.helpers.vector_logs import PROFILE, SEARCH, SIZES, TEXT


@pytest.mark.parametrize(
    ("name", "form"),
    [("log.csv", " "), ("log.csv", ", "), ("log.csv", ";"), ("log.jsonl", "lists"),
     ("log.jsonl", "|"), ("log.parquet", "fixed"), ("log.parquet", ",")],
)  # fmt: skip
def test_every_format_gives_the_same_bytes(tmp_path, name, form):
    log = vector_logs.rows()
    for row in log if form == "fixed" else ():
        row[PROFILE] = row[PROFILE] or [0.0, 0.5, 1.0]
    expected = vector_logs.write_data(tmp_path / "a", log)
    source = vector_logs.write(tmp_path / name, log, form)
    found = vector_logs.write_data(tmp_path / "b", input=source)
    assert shard_bytes(found.path) == shard_bytes(expected.path)
    assert found.stats == expected.stats


def test_missing_lists_of_a_fixed_size_are_pointed_out(tmp_path):
    source = vector_logs.write(tmp_path / "log.parquet", vector_logs.rows(), "fixed")
    with pytest.raises(UserError, match="rows without one, .* write the column as lists of any"):
        vector_logs.write_data(tmp_path / "b", input=source)


def test_csv_of_data_frames_with_brackets(tmp_path):
    expected = vector_logs.write_data(tmp_path / "a")
    source = vector_logs.write(tmp_path / "log.csv", vector_logs.rows())
    assert '"[' in (tmp_path / "log.csv").read_text()
    found = vector_logs.write_data(tmp_path / "b", input=source)
    assert shard_bytes(found.path) == shard_bytes(expected.path)


def test_partitions_and_the_order_of_elements_change_no_byte(tmp_path):
    built_logs.require_any_order(vector_logs.write_data, tmp_path)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    log = vector_logs.rows()
    return log, vector_logs.write_data(tmp_path_factory.mktemp("vectors"), log)


def _examples(data, split):
    import tensorflow as tf

    for path in data.shards(split):
        for record in read_records(path):
            yield tf.train.SequenceExample.FromString(record)


def _numbers(data, name, stored):
    dtype = data.schema[name].encoder.storage
    numbers = np.frombuffer(b"".join(stored), dtype).reshape(-1, SIZES[name])
    return numbers.astype(np.float64) * data.encoders[name].norm


def test_examples_hold_the_vectors_of_the_log(built):
    log, data = built
    of_user = collections.defaultdict(list)
    for row in log:  # rows of a user are in the order of time
        of_user[row["user_id"]].append(row)
    text_of_item = {row["item_id"]: row[TEXT] for row in log}
    for split in ("train", "validation", "test"):
        for example in _examples(data, split):
            context = {k: v.bytes_list.value for k, v in example.context.feature.items()}
            own = of_user[context["request/user"][0].decode()]
            index = example.context.feature["request/index"].int64_list.value[0]
            label = list(example.context.feature["label"].int64_list.value).index(1)
            profile = own[index][PROFILE] or [0.0] * SIZES[PROFILE]
            close = {"rtol": 1e-6, "atol": 1e-6}
            np.testing.assert_allclose(
                _numbers(data, PROFILE, context[PROFILE])[0], profile, **close
            )
            search = _numbers(data, SEARCH, context[SEARCH])[0]
            np.testing.assert_allclose(search, own[index][SEARCH], rtol=1e-3, atol=1e-3)
            candidates = _numbers(data, TEXT, context[f"candidate/{TEXT}"])
            assert len(candidates) == 3
            expected = text_of_item[own[index]["item_id"]]
            np.testing.assert_allclose(candidates[label], expected, **close)
            steps = example.feature_lists.feature_list[f"history/{TEXT}"].feature
            history = _numbers(data, TEXT, [step.bytes_list.value[0] for step in steps])
            expected = [row[TEXT] for row in own[max(0, index - 6) : index]]
            np.testing.assert_allclose(history, np.reshape(expected, (-1, SIZES[TEXT])), **close)


def test_statistics_are_those_of_norms(built):
    log, data = built
    described = data.stats["splits"]["train"]["features"]
    norms = [
        np.linalg.norm(_numbers(data, PROFILE, e.context.feature[PROFILE].bytes_list.value))
        for e in _examples(data, "train")
    ]
    assert described[PROFILE]["count"] == len(norms)
    assert described[PROFILE]["defaulted"] == sum(norm == 0 for norm in norms) > 0
    np.testing.assert_allclose(described[PROFILE]["mean"], np.mean(norms), rtol=1e-6)
    np.testing.assert_allclose(described[PROFILE]["std"], np.std(norms), rtol=1e-6)
    np.testing.assert_allclose(data.encoders[PROFILE].norm, np.sqrt(np.mean(np.square(norms))),
                               rtol=1e-6)  # fmt: skip
    assert 0 <= data.stats["splits"]["test"]["features"][f"candidate/{TEXT}"]["drift"] <= 1
    assert not any("every training vector" in line for line in data.findings)


def test_the_audit_finds_nothing(built):
    assert audit(built[1].path) == {}


def test_drift_is_that_of_norms(built, tmp_path):
    log = vector_logs.rows()
    for row in log:
        row[TEXT] = [3 * number for number in row[TEXT]]
    drifts = {one.name: one for one in compare(vector_logs.write_data(tmp_path, log), built[1])}
    assert drifts[TEXT].distance > 0.5
    assert drifts[SEARCH].distance == 0


def test_impressions_with_vectors(tmp_path):
    rng = np.random.default_rng(3)
    log = vector_logs.rows(longest=14)
    content = vector_logs.schema()
    content["features"].append({"name": "label", "role": "label", "dtype": "int64"})
    for row in log:
        row["label"] = int(rng.random() < 0.5)
    data = vector_logs.write_data(tmp_path, log, content, negatives=0, protocol="time_split",
                                  train_prefixes="last")  # fmt: skip
    assert audit(data.path) == {}


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ([1.0, 2.0], f"a vector of another length than {SIZES[TEXT]}"),
        ([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], "another length"),
        ([1.0, 2.0, 3.0, 4.0, float("inf")], "not a finite number"),
        ([1.0, 2.0, None, 4.0, 5.0], "not a finite number"),
        ([1.0, 2.0, 3.0, 4.0, 1e39], "not a finite number"),
        ([], "missing value"),
        (None, "missing value"),
    ],
)
@pytest.mark.parametrize("name", ["bad.parquet", "bad.jsonl", "bad.csv"])
def test_bad_vectors_reject_their_rows(tmp_path, value, reason, name):
    log = vector_logs.rows()
    log[3][TEXT] = value
    source = vector_logs.write(tmp_path / name, log)
    data = vector_logs.write_data(tmp_path, input=source, max_bad_fraction=0.5)
    (rejected,) = data.manifest["conservation"]["rejected"].items()
    assert rejected[1] == 1
    assert f"column '{TEXT}': " in rejected[0]
    assert reason in rejected[0]


def test_other_types_are_refused_before_anything_is_read(tmp_path):
    log = vector_logs.rows()
    for row in log:
        row[TEXT] = 1.0
    with pytest.raises(UserError, match="lists of 5 numbers in the column 'text' of .* double"):
        vector_logs.write_data(tmp_path, log)
    for row in log:
        row[TEXT] = [["a"]]
    with pytest.raises(UserError, match="lists of 5 numbers .* found the type list"):
        vector_logs.write_data(tmp_path, log)


def test_vectors_of_events_are_pointed_out(tmp_path, capsys):
    vector_logs.write_data(tmp_path)
    said = capsys.readouterr().err
    assert "text: history.features holds a vector of 5 numbers for each event" in said
    assert "pretrained.item_id" in said


def test_histories_hold_no_vectors_unless_they_are_asked_to(tmp_path):
    content = vector_logs.schema()
    del content["history"]["features"]
    data = vector_logs.write_data(tmp_path, content=content)
    assert data.schema.history.features == ("item_id",)
    assert audit(data.path) == {}
    json.dumps(data.stats)
    assert pa.types.is_large_string(data.encoders["item_id"].vocabulary.type)
