"""The small schema of `small_models` with vectors of every side and a pretrained table."""

import dataclasses
import types

import numpy as np

from models.config.pretrained import Pretrained
from models.config.run_config import RunConfig, resolve
from models.core.base import CTRModel
from models.core.factory import build_model, compile_model
from models.keras import tf
from preprocessing.example_keys import candidate_key, history_key
from preprocessing.schema import Schema
from tests.helpers import small_models

SIZES = {"profile": 5, "text": 6, "image": 4}
"""Numbers of the vectors of users, of items in candidates and history, of candidates only."""
CARDINALITIES = small_models.CARDINALITIES | dict.fromkeys(SIZES, 0)
FIXED_WIDTH = 7


def schema() -> Schema:
    """The small schema with a vector of users, one of items, and one of candidates alone."""
    content = small_models.schema().to_json()
    for name, size in SIZES.items():
        content["features"].append({
            "name": name, "role": "user" if name == "profile" else "item", "dtype": "float32",
            "shape": [size], "encoder": {"kind": "vector"},
        })  # fmt: skip
    content["history"]["features"] = ["item_id", "category_id", "text"]
    return Schema.from_json(content)


def batch(requests: int = 6) -> dict[str, tf.Tensor]:
    """Requests with vectors, zeros at padding."""
    features = small_models.batch(requests)
    rng = np.random.default_rng(0)
    text, image = (rng.normal(size=(30, SIZES[name])) for name in ("text", "image"))

    def of_item(vectors: np.ndarray, items: tf.Tensor) -> tf.Tensor:
        return tf.constant(np.where(items.numpy()[..., None] > 0, vectors[items], 0), tf.float32)

    profile = rng.normal(size=(requests, SIZES["profile"]))
    return features | {
        "profile": tf.constant(profile, tf.float32),
        candidate_key("text"): of_item(text, features["candidate/item_id"]),
        candidate_key("image"): of_item(image, features["candidate/item_id"]),
        history_key("text"): of_item(text, features["history/item_id"]),
    }


def model(run: RunConfig) -> CTRModel:
    """A compiled model for `batch`; the fixed table has random vectors."""
    data = types.SimpleNamespace(
        schema=schema(),
        encoders={
            name: types.SimpleNamespace(cardinality=rows) for name, rows in CARDINALITIES.items()
        },
    )
    built = build_model(run, data)
    compile_model(built, run)
    table = built.embedder.tables["item_id"]
    table.assign(np.random.default_rng(1).normal(size=table.shape).astype(np.float32))
    return built


def config(name: str, ssl: str = "none", *overrides: str, oov_rate: float = 0.0) -> RunConfig:
    """A run configuration with a small embedding and a fixed table of items."""
    content = {
        "model": {"name": name, "embedding_size": 8},
        "ssl": {"name": ssl},
        "train": {"oov_rate": oov_rate},
    }
    fixed = Pretrained(file="vectors.parquet", width=FIXED_WIDTH, sha256="0")
    return dataclasses.replace(resolve(content, overrides), pretrained={"item_id": fixed})
