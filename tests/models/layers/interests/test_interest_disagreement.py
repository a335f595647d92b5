import numpy as np

from models.keras import tf
from models.layers.interests.disagreement import likeness
from tests.reference import deminet as reference

INTERESTS = np.random.default_rng(0).normal(size=(2, 3, 4, 8)).astype(np.float32)


def test_equals_its_twin() -> None:
    values = likeness(INTERESTS).numpy()
    assert values.shape == (2, 3)
    for index in np.ndindex(2, 3):
        expected = reference.likeness(list(INTERESTS[index]))
        np.testing.assert_allclose(values[index], expected, atol=1e-6)


def test_neither_scale_nor_sign_matters() -> None:
    factors = np.array([3.0, -0.5, 100.0, -1.0], np.float32)[:, None]
    np.testing.assert_allclose(likeness(INTERESTS * factors), likeness(INTERESTS), atol=1e-6)


def test_the_gradient_takes_equal_interests_apart() -> None:
    interests = tf.constant([[[[1.0, 0.1], [1.0, -0.1]]]])
    with tf.GradientTape() as tape:
        tape.watch(interests)
        value = likeness(interests)
    moved = likeness(interests - 0.1 * tape.gradient(value, interests))
    assert moved.numpy().item() < value.numpy().item()
