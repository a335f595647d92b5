import numpy as np
import pytest

from models.layers.interests.consistency import interest_divergence
from tests.reference import deminet as reference

RANDOM = np.random.default_rng(0)
FIRST = RANDOM.normal(size=(2, 3, 4, 8)).astype(np.float32)
SECOND = RANDOM.normal(size=(2, 3, 4, 8)).astype(np.float32)


TWINS = {"symmetric_kl": reference.divergence, "js": reference.jensen_shannon}
every_divergence = pytest.mark.parametrize("name", list(TWINS))


@pytest.mark.parametrize(("name", "value"), [("symmetric_kl", 0.13732654), ("js", 0.03382208)])
def test_golden_g6(name: str, value: float) -> None:
    golden = np.array([[0, np.log(3)], [0, 0]], np.float32)
    np.testing.assert_allclose(interest_divergence(*golden, name), value, atol=1e-6)
    np.testing.assert_allclose(TWINS[name](*golden), value, atol=1e-6)


@every_divergence
def test_equals_equation_18(name: str) -> None:
    divergence = interest_divergence(FIRST, SECOND, name).numpy()
    assert divergence.shape == (2, 3, 4)
    for index in np.ndindex(2, 3, 4):
        expected = TWINS[name](FIRST[index], SECOND[index])
        np.testing.assert_allclose(divergence[index], expected, atol=1e-6)


@every_divergence
def test_symmetric_and_blind_to_a_constant_and_zero_for_equals(name: str) -> None:
    """Invariant 13."""
    divergence = interest_divergence(FIRST, SECOND, name)
    backwards = interest_divergence(SECOND, FIRST, name)
    np.testing.assert_allclose(divergence, backwards, atol=1e-6)
    moved = interest_divergence(FIRST + 3, SECOND - 2, name)
    np.testing.assert_allclose(divergence, moved, atol=1e-5)
    np.testing.assert_allclose(interest_divergence(FIRST, FIRST, name), 0, atol=1e-7)
    assert (divergence.numpy() > 0).all()


@every_divergence
def test_extreme_interests_stay_finite(name: str) -> None:
    assert np.isfinite(interest_divergence(FIRST * 1e4, SECOND * 1e4, name)).all()
