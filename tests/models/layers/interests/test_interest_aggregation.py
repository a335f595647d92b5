import numpy as np
import pytest

from models.keras import tf
from models.layers.interests.aggregation import AGGREGATIONS, aggregation_layer
from tests.reference import deminet as reference
from tests.reference import deminet_weights

RANDOM = np.random.default_rng(0)
INTERESTS = RANDOM.normal(size=(4, 3, 5, 6)).astype(np.float32)
CONTEXT = RANDOM.normal(loc=2.0, size=(4, 3, 10)).astype(np.float32)


def _layer(name: str):
    layer = aggregation_layer(name, width=6, context_width=10, interests=5, units=(8, 7))
    layer(INTERESTS, CONTEXT)
    for weight in layer.trainable_weights:
        weight.assign(RANDOM.normal(size=weight.shape))
    return layer


def _twin(name: str, layer, b: int, n: int) -> np.ndarray:
    return deminet_weights.expert_shares(name, layer, list(INTERESTS[b, n]), CONTEXT[b, n])


@pytest.mark.parametrize("name", AGGREGATIONS)
def test_equals_its_twin(name: str) -> None:
    layer = _layer(name)
    weights = layer(INTERESTS, CONTEXT).numpy()
    for b, n in np.ndindex(4, 3):
        np.testing.assert_allclose(weights[b, n], _twin(name, layer, b, n), atol=1e-5)
    np.testing.assert_allclose(weights.sum(-1), 1, atol=1e-6)  # Invariant 12.


def test_hard_routing_trains_as_confidence() -> None:
    layer = _layer("hard_routing")
    soft = layer(INTERESTS, CONTEXT, training=True).numpy()
    for b, n in np.ndindex(4, 3):
        np.testing.assert_allclose(soft[b, n], _twin("confidence", layer, b, n), atol=1e-5)
    assert (soft < 1).all()


def test_hard_routing_takes_the_first_of_equals() -> None:
    layer = _layer("hard_routing")
    layer.prototypes_KD.assign(tf.zeros([5, 6]))
    expected = np.broadcast_to([1, 0, 0, 0, 0], [4, 3, 5])
    np.testing.assert_array_equal(layer(INTERESTS, CONTEXT), expected)


def test_golden_g4() -> None:
    """Equal weights and the first of the most trusted, for dots/2 = [1, 1, 0], o = [1, -1, 2]."""
    scores = np.array([1.0, -1.0, 2.0])
    confidence = reference.softmax([1.0, 1.0, 0.0])
    np.testing.assert_allclose(confidence, [0.4223188, 0.4223188, 0.1553624], atol=1e-6)
    assert reference.combine(confidence, scores) == pytest.approx(0.31072481)
    assert reference.combine(reference.average(3), scores) == pytest.approx(0.66666667)
    assert reference.combine(reference.hard_routing(confidence), scores) == 1.0
