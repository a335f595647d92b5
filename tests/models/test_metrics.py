"""Metrics against brute force and scikit-learn."""

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from models.metrics import Scores, calibration_error, grouped_auc, log_loss, ranking_metrics


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
    metrics = ranking_metrics(Scores(group, request, label, logit, np.ones(400)))
    probability = 1 / (1 + np.exp(-logit))
    assert metrics["auc"] == pytest.approx(_pairwise_auc(label, logit))
    assert metrics["log_loss"] == pytest.approx(sklearn_metrics.log_loss(label, probability))
    assert metrics["bias_ratio"] == pytest.approx(probability.mean() / label.mean())
    rate = label.mean()
    entropy = -rate * np.log(rate) - (1 - rate) * np.log(1 - rate)
    assert metrics["normalised_entropy"] == pytest.approx(metrics["log_loss"] / entropy)
    assert metrics["requests"] == metrics["candidates"] == 400


def test_auc_ignores_monotone_transforms(scored):
    group, label, logit = scored
    request = np.arange(400).astype(str)
    plain = ranking_metrics(Scores(group, request, label, logit, np.ones(400)))
    bent = ranking_metrics(Scores(group, request, label, np.exp(logit), np.ones(400)))
    assert plain["auc"] == bent["auc"]
    assert plain["gauc"] == bent["gauc"]
    assert plain["log_loss"] != bent["log_loss"]


def test_log_loss_of_huge_logits_is_finite():
    assert log_loss(np.array([1.0, 0.0]), np.array([-1000.0, 1000.0])) == pytest.approx(1000.0)


def test_calibration_error_of_known_bins():
    label = np.array([0, 1] * 50)
    assert calibration_error(label, np.full(100, 0.5)) == pytest.approx(0.0)
    assert calibration_error(label, np.full(100, 0.8)) == pytest.approx(0.3)
