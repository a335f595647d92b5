"""The small schema of `small_models` with sets, and requests for it, without any file."""

import types

import numpy as np

from models.config.run_config import RunConfig, resolve
from models.core.base import CTRModel
from models.core.factory import build_model, compile_model
from models.keras import tf
from preprocessing.example_keys import candidate_key, history_key
from preprocessing.schema import Schema
from tests.helpers import small_models

SETS = {"category_id": 4, "brand": 2, "city": 3}
"""Features of many values, and the `max` of each."""
CARDINALITIES = small_models.CARDINALITIES | {"city": 12}


def schema(combiner: str = "mean", is_many: bool = True) -> Schema:
    """The small schema and a city of the user; sets, or one value of each."""
    content = small_models.schema().to_json()
    city = {"name": "city", "role": "user", "dtype": "string", "encoder": {"kind": "vocabulary"}}
    content["features"].append(city)
    for feature in content["features"]:
        if is_many and feature["name"] in SETS:
            feature["many"] = {"max": SETS[feature["name"]], "combiner": combiner}
    return Schema.from_json(content)


def batch(sizes: str = "any", requests: int = 6) -> dict[str, tf.Tensor]:
    """Requests with sets.

    Args:
        sizes: `any`, `one` (sets of one value) or `plain` (the same values, without an axis).
        requests: Number of requests.
    """
    features = small_models.batch(requests)
    rng = np.random.default_rng(0)
    features["city"] = tf.constant(2 + np.arange(requests) % 10)
    if sizes == "plain":
        return features
    keys = {"city": "city"} | {candidate_key(name): name for name in ("category_id", "brand")}
    keys[history_key("category_id")] = "category_id"
    for key, name in keys.items():
        first = features[key].numpy()
        ids = np.zeros((*first.shape, SETS[name]), np.int64)
        ids[..., 0] = first
        if sizes == "any":
            ids = rng.integers(2, CARDINALITIES[name], ids.shape)
            ids[np.arange(SETS[name]) >= rng.integers(0, SETS[name] + 1, (*first.shape, 1))] = 0
            ids = -np.sort(-ids, axis=-1) * (first > 0)[..., None]
            ids[..., 1:][ids[..., 1:] == ids[..., :-1]] = 0
        features[key] = tf.constant(ids)
    return features


def model(run: RunConfig, combiner: str = "mean", is_many: bool = True) -> CTRModel:
    """A compiled model for `batch`."""
    data = types.SimpleNamespace(
        schema=schema(combiner, is_many),
        encoders={
            name: types.SimpleNamespace(cardinality=rows) for name, rows in CARDINALITIES.items()
        },
    )
    built = build_model(run, data)
    compile_model(built, run)
    return built


def config(name: str, ssl: str = "none", *overrides: str, oov_rate: float = 0.0) -> RunConfig:
    """A run configuration with a small embedding."""
    content = {
        "model": {"name": name, "embedding_size": 8},
        "ssl": {"name": ssl},
        "train": {"oov_rate": oov_rate},
    }
    return resolve(content, overrides)
