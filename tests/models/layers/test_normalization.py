"""Batch normalisation over valid entries."""

import numpy as np
import pytest

from models.keras import tf
from models.layers.normalization import MaskedBatchNormalization


@pytest.fixture
def batches():
    rng = np.random.default_rng(0)
    return [
        (
            rng.normal(3.0, 0.02, [8, 5, 3]).astype(np.float32),
            rng.random([8, 5]) < 0.6,
        )
        for _ in range(4)
    ]


def test_statistics_are_those_of_valid_entries(batches):
    values, mask = batches[0]
    layer = MaskedBatchNormalization(epsilon=0.0)
    found = layer(values, mask, training=True).numpy()[mask]
    np.testing.assert_allclose(found.mean(0), 0, atol=1e-3)
    np.testing.assert_allclose(found.std(0), 1, rtol=1e-3)
    garbage = np.where(mask[..., None], values, 1e6).astype(np.float32)
    again = MaskedBatchNormalization(epsilon=0.0)(garbage, mask, training=True)
    np.testing.assert_allclose(again.numpy()[mask], found, atol=1e-4)


def test_first_batches_count_alike_and_initial_values_not_at_all(batches):
    layer = MaskedBatchNormalization()
    for values, mask in batches:
        layer(values, mask, training=True)
    means = [values[mask].mean(0) for values, mask in batches]
    variances = [values[mask].var(0) for values, mask in batches]
    np.testing.assert_allclose(layer.moving_mean.numpy(), np.mean(means, 0), rtol=1e-5)
    np.testing.assert_allclose(layer.moving_variance.numpy(), np.mean(variances, 0), rtol=1e-4)


def test_later_batches_count_by_the_momentum(batches):
    values, mask = batches[0]
    layer = MaskedBatchNormalization(momentum=0.9)
    layer(values, mask, training=True)
    layer.seen_batches.assign(100.0)
    layer(np.zeros_like(values), mask, training=True)
    np.testing.assert_allclose(layer.moving_mean.numpy(), 0.9 * values[mask].mean(0), rtol=1e-5)


def test_inference_uses_the_averages_and_changes_nothing(batches):
    values, mask = batches[0]
    layer = MaskedBatchNormalization()
    layer(values, mask, training=True)
    before = [weight.numpy() for weight in layer.weights]
    found = layer(values, mask).numpy()
    expected = (values - before[0]) / np.sqrt(before[1] + layer.epsilon)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    for weight, value in zip(layer.weights, before, strict=True):
        np.testing.assert_array_equal(weight.numpy(), value)


def test_a_batch_without_valid_entries_is_finite():
    layer = MaskedBatchNormalization()
    found = layer(tf.ones([2, 3, 4]), tf.zeros([2, 3], tf.bool), training=True)
    assert np.isfinite(found.numpy()).all()
