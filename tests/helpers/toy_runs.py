"""A data set written by hand and runs with random weights, for what is exported from runs."""

import numpy as np
import pyarrow as pa

from models.config import run_config
from models.core import run_directory
from models.core.factory import build_model
from models.keras import tf
from preprocessing import data_dir
from preprocessing.codec import Ragged, encode_examples
from preprocessing.data_dir import DataDir
from preprocessing.encoders import encoder_files, fitting
from preprocessing.example_keys import candidate_key, history_key
from preprocessing.schema import Schema
from preprocessing.storage import tfrecord

MAX_LENGTH = 6
SCHEMA = Schema.from_json(
    {
        "features": [
            {
                "name": "user_id",
                "role": "user",
                "dtype": "string",
                "encoder": {"kind": "vocabulary"},
            },
            {
                "name": "age",
                "role": "user",
                "dtype": "float32",
                "encoder": {"kind": "numeric"},
                "default": 30.0,
            },
            {
                "name": "hour",
                "role": "context",
                "dtype": "int64",
                "encoder": {"kind": "hash", "buckets": 5},
            },
            {
                "name": "item_id",
                "role": "item",
                "dtype": "string",
                "encoder": {"kind": "vocabulary", "oov_buckets": 2},
            },
            {
                "name": "category_id",
                "role": "item",
                "dtype": "int64",
                "encoder": {"kind": "vocabulary"},
            },
            {
                "name": "price",
                "role": "item",
                "dtype": "float32",
                "encoder": {"kind": "bucketised", "boundaries": [1.0, 10.0]},
            },
        ],
        "history": {"max_length": MAX_LENGTH, "features": ["item_id", "category_id"]},
    }
)
USERS = [f"user {i}" for i in range(5)]
ITEMS = [f"item {i} é" for i in range(20)]
CATEGORIES = list(range(-3, 4))
REQUESTS = {"train": 4, "validation": 3, "test": 11}


def write_data(path, schema: Schema = SCHEMA) -> DataDir:
    """A data set with histories of 0 to `MAX_LENGTH` events, 1 to 5 candidates, unknown values."""
    (path / "vocab").mkdir(parents=True)
    values = {
        "user_id": pa.array(USERS),
        "age": pa.array([20.0, 30.0, 45.5]),
        "item_id": pa.array(ITEMS),
        "category_id": pa.array([c for c in CATEGORIES if c != -1]),
        "price": pa.array([0.5, 5.0]),
        "hour": pa.array([0]),
    }
    fitted = {
        feature.name: fitting.fit(
            feature, values[feature.name], np.ones(len(values[feature.name]), np.int64)
        )
        for feature in schema.encoded_features
    }
    for encoder in fitted.values():
        encoder_files.save_vocabulary(encoder, path / "vocab")
    schema.save(path / "schema.json")
    rng = np.random.default_rng(1)
    splits = {split: _write_split(path, split, n, fitted, rng) for split, n in REQUESTS.items()}
    numbers = {name: encoder.numbers() for name, encoder in fitted.items()}
    data_dir.write_json(path / "stats.json", {"encoders": numbers})
    files = [path / "stats.json", *(path / "vocab").iterdir()]
    manifest = {
        "format_version": data_dir.FORMAT_VERSION,
        "schema_hash": schema.hash(),
        "files": {str(file.relative_to(path)): data_dir.sha256_file(file) for file in files},
        "splits": splits,
    }
    data_dir.write_json(path / "manifest.json", manifest)
    data_dir.finish(path)
    return DataDir.open(path)


def _write_split(path, split, requests, fitted, rng):
    lengths = rng.integers(0, MAX_LENGTH + 1, requests)
    lengths[0] = 0
    counts = rng.integers(1, 6, requests)

    def ids(name, sizes):
        total = int(sizes.sum())
        if not fitted[name].cardinality:
            values = rng.normal(size=total).astype(np.float32)
        else:
            values = rng.integers(1, fitted[name].cardinality, total)
        return Ragged(values, np.concatenate([[0], np.cumsum(sizes)]))

    context = {f.name: ids(f.name, np.ones(requests, int)) for f in SCHEMA.user_features}
    context |= {candidate_key(f.name): ids(f.name, counts) for f in SCHEMA.item_features}
    starts = np.append(0, counts.cumsum())
    labels = np.zeros(starts[-1], np.int64)
    labels[starts[:-1]] = 1  # the first candidate of each request
    context["label"] = Ragged(labels, starts)
    context["request_id"] = Ragged.single([f"{split}:{i}".encode() for i in range(requests)])
    users = fitted["user_id"].decode(context["user_id"].values)
    context["request/user"] = Ragged.single(
        [user if user in USERS else f"stranger {i}" for i, user in enumerate(users)]
    )
    history = {history_key(f.name): ids(f.name, lengths) for f in SCHEMA.history_features}
    file = f"{split}-00000-of-00001.tfrecord.gz"
    size, sha256 = tfrecord.write_shard(path / file, [encode_examples(context, history)])
    shard = {"file": file, "requests": requests, "sha256": sha256, "bytes": size}
    return {"requests": requests, "candidates": int(counts.sum()), "shards": [shard]}


def write_run(path, data: DataDir, model: str, ssl: str = "none", *overrides: str):
    """A run of `model` whose best weights are random and large enough to tell requests apart."""
    content = {"data": str(data.path), "model": {"name": model}, "ssl": {"name": ssl}}
    config = run_config.resolve(content, overrides)
    built = build_model(config, data)
    rng = np.random.default_rng(2)
    for table in built.embedder.trainable_variables:
        table.assign(tf.constant(rng.normal(size=table.shape), tf.float32))
    run_directory.begin(path, config, data)
    run_directory.best_checkpoint(built, path).save()
    run_directory.write_metrics(path, {"test": {"auc": 0.5}})
    return path


def raw_inputs(candidates: int) -> dict[str, np.ndarray]:
    """Inputs of `serving_default` for one user, the first items as history and as candidates."""

    def items(count: int) -> np.ndarray:
        return np.array([[item.encode() for item in ITEMS[:count]]], object)

    return {
        "user_id": np.array([b"user 1"], object),
        "age": np.array([33.0], np.float32),
        "hour": np.array([7]),
        "history_item_id": items(3),
        "history_category_id": np.full([1, 3], 2),
        "candidate_item_id": items(candidates),
        "candidate_category_id": np.full([1, candidates], 2),
        "candidate_price": np.full([1, candidates], 2.0, np.float32),
    }
