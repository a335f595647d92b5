"""Builds of logs whose rows have many values: equal bytes, and what brute force says."""

import collections
import json

import numpy as np
import pyarrow as pa
import pytest

from pipeline.audit import audit
from preprocessing.data_dir import DataDir
from preprocessing.storage.tfrecord import read_records
from tests.helpers import built_logs, many_logs
from tests.helpers.many_logs import GENRES, LANGUAGES, TAGS
from tests.helpers.small_data_sets import shard_bytes


def _sets(data, split):
    """Every example: ids of each set by key, candidates and steps one by one."""
    import tensorflow as tf

    for path in data.shards(split):
        for record in read_records(path):
            example = tf.train.SequenceExample.FromString(record)
            values = {
                key: list(feature.int64_list.value)
                for key, feature in example.context.feature.items()
            }
            ends = np.cumsum(values[f"candidate/{GENRES}/lengths"])[:-1]
            candidates = np.split(np.array(values[f"candidate/{GENRES}"], int), ends)
            steps = example.feature_lists.feature_list[f"history/{GENRES}"].feature
            (user,) = example.context.feature["request/user"].bytes_list.value
            yield {
                "user": user.decode(),
                "index": values["request/index"][0],
                "label": values["label"],
                LANGUAGES: values[LANGUAGES],
                TAGS: values[TAGS],
                f"candidate/{GENRES}": [ids.tolist() for ids in candidates],
                f"history/{GENRES}": [list(step.int64_list.value) for step in steps],
            }


@pytest.mark.parametrize("name", ["log.csv", "log.jsonl", "log.parquet", "lists.jsonl"])
def test_every_format_gives_the_same_bytes(tmp_path, name):
    expected = many_logs.write_data(tmp_path / "a")
    separator = None if name in ("log.parquet", "lists.jsonl") else "|"
    path = tmp_path / "b"
    path.mkdir()
    log = many_logs.rows()
    for row in log:  # another order of values, and more repetitions
        for feature in (GENRES, LANGUAGES, TAGS):
            row[feature] = [*row[feature][::-1], *row[feature][:1]]
    source = many_logs.write(path / name, log, separator)
    found = many_logs.write_data(path, input=source)
    assert shard_bytes(found.path) == shard_bytes(expected.path)
    assert found.stats == expected.stats


def test_partitions_and_the_order_of_elements_change_no_byte(tmp_path):
    built_logs.require_any_order(many_logs.write_data, tmp_path)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    log = many_logs.rows()
    return log, many_logs.write_data(tmp_path_factory.mktemp("many"), log)


def _kept(data, name, values):
    """The ids that an example holds of a set of raw values, and how many are cut."""
    feature, encoder = data.schema[name], data.encoders[name]
    words = sorted({str(value) for value in values}) or ["none"] * (feature.default is not None)
    ids = {int(one) for one in encoder.encode(pa.array(words))} if words else set()
    order = sorted(ids, key=lambda one: (one <= encoder.num_oov, one))
    return order[: feature.many.max], max(0, len(order) - feature.many.max)


def test_examples_hold_the_sets_of_the_log(built):
    log, data = built
    of_user = collections.defaultdict(list)
    for row in log:  # rows of a user are in the order of time
        of_user[row["user_id"]].append(row)
    genres_of_item = {row["item_id"]: row[GENRES] for row in log}
    requests = 0
    for split in ("train", "validation", "test"):
        for example in _sets(data, split):
            own, index = of_user[example["user"]], example["index"]
            assert example[LANGUAGES] == _kept(data, LANGUAGES, own[index][LANGUAGES])[0]
            assert example[TAGS] == _kept(data, TAGS, own[index][TAGS])[0]
            history = [
                _kept(data, GENRES, row[GENRES])[0] for row in own[max(0, index - 6) : index]
            ]
            assert example[f"history/{GENRES}"] == history
            positive = example[f"candidate/{GENRES}"][example["label"].index(1)]
            item = own[index]["item_id"]
            assert positive == _kept(data, GENRES, genres_of_item[item])[0]
            assert len(example[f"candidate/{GENRES}"]) == 3
            requests += 1
    assert requests == sum(data.num_requests(split) for split in ("train", "validation", "test"))


def test_vocabularies_count_values_and_rare_ones_are_unknown(built):
    log, data = built
    words = data.encoders[GENRES].vocabulary.to_pylist()
    assert set(words) <= {f"g{i}" for i in range(12)} | {"none"}
    assert not any("\x1f" in word for word in words)
    counts = [int(n) for n in data.stats["vocabularies"][GENRES]["words_by_count"]]
    assert min(counts) >= 2
    assert data.encoders[LANGUAGES].vocabulary.type == "int64"


def test_cut_values_are_counted(built):
    log, data = built
    used = log  # every row is in some request: all users have three events or more
    short = [user for user in {r["user_id"] for r in log}
             if sum(r["user_id"] == user for r in log) < 4]  # fmt: skip
    cut = {
        name: sum(_kept(data, name, row[name])[1] for row in used if row["user_id"] not in short)
        for name in (GENRES, LANGUAGES, TAGS)
    }
    assert data.stats["cut"] == cut
    assert min(cut.values()) > 0


def test_statistics_count_values_and_empty_sets(built):
    _, data = built
    described = data.stats["splits"]["train"]["features"]
    examples = list(_sets(data, "train"))
    tags = [example[TAGS] for example in examples]
    assert described[TAGS]["count"] == sum(max(1, len(ids)) for ids in tags)
    assert described[TAGS]["missing"] == sum(not ids for ids in tags)
    history = [ids for example in examples for ids in example[f"history/{GENRES}"]]
    assert described[f"history/{GENRES}"]["count"] == sum(map(len, history))
    assert described[f"history/{GENRES}"]["defaulted"] > 0


def test_the_audit_finds_nothing(built):
    assert audit(built[1].path) == {}


def test_impressions_with_sets(tmp_path):
    rng = np.random.default_rng(3)
    log = many_logs.rows(longest=14)
    content = many_logs.schema()
    content["features"].append({"name": "label", "role": "label", "dtype": "int64"})
    for row in log:
        row["label"] = int(rng.random() < 0.5)
    data = many_logs.write_data(tmp_path, log, content, negatives=0, protocol="time_split",
                                train_prefixes="last")  # fmt: skip
    assert audit(data.path) == {}
    assert data.stats["cut"][GENRES] > 0


def test_a_log_without_sets_has_no_word_of_them(tmp_path):
    content = many_logs.plain(many_logs.schema())
    log = many_logs.rows()
    for row in log:
        for name in (GENRES, LANGUAGES, TAGS):
            row[name] = str(row[name][0]) if row[name] else "1"
    data = many_logs.write_data(tmp_path, log, content)
    assert isinstance(DataDir.open(data.path), DataDir)
    text = json.dumps([data.stats, data.manifest, data.schema.to_json()])
    assert '"cut"' not in text
    assert '"many"' not in text
