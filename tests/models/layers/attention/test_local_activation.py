"""The folded first layer against the layer on concatenated inputs."""

import numpy as np
import pytest

from models.keras import tf
from models.layers.attention.local_activation import LocalActivation
from tests.reference import embedded

B, N, L, D = 3, 2, 5, 4


def inputs():
    rng = np.random.default_rng(0)
    targets = tf.constant(rng.normal(size=(B, N, D)), tf.float32)
    events = tf.constant(rng.normal(size=(B, L, D)), tf.float32)
    mask = tf.constant(np.arange(L) < np.array([5, 2, 0])[:, None])
    return targets, events, tf.repeat(mask[:, None], N, axis=1)


def weigh(layer, targets, events, mask):
    return layer(targets, events, layer.encode_events(events), mask)


def test_folding_is_exact():
    layer = LocalActivation(D, units=(7,), activation="sigmoid")
    targets, events, mask = inputs()
    weigh(layer, targets, events, mask)
    embedded.randomize(layer)
    q = tf.repeat(targets[:, :, None], L, axis=2)
    k = tf.repeat(events[:, None], N, axis=1)
    pairs = tf.concat([q, k, q - k, q * k], -1)
    hidden = tf.sigmoid(tf.tensordot(pairs, layer.kernel, 1) + layer.bias)
    expected = tf.where(mask, layer.scorer(hidden)[..., 0], 0.0)
    np.testing.assert_allclose(weigh(layer, targets, events, mask), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("activation", ["dice", "sigmoid"])
def test_weights_are_raw_scores_unless_normalised(activation):
    targets, events, mask = inputs()
    raw = LocalActivation(D, units=(7, 3), activation=activation)
    weigh(raw, targets, events, mask)
    embedded.randomize(raw)
    assert raw.scorer.use_bias
    softmax = LocalActivation(D, units=(7, 3), activation=activation, normalize=True)
    weigh(softmax, targets, events, mask)
    assert not softmax.scorer.use_bias
    for mine, theirs in zip(
        softmax.weights, [w for w in raw.weights if "scorer/bias" not in w.name], strict=True
    ):
        mine.assign(theirs)
    scores = weigh(raw, targets, events, mask).numpy()
    weights = weigh(softmax, targets, events, mask).numpy()
    valid = mask.numpy()
    assert not scores[~valid].any()
    assert not weights[~valid].any()
    exponents = np.where(valid, np.exp(scores), 0.0)
    expected = exponents / np.maximum(exponents.sum(-1, keepdims=True), 1e-9)
    np.testing.assert_allclose(weights, expected, rtol=1e-5, atol=1e-6)


def test_what_a_query_gains_at_an_event_is_folded_exactly():
    """Queries q + p with p of the event: once through `encode_events`, once as they are."""
    targets, events, mask = inputs()
    layer = LocalActivation(D, units=(7, 3), normalize=True)
    weigh(layer, targets, events, mask)
    embedded.randomize(layer)
    gains = tf.constant(np.random.default_rng(2).normal(size=events.shape), tf.float32)
    folded = layer(targets, events, layer.encode_events(events, gains), mask)
    queries = targets[:, :, None] + gains[:, None]
    plain = layer(queries, events, layer.encode_events(events), mask)
    np.testing.assert_allclose(folded, plain, rtol=1e-5, atol=1e-6)
    assert np.abs(folded - weigh(layer, targets, events, mask)).max() > 1e-3
