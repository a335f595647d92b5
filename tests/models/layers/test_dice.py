"""Dice: batch statistics of valid entries only, moving ones at inference."""

import numpy as np

from models.keras import tf
from models.layers.dice import Dice
from tests.reference import din as reference


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


def test_gradient_is_that_of_the_definition():
    """The gradient is written out; here it is derived, in float64, from the definition."""
    rng = np.random.default_rng(0)
    values = rng.normal(2.0, 3.0, size=(4, 5, 6))
    mask = tf.constant(rng.random((4, 5)) < 0.6)
    alpha, upstream = rng.normal(size=6), tf.constant(rng.normal(size=values.shape))
    layer = Dice()
    layer(tf.constant(values, tf.float32), mask)
    layer.alpha.assign(alpha)

    def definition(x, alpha):
        valid = tf.boolean_mask(x, mask)
        mean, variance = tf.nn.moments(valid, 0)
        gate = tf.sigmoid((x - mean) / tf.sqrt(variance + layer.normalization.epsilon))
        return gate * x + (1.0 - gate) * alpha * x

    x64, alpha64 = tf.constant(values), tf.constant(alpha)
    x32 = tf.cast(x64, tf.float32)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch([x64, alpha64, x32])
        expected = tf.reduce_sum(definition(x64, alpha64) * upstream)
        activated = layer(x32, mask, training=True)
        found = tf.reduce_sum(activated * tf.cast(upstream, tf.float32))
    for ours, theirs in zip(
        tape.gradient(found, [x32, layer.alpha]),
        tape.gradient(expected, [x64, alpha64]),
        strict=True,
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_padding_has_a_gradient_of_its_own_only():
    """No statistics depend on padding, whatever stands there."""
    values = tf.constant([[1.0], [2.0], [50.0]])
    layer = Dice()
    with tf.GradientTape() as tape:
        tape.watch(values)
        total = tf.reduce_sum(layer(values, tf.constant([True, True, False]), training=True)[:2])
    assert tape.gradient(total, values)[2] == 0.0
