"""Dice: batch statistics of valid entries only, moving ones at inference."""

import numpy as np

from models.keras import tf
from models.layers.dice import Dice
from reference import din as reference


def test_equals_the_twin():
    rng = np.random.default_rng(0)
    values = rng.normal(2.0, 3.0, size=(4, 5, 6)).astype(np.float32)
    mask = rng.random((4, 5)) < 0.6
    layer = Dice()
    layer(tf.constant(values), tf.constant(mask))
    alpha = rng.normal(size=6).astype(np.float32)
    layer.alpha.assign(alpha)

    trained = layer(tf.constant(values), tf.constant(mask), training=True).numpy()
    expected = reference.dice(values[mask].astype(np.float64), (alpha, None, None), True)
    np.testing.assert_allclose(trained[mask], expected, rtol=1e-5, atol=1e-6)

    moving = [layer.normalization.moving_mean.numpy(), layer.normalization.moving_variance.numpy()]
    np.testing.assert_allclose(moving[0], values[mask].mean(0), rtol=1e-4)
    served = layer(tf.constant(values), tf.constant(mask)).numpy()
    expected = reference.dice(values.reshape(-1, 6), (alpha, *moving), False)
    np.testing.assert_allclose(served.reshape(-1, 6), expected, rtol=1e-5, atol=1e-5)


def test_special_slopes():
    values = tf.constant([[-1.5], [0.5], [4.0]])
    layer = Dice()
    layer(values, tf.ones([3], tf.bool))
    layer.alpha.assign([1.0])
    np.testing.assert_allclose(layer(values, tf.ones([3], tf.bool)), values)  # The identity.
    layer.alpha.assign([0.0])
    gate = tf.sigmoid(values / np.sqrt(1.001))  # Untrained: mean 0 and variance 1.
    np.testing.assert_allclose(layer(values, tf.ones([3], tf.bool)), gate * values, rtol=1e-5)
