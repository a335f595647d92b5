"""Feature interactions: golden values and NumPy twins."""

import numpy as np
import pytest

from models.keras import tf, tfrs
from models.layers.fields.interactions import (
    CompressedInteraction,
    VectorCross,
    fm_second_order,
    pairwise_inner_products,
)
from tests.reference import interactions as reference

FIELDS = tf.constant([[1.0, 2.0], [3.0, 4.0], [0.0, 1.0]])


def fields(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def test_golden_fm_and_inner_products():
    assert fm_second_order(FIELDS).numpy() == 17.0
    np.testing.assert_array_equal(pairwise_inner_products(FIELDS), [11.0, 2.0, 4.0])


@pytest.mark.parametrize("leading", [(4,), (2, 3)])
def test_products_equal_the_twins(leading):
    values = fields(*leading, 5, 3)
    second_order = fm_second_order(tf.constant(values)).numpy()
    products = pairwise_inner_products(tf.constant(values)).numpy()
    assert products.shape == (*leading, 10)
    for place in np.ndindex(*leading):
        expected = reference.fm_second_order(values[place])
        np.testing.assert_allclose(second_order[place], expected, rtol=1e-5, atol=1e-6)
        expected = reference.pairwise_inner_products(values[place])
        np.testing.assert_allclose(products[place], expected, rtol=1e-5, atol=1e-6)


def test_golden_crosses():
    x = tf.constant([[1.0, 2.0]])
    vector = VectorCross()
    vector(x, x)
    vector.kernel.assign([[1.0], [1.0]])
    np.testing.assert_array_equal(vector(x, x), [[4.0, 8.0]])
    # The cross layer of DCN-M comes from tensorflow-recommenders.
    matrix = tfrs.layers.dcn.Cross(kernel_initializer="identity")
    np.testing.assert_array_equal(matrix(x, x), [[2.0, 6.0]])


def test_cross_equals_the_twin():
    x0, x = fields(2, 3, 4)[0], fields(3, 3, 4)[2]
    layer = VectorCross()
    layer(tf.constant(x0), tf.constant(x))
    layer.bias.assign([0.1, -0.2, 0.3, 0.4])
    crossed = layer(tf.constant(x0), tf.constant(x)).numpy()
    w, b = layer.kernel.numpy()[:, 0], layer.bias.numpy()
    for row in range(3):
        expected = reference.cross(x0[row], x[row], w, b)
        np.testing.assert_allclose(crossed[row], expected, rtol=1e-5, atol=1e-6)


def test_golden_compressed_interaction():
    values = tf.constant([[[1.0], [2.0]]])
    layer = CompressedInteraction(units=(1,))
    layer(values)
    layer.maps[0].kernel.assign(np.ones((4, 1)))
    np.testing.assert_array_equal(layer(values), [[9.0]])


@pytest.mark.parametrize("leading", [(3,), (2, 2)])
def test_compressed_interaction_equals_the_twin(leading):
    values = fields(*leading, 3, 2)
    layer = CompressedInteraction(units=(4, 6, 5))
    outputs = layer(tf.constant(values)).numpy()
    assert outputs.shape == (*leading, 2 + 3 + 5)
    kernels = [
        dense.kernel.numpy().reshape(previous, 3, -1)
        for dense, previous in zip(layer.maps, (3, 2, 3), strict=True)
    ]
    for place in np.ndindex(*leading):
        expected = reference.compressed_interaction(values[place], kernels)
        np.testing.assert_allclose(outputs[place], expected, rtol=1e-5, atol=1e-5)
