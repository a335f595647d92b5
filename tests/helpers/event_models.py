"""The small schema of `small_models` with features of events, and requests for it, in memory."""

import types

import numpy as np

from models.config.run_config import RunConfig
from models.core.base import CTRModel
from models.core.factory import build_model, compile_model
from models.keras import tf
from preprocessing.example_keys import history_key
from preprocessing.schema import Schema
from tests.helpers import small_models

CARDINALITIES = small_models.CARDINALITIES | {
    "action": 5, "tags": 7, "price": 0, "gap": 33, "hour": 26,
}  # fmt: skip


config = small_models.config


def schema() -> Schema:
    """The small schema and features of events: ids, sets, numbers, gaps; the hour of a request."""
    content = small_models.schema().to_json()
    vocabulary = {"kind": "vocabulary"}
    for feature in content["features"]:
        if feature["role"] == "timestamp":
            feature["unit"] = "seconds"
    content["features"] += [
        {"name": "action", "role": "event", "dtype": "string", "encoder": vocabulary},
        {"name": "tags", "role": "event", "dtype": "string", "encoder": vocabulary,
         "many": {"max": 3}},
        {"name": "price", "role": "event", "dtype": "float32", "encoder": {"kind": "numeric"}},
        {"name": "gap", "role": "event", "from": "gap_to_request"},
        {"name": "hour", "role": "context", "from": "hour"},
    ]  # fmt: skip
    return Schema.from_json(content)


def without_events() -> Schema:
    """The same schema without the features of events."""
    content = schema().to_json()
    content["features"] = [f for f in content["features"] if f["role"] != "event"]
    return Schema.from_json(content)


def batch(requests: int = 6, seed: int = 0) -> dict[str, tf.Tensor]:
    """Requests of `small_models` with features of their events."""
    features = small_models.batch(requests, seed=seed)
    rng = np.random.default_rng(seed + 1)
    is_event = features[history_key("item_id")].numpy() > 0
    shape = is_event.shape
    tags = -np.sort(-rng.integers(0, 7, (*shape, 3)), axis=-1)
    tags[..., 1:][tags[..., 1:] == tags[..., :-1]] = 0
    values = {
        "action": rng.integers(1, 5, shape),
        "tags": tags,
        "price": rng.normal(size=shape).astype(np.float32),
        "gap": rng.integers(2, 33, shape),
    }
    for name, steps in values.items():
        mask = is_event.reshape(is_event.shape + (1,) * (steps.ndim - 2))
        features[history_key(name)] = tf.constant(np.where(mask, steps, 0).astype(steps.dtype))
    features["hour"] = tf.constant(rng.integers(2, 26, requests))
    return features


def model(run: RunConfig, of_schema: Schema | None = None) -> CTRModel:
    """A compiled model for `batch`."""
    chosen = of_schema or schema()
    data = types.SimpleNamespace(
        schema=chosen,
        encoders={
            feature.name: types.SimpleNamespace(cardinality=CARDINALITIES[feature.name])
            for feature in chosen.encoded_features
        },
    )
    built = build_model(run, data)
    compile_model(built, run)
    return built
