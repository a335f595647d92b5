import numpy as np

from models.layers.interest_consistency import interest_divergence
from reference import deminet as reference

RANDOM = np.random.default_rng(0)
FIRST = RANDOM.normal(size=(2, 3, 4, 8)).astype(np.float32)
SECOND = RANDOM.normal(size=(2, 3, 4, 8)).astype(np.float32)


def test_golden_g6() -> None:
    golden = np.array([[0, np.log(3)], [0, 0]], np.float32)
    np.testing.assert_allclose(interest_divergence(*golden), 0.13732654, atol=1e-6)
    np.testing.assert_allclose(reference.divergence(*golden), 0.13732654, atol=1e-6)


def test_equals_equation_18() -> None:
    divergence = interest_divergence(FIRST, SECOND).numpy()
    assert divergence.shape == (2, 3, 4)
    for index in np.ndindex(2, 3, 4):
        expected = reference.divergence(FIRST[index], SECOND[index])
        np.testing.assert_allclose(divergence[index], expected, atol=1e-6)


def test_symmetric_and_blind_to_a_constant_and_zero_for_equals() -> None:
    """Invariant 13."""
    divergence = interest_divergence(FIRST, SECOND)
    np.testing.assert_allclose(divergence, interest_divergence(SECOND, FIRST), atol=1e-6)
    np.testing.assert_allclose(divergence, interest_divergence(FIRST + 3, SECOND - 2), atol=1e-5)
    np.testing.assert_array_equal(interest_divergence(FIRST, FIRST), np.zeros([2, 3, 4]))
    assert (divergence.numpy() > 0).all()


def test_extreme_interests_stay_finite() -> None:
    assert np.isfinite(interest_divergence(FIRST * 1e4, SECOND * 1e4)).all()
