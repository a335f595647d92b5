import numpy as np
import pytest

from models.keras import tf
from models.layers.interests.experts import InterestExperts, expert_input
from tests.reference import deminet_weights

RANDOM = np.random.default_rng(0)
INPUTS = RANDOM.normal(loc=2.0, size=(4, 3, 10)).astype(np.float32)
MASK = np.arange(3) < np.array([3, 2, 1, 3])[:, None]


def _experts() -> InterestExperts:
    layer = InterestExperts(10, 3, (8, 7))
    layer(INPUTS, MASK)
    for weight in layer.weights:
        weight.assign(RANDOM.uniform(0.2, 1, weight.shape) * RANDOM.choice([-1, 1], weight.shape))
    layer.normalize.moving_variance.assign(RANDOM.uniform(0.5, 2, 10))
    return layer


@pytest.mark.parametrize("training", [True, False])
def test_each_expert_is_a_normalisation_and_a_network(training: bool) -> None:
    layer = _experts()
    mean, variance = INPUTS[MASK].mean(0), INPUTS[MASK].var(0)
    if not training:
        mean = layer.normalize.moving_mean.numpy()
        variance = layer.normalize.moving_variance.numpy()
    scores = layer(INPUTS, MASK, training=training).numpy()
    for b, n, k in np.ndindex(4, 3, 3):
        expected = deminet_weights.expert(layer, k, INPUTS[b, n], mean, variance)
        np.testing.assert_allclose(scores[b, n, k], expected, rtol=1e-4, atol=1e-5)


def test_no_weight_is_shared_by_experts() -> None:
    layer = _experts()
    with tf.GradientTape() as tape:
        second = tf.reduce_sum(layer(INPUTS, MASK, training=True)[..., 1] ** 2)
    for weight, gradient in zip(
        layer.trainable_weights, tape.gradient(second, layer.trainable_weights), strict=True
    ):
        axis = weight.shape.as_list().index(3)
        others = tuple(i for i in range(weight.shape.rank) if i != axis)
        moved = np.abs(gradient).max(others) > 0
        np.testing.assert_array_equal(moved, [False, True, False], weight.name)


def test_experts_start_different_and_with_their_own_fans() -> None:
    layer = InterestExperts(100, 4, (100, 50))
    layer.build([1, 1, 100])
    limit = np.sqrt(6 / 200)
    assert 0.98 * limit < np.abs(layer.kernels[0]).max() <= limit
    assert np.abs(layer.kernels[0][:, 0] - layer.kernels[0][:, 1]).max() > 0.5 * limit


def test_input_is_the_interests_then_the_context() -> None:
    interests = np.arange(12, dtype=np.float32).reshape([1, 1, 3, 4])
    context = np.array([[[50.0, 60.0]]], np.float32)
    expected = [[[*range(12), 50, 60]]]
    np.testing.assert_array_equal(expert_input(interests, context), expected)
