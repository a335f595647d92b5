"""Resampling users: weights are repetitions, intervals cover, differences are paired."""

import numpy as np
import pytest

from models.evaluation import confidence_intervals
from models.evaluation.metrics import Scores, grouped_auc, ranking_metrics

USERS, REQUESTS, CANDIDATES = 30, 3, 4


def _scores(users=USERS, seed=0, noise=1.0):
    """Scores with ties; the first candidate of a request is its positive."""
    rng = np.random.default_rng([users, seed])
    user = np.repeat([f"u{i}" for i in range(users)], REQUESTS * CANDIDATES)
    request = np.array([f"{name}:{i // CANDIDATES}" for i, name in enumerate(user)])
    label = np.tile(np.eye(CANDIDATES)[0], users * REQUESTS)
    logit = np.round(label + rng.normal(size=len(label), scale=noise), 1)
    return Scores(user, request, label, logit, np.ones(len(user)), {})


def _repeated(scores, weight):
    """The candidates of each user as often as its weight, each time as another user."""
    parts = []
    for number, name in enumerate(dict.fromkeys(scores.user)):
        mine = scores.user == name
        for copy in range(weight[number]):
            part = {
                field: np.asarray(getattr(scores, field))[mine]
                for field in ("label", "logit", "history_length")
            }
            part["user"] = np.full(mine.sum(), f"{name} {copy}")
            part["request_id"] = np.array([f"{r} {copy}" for r in scores.request_id[mine]])
            parts.append(part)
    columns = {field: np.concatenate([part[field] for part in parts]) for field in parts[0]}
    return Scores(**columns, ids={})


def test_weights_are_repetitions_of_users():
    scores = _scores()
    weight = np.random.default_rng(1).integers(0, 4, USERS)
    measured = confidence_intervals.UserMetrics(scores)
    found = dict(zip(measured.names, measured(weight), strict=True))
    expected = ranking_metrics(_repeated(scores, weight))
    for name, value in found.items():
        assert value == pytest.approx(expected[name]), name


def test_values_are_those_of_the_scores():
    scores = _scores()
    expected = ranking_metrics(scores)
    for name, (value, low, high) in confidence_intervals.estimate(scores, draws=50).items():
        assert value == pytest.approx(expected[name]), name
        assert low < value < high, name


def test_intervals_cover_the_truth_as_often_as_they_say():
    """30 logs of 40 users; fewer than 22 hits of 30 at 95 % each are rarer than 1e-4."""
    truth = ranking_metrics(_scores(4000, seed=99))["auc"]
    covered = 0
    for seed in range(30):
        found = confidence_intervals.estimate(_scores(40, seed=seed), draws=50)["auc"]
        covered += found.low <= truth <= found.high
    assert covered >= 22


def test_chosen_candidates_rank_among_themselves_but_requests_stay_whole():
    scores = _scores()
    first = np.array([name.endswith(":0") for name in scores.request_id])
    # Of the chosen requests all positives, and half of the negatives.
    chosen = first & ((scores.label > 0) | (np.arange(len(first)) % 2 == 0))
    measured = confidence_intervals.UserMetrics(scores, chosen)
    found = dict(zip(measured.names, measured.value(), strict=True))
    part = Scores(*(column[chosen] for column in scores[:5]), {})
    whole = Scores(*(column[first] for column in scores[:5]), {})
    assert found["auc"] == pytest.approx(ranking_metrics(part)["auc"])
    assert found["gauc"] == pytest.approx(grouped_auc(part.user, part.label, part.logit))
    assert found["mrr"] == pytest.approx(ranking_metrics(whole)["mrr"])


def test_one_class_has_no_auc():
    scores = _scores()
    measured = confidence_intervals.UserMetrics(scores, scores.label == 0)
    found = dict(zip(measured.names, measured.value(), strict=True))
    assert np.isnan(found["auc"])
    assert np.isnan(found["mrr"])
    assert found["log_loss"] > 0


def test_what_is_undefined_has_no_interval_and_no_p_value():
    scores = _scores()
    lost = scores._replace(label=np.zeros_like(scores.label))
    defined = {"log_loss"}
    for name, found in confidence_intervals.estimate(lost, draws=20).items():
        assert (None not in found) == (name in defined), name
    for name, found in confidence_intervals.compare(lost, lost, draws=20).items():
        assert (found.p_value is not None) == (name in defined), name


@pytest.mark.parametrize("kind", ["one user", "one user with both labels"])
def test_one_user_says_nothing_of_others(kind):
    """A metric that depends on one user is the same in every draw: no interval of no width."""
    scores = _scores(users=5)
    if kind == "one user":
        scores = scores._replace(user=np.full(len(scores.user), "u0"))
        alone = set(confidence_intervals.UserMetrics(scores).names)
    else:
        # Of the others, one clicked everything and the rest nothing.
        label = np.where(scores.user == "u0", scores.label, scores.user == "u1")
        scores = scores._replace(label=label.astype(float))
        alone = {"gauc", "mrr", "hr@1"}
    better = scores._replace(logit=scores.logit + scores.label)
    estimates = confidence_intervals.estimate(scores, draws=40)
    for name, found in confidence_intervals.compare(scores, better, draws=40).items():
        assert estimates[name].value is not None, name
        assert (estimates[name].low is None) == (name in alone), name
        assert (found.p_value is None) == (name in alone), name


def test_a_model_does_not_differ_from_itself():
    scores = _scores()
    for name, found in confidence_intervals.compare(scores, scores, draws=20).items():
        assert found.difference == (0.0, 0.0, 0.0), name
        assert found.p_value == 1.0


def test_comparison_is_paired():
    """A small gain on every user is certain, though the metric itself is not."""
    first = _scores(noise=2.0)
    second = first._replace(logit=first.logit + 0.3 * first.label)
    found = confidence_intervals.compare(first, second, draws=200)["auc"]
    alone = confidence_intervals.estimate(first, draws=200)["auc"]
    assert found.difference.value == pytest.approx(found.second - found.first)
    assert found.difference.low > 0
    assert found.p_value < 0.02
    assert found.difference.high - found.difference.low < (alone.high - alone.low) / 2
    back = confidence_intervals.compare(second, first, draws=200)["auc"]
    assert back.difference.value == -found.difference.value


def test_draws_depend_on_the_seed_alone():
    measured = confidence_intervals.UserMetrics(_scores())
    np.testing.assert_array_equal(measured.draw(5), measured.draw(5))
    assert (measured.draw(5) != measured.draw(5, seed=1)).any()
