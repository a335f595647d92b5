"""Self-attention among fields: the twin, any order of fields, and no way to blow up."""

import numpy as np
import pytest

from models.keras import tf
from models.layers.fields.field_attention import FieldAttention
from tests.reference import embedded
from tests.reference import fieldwise as reference

SHAPE = (2, 3, 5, 4)


@pytest.fixture(scope="module")
def layer():
    layer = FieldAttention(width=4, heads=2, head_width=3)
    layer(tf.zeros(SHAPE))
    embedded.randomize(layer, seed=1)
    return layer


def fields(seed=0):
    return np.random.default_rng(seed).normal(size=SHAPE).astype(np.float32)


def test_equals_the_twin(layer):
    values = fields()
    kernel, bias = layer.projection.kernel.numpy(), layer.projection.bias.numpy()
    projections = list(zip(np.split(kernel, 4, 1), np.split(bias, 4), strict=True))
    norm = layer.normalization
    outputs = layer(tf.constant(values)).numpy()
    assert outputs.shape == (2, 3, 5, 6)
    for place in np.ndindex(2, 3):
        expected = reference.field_attention(
            values[place].astype(np.float64),
            projections,
            norm.gamma.numpy(),
            norm.beta.numpy(),
            heads=2,
            epsilon=norm.epsilon,
        )
        np.testing.assert_allclose(outputs[place], expected, rtol=1e-5, atol=1e-5)


def test_follows_the_order_of_the_fields(layer):
    values, order = fields(), [3, 0, 4, 1, 2]
    np.testing.assert_allclose(
        layer(tf.constant(values[:, :, order])),
        layer(tf.constant(values)).numpy()[:, :, order],
        rtol=1e-5,
        atol=1e-5,
    )


def test_fields_of_zeros_have_finite_outputs_and_gradients(layer):
    values = tf.zeros(SHAPE)
    with tf.GradientTape() as tape:
        tape.watch(values)
        outputs = layer(values)
        loss = tf.reduce_sum(tf.square(outputs))
    assert np.isfinite(outputs).all()
    assert np.isfinite(tape.gradient(loss, values)).all()


def test_initial_projections_have_the_fans_of_one():
    layer = FieldAttention(width=4, heads=2, head_width=3)
    layer(tf.zeros(SHAPE))
    limit = np.sqrt(6.0 / (4 + 6))
    assert 0.8 * limit < np.abs(layer.projection.kernel).max() <= limit
