import numpy as np
import pytest

from models.keras import tf
from models.layers.interests.extractor import InterestExtractor
from tests.reference import deminet_weights

LENGTHS = [5, 2, 0]
MASK = np.arange(5) < np.array(LENGTHS)[:, None]
RANDOM = np.random.default_rng(0)
NODES = (RANDOM.normal(size=(3, 5, 6)) * MASK[..., None]).astype(np.float32)
TARGET = RANDOM.normal(size=(3, 4, 6)).astype(np.float32)


def _extractor(normalise: bool = True, selective: bool = False) -> InterestExtractor:
    layer = InterestExtractor(
        6, interests=3, units=7, slope=0.3, normalise=normalise, selective=selective
    )
    layer(NODES, layer.project(NODES), MASK, TARGET)
    for weight in layer.trainable_weights:
        weight.assign(RANDOM.normal(size=weight.shape))
    return layer


@pytest.mark.parametrize("selective", [True, False])
@pytest.mark.parametrize("normalise", [True, False])
def test_equals_equation_13(normalise: bool, selective: bool) -> None:
    layer = _extractor(normalise, selective)
    interests, weights = layer(NODES, layer.project(NODES), MASK, TARGET)
    assert interests.shape == (3, 4, 3, 6)
    for b, n, k in np.ndindex(3, 4, 3):
        nodes = NODES[b, : LENGTHS[b]]
        expected, alpha = deminet_weights.interest(layer, k, nodes, TARGET[b, n])
        np.testing.assert_allclose(interests[b, n, k], expected, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(weights[b, n, k, : LENGTHS[b]], alpha, atol=1e-5)
        np.testing.assert_array_equal(weights[b, n, k, LENGTHS[b] :], 0)


def test_no_unit_of_one_interest_moves_another() -> None:
    layer = _extractor()
    with tf.GradientTape() as tape:
        interests, _ = layer(NODES, layer.project(NODES), MASK, TARGET)
        second = tf.reduce_sum(tf.square(interests[..., 1, :]))
    weights = [layer.history_half.kernel, layer.target_half.kernel, layer.last_KA]
    history, target, last = tape.gradient(second, weights)
    for kernel in (history, target):
        moved = np.abs(tf.reshape(kernel, [6, 3, 7])).max((0, 2)) > 0
        np.testing.assert_array_equal(moved, [False, True, False])
    np.testing.assert_array_equal(np.abs(last).max(1) > 0, [False, True, False])


def test_initial_values_follow_the_fans_of_one_network() -> None:
    layer = InterestExtractor(64, interests=8, units=64)
    layer.project(tf.zeros([1, 1, 64]))
    limit = np.sqrt(6 / (2 * 64 + 64))
    assert 0.98 * limit < np.abs(layer.history_half.kernel).max() <= limit
