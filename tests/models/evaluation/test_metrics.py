"""Metrics against brute force and scikit-learn."""

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics
from sklearn.calibration import calibration_curve

from models.evaluation.metrics import (
    CUTOFFS,
    Scores,
    calibration_error,
    grouped_auc,
    log_loss,
    ranking_metrics,
    relative_improvement,
    reliability,
    request_metrics,
    shown,
)


@pytest.fixture
def scored():
    rng = np.random.default_rng(3)
    label = rng.integers(0, 2, 400)
    logit = np.round(rng.normal(size=400) + label, 1)  # Rounded, so that there are ties.
    return rng.integers(0, 30, 400), label, logit


def _pairwise_auc(label, logit):
    positive, negative = logit[label == 1], logit[label == 0]
    return (positive[:, None] > negative).mean() + 0.5 * (positive[:, None] == negative).mean()


def test_grouped_auc_equals_pairs_within_groups(scored):
    group, label, logit = scored
    values, weights = [], []
    for g in np.unique(group):
        chosen = group == g
        if len(set(label[chosen])) == 2:
            values.append(_pairwise_auc(label[chosen], logit[chosen]))
            weights.append(chosen.sum())
    assert grouped_auc(group, label, logit) == pytest.approx(np.average(values, weights=weights))


def test_grouped_auc_without_a_mixed_group_is_nan():
    assert np.isnan(grouped_auc(np.array([0, 1]), np.array([0, 1]), np.array([0.0, 1.0])))


def test_ranking_metrics_agree_with_scikit_learn(scored):
    group, label, logit = scored
    request = np.arange(400).astype(str)
    metrics = ranking_metrics(Scores(group, request, label, logit, np.ones(400), {}))
    probability = 1 / (1 + np.exp(-logit))
    assert metrics["auc"] == pytest.approx(sklearn_metrics.roc_auc_score(label, logit))
    assert metrics["log_loss"] == pytest.approx(sklearn_metrics.log_loss(label, probability))
    assert metrics["bias_ratio"] == pytest.approx(probability.mean() / label.mean())
    rate = label.mean()
    entropy = -rate * np.log(rate) - (1 - rate) * np.log(1 - rate)
    assert metrics["normalised_entropy"] == pytest.approx(metrics["log_loss"] / entropy)
    assert metrics["requests"] == metrics["candidates"] == 400
    assert metrics["mrr"] is metrics["hr@1"] is None  # One candidate each.


def test_auc_ignores_monotone_transforms(scored):
    group, label, logit = scored
    request = np.arange(400).astype(str)
    plain = ranking_metrics(Scores(group, request, label, logit, np.ones(400), {}))
    bent = ranking_metrics(Scores(group, request, label, np.exp(logit), np.ones(400), {}))
    assert plain["auc"] == bent["auc"]
    assert plain["gauc"] == bent["gauc"]
    assert plain["log_loss"] != bent["log_loss"]


def test_log_loss_of_huge_logits_is_finite():
    assert log_loss(np.array([1.0, 0.0]), np.array([-1000.0, 1000.0])) == pytest.approx(1000.0)


def test_calibration_error_of_known_bins():
    label = np.array([0, 1] * 50)
    assert calibration_error(label, np.full(100, 0.5)) == pytest.approx(0.0)
    assert calibration_error(label, np.full(100, 0.8)) == pytest.approx(0.3)


@pytest.fixture
def asked():
    """40 requests of 12 to 20 candidates in mixed order, some of one class only; no ties."""
    rng = np.random.default_rng(5)
    request = rng.permutation(np.repeat(np.arange(40), rng.integers(12, 21, 40)))
    label = (rng.random(len(request)) < 0.1).astype(float)
    label[request == 7] = 0.0
    label[request == 8] = 1.0
    return request, label, rng.normal(size=len(request)) + label


@pytest.mark.parametrize("k", [5, 10])
def test_discounted_gain_is_that_of_scikit_learn(asked, k):
    request, label, logit = asked
    found = request_metrics(*asked)
    assert not {7, 8} & set(found.index)
    for number, row in found.iterrows():
        mine = request == number
        expected = sklearn_metrics.ndcg_score(label[mine][None], logit[mine][None], k=k)
        assert row[f"ndcg@{k}"] == pytest.approx(expected)


def test_ranks_of_first_positives(asked):
    request, label, logit = asked
    found = request_metrics(*asked)
    mixed = [len(set(label[request == number])) == 2 for number in range(40)]
    assert len(found) == sum(mixed) < 39
    for number, row in found.iterrows():
        mine = request == number
        best = logit[mine & (label > 0)].max()
        rank = 1 + (logit[mine & (label == 0)] > best).sum()
        assert row["mrr"] == pytest.approx(1 / rank)
        for k in CUTOFFS:
            assert row[f"hr@{k}"] == (rank <= k)


def test_mean_reciprocal_rank_of_one_positive_is_that_of_scikit_learn():
    rng = np.random.default_rng(2)
    label = np.eye(8)[rng.integers(0, 8, 50)]
    logit = rng.normal(size=label.shape)
    expected = sklearn_metrics.label_ranking_average_precision_score(label, logit)
    found = request_metrics(np.repeat(np.arange(50), 8), label.ravel(), logit.ravel())
    assert found["mrr"].mean() == pytest.approx(expected)


def test_a_constant_score_ranks_positives_last():
    found = request_metrics(np.zeros(20), np.eye(20)[3], np.zeros(20))
    assert found["mrr"].tolist() == [1 / 20]
    assert found["hr@10"].tolist() == [0.0]


def test_cutoffs_that_cut_nothing_off_are_left_out(asked):
    request, label, logit = asked
    assert "ndcg@10" in request_metrics(request, label, logit)
    few = request_metrics(np.array([0, 0, 1, 1]), np.array([0, 1, 1, 0]), np.arange(4.0))
    assert list(few) == ["mrr", "hr@1"]


def test_calibration_curve_is_that_of_scikit_learn():
    rng = np.random.default_rng(0)
    probability = rng.permutation(np.linspace(0.01, 0.99, 500))
    label = (rng.random(500) < probability).astype(float)
    predicted, observed, counts = reliability(label, probability)
    from_sklearn = calibration_curve(label, probability, n_bins=10, strategy="quantile")
    np.testing.assert_allclose(observed, from_sklearn[0])
    np.testing.assert_allclose(predicted, from_sklearn[1])
    assert counts.tolist() == [50] * 10


@pytest.mark.parametrize(("auc", "baseline"), [(0.7, 0.5), (None, 0.7), (0.7, None)])
def test_relative_improvement_over_nothing_is_undefined(auc, baseline):
    assert shown(relative_improvement(auc, baseline)) == "n/a"


def test_relative_improvement_counts_from_a_coin():
    assert relative_improvement(0.75, 0.7) == pytest.approx(0.25)
    assert relative_improvement(0.6, 0.7) == pytest.approx(-0.5)


def test_weights_of_a_calibration_curve_are_repetitions():
    rng = np.random.default_rng(0)
    probability = rng.permutation(np.linspace(0.01, 0.99, 400))
    label = (rng.random(400) < probability).astype(float)
    weight = np.repeat([1.0, 2.0], 200)
    repeated = [np.repeat(values, weight.astype(int)) for values in (label, probability)]
    weighted = reliability(label, probability, weight)
    assert weighted[2].sum() == 600.0
    for found, expected in zip(weighted, reliability(*repeated), strict=True):
        np.testing.assert_allclose(found, expected, rtol=0.05)
    ones = np.ones(400)
    for found, expected in zip(
        reliability(label, probability, ones), reliability(label, probability), strict=True
    ):
        np.testing.assert_array_equal(found, expected)
    assert calibration_error(label, probability, ones) == calibration_error(label, probability)
