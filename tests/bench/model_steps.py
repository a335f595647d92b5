"""Training steps and scores of whole models, at the papers' batch sizes and 50 events.

Shapes: B requests, N candidates, L history length.
"""

import subprocess
import sys
import types
from collections.abc import Callable, Mapping, Sequence
from typing import cast

import numpy as np

from models.config.run_config import resolve
from models.core.base import CTRModel
from models.core.factory import build_model, compile_model
from models.keras import tf
from preprocessing.data_dir import DataDir
from preprocessing.schema import Schema
from preprocessing.schema_inference import infer_schema

from . import flops
from .figures import Figure, compare

_LENGTH = 50
_CARDINALITIES = {"user_id": 5000, "item_id": 20_000, "category_id": 500}
_SCHEMA = infer_schema([*_CARDINALITIES, "timestamp"], max_length=_LENGTH)
_LARGEST_SET = 8
_CANDIDATES = 2  # a positive and a negative
_FEW_ITEMS, _MANY_ITEMS = 100_000, 4_000_000
_SIDE = 1024  # of the matrices whose product shows what the machine can do

Batch = dict[str, tf.Tensor]


def deminet_ssl(quick: bool) -> list[Figure]:
    """DemiNet's self-supervised loss: two more views of every history's graph."""
    requests = batch(8 if quick else 256)
    times = compare(_step("deminet", requests), _step("deminet_wo_ssl", requests), rounds=20)
    return [times.cost("deminet_ssl", f"the step of deminet_wo_ssl, {_size(requests)}", 2.2)]


def deminet_memory(quick: bool) -> list[Figure]:
    """Memory of a training step, with and without the views."""

    def peak(name: str) -> int:
        flags = [f"--model={name}", f"--batch_size={8 if quick else 256}"]
        command = [sys.executable, "-m", "tests.bench.step_memory", *flags]
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    ours, baseline = peak("deminet"), peak("deminet_wo_ssl")
    return [
        Figure(
            name="deminet_memory",
            value=ours / baseline,
            median=ours / baseline,
            unit="times the peak memory of the baseline",
            target=None,
            baseline=f"the step of deminet_wo_ssl, B={8 if quick else 256} L={_LENGTH} K=4",
            detail=f"{ours / 2**20:.0f} MiB : {baseline / 2**20:.0f} MiB",
        )
    ]


def deminet_flops(quick: bool) -> list[Figure]:
    """How much of the machine's arithmetic a training step uses."""
    requests = batch(8 if quick else 256)
    deminet = model("deminet")
    needed = flops.deminet(deminet.backbone.config, deminet.embedder.dims, _LENGTH)
    per_request = needed.training_step(_CANDIDATES, views=3)
    step = training_step(deminet, requests)
    matrix = tf.random.stateless_normal([_SIDE, _SIDE], seed=[0, 0])
    product = tf.function(lambda: tf.matmul(matrix, matrix))
    times = compare(lambda: step(requests), product, rounds=10)

    def rates(ours: float, baseline: float) -> tuple[float, float]:
        """FLOP/s of the step and of the matrix product."""
        return per_request * len(requests["user_id"]) / ours, 2.0 * _SIDE**3 / baseline

    best = rates(times.ours.best, times.baseline.best)
    median = rates(times.ours.median, times.baseline.median)
    return [
        Figure(
            name="deminet_flops",
            value=best[0] / best[1],
            median=median[0] / median[1],
            unit="times the FLOP/s of the baseline",
            target=None,
            baseline=f"a {_SIDE} x {_SIDE} matrix product; {per_request / 1e6:.1f} MFLOP per "
            f"request, {_size(requests)} N={_CANDIDATES}",
            detail=f"{best[0] / 1e9:.3g} : {best[1] / 1e9:.3g} GFLOP/s",
        )
    ]


def deminet_items(quick: bool) -> list[Figure]:
    """What a training step costs when the table of items is large."""
    scale = 100 if quick else 1
    few, many = _FEW_ITEMS // scale, _MANY_ITEMS // scale
    small = batch(8 if quick else 256, items=few)
    # The same items, spread over the whole of the large table.
    spread = {
        name: value * (many // few) if name.endswith("/item_id") else value
        for name, value in small.items()
    }
    times = compare(_step("deminet", spread, items=many), _step("deminet", small, items=few))
    baseline = f"the step on {few:,} instead of {many:,} items, {_size(small)}"
    return [times.cost("deminet_items", baseline, at_most=1.1)]


def din_miss(quick: bool) -> list[Figure]:
    """MISS on top of DIN."""
    requests = batch(8 if quick else 128)
    # Short steps: more of them find a quiet moment.
    times = compare(_step("din", requests, ssl="miss"), _step("din", requests), rounds=20)
    baseline = f"the step of din, B={len(requests['user_id'])} L={_LENGTH}"
    return [times.cost("din_miss", baseline, at_most=1.35)]


def din_many(quick: bool) -> list[Figure]:
    """What a feature of many values adds to a step, in histories and candidates."""
    plain = batch(8 if quick else 128)
    without = {name: ids for name, ids in plain.items() if not name.endswith("/category_id")}
    sets = {name: ids if name in without else _sets(ids) for name, ids in plain.items()}
    no_category = infer_schema(["user_id", "item_id", "timestamp"], max_length=_LENGTH)
    times = compare(
        _step("din", sets, schema=_schema_of_sets()),
        _step("din", without, schema=no_category),
        rounds=20,
    )
    size = f"B={len(plain['user_id'])} L={_LENGTH}"
    baseline = f"the step of din without the feature, of 3 values on average, {size}"
    return [times.cost("din_many", baseline, at_most=1.35)]


def _schema_of_sets() -> Schema:
    """The schema with sets of categories."""
    content = _SCHEMA.to_json()
    for feature in content["features"]:
        if feature["name"] == "category_id":
            feature["many"] = {"max": _LARGEST_SET}
    return Schema.from_json(content)


def _sets(ids: tf.Tensor) -> tf.Tensor:
    """Sets that begin with these ids, [...] to [..., M], with padding on the right."""
    rng = np.random.default_rng(1)
    shape = (*ids.shape, _LARGEST_SET)
    values = rng.integers(2, _CARDINALITIES["category_id"], shape)
    values[..., 0] = ids
    sizes = np.minimum(1 + rng.poisson(2, (*ids.shape, 1)), _LARGEST_SET)
    values[np.arange(_LARGEST_SET) >= sizes] = 0
    return tf.constant(values)


def deminet_candidates(quick: bool) -> list[Figure]:
    """What it saves to encode a user once for all candidates."""
    count = 20 if quick else 200
    request = batch(1, count)
    rows = {
        name: tf.reshape(value, [count, 1])
        if name.startswith("candidate/")
        else tf.repeat(value, count, axis=0)
        for name, value in request.items()
    }
    scores = scoring(model("deminet"), request)
    np.testing.assert_allclose(scores(request)[0], scores(rows)[:, 0], atol=1e-5)
    times = compare(lambda: scores(request), lambda: scores(rows))
    baseline = f"the same {count} candidates as requests of their own, L={_LENGTH}"
    return [times.cost("deminet_candidates", baseline, at_most=0.45)]


def xla(quick: bool) -> list[Figure]:
    """What XLA gains on a backbone, forward and backward, once it is compiled for a shape."""
    figures = []
    for name, size in (("deminet", 256), ("deminet_wo_ssl", 256), ("din", 128)):
        requests = batch(8 if quick else size)
        compiled, plain = (_backbone_step(model(name), requests, jit) for jit in (True, False))
        baseline = f"{name} without XLA, forward and backward, {_size(requests)}"
        figures.append(compare(compiled, plain).cost(f"xla_{name}", baseline, at_most=None))
    return figures


def _backbone_step(whole: CTRModel, requests: Batch, jit: bool) -> Callable[[], float]:
    """Loss and gradients of what XLA can compile: all between the embeddings and the loss."""
    user, candidates = whole.embedder.user_side(requests), whole.embedder.candidates(requests)
    backbone, seed, label_BN = whole.backbone, tf.constant([1, 2]), requests["label"]
    backbone.score(backbone.encode_user(user), candidates)  # creates the weights
    inputs = [user.history_BLJd, candidates.target_BNJd, *backbone.trainable_variables]

    @tf.function(jit_compile=jit)
    def step() -> tuple[tf.Tensor, list[tf.Tensor]]:
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            state = backbone.encode_user(user, training=True, seed=seed)
            logits_BN = backbone.score(state, candidates, training=True)
            losses = tf.nn.sigmoid_cross_entropy_with_logits(label_BN, logits_BN)
            loss = tf.reduce_mean(losses)
            for term in backbone.auxiliary_losses(state, candidates, seed=seed).values():
                loss += term.weight * tf.reduce_mean(term.values_Pn)
        return loss, tape.gradient(loss, inputs)

    return lambda: float(step()[0])


def model(
    name: str,
    ssl: str = "none",
    items: int = 0,
    settings: Sequence[str] = (),
    schema: Schema = _SCHEMA,
) -> CTRModel:
    """A model of the papers' sizes, ready to train.

    Args:
        name: As on the command line.
        ssl: Likewise; its loss is part of the training step.
        items: Rows of the table of items; 0 for a small one.
        settings: As `--set` takes them.
        schema: The schema of its requests.
    """
    content = {"model": {"name": name}, "ssl": {"name": ssl}, "train": {"joint": True}}
    config = resolve(content, settings)
    encoders = {
        feature: types.SimpleNamespace(cardinality=rows)
        for feature, rows in _cardinalities(items).items()
    }
    data = types.SimpleNamespace(schema=schema, encoders=encoders)  # all that a model asks of it
    built = build_model(config, cast(DataDir, data))
    compile_model(built, config)
    return built


def batch(requests: int, candidates: int = _CANDIDATES, items: int = 0) -> Batch:
    """Encoded requests whose histories are all full, with items repeated as in real ones."""
    rng = np.random.default_rng(0)
    cardinalities = _cardinalities(items)

    def ids(name: str, *shape: int) -> tf.Tensor:
        popular = rng.zipf(1.3, shape) % (cardinalities[name] - 2)
        return tf.constant(2 + popular, tf.int64)

    features = {"user_id": ids("user_id", requests)}
    for name in _SCHEMA.history.features:
        features[f"history/{name}"] = ids(name, requests, _LENGTH)
        features[f"candidate/{name}"] = ids(name, requests, candidates)
    features["label"] = tf.constant(rng.integers(0, 2, [requests, candidates]), tf.float32)
    return features


def training_step(trained: CTRModel, like: Batch) -> Callable[[Batch], float]:
    """The training step as one graph for batches of any size; it returns the loss."""
    step = tf.function(trained.main_step, input_signature=[_specs(like)])
    return lambda requests: float(step(requests)["loss"])


def _step(
    name: str, requests: Batch, ssl: str = "none", items: int = 0, schema: Schema = _SCHEMA
) -> Callable[[], float]:
    step = training_step(model(name, ssl, items, schema=schema), requests)
    return lambda: step(requests)


def scoring(scorer: CTRModel, like: Batch) -> Callable[[Batch], np.ndarray]:
    """The scores as one graph for batches of any size."""
    call = tf.function(scorer, input_signature=[_specs(like)])
    return lambda requests: call(requests).numpy()


def _specs(like: Batch) -> dict[str, tf.TensorSpec]:
    """Of any shape, as batches from disk are."""
    return {
        name: tf.TensorSpec([None] * value.shape.rank, value.dtype) for name, value in like.items()
    }


def _cardinalities(items: int) -> Mapping[str, int]:
    return _CARDINALITIES | ({"item_id": items} if items else {})


def _size(requests: Batch) -> str:
    return f"B={len(requests['user_id'])} L={_LENGTH} K=4"
