"""Label-aware attention: the equation, its two ends, and interests that do not exist."""

import numpy as np
import pytest

from models.keras import tf
from models.layers.attention.label_aware_attention import label_aware_weights
from tests.reference import multi_interest as reference

RNG = np.random.default_rng(0)
INTERESTS = RNG.normal(size=[2, 3, 4]).astype(np.float32)
TARGETS = RNG.normal(size=[2, 5, 4]).astype(np.float32)
ALL = tf.ones([2, 3], tf.bool)


@pytest.mark.parametrize(
    "readout", [{}, {"power": 3.0}, {"power": 1.5}, {"hard": True}], ids=["1", "3", "1.5", "hard"]
)
def test_equals_the_twin(readout):
    weights = label_aware_weights(INTERESTS, TARGETS, ALL, **readout)
    for b, n in np.ndindex(2, 5):
        expected = reference.read(INTERESTS[b], TARGETS[b, n], **readout)
        np.testing.assert_allclose(weights[b, n], expected, rtol=1e-5, atol=1e-6)


def test_a_large_power_is_hard():
    soft = label_aware_weights(10 * INTERESTS, TARGETS, ALL, power=9.0)
    hard = label_aware_weights(10 * INTERESTS, TARGETS, ALL, hard=True)
    np.testing.assert_allclose(soft, hard, atol=1e-6)


@pytest.mark.parametrize("hard", [False, True])
def test_an_interest_that_points_away_or_does_not_exist_is_not_read(hard):
    interests = tf.constant([[[-2.0], [1.0], [5.0]]])
    mask = tf.constant([[True, True, False]])
    weights = label_aware_weights(interests, tf.ones([1, 1, 1]), mask, power=2.0, hard=hard)
    assert weights[0, 0, 1] > 0.99
    assert weights[0, 0, 2] == 0.0
