"""Confidence intervals and tests of metrics, by resampling users.

The candidates of a user are not independent (one history, often several requests), so a draw
samples users with replacement, each with all its candidates. Draws depend only on the seed and the
number of users: two models measured on the same requests get the same draws, so that their
difference is paired.

A metric that depends on fewer than two users (for GAUC, users with both labels) cannot be
resampled: it has no interval and no p-value.

Shapes: C candidates, U users, M metrics, R draws.
"""

import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from models.evaluation.metrics import Scores, defined, group_aucs, request_metrics, sigmoid

DRAWS = 1000


class UserMetrics:
    """Metrics of scored candidates as functions of the weights of users.

    Args:
        scores: Scores of a split.
        chosen_C: Mask of the candidates to measure; None for all. Ranking within requests covers
            the requests with a chosen positive, and all of their candidates.
    """

    def __init__(self, scores: Scores, chosen_C: np.ndarray | None = None) -> None:
        if chosen_C is None:
            chosen_C = np.ones(len(scores.label), bool)
        user_C, users = pd.factorize(scores.user[chosen_C])
        label_C = scores.label[chosen_C].astype(np.float64)
        logit_C = scores.logit[chosen_C].astype(np.float64)
        self.users = len(users)

        # For the AUC: candidates sorted by score, with the start of each group of ties.
        order_C = np.argsort(logit_C, kind="stable")
        self._user_C, self._label_C = user_C[order_C], label_C[order_C]
        self._starts = np.flatnonzero(np.diff(logit_C[order_C], prepend=np.nan) != 0)

        # For the other metrics: sums per user.
        def sums(user: np.ndarray, values: np.ndarray | None = None) -> np.ndarray:
            return np.bincount(user, values, minlength=self.users)

        user_aucs = group_aucs(user_C, label_C, logit_C)
        group_user = user_aucs.index.to_numpy(np.int64)
        size = user_aucs["size"].to_numpy(np.float64)
        requests = _requests(scores, chosen_C)
        request_user = pd.Index(users).get_indexer(pd.Index(requests.pop("user")))
        self._sums_UK = np.stack(
            [
                sums(user_C),
                sums(user_C, label_C),
                sums(user_C, sigmoid(logit_C)),
                sums(user_C, np.logaddexp(0.0, logit_C) - label_C * logit_C),
                sums(group_user, size),
                sums(group_user, size * user_aucs["auc"].to_numpy()),
                sums(request_user),
                *(sums(request_user, requests[name].to_numpy()) for name in requests),
            ],
            axis=1,
        ).astype(np.float64)
        users_of_request = len(np.unique(request_user))
        self._depends_on_M = np.array(
            [
                self.users,
                len(group_user),
                *[self.users] * 3,
                *[users_of_request] * requests.shape[1],
            ]
        )
        self.names = (
            "auc",
            "gauc",
            "log_loss",
            "normalised_entropy",
            "bias_ratio",
            *(str(name) for name in requests),
        )

    def __call__(self, weight_U: np.ndarray) -> np.ndarray:
        """The metrics [M] with user u counted `weight_U[u]` times; NaN where undefined."""
        count, positives, predicted, loss, grouped, group_auc, num_requests, *ranked = (
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
                    *(np.array(ranked) / num_requests),
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
        """The metrics [M] with each user counted once."""
        return self(np.ones(self.users))

    def draw(self, draws: int = DRAWS, seed: int = 0) -> np.ndarray:
        """The metrics [R, M] of resampled users; NaN where undefined (see the module docstring)."""
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
    """A metric with its 95 % confidence interval; None where undefined."""

    value: float | None
    low: float | None
    high: float | None

    @classmethod
    def of(cls, value: float, low: float, high: float) -> "Estimate":
        """Creates an estimate from numbers that are NaN where undefined."""
        return cls(defined(value), defined(low), defined(high))


class Difference(NamedTuple):
    """A metric of two models on the same requests.

    Attributes:
        first: Value of the first model.
        second: Value of the second model.
        difference: Second minus first, with its confidence interval.
        p_value: Two-sided p-value of the difference, from the draws.

    Undefined values are None.
    """

    first: float | None
    second: float | None
    difference: Estimate
    p_value: float | None


def estimate(
    scores: Scores, chosen_C: np.ndarray | None = None, draws: int = DRAWS
) -> dict[str, Estimate]:
    """Metrics with their confidence intervals.

    Args:
        scores: Scores of a split.
        chosen_C: Mask of the candidates to measure, see `UserMetrics`.
        draws: Number of draws R.
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
        second: Scores of the other model for the same candidates in the same order.
        draws: Number of draws R.
    """
    return next(compare_each([first], second, draws))


def compare_each(
    firsts: Iterable[Scores], second: Scores, draws: int = DRAWS
) -> Iterator[dict[str, Difference]]:
    """`compare` of each of several models with the same other one, which is drawn only once.

    Args:
        firsts: Scores of each of the models.
        second: Scores of the other model for the same candidates in the same order.
        draws: Number of draws R.
    """
    measured = UserMetrics(second)
    second_M, second_RM = measured.value(), measured.draw(draws)
    for scores in firsts:
        first = UserMetrics(scores)
        first_M, drawn_RM = first.value(), second_RM - first.draw(draws)
        low_M, high_M = interval(drawn_RM)
        yield {
            name: Difference(
                first=defined(first_M[m]),
                second=defined(second_M[m]),
                difference=Estimate.of(second_M[m] - first_M[m], low_M[m], high_M[m]),
                p_value=p_value(drawn_RM[:, m]),
            )
            for m, name in enumerate(first.names)
        }


def interval(drawn: np.ndarray, level: float = 0.95) -> Sequence[np.ndarray]:
    """Bounds of the central share `level` of the draws (first axis), ignoring NaN."""
    tail = 50.0 * (1.0 - level)
    with warnings.catch_warnings(), np.errstate(invalid="ignore"):
        warnings.simplefilter("ignore", RuntimeWarning)  # A metric that is NaN in all draws.
        return list(np.nanpercentile(drawn, [tail, 100.0 - tail], axis=0))


def p_value(drawn_R: np.ndarray) -> float | None:
    """Two-sided p-value: twice the share of the draws on the rarer side of 0, always above 0.

    Draws that are NaN are ignored; None if all are.
    """
    drawn_R = drawn_R[~np.isnan(drawn_R)]
    if not len(drawn_R):
        return None
    rarer = min(np.count_nonzero(drawn_R <= 0), np.count_nonzero(drawn_R >= 0))
    return min(1.0, 2.0 * (1 + rarer) / (1 + len(drawn_R)))


def _requests(scores: Scores, chosen_C: np.ndarray) -> pd.DataFrame:
    """Ranking metrics of the requests with a chosen positive, with the user of each."""
    positive_C = chosen_C & (scores.label > 0)
    user_by_request = pd.Series(scores.user[positive_C], scores.request_id[positive_C])
    user_by_request = user_by_request[~user_by_request.index.duplicated()]
    whole_C = pd.Series(scores.request_id).isin(user_by_request.index).to_numpy()
    ranking = request_metrics(
        scores.request_id[whole_C], scores.label[whole_C], scores.logit[whole_C]
    )
    return ranking.assign(user=user_by_request.reindex(ranking.index))
