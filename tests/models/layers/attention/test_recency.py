"""The recent end of a history, whatever its length and padding."""

import numpy as np

from models.keras import tf
from models.layers.attention.recency import reverse_history

MASK = tf.sequence_mask([4, 2, 0, 1], 4)


def test_the_last_valid_step_comes_first():
    steps = tf.constant([[1, 2, 3, 4], [5, 6, 0, 0], [0, 0, 0, 0], [7, 0, 0, 0]])
    expected = [[4, 3, 2, 1], [6, 5, 0, 0], [0, 0, 0, 0], [7, 0, 0, 0]]
    np.testing.assert_array_equal(reverse_history(steps, MASK), expected)


def test_twice_is_the_input_along_any_axis():
    values = tf.constant(np.random.default_rng(0).normal(size=[4, 3, 4, 2]))
    reversed_values = reverse_history(values, MASK, axis=2)
    np.testing.assert_array_equal(reverse_history(reversed_values, MASK, axis=2), values)
    np.testing.assert_array_equal(reversed_values[1, :, 0], values[1, :, 1])
