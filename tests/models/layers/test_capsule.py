"""Squash: golden length, twin, and zero."""

import numpy as np

from models.keras import tf
from models.layers.capsule import squash
from reference import interactions as reference


def test_golden_length():
    np.testing.assert_allclose(tf.norm(squash(tf.constant([0.0, 2.0]))), 0.8, atol=1e-6)


def test_equals_the_twin_and_keeps_lengths_below_one():
    values = np.random.default_rng(0).normal(size=(5, 3)) * np.logspace(-1, 2, 5)[:, None]
    squashed = squash(tf.constant(values, tf.float32)).numpy()
    np.testing.assert_allclose(squashed, [reference.squash(x) for x in values], rtol=1e-5)
    assert np.all(np.linalg.norm(squashed, axis=-1) < 1.0)


def test_zero_stays_zero_with_a_finite_gradient():
    zero = tf.zeros([2, 3])
    with tf.GradientTape() as tape:
        tape.watch(zero)
        squashed = squash(zero)
    assert not squashed.numpy().any()
    assert np.isfinite(tape.gradient(squashed, zero)).all()
