"""Mixed precision: close to float32, finite, and float32 where it must be."""

import types

import numpy as np
import pytest

from models.core.factory import build_model, compile_model
from models.keras import keras, tf
from models.ops.precision import LossScale, policy
from preprocessing.errors import UserError
from tests.helpers import small_models

MODELS = [("din", "none"), ("din", "miss"), ("deminet", "none"), ("deminet_moe", "none")]
TOLERANCES = {"mixed_bfloat16": 0.03, "mixed_float16": 0.004}
SEED = tf.constant([3, 5])


def _model(name, ssl, precision):
    run = small_models.config(name, ssl)
    data = types.SimpleNamespace(
        schema=small_models.schema(),
        encoders={
            feature: types.SimpleNamespace(cardinality=rows)
            for feature, rows in small_models.CARDINALITIES.items()
        },
    )
    model = build_model(run, data, precision)
    compile_model(model, run)
    return model


def _weights(model):
    """Moving averages included: a training step on the one model moves them."""
    parts = [model.embedder, model.backbone, *([model.ssl] if model.ssl else [])]
    return [weight for part in parts for weight in part.weights]


@pytest.fixture(scope="module", params=MODELS, ids="+".join)
def exact(request):
    """A float32 model with weights of a trained model's size, and its name."""
    model = _model(*request.param, "float32")
    small_models.randomise(model)
    return request.param, model


@pytest.mark.parametrize("precision", list(TOLERANCES))
def test_scores_and_losses_are_close_to_float32(exact, precision):
    names, model = exact
    mixed = _model(*names, precision)
    assert keras.mixed_precision.global_policy().name == "float32"
    for weight, value in zip(_weights(mixed), _weights(model), strict=True):
        assert (weight.name, weight.dtype) == (value.name, tf.float32)
        weight.assign(value)
    features = small_models.batch(requests=16)
    mask = features["candidate/item_id"].numpy() != 0
    expected, found = model(features).numpy()[mask], mixed(features).numpy()[mask]
    assert found.dtype == np.float32
    tolerance = TOLERANCES[precision] * np.abs(expected).max()
    np.testing.assert_allclose(found, expected, atol=tolerance)
    assert np.abs(found - expected).max() > 1e-6  # Something was less precise.
    terms, mixed_terms = model.loss_terms(features, SEED), mixed.loss_terms(features, SEED)
    for name, term in terms.items():
        assert mixed_terms[name].values_Pn.dtype == tf.float32
        mean, mixed_mean = (float(tf.reduce_mean(t.values_Pn)) for t in (term, mixed_terms[name]))
        assert mixed_mean == pytest.approx(mean, rel=0.1, abs=1e-4), name


@pytest.mark.parametrize(
    ("name", "ssl", "precision"),
    [
        ("din", "miss", "mixed_float16"),
        pytest.param("deminet", "none", "mixed_bfloat16", marks=pytest.mark.slow),
    ],
)
def test_training_stays_finite_and_lowers_the_loss(name, ssl, precision):
    model = _model(name, ssl, precision)
    steps = [model.main_step] + [model.ssl_step] * (ssl != "none")
    features = small_models.batch(requests=32)
    for step in map(tf.function, steps):
        losses = [float(step(features)["loss"]) for _ in range(20)]
        assert np.isfinite(losses).all()
        assert losses[-1] < losses[0]


def test_an_overflow_leaves_the_step_out_and_halves_the_scale():
    model = _model("din", "none", "mixed_float16")
    features = small_models.batch()
    model.main_step(features)
    scale, before = float(model.loss_scale.value), [w.numpy() for w in model.trainable_variables]
    assert scale == 2.0**15
    model.loss_scale.value.assign(3e38)  # Overflows float16, and float32 too.
    step = tf.function(model.main_step)
    assert not np.isfinite(float(step(features)["gradient_norm"]))
    assert float(model.loss_scale.value) == pytest.approx(1.5e38)
    for weight, value in zip(model.trainable_variables, before, strict=True):
        np.testing.assert_array_equal(weight, value)
    assert int(model.optimizer.iterations) == 1
    model.loss_scale.value.assign(scale)
    assert np.isfinite(float(step(features)["gradient_norm"]))
    assert any(
        (weight.numpy() != value).any()
        for weight, value in zip(model.trainable_variables, before, strict=True)
    )


def test_the_scale_cancels():
    features = small_models.batch()
    norms = []
    for scale in (1.0, 1024.0):
        model = _model("din", "none", "mixed_float16")
        model.loss_scale.value.assign(scale)
        norms.append(float(model.main_step(features)["gradient_norm"]))
    assert norms[0] == pytest.approx(norms[1], rel=1e-2)


def test_the_scale_doubles_after_2000_steps_without_overflow():
    scale = LossScale()
    scale.steps.assign(1998)
    scale.update(tf.constant(True))
    assert float(scale.value) == 2.0**15
    scale.update(tf.constant(True))
    assert (float(scale.value), int(scale.steps)) == (2.0**16, 0)
    scale.update(tf.constant(False))
    assert (float(scale.value), int(scale.steps)) == (2.0**15, 0)


def test_the_policy_ends_with_its_block():
    def fail():
        with policy("mixed_bfloat16"):
            assert keras.mixed_precision.global_policy().name == "mixed_bfloat16"
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert keras.mixed_precision.global_policy().name == "float32"


def test_refused_for_models_that_are_not_made_for_it():
    with pytest.raises(UserError, match="train.precision=float32 with lr, found mixed_bfloat16"):
        _model("lr", "none", "mixed_bfloat16")
    with pytest.raises(UserError, match="found 'bfloat16'.*mixed_bfloat16"):
        small_models.config("din", "none", "train.precision=bfloat16")
