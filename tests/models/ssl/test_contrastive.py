"""What every self-supervised loss of the registry must do, and how it is measured."""

import numpy as np
import pytest

from models import registry
from models.config.run_config import resolve
from models.keras import tf
from models.ssl.contrastive import Views, measure
from models.ssl.miss import MISSConfig
from tests.helpers import small_models

SEED = tf.constant([3, 5])


@pytest.fixture(scope="module", params=list(registry.SSL))
def model(request):
    return small_models.model(small_models.config("din", request.param, "train.joint=true"))


def test_every_name_trains_and_is_measured(model):
    features = small_models.batch(requests=16)
    backbone = [weight.numpy() for weight in model.backbone.trainable_variables]
    with tf.GradientTape() as tape:
        total, logs = model.ssl_loss(features, SEED)
    weights = model.ssl.trainable_variables
    gradients = tape.gradient(total, [*weights, model.embedder.tables["item_id"]])
    assert all(np.isfinite(value) for value in logs.values())
    for weight, gradient in zip(weights, gradients[:-1], strict=True):
        assert gradient is not None, weight.name
    assert np.any(tf.convert_to_tensor(gradients[-1]))

    found = {name: float(value) for name, value in model.diagnostics(features).items()}
    terms = set(logs) - {"loss"}
    for term in terms:
        assert -1 <= found[f"{term}/similarity"] <= 1
        assert found[f"{term}/alignment"] == pytest.approx(
            2 - 2 * found[f"{term}/similarity"], abs=1e-5
        )
        assert found[f"{term}/uniformity"] <= 0
        assert 0 < found[f"{term}/valid_share"] <= 1
    main, ssl = found["embedding_gradient/log_loss"], found["embedding_gradient/ssl"]
    assert min(main, ssl) > 0
    assert found["embedding_gradient/ssl_to_log_loss"] == pytest.approx(ssl / main, rel=1e-5)
    for before, weight in zip(backbone, model.backbone.trainable_variables, strict=True):
        np.testing.assert_array_equal(weight.numpy(), before)


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("miss", MISSConfig()),
        ("miss_wo_f", MISSConfig(heights=0)),
        ("miss_wo_u", MISSConfig(widths=1)),
        ("miss_wo_l", MISSConfig(distances=1)),
        ("miss_wo_fu", MISSConfig(heights=0, widths=1)),
        ("miss_wo_fl", MISSConfig(heights=0, distances=1)),
        ("miss_wo_ful", MISSConfig(heights=0, widths=1, distances=1)),
        ("miss_wo_mful", MISSConfig(heights=0, extractor="sample")),
        ("miss_sa", MISSConfig(extractor="sa")),
    ],
)
def test_variants_are_settings_of_miss(name, config):
    assert resolve({"ssl": {"name": name}}).ssl == config


def test_without_features_is_a_feature_weight_of_zero():
    features = small_models.batch(requests=16)

    def loss_and_gradient(*settings):
        model = small_models.model(small_models.config("din", *settings))
        with tf.GradientTape() as tape:
            total, logs = model.ssl_loss(features, SEED)
        gradient = tape.gradient(total, model.embedder.tables["item_id"])
        return float(logs["miss_interest"]), tf.convert_to_tensor(gradient).numpy()

    without, gradient = loss_and_gradient("miss_wo_f")
    weightless, expected = loss_and_gradient("miss", "ssl.alpha_feature=0.0")
    assert without == pytest.approx(weightless, rel=1e-6)
    np.testing.assert_allclose(gradient, expected, atol=1e-7)


def _views(first, second, valid=None, key=None):
    size = len(first)
    return Views(
        tf.constant(first, tf.float32)[None],
        tf.constant(second, tf.float32)[None],
        tf.constant(np.ones(size, bool) if valid is None else valid)[None],
        tf.constant(np.arange(size) if key is None else key),
        1.0,
    )


def test_golden_measures():
    same = {name: float(v) for name, v in measure(_views(np.ones((4, 3)), np.ones((4, 3)))).items()}
    assert same == pytest.approx(
        {"similarity": 1, "alignment": 0, "uniformity": 0, "valid_share": 1}, abs=1e-5
    )
    apart = measure(_views(np.eye(4), -np.eye(4), valid=[True, True, True, False]))
    apart = {name: float(value) for name, value in apart.items()}
    # Orthogonal unit vectors have a squared distance of 2.
    assert apart == pytest.approx(
        {"similarity": -1, "alignment": 4, "uniformity": -4, "valid_share": 0.75}, abs=1e-5
    )


def test_uniformity_counts_pairs_of_different_keys():
    first = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    found = float(measure(_views(first, first, key=[7, 7, 8]))["uniformity"])
    # Both others are at 45 degrees from the third: a squared distance of 2 - sqrt 2.
    assert found == pytest.approx(-2 * (2 - np.sqrt(2)), abs=1e-5)
    alone = measure(_views(first, first, key=[7, 7, 7]))
    assert float(alone["uniformity"]) == 0.0
