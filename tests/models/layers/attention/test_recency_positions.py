import numpy as np

from models.keras import tf
from models.layers.attention.recency_positions import RecencyPositions
from tests.reference import deminet as reference


def test_equals_equation_12_whatever_the_length() -> None:
    layer = RecencyPositions(7, 3)
    lengths = [5, 2, 0]
    mask = np.arange(5) < np.array(lengths)[:, None]
    with tf.GradientTape() as tape:
        positions = layer(mask)
        total = tf.reduce_sum(positions * tf.cast(mask, tf.float32)[..., None])
    for b, n in enumerate(lengths):
        expected = reference.add_positions(np.zeros([n, 3]), layer.table.numpy())
        np.testing.assert_array_equal(positions[b, :n], expected.astype(np.float32))
    gradient = tape.gradient(total, layer.table)
    assert isinstance(gradient, tf.Tensor)
    np.testing.assert_array_equal(gradient[:, 0], [2, 2, 1, 1, 1, 0, 0])
