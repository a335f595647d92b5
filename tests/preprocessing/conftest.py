"""A small data set of every encoder kind, on disk."""

import numpy as np
import pyarrow as pa
import pytest

from preprocessing import data_dir
from preprocessing.codec import Ragged, encode_examples
from preprocessing.data_dir import DataDir
from preprocessing.encoders import encoder_files, fitting
from preprocessing.example_keys import candidate_key, history_key
from preprocessing.schema import Schema
from preprocessing.storage.tfrecord import write_shard

MAX_LENGTH = 20
REQUESTS = 230
CANDIDATES = sum(1 + i % 4 for i in range(REQUESTS))
SHARDS = 3

SCHEMA = {
    "features": [
        {"name": "user_id", "role": "user", "dtype": "string", "encoder": {"kind": "vocabulary"}},
        {"name": "age", "role": "user", "dtype": "float32", "encoder": {"kind": "numeric"}},
        {"name": "item_id", "role": "item", "dtype": "int64", "encoder": {"kind": "vocabulary"}},
        {
            "name": "brand",
            "role": "item",
            "dtype": "string",
            "encoder": {"kind": "hash", "buckets": 11},
        },
        {
            "name": "price",
            "role": "item",
            "dtype": "float32",
            "encoder": {"kind": "bucketised", "boundaries": [1.0, 5.0]},
        },
        {
            "name": "weight",
            "role": "item",
            "dtype": "float32",
            "encoder": {"kind": "numeric"},
        },
        {"name": "timestamp", "role": "timestamp", "dtype": "int64"},
    ],
    "history": {"max_length": MAX_LENGTH, "features": ["item_id", "brand", "weight"]},
}


def requests(first, last):
    """The columns of requests numbered first..last-1, every value told by its place.

    Request i has i % (MAX_LENGTH + 1) events and 1 + i % 4 candidates.
    """
    numbers = np.arange(first, last)
    lengths, candidates = numbers % (MAX_LENGTH + 1), 1 + numbers % 4
    history_splits = np.concatenate([[0], np.cumsum(lengths)])
    candidate_splits = np.concatenate([[0], np.cumsum(candidates)])
    steps = np.arange(history_splits[-1]) - np.repeat(history_splits[:-1], lengths)
    place = np.arange(candidate_splits[-1]) - np.repeat(candidate_splits[:-1], candidates)

    def history(values):
        return Ragged(values, history_splits)

    def candidate(values):
        return Ragged(values, candidate_splits)

    context = {
        "user_id": Ragged.single(2 + numbers),
        "age": Ragged.single((numbers / 8).astype(np.float32)),
        "timestamp": Ragged.single(1000 + numbers),
        "request_id": Ragged.single([f"r{i}".encode() for i in numbers]),
        "request/user": Ragged.single([f"u{i}".encode() for i in numbers]),
        "label": candidate((place == 0).astype(np.int64)),
        candidate_key("item_id"): candidate(2 + place),
        candidate_key("brand"): candidate(1 + place),
        candidate_key("price"): candidate(1 + place % 4),
        candidate_key("weight"): candidate(place.astype(np.float32)),
    }
    feature_lists = {
        history_key("item_id"): history(2 + steps),
        history_key("brand"): history(1 + steps % 11),
        history_key("weight"): history(steps.astype(np.float32)),
        history_key("timestamp"): history(steps),
    }
    return context, feature_lists


@pytest.fixture
def data_path(tmp_path):
    """Directory of a complete data set with one split, `train`."""
    path = tmp_path / "data"
    vocab_dir = path / data_dir.VOCABULARIES
    vocab_dir.mkdir(parents=True)
    schema = Schema.from_json(SCHEMA)
    schema.save(path / data_dir.SCHEMA)
    columns = {
        "user_id": pa.array([f"u{i}" for i in range(REQUESTS)]),
        "age": pa.array([0.0, 10.0, 20.0]),
        "item_id": pa.array(np.arange(MAX_LENGTH) * 10),
        "brand": pa.array(["a"]),
        "price": pa.array([2.0]),
        "weight": pa.array([1.0, 3.0]),
    }
    numbers = {}
    for feature in schema.encoded_features:
        values = columns[feature.name]
        encoder = fitting.fit(feature, values, np.ones(len(values), np.int64))
        encoder_files.save_vocabulary(encoder, vocab_dir)
        numbers[feature.name] = encoder.numbers()
    bounds = np.linspace(0, REQUESTS, SHARDS + 1).astype(int)
    shards = []
    for i in range(SHARDS):
        name = f"train-{i:05d}-of-{SHARDS:05d}.tfrecord.gz"
        size, digest = write_shard(
            path / name, [encode_examples(*requests(bounds[i], bounds[i + 1]))]
        )
        shards.append(
            {
                "file": name,
                "requests": int(bounds[i + 1] - bounds[i]),
                "sha256": digest,
                "bytes": size,
            }
        )
    data_dir.write_json(path / data_dir.STATS, {"encoders": numbers})
    manifest = {
        "format_version": data_dir.FORMAT_VERSION,
        "schema_hash": schema.hash(),
        "files": {
            str(file.relative_to(path)): data_dir.sha256_file(file)
            for file in [path / data_dir.STATS, *vocab_dir.iterdir()]
        },
        "splits": {"train": {"requests": REQUESTS, "candidates": CANDIDATES, "shards": shards}},
    }
    data_dir.write_json(path / data_dir.MANIFEST, manifest)
    data_dir.finish(path)
    return path


@pytest.fixture
def data(data_path):
    return DataDir.open(data_path)
