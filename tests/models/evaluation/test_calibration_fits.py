"""Fits with known answers, against twins, and on what cannot be fitted."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.evaluation import calibration_fits
from models.evaluation.calibration_fits import UnfitError, isotonic, platt, prior
from models.evaluation.metrics import calibration_error, overall_auc, sigmoid
from tests.reference import calibrations


@pytest.fixture(scope="module")
def drawn():
    """Logits, labels drawn with their probabilities, and weights."""
    rng = np.random.default_rng(4)
    logit = rng.normal(-1.0, 1.5, 3000)
    label = (rng.random(3000) < sigmoid(logit)).astype(float)
    return logit, label, rng.uniform(0.5, 2.0, 3000)


def expected_labels(logit):
    """Each logit with either label, weighted by its probability: data without any noise."""
    probability = sigmoid(logit)
    return (
        np.repeat([1.0, 0.0], len(logit)),
        np.concatenate([probability, 1.0 - probability]),
    )


@pytest.mark.parametrize(
    ("slope", "intercept"), [(0.4, -1.0), (3.0, 0.5), (1e-4, 2.0), (50.0, 0.0)]
)
def test_platt_undoes_a_slope_and_an_intercept(slope, intercept):
    true = np.random.default_rng(0).normal(size=200_000)
    label, weight = expected_labels(true)
    distorted = np.tile((true - intercept) / slope, 2)
    found = platt(distorted, label, weight)
    assert found.slope == pytest.approx(slope, rel=1e-3)
    np.testing.assert_allclose(found.logits(distorted), np.tile(true, 2), atol=1e-3)


def test_platt_is_its_twin(drawn):
    slope, intercept = calibrations.platt(*drawn)
    found = platt(*drawn)
    assert found.slope == pytest.approx(slope, rel=1e-5)
    assert found.value_K[0] == pytest.approx(intercept, abs=1e-5)


def test_platt_of_logits_that_separate_is_finite():
    found = platt(np.array([-2.0, -1.0, 1.0, 2.0]), np.array([0, 0, 1, 1]), np.ones(4))
    assert 0.0 < found.slope < 2.0
    assert found.probabilities(np.array([0.0])) == pytest.approx(0.5)


def test_knots_are_the_centres_of_pooled_blocks(drawn, monkeypatch):
    logit, label, weight = drawn
    logit = np.round(logit, 2)
    monkeypatch.setattr(calibration_fits, "SLOPES", (1e-12, 1e12))
    found = isotonic(logit, label, weight)
    blocks = calibrations.pooled(logit, label, weight)
    assert len(blocks) > 10
    centres, shares, sizes = (np.array(column) for column in zip(*blocks, strict=True))
    np.testing.assert_allclose(found.logit_K, centres)
    inner = slice(1, -1)
    np.testing.assert_allclose(sigmoid(np.array(found.value_K))[inner], shares[inner])
    assert shares[0] == 0.0 < 1.0 == shares[-1]
    ends = sigmoid(np.array(found.value_K))[[0, -1]]
    expected = [
        min(0.5 / (sizes[0] + 1), shares[1] / 2),
        1 - min(0.5 / (sizes[-1] + 1), (1 - shares[-2]) / 2),
    ]
    np.testing.assert_allclose(ends, expected)


def test_slopes_between_knots_are_bounded_by_those_of_platt(drawn):
    found = isotonic(*drawn)
    slopes = np.diff(found.value_K) / np.diff(found.logit_K) / platt(*drawn).slope
    assert 0.1 * (1 - 1e-9) <= slopes.min() < slopes.max() <= 4.0 * (1 + 1e-9)
    assert found.slope == platt(*drawn).slope


def test_isotonic_straightens_what_no_line_can():
    rng = np.random.default_rng(1)
    true = rng.normal(size=50_000)
    label = (rng.random(50_000) < sigmoid(true)).astype(float)
    bent = np.where(true > 0, 2.0 * true, 0.5 * true)
    errors = [
        calibration_error(label, fit(bent, label, np.ones(50_000)).probabilities(bent))
        for fit in (platt, isotonic)
    ]
    assert errors[0] > 0.03
    assert errors[1] < 0.004


def test_weights_count_as_repetitions(drawn):
    logit, label, _ = drawn
    weight = np.random.default_rng(2).integers(0, 4, len(logit))
    repeated = [np.repeat(values, weight) for values in (logit, label, np.ones(len(logit)))]
    for fit in (platt, isotonic):
        # At the ends, how many candidates there are matters too.
        points = np.linspace(-2.0, 1.5, 50)
        np.testing.assert_allclose(
            fit(logit, label, weight).logits(points), fit(*repeated).logits(points), atol=0.01
        )


@pytest.mark.parametrize("fit", [platt, isotonic])
@pytest.mark.parametrize(
    ("logit", "label", "weight", "found"),
    [
        ([1, 2, 3], [1, 1, 1], [1, 1, 1], "the label 1 only"),
        ([1, 2, 3], [0, 0, 0], [1, 1, 1], "the label 0 only"),
        ([1, 2, 3], [0, 1, 0], [1, 0, 1], "the label 0 only"),
        ([1, 2, 3], [0, 1, 1], [0, 0, 0], "none with a weight above 0"),
        ([2, 2, 2], [0, 1, 1], [1, 1, 1], "one score for all of them"),
        ([1, 2, 3, 4], [1, 1, 0, 0], [1, 1, 1, 1], "scores that are no higher for positives"),
    ],
)
def test_what_says_nothing_is_refused(fit, logit, label, weight, found):
    with pytest.raises(UnfitError, match=found):
        fit(np.array(logit, float), np.array(label, float), np.array(weight, float))


@given(
    st.lists(
        st.tuples(
            st.floats(-1e6, 1e6, width=32),
            st.booleans(),
            st.floats(0.1, 10.0),
        ),
        min_size=2,
        max_size=40,
    ),
    st.sampled_from([platt, isotonic]),
)
def test_whatever_is_fitted_keeps_the_order(candidates, fit):
    logit, label, weight = (np.array(column, float) for column in zip(*candidates, strict=True))
    try:
        found = fit(logit, label, weight)
    except UnfitError:
        return
    assert type(found).from_json(found.to_json(), "") == found
    value = found.logits(np.sort(logit))
    assert np.isfinite(value).all()
    assert (np.diff(value) >= 0).all()


def test_order_and_ties_of_scores_stay(drawn):
    logit, label, weight = drawn
    logit = np.round(logit, 3).astype(np.float32)
    for calibration in (platt(logit, label, weight), isotonic(logit, label, weight), prior(0.01)):
        value = calibration.logits(logit)
        assert len(np.unique(value)) == len(np.unique(logit))
        assert overall_auc(label, value) == overall_auc(label, logit)


def test_prior_restores_the_rate_of_a_log_whose_negatives_were_thinned():
    rng = np.random.default_rng(7)
    logit = rng.normal(-4.0, 1.0, 400_000)
    label = rng.random(len(logit)) < sigmoid(logit)
    kept = label | (rng.random(len(logit)) < 0.05)
    # What a model learns from the kept candidates: their log odds.
    learned = logit[kept] - np.log(0.05)
    assert sigmoid(learned).mean() == pytest.approx(label[kept].mean(), rel=0.02)
    restored = prior(0.05)
    np.testing.assert_allclose(restored.logits(learned), logit[kept])
    everywhere = restored.probabilities(logit - np.log(0.05))
    assert everywhere.mean() == pytest.approx(label.mean(), rel=0.02)
