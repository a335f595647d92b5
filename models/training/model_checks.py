"""Checks of a user-defined model on a small copy of it, before training.

Shapes: B requests, N candidates, L history length.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from models import registry, user_code
from models.config.run_config import RunConfig
from models.core.base import CTRModel, share
from models.core.embeddings import Features
from models.core.factory import build_sized, compile_model
from models.keras import tf
from models.user_code import Part
from preprocessing.errors import UserError
from preprocessing.example_keys import LABEL, LABEL_WEIGHT, candidate_key, history_key
from preprocessing.schema import Schema

_ROWS = 16
_REQUESTS, _CANDIDATES, _MAX_LENGTH = 5, 3, 12
_SCALES = (0.3, 3.0, 100.0)
"""Scales of the random weights under which logits are checked."""
_SHOWN = 5


def check_user_parts(config: RunConfig, schema: Schema) -> None:
    """Raises `UserError` for a user-defined model or self-supervision that cannot be trained.

    A copy with tables of a few rows performs a step on random requests, as a graph. Built-in models
    are covered by tests and not checked here.

    Args:
        config: Configuration of the run.
        schema: Schema of its data.

    Raises:
        UserError: The code raises an error; it has layers of Keras 3; weights are created in a
            call, are not tracked, or never get a gradient; logits have another shape or type, are
            not finite, or are probabilities.
    """
    parts = registry.user_parts(config.model_name, config.ssl_name)
    if parts:
        check_parts(config, schema, parts)


def check_parts(config: RunConfig, schema: Schema, parts: Sequence[Part]) -> None:
    """Checks given user-defined parts of a configuration; see `check_user_parts`."""
    rows = {f.name: _ROWS if f.is_categorical else 0 for f in schema.encoded_features}
    features = _requests(schema)
    with user_code.explained(parts):
        model = build_sized(config, schema, rows, config.train.precision)
        compile_model(model, config)
        layers = {"model": model.backbone, "ssl": model.ssl}
        for part in parts:
            user_code.require_keras_2(part, layers[part.flag])
        _check_weights(model, features, parts)
        trains = _without_gradient(model, features)
    for part in parts:
        _check_gradients(part, layers[part.flag], trains)
        if part.flag == "model":
            _check_logits(part, model, features)


def _requests(schema: Schema) -> Features:
    """Random requests with labels; the first has no history, the last has the longest one."""
    rng = np.random.default_rng(0)
    length = min(schema.history.max_length, _MAX_LENGTH)
    lengths_B = np.linspace(0, length, _REQUESTS).round().astype(int)

    def value(categorical: bool, *shape: int) -> np.ndarray:
        ids, numbers = rng.integers(1, _ROWS, shape), rng.normal(size=shape)
        return ids.astype(np.int64) if categorical else numbers.astype(np.float32)

    features = {
        f.name: value(f.is_categorical, _REQUESTS, *f.value_shape) for f in schema.user_features
    }
    for f in schema.item_features:
        shape = (_REQUESTS, _CANDIDATES, *f.value_shape)
        features[candidate_key(f.name)] = value(f.is_categorical, *shape)
    mask_BL = np.arange(length) < lengths_B[:, None]
    for f in schema.step_features:
        values = value(f.is_categorical, _REQUESTS, length, *f.value_shape)
        mask = mask_BL.reshape(mask_BL.shape + (1,) * f.axes)
        features[history_key(f.name)] = np.where(mask, values, 0).astype(values.dtype)
    labels = (np.arange(_CANDIDATES) == 0) & np.ones([_REQUESTS, 1], bool)
    features[LABEL] = labels.astype(np.float32)
    if schema.weight is not None:
        features[LABEL_WEIGHT] = np.ones_like(features[LABEL])
    return {name: tf.constant(values) for name, values in features.items()}


def _losses(model: CTRModel, features: Features) -> tf.Tensor:
    """The sum of the losses of `main_step` and, if it is used, `ssl_step`."""
    seed = tf.zeros([2], tf.int32)
    terms = list(model.loss_terms(features, seed).values())
    if model.ssl_optimizer is not None:
        return tf.add_n([t.weight * share(t) for t in terms]) + model.ssl_loss(features, seed)[0]
    return tf.add_n([term.weight * share(term) for term in terms])


def _check_weights(model: CTRModel, features: Features, parts: Sequence[Part]) -> None:
    """Raises `UserError` if a step creates weights or uses weights the model does not track."""
    built = {weight.ref() for weight in model.variables}
    unknown = []
    for _ in range(2):
        with tf.GradientTape() as tape:
            _losses(model, features)
        tracked = {weight.ref() for weight in model.variables}
        unknown.append({w.ref(): w for w in tape.watched_variables() if w.ref() not in tracked})
    first, second = unknown
    added = [weight for weight in model.variables if weight.ref() not in built]
    described = f"{parts[0]} ({parts[0].where()})"
    fix = (
        "create layers (`from models.keras import keras`) and weights in __init__, and keep them "
        "as attributes of the model."
    )
    if added:
        raise UserError(
            f"Expected {described} to have all its weights once it is built, found new ones in a "
            f"training step: {_names(added)}.",
            fix,
        )
    if second:
        when = "of the model" if second.keys() <= first.keys() else "that last longer than a call"
        raise UserError(
            f"Expected {described} to compute with weights {when}, found others, which would never "
            f"be trained: {_names(list(second.values()))}.",
            fix,
        )


def _without_gradient(model: CTRModel, features: Features) -> dict[Any, tf.Variable]:
    """The weights that get no gradient from any step, by reference."""
    weights = model.trainable_variables
    missing = {}

    @tf.function(autograph=False)
    def step(batch: Features) -> tf.Tensor:
        with tf.GradientTape() as tape:
            loss = _losses(model, batch)
        gradients = tape.gradient(loss, weights)
        pairs = zip(weights, gradients, strict=True)
        missing.update({weight.ref(): weight for weight, g in pairs if g is None})
        return loss

    step(features)
    return missing


def _check_gradients(part: Part, layer: Any, missing: Mapping[Any, tf.Variable]) -> None:
    """Raises `UserError` for trainable weights that get no gradient from any step."""
    idle = [weight for weight in layer.trainable_variables if weight.ref() in missing]
    if idle:
        raise UserError(
            f"Expected every trainable weight of {part} ({part.where()}) to get a gradient, found "
            f"none for {_names(idle)}.",
            "use them in what can be differentiated (no argmax, round, stop_gradient, NumPy), or "
            "give the layer trainable=False.",
        )


def _check_logits(part: Part, model: CTRModel, features: Features) -> None:
    """Raises `UserError` for scores that are no valid logits."""
    described = f"{part} ({part.where('score')})"
    with tf.GradientTape() as tape:
        first_BN = model(features)
    shape = tuple(first_BN.shape)
    if shape != (_REQUESTS, _CANDIDATES):
        raise UserError(
            f"Expected logits [B, N] = [{_REQUESTS}, {_CANDIDATES}] from {described}, found "
            f"{list(shape)}."
        )
    if not any(g is not None for g in tape.gradient(first_BN, model.trainable_variables)):
        raise UserError(
            f"Expected logits that depend on weights from {described}, found none that does, so "
            "there is nothing to train.",
            "compute them from the embeddings, with layers that can be differentiated.",
        )
    if not np.isfinite(first_BN.numpy()).all():
        wrong = np.nonzero(~np.isfinite(first_BN.numpy()).all(1))[0]
        empty = " of a request without history" if wrong.tolist() == [0] else ""
        raise UserError(
            f"Expected finite logits from {described}, found NaN or infinity{empty}.",
            "see whether a mean, a norm or a logarithm is of nothing.",
        )
    draws = [_redrawn(model, features, scale) for scale in _SCALES]
    # NaN from overflow compares as false, so it does not count.
    if not any(((logits_BN < 0) | (logits_BN > 1)).any() for logits_BN in draws):
        raise UserError(
            f"Expected logits from {described}, which may be any numbers, found numbers from 0 to "
            "1 for all weights, as a sigmoid or softmax gives them; the loss applies its own.",
            "return what goes into it.",
        )


def _redrawn(model: CTRModel, features: Features, scale: float) -> np.ndarray:
    """The logits [B, N] under random weights."""
    rng = np.random.default_rng(1)
    for weight in model.trainable_variables:
        weight.assign(rng.normal(size=weight.shape, scale=scale).astype(np.float32))
    return model(features).numpy()


def _names(weights: Sequence[tf.Variable]) -> str:
    more = f" and {len(weights) - _SHOWN} more" if len(weights) > _SHOWN else ""
    return ", ".join(weight.name for weight in weights[:_SHOWN]) + more
