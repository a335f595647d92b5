"""AUGRU: golden step, twin, padding, and its two ends: no attention and a plain GRU."""

import numpy as np

from models.keras import keras, tf
from models.layers.augru import AUGRU, augru_step
from tests.reference import interactions as reference

B, N, L, D, U = 3, 2, 5, 4, 3
LENGTHS = np.array([5, 2, 0])


def inputs(length=L):
    rng = np.random.default_rng(0)
    values = rng.normal(size=(B, L, D)), rng.random((B, N, L))
    mask = np.arange(length) < LENGTHS[:, None]
    values, attention = (tf.constant(v, tf.float32) for v in values)
    extra = length - L
    return (
        tf.pad(values, [[0, 0], [0, extra], [0, 0]], constant_values=1e3),
        tf.pad(attention, [[0, 0], [0, 0], [0, extra]], constant_values=1.0),
        tf.constant(mask),
    )


def build():
    layer = AUGRU(U)
    layer(*inputs())
    layer.of_input.bias.assign(np.linspace(-0.5, 0.5, 3 * U))
    return layer


def test_golden_step():
    step = augru_step(
        tf.constant(0.5), tf.constant(0.4), tf.constant(-1.0), attention=tf.constant(0.25)
    )
    np.testing.assert_allclose(step, 0.35, atol=1e-6)


def test_equals_the_twin():
    layer = build()
    values, attention, mask = inputs()
    states = layer(values, attention, mask).numpy()
    for b, n in np.ndindex(B, N):
        valid = slice(LENGTHS[b])
        expected = reference.augru(
            values.numpy()[b, valid],
            attention.numpy()[b, n, valid],
            layer.of_input.kernel.numpy(),
            layer.of_input.bias.numpy(),
            layer.of_state.numpy(),
        )
        np.testing.assert_allclose(states[b, n], expected, rtol=1e-5, atol=1e-6)


def test_padding_changes_nothing_and_empty_is_zero():
    layer = build()
    states = layer(*inputs())
    np.testing.assert_array_equal(layer(*inputs(L + 3)), states)
    np.testing.assert_array_equal(states[2], np.zeros((N, U)))


def test_no_attention_keeps_the_state():
    layer = build()
    values, attention, mask = inputs()
    np.testing.assert_array_equal(layer(values, 0.0 * attention, mask), np.zeros((B, N, U)))
    # Steps after the second are not attended to: as if the history ended there.
    early = attention * tf.constant([1.0, 1.0, 0.0, 0.0, 0.0])
    short = mask & (tf.range(L) < 2)
    np.testing.assert_array_equal(layer(values, early, mask), layer(values, attention, short))


def test_full_attention_is_a_gru():
    layer = build()
    values, attention, _ = inputs()
    full = tf.ones([B, L], tf.bool)
    states = layer(values, tf.ones_like(attention), full)
    gru = keras.layers.GRU(U, reset_after=True)
    gru(values)
    # Keras' update gate is the share of the old state, ours that of the new one.
    sign = np.repeat([-1.0, 1.0, 1.0], U)
    kernel, bias = layer.of_input.kernel.numpy(), layer.of_input.bias.numpy()
    gru.set_weights(
        [kernel * sign, layer.of_state.numpy() * sign, np.stack([bias * sign, 0.0 * bias])]
    )
    np.testing.assert_allclose(states[:, 0], gru(values), rtol=1e-5, atol=1e-6)


def test_a_gradient_reaches_every_weight_and_the_attention():
    layer = build()
    values, attention, mask = inputs()
    with tf.GradientTape() as tape:
        tape.watch(attention)
        loss = tf.reduce_sum(tf.square(layer(values, attention, mask)))
    gradients = tape.gradient(loss, [attention, *layer.trainable_variables])
    assert all(np.any(gradient) for gradient in gradients)
    valid = np.broadcast_to(mask[:, None], attention.shape)
    assert np.array_equal(gradients[0].numpy() != 0.0, valid)
