"""Training steps and scores of whole models, at the papers' batch sizes and 50 events.

Shapes: B requests, N candidates, L history length.
"""

import types
from collections.abc import Callable
from typing import cast

import numpy as np

from models.base import CTRModel
from models.building import build_model, compile_model
from models.config import resolve
from models.keras import tf
from preprocessing.data_dir import DataDir
from preprocessing.schema import infer_schema

from .figures import Figure, compare

_LENGTH = 50
_CARDINALITIES = {"user_id": 5000, "item_id": 20_000, "category_id": 500}
_SCHEMA = infer_schema([*_CARDINALITIES, "timestamp"], max_length=_LENGTH)
_CANDIDATES = 2  # a positive and a negative


def deminet_ssl(quick: bool) -> list[Figure]:
    """DemiNet's self-supervised loss: two more views of every history's graph."""
    batch = _batch(8 if quick else 256, _CANDIDATES)
    times = compare(
        _training_step(_model("deminet"), batch), _training_step(_model("deminet_wo_ssl"), batch)
    )
    baseline = f"the step of deminet_wo_ssl, B={len(batch['user_id'])} L={_LENGTH} K=4"
    return [times.cost("deminet_ssl", baseline, at_most=2.2)]


def din_miss(quick: bool) -> list[Figure]:
    """MISS on top of DIN."""
    batch = _batch(8 if quick else 128, _CANDIDATES)
    # Short steps: more of them find a quiet moment.
    times = compare(
        _training_step(_model("din", "miss"), batch),
        _training_step(_model("din"), batch),
        rounds=20,
    )
    baseline = f"the step of din, B={len(batch['user_id'])} L={_LENGTH}"
    return [times.cost("din_miss", baseline, at_most=1.35)]


def deminet_candidates(quick: bool) -> list[Figure]:
    """What it saves to encode a user once for all candidates."""
    count = 20 if quick else 200
    request = _batch(1, count)
    rows = {
        name: tf.reshape(value, [count, 1])
        if name.startswith("candidate/")
        else tf.repeat(value, count, axis=0)
        for name, value in request.items()
    }
    scores = _scores(_model("deminet"), request)
    np.testing.assert_allclose(scores(request)[0], scores(rows)[:, 0], atol=1e-5)
    times = compare(lambda: scores(request), lambda: scores(rows))
    baseline = f"the same {count} candidates as requests of their own, L={_LENGTH}"
    return [times.cost("deminet_candidates", baseline, at_most=0.45)]


def _model(name: str, ssl: str = "none") -> CTRModel:
    config = resolve({"model": {"name": name}, "ssl": {"name": ssl}})
    encoders = {
        feature: types.SimpleNamespace(cardinality=rows) for feature, rows in _CARDINALITIES.items()
    }
    data = types.SimpleNamespace(schema=_SCHEMA, encoders=encoders)  # all that a model asks of it
    model = build_model(config, cast(DataDir, data))
    compile_model(model, config)
    return model


def _batch(requests: int, candidates: int) -> dict[str, tf.Tensor]:
    """Encoded requests whose histories are all full, with items repeated as in real ones."""
    rng = np.random.default_rng(0)

    def ids(name: str, *shape: int) -> tf.Tensor:
        popular = rng.zipf(1.3, shape) % (_CARDINALITIES[name] - 2)
        return tf.constant(2 + popular, tf.int64)

    batch = {"user_id": ids("user_id", requests)}
    for name in _SCHEMA.history.features:
        batch[f"history/{name}"] = ids(name, requests, _LENGTH)
        batch[f"candidate/{name}"] = ids(name, requests, candidates)
    batch["label"] = tf.constant(rng.integers(0, 2, [requests, candidates]), tf.float32)
    return batch


def _specs(batch: dict[str, tf.Tensor]) -> dict[str, tf.TensorSpec]:
    """Of any shape, as batches from disk are."""
    return {
        name: tf.TensorSpec([None] * value.shape.rank, value.dtype) for name, value in batch.items()
    }


def _training_step(model: CTRModel, batch: dict[str, tf.Tensor]) -> Callable[[], float]:
    step = tf.function(model.train_step, input_signature=[_specs(batch)])
    return lambda: float(step(batch)["loss"])


def _scores(
    model: CTRModel, batch: dict[str, tf.Tensor]
) -> Callable[[dict[str, tf.Tensor]], np.ndarray]:
    call = tf.function(model, input_signature=[_specs(batch)])
    return lambda features: call(features).numpy()
