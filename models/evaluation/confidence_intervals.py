"""Confidence intervals and tests of metrics, by resampling users.

The candidates of a user depend on each other (one history, often several requests), so a draw takes
users with replacement, each with all its candidates. Every draw is a function of the seed, its
number and the number of users: two models measured on the same requests get the same draws, and
their difference is a paired one.

Drawing tells nothing of a metric that depends on fewer than two users (for GAUC these are the users
with both labels): it has no interval and no p-value then.

Shapes: C candidates, U users, M metrics, R draws.
"""

import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from models.evaluation.metrics import Scores, defined, group_aucs, request_metrics, sigmoid

DRAWS = 1000


class UserMetrics:
    """Metrics of scored candidates as functions of how often each user counts.

    Args:
        scores: Of a split.
        chosen_C: Which candidates count; all without it. Ranking within requests looks at the
            requests with a positive among them, and there at every candidate.
    """

    def __init__(self, scores: Scores, chosen_C: np.ndarray | None = None) -> None:
        if chosen_C is None:
            chosen_C = np.ones(len(scores.label), bool)
        user_C, users = pd.factorize(scores.user[chosen_C])
        label_C = scores.label[chosen_C].astype(np.float64)
        logit_C = scores.logit[chosen_C].astype(np.float64)
        self.users = len(users)

        # For the AUC: users of positives and negatives from low to high scores; ties in one group.
        order_C = np.argsort(logit_C, kind="stable")
        self._user_C, self._label_C = user_C[order_C], label_C[order_C]
        self._starts = np.flatnonzero(np.diff(logit_C[order_C], prepend=np.nan) != 0)

        # For the rest: sums over each user.
        def sums(user: np.ndarray, values: np.ndarray | None = None) -> np.ndarray:
            return np.bincount(user, values, minlength=self.users)

        within = group_aucs(user_C, label_C, logit_C)
        of_group = within.index.to_numpy(np.int64)
        size = within["size"].to_numpy(np.float64)
        asked = _requests(scores, chosen_C)
        of_request = pd.Index(users).get_indexer(pd.Index(asked.pop("user")))
        self._sums_UK = np.stack(
            [
                sums(user_C),
                sums(user_C, label_C),
                sums(user_C, sigmoid(logit_C)),
                sums(user_C, np.logaddexp(0.0, logit_C) - label_C * logit_C),
                sums(of_group, size),
                sums(of_group, size * within["auc"].to_numpy()),
                sums(of_request),
                *(sums(of_request, asked[name].to_numpy()) for name in asked),
            ],
            axis=1,
        ).astype(np.float64)
        users_of_request = len(np.unique(of_request))
        self._depends_on_M = np.array(
            [self.users, len(of_group), *[self.users] * 3, *[users_of_request] * asked.shape[1]]
        )
        self.names = (
            "auc",
            "gauc",
            "log_loss",
            "normalised_entropy",
            "bias_ratio",
            *(str(name) for name in asked),
        )

    def __call__(self, weight_U: np.ndarray) -> np.ndarray:
        """The metrics [M] if each user counts as often as `weight_U` says; NaN where undefined."""
        count, positives, predicted, loss, grouped, group_auc, asked, *ranked = (
            weight_U @ self._sums_UK
        )
        with np.errstate(divide="ignore", invalid="ignore"):
            rate = positives / count
            entropy = -rate * np.log(rate) - (1 - rate) * np.log1p(-rate)
            metrics_M = np.array(
                [
                    self._auc(weight_U),
                    group_auc / grouped,
                    loss / count,
                    loss / count / entropy,
                    predicted / positives,
                    *(np.array(ranked) / asked),
                ]
            )
        return np.where(np.isfinite(metrics_M), metrics_M, np.nan)

    def _auc(self, weight_U: np.ndarray) -> float:
        weight_C = weight_U[self._user_C]
        positive = np.add.reduceat(weight_C * self._label_C, self._starts)
        negative = np.add.reduceat(weight_C, self._starts) - positive
        below = np.cumsum(negative) - negative
        return (positive @ (below + 0.5 * negative)) / (positive.sum() * negative.sum())

    def value(self) -> np.ndarray:
        """The metrics [M] of the scores as they are."""
        return self(np.ones(self.users))

    def draw(self, draws: int = DRAWS, seed: int = 0) -> np.ndarray:
        """The metrics [R, M] of resampled users; NaN where a draw or the module does not say."""
        rng = np.random.default_rng(seed)
        drawn_RM = np.stack(
            [
                self(np.bincount(rng.integers(0, self.users, self.users), minlength=self.users))
                for _ in range(draws)
            ]
        )
        drawn_RM[:, self._depends_on_M < 2] = np.nan
        return drawn_RM


class Estimate(NamedTuple):
    """A metric and the interval that holds 95 % of the draws; None where undefined."""

    value: float | None
    low: float | None
    high: float | None

    @classmethod
    def of(cls, value: float, low: float, high: float) -> "Estimate":
        """From numbers that are NaN where undefined."""
        return cls(defined(value), defined(low), defined(high))


class Difference(NamedTuple):
    """A metric of two models on the same requests.

    Attributes:
        first: Of the first model.
        second: Of the second one.
        difference: Second minus first, with its interval.
        p_value: Two-sided: how rarely the draws reach the other side of 0.

    What is undefined is None.
    """

    first: float | None
    second: float | None
    difference: Estimate
    p_value: float | None


def estimate(
    scores: Scores, chosen_C: np.ndarray | None = None, draws: int = DRAWS
) -> dict[str, Estimate]:
    """Metrics with their intervals.

    Args:
        scores: Of a split.
        chosen_C: Which candidates count, see `UserMetrics`.
        draws: R.
    """
    measured = UserMetrics(scores, chosen_C)
    low_M, high_M = interval(measured.draw(draws))
    columns = zip(measured.value(), low_M, high_M, strict=True)
    return {
        name: Estimate.of(*numbers) for name, numbers in zip(measured.names, columns, strict=True)
    }


def compare(first: Scores, second: Scores, draws: int = DRAWS) -> dict[str, Difference]:
    """Metrics of two models by name, with paired tests.

    Args:
        first: Scores of one model.
        second: Scores of the other one for the same candidates in the same order.
        draws: R.
    """
    models = [UserMetrics(scores) for scores in (first, second)]
    values_M = [model.value() for model in models]
    drawn_RM = models[1].draw(draws) - models[0].draw(draws)
    low_M, high_M = interval(drawn_RM)
    return {
        name: Difference(
            first=defined(values_M[0][m]),
            second=defined(values_M[1][m]),
            difference=Estimate.of(values_M[1][m] - values_M[0][m], low_M[m], high_M[m]),
            p_value=p_value(drawn_RM[:, m]),
        )
        for m, name in enumerate(models[0].names)
    }


def interval(drawn: np.ndarray, level: float = 0.95) -> Sequence[np.ndarray]:
    """Bounds between which the share `level` of the draws (the first axis) that are no NaN lies."""
    tail = 50.0 * (1.0 - level)
    with warnings.catch_warnings(), np.errstate(invalid="ignore"):
        warnings.simplefilter("ignore", RuntimeWarning)  # A metric that no draw defines stays NaN.
        return list(np.nanpercentile(drawn, [tail, 100.0 - tail], axis=0))


def p_value(drawn_R: np.ndarray) -> float | None:
    """Two-sided: twice the share of the draws on the rarer side of 0, never quite 0.

    Of the draws that are no NaN; None if all are.
    """
    drawn_R = drawn_R[~np.isnan(drawn_R)]
    if not len(drawn_R):
        return None
    rarer = min(np.count_nonzero(drawn_R <= 0), np.count_nonzero(drawn_R >= 0))
    return min(1.0, 2.0 * (1 + rarer) / (1 + len(drawn_R)))


def _requests(scores: Scores, chosen_C: np.ndarray) -> pd.DataFrame:
    """Ranking of the requests with a chosen positive, with the user of each."""
    positive_C = chosen_C & (scores.label > 0)
    asked = pd.Series(scores.user[positive_C], scores.request_id[positive_C])
    asked = asked[~asked.index.duplicated()]
    whole_C = pd.Series(scores.request_id).isin(asked.index).to_numpy()
    found = request_metrics(
        scores.request_id[whole_C], scores.label[whole_C], scores.logit[whole_C]
    )
    return found.assign(user=asked.reindex(found.index))
