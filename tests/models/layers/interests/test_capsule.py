"""Squash and routing: golden length, twins, zero, padding, and what learns."""

import numpy as np
import pytest

from models.keras import tf
from models.layers.interests.capsule import capsules, dynamic_routing, squash
from tests.reference import interactions as reference
from tests.reference import multi_interest


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


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("iterations", [1, 3])
def test_routing_equals_the_twin_and_skips_padding(iterations, shared):
    rng = np.random.default_rng(0)
    votes = rng.normal(size=[2, 1 if shared else 3, 5, 4])
    logits = rng.normal(size=[2, 3, 5])
    lengths = [5, 2]
    mask = tf.sequence_mask(lengths, 5)[:, None]
    votes[1, :, 2:], logits[1, :, 2:] = 1e3, 50.0
    tensors = tf.constant(votes, tf.float32), tf.constant(logits, tf.float32)
    shares = dynamic_routing(*tensors, mask, iterations)
    found = capsules(shares, tensors[0])
    for b, n in enumerate(lengths):
        each = np.broadcast_to(votes[b], [3, 5, 4])[:, :n]
        expected, expected_shares = multi_interest.route(each, logits[b, :, :n], iterations)
        np.testing.assert_allclose(shares[b, :, :n], expected_shares, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(found[b], expected, rtol=1e-5, atol=1e-6)
    assert not shares[1, :, 2:].numpy().any()


def test_only_the_last_sum_of_routing_learns():
    votes = tf.constant(np.random.default_rng(1).normal(size=[1, 2, 4, 3]), tf.float32)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(votes)
        shares = dynamic_routing(votes, tf.zeros([1, 2, 4]), tf.ones([1, 1, 4], tf.bool), 3)
        total = tf.reduce_sum(capsules(shares, votes))
    assert tape.gradient(shares, votes) is None
    assert np.all(tape.gradient(total, votes))
