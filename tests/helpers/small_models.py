"""Small schemas, batches and models for tests, without any file."""

import types

import numpy as np

from models.config.run_config import RunConfig, resolve
from models.core.base import CTRModel
from models.core.factory import build_model, compile_model
from models.keras import tf
from preprocessing.schema import Schema

CARDINALITIES = {"user_id": 40, "age": 0, "item_id": 30, "category_id": 8, "brand": 6}


def schema(max_length: int = 12) -> Schema:
    """A user key, a number, two history features and one feature of candidates only."""
    vocabulary = {"kind": "vocabulary"}
    return Schema.from_json(
        {
            "features": [
                {"name": "user_id", "role": "user", "dtype": "string", "encoder": vocabulary},
                {"name": "age", "role": "user", "dtype": "float32", "encoder": {"kind": "numeric"}},
                {"name": "item_id", "role": "item", "dtype": "string", "encoder": vocabulary},
                {"name": "category_id", "role": "item", "dtype": "string", "encoder": vocabulary},
                {"name": "brand", "role": "item", "dtype": "string", "encoder": vocabulary},
                {"name": "timestamp", "role": "timestamp", "dtype": "int64"},
            ],
            "history": {"max_length": max_length, "features": ["item_id", "category_id"]},
        }
    )


def batch(
    requests: int = 6, candidates: int = 3, length: int = 9, seed: int = 0
) -> dict[str, tf.Tensor]:
    """Encoded requests of mixed history lengths (the first is empty) and candidate counts.

    Histories repeat items, so that the similarity graph of DemiNet has edges.
    """
    rng = np.random.default_rng(seed)
    category_of = rng.integers(2, CARDINALITIES["category_id"], CARDINALITIES["item_id"])
    brand_of = rng.integers(2, CARDINALITIES["brand"], CARDINALITIES["item_id"])

    lengths = np.concatenate([[0, length], rng.integers(1, length + 1, requests)])[:requests]
    history = rng.integers(2, 12, [requests, length])
    history[np.arange(length)[None] >= lengths[:, None]] = 0
    counts = np.concatenate([[candidates], rng.integers(1, candidates + 1, requests)])[:requests]
    candidate = rng.integers(2, CARDINALITIES["item_id"], [requests, candidates])
    candidate[np.arange(candidates)[None] >= counts[:, None]] = 0
    label = rng.integers(0, 2, candidate.shape) * (candidate > 0)

    def of_item(values: np.ndarray, items: np.ndarray) -> tf.Tensor:
        return tf.constant(np.where(items > 0, values[items], 0))

    return {
        "user_id": tf.constant(2 + np.arange(requests)),
        "age": tf.constant(rng.normal(size=requests), tf.float32),
        "history/item_id": tf.constant(history),
        "history/category_id": of_item(category_of, history),
        "candidate/item_id": tf.constant(candidate),
        "candidate/category_id": of_item(category_of, candidate),
        "candidate/brand": of_item(brand_of, candidate),
        "label": tf.constant(label, tf.float32),
    }


def config(model: str, ssl: str = "none", *overrides: str) -> RunConfig:
    """A run configuration with a small embedding; training reads the values as they are."""
    content = {
        "model": {"name": model, "embedding_size": 8},
        "ssl": {"name": ssl},
        "train": {"oov_rate": 0.0},
    }
    return resolve(content, overrides)


def model(run: RunConfig, max_length: int = 12) -> CTRModel:
    """A compiled model for `batch`."""
    data = types.SimpleNamespace(
        schema=schema(max_length),
        encoders={
            name: types.SimpleNamespace(cardinality=rows) for name, rows in CARDINALITIES.items()
        },
    )
    built = build_model(run, data)
    compile_model(built, run)
    return built


def randomise(built: CTRModel, seed: int = 0, scale: float = 0.2) -> None:
    """Weights of a trained model's size, so that no property holds just because all is near 0."""
    rng = np.random.default_rng(seed)
    for weight in built.trainable_variables:
        weight.assign_add(rng.normal(size=weight.shape, scale=scale).astype(np.float32))
