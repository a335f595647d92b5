"""Exact ranking and calibration metrics from dumped scores, in float64.

What a metric needs; without it the metric is undefined, which is None, and "n/a" for people:

    log_loss, calibration_error        a candidate
    bias_ratio                         a positive
    auc, normalised_entropy            a positive and a negative
    auc_known                          both among the candidates known from training
    gauc                               a user with both
    mrr, hr@k, ndcg@k                  a request with both
    an interval, a p-value             two users on whom it depends, see `confidence_intervals`
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd

UNDEFINED = "n/a"
"""What is shown in place of a metric that is undefined."""

CUTOFFS = (1, 5, 10)
"""Ranks at which hits and discounted gains are counted."""


class Scores(NamedTuple):
    """Scored candidates of a split, one entry per candidate.

    Attributes:
        user: Raw user of the request, as text.
        request_id: Name of the request.
        label: 0 or 1.
        logit: Un-clipped logit.
        history_length: Events in the request's history.
        ids: Encoded values by key of the example: the user's key, categorical item features.
    """

    user: np.ndarray
    request_id: np.ndarray
    label: np.ndarray
    logit: np.ndarray
    history_length: np.ndarray
    ids: Mapping[str, np.ndarray]


def ranking_metrics(scores: Scores, known_C: np.ndarray | None = None) -> dict[str, float | None]:
    """All metrics of a split; None where one is undefined.

    Args:
        scores: Of the split.
        known_C: Whether the item of each candidate is known from training.

    Returns:
        auc, auc_known (of the known candidates among themselves; only with `known_C`), gauc,
        log_loss, normalised_entropy (log loss over that of the base rate),
        calibration_error (expected, ten bins of equal counts), bias_ratio (mean predicted over
        mean observed rate), the means of `request_metrics`, candidates and requests.
    """
    label = scores.label.astype(np.float64)
    logit = scores.logit.astype(np.float64)
    probability = sigmoid(logit)
    base_rate = label.mean()
    loss = log_loss(label, logit)
    asked = request_metrics(scores.request_id, label, logit)
    with np.errstate(divide="ignore", invalid="ignore"):
        base_logit = np.log(base_rate / (1.0 - base_rate))
        found = {
            "auc": overall_auc(label, logit),
            **(
                {}
                if known_C is None
                else {"auc_known": overall_auc(label[known_C], logit[known_C])}
            ),
            "gauc": grouped_auc(scores.user, label, logit),
            "log_loss": loss,
            "normalised_entropy": loss / log_loss(label, np.full_like(logit, base_logit)),
            "calibration_error": calibration_error(label, probability),
            "bias_ratio": probability.mean() / base_rate,
            **{str(name): column.mean() for name, column in asked.items()},
        }
    counts = {"candidates": len(label), "requests": int(pd.Series(scores.request_id).nunique())}
    return {name: defined(value) for name, value in found.items()} | counts


def defined(value: float) -> float | None:
    """The value, or None if it is not finite: what it needs is not there."""
    return float(value) if math.isfinite(value) else None


def shown(value: float | None, form: str = ".4f") -> str:
    """A number for people; `UNDEFINED` in place of None and NaN."""
    return UNDEFINED if value is None or math.isnan(value) else f"{value:{form}}"


def shown_interval(low: float | None, high: float | None, form: str = ".4f") -> str:
    """Both bounds for people; `UNDEFINED` if there are none."""
    if low is None or high is None or math.isnan(low) or math.isnan(high):
        return UNDEFINED
    return f"[{low:{form}}, {high:{form}}]"


def log_loss(label: np.ndarray, logit: np.ndarray) -> float:
    """Mean binary cross-entropy from logits: log(1 + e^z) - y z."""
    return float(np.mean(np.logaddexp(0.0, logit) - label * logit))


def overall_auc(label: np.ndarray, logit: np.ndarray) -> float:
    """AUC over all candidates; NaN without both labels."""
    return grouped_auc(np.zeros_like(label), label, logit)


def grouped_auc(group: np.ndarray, label: np.ndarray, logit: np.ndarray) -> float:
    """AUC within each group, averaged with the groups' sizes as weights (Zhu et al., 2017).

    Groups without both labels have no AUC and are left out; NaN if none is left.
    """
    found = group_aucs(group, label, logit)
    return float(np.average(found["auc"], weights=found["size"])) if len(found) else float("nan")


def group_aucs(group: np.ndarray, label: np.ndarray, logit: np.ndarray) -> pd.DataFrame:
    """AUC and size of each group with both labels; the index is the group."""
    frame = pd.DataFrame({"group": group, "label": label, "logit": logit})
    frame["rank"] = frame.groupby("group")["logit"].rank(method="average")
    frame["positive_rank"] = frame["rank"] * frame["label"]
    totals = frame.groupby("group").agg(
        size=("label", "size"), positives=("label", "sum"), ranks=("positive_rank", "sum")
    )
    pairs = totals["positives"] * (totals["size"] - totals["positives"])
    totals, pairs = totals[pairs > 0], pairs[pairs > 0]
    auc = (totals["ranks"] - totals["positives"] * (totals["positives"] + 1) / 2) / pairs
    return pd.DataFrame({"auc": auc, "size": totals["size"]})


def request_metrics(request: np.ndarray, label: np.ndarray, logit: np.ndarray) -> pd.DataFrame:
    """How high each request ranks its positives among its candidates.

    A positive stands behind the negatives of the same score, so that a constant wins nothing.

    Args:
        request: Of each candidate.
        label: 0 or 1.
        logit: Of each candidate.

    Returns:
        A row per request with a positive and a negative, as others have nothing to rank: `mrr`, one
        over the rank of the first positive; `hr@k`, whether it is at most k; `ndcg@k`, the
        discounted gain of the first k over the largest possible. Those k of `CUTOFFS` that cut
        anything off; `ndcg@1` is `hr@1`.
    """
    code, names = pd.factorize(request)
    clicked = np.bincount(code, label, minlength=len(names))
    is_mixed = (clicked > 0) & (clicked < np.bincount(code, minlength=len(names)))
    names, kept = names[is_mixed], is_mixed[code]
    code, label, logit = (np.cumsum(is_mixed) - 1)[code[kept]], label[kept], logit[kept]
    order = np.lexsort((label, -logit, code))
    code, label = code[order], label[order].astype(np.float64)
    rank = 1 + np.arange(len(code)) - np.searchsorted(code, np.arange(len(names)))[code]
    gain = label / np.log2(1.0 + rank)
    positives = np.bincount(code, label, minlength=len(names)).astype(int)
    first = np.full(len(names), np.iinfo(np.int64).max)
    np.minimum.at(first, code[label > 0], rank[label > 0])
    largest = rank.max(initial=1)
    ideal = np.concatenate([[0.0], np.cumsum(1.0 / np.log2(1.0 + np.arange(1, largest + 1)))])

    found = {"mrr": 1.0 / first}
    for k in CUTOFFS:
        if k == 1 or k < largest:
            found[f"hr@{k}"] = (first <= k).astype(np.float64)
        if 1 < k < largest:
            gained = np.bincount(code, gain * (rank <= k), minlength=len(names))
            found[f"ndcg@{k}"] = gained / ideal[np.minimum(positives, k)]
    return pd.DataFrame(found, index=names)


def relative_improvement(auc: float | None, baseline: float | None) -> float:
    """How much of what the baseline gains over a coin is gained on top, RelaImpr of DIN's paper.

    NaN if the baseline gains nothing, or an AUC is undefined.
    """
    if auc is None or baseline is None or baseline == 0.5:
        return math.nan
    return (auc - 0.5) / (baseline - 0.5) - 1.0


def reliability(
    label: np.ndarray, probability: np.ndarray, bins: int = 10
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Predicted and observed rate in bins of (nearly) equal counts.

    Returns:
        Mean prediction, observed rate and count of each bin, from low to high predictions.
    """
    order = np.argsort(probability, kind="stable")
    parts = [part for part in np.array_split(order, bins) if len(part)]
    return (
        np.array([probability[part].mean() for part in parts]),
        np.array([label[part].mean() for part in parts]),
        np.array([len(part) for part in parts]),
    )


def calibration_error(label: np.ndarray, probability: np.ndarray) -> float:
    """Expected calibration error: mean |predicted - observed| over the bins of `reliability`."""
    predicted, observed, counts = reliability(label, probability)
    return float(np.average(np.abs(predicted - observed), weights=counts))


def sigmoid(logit: np.ndarray) -> np.ndarray:
    """Probability of a logit, without overflow."""
    return np.exp(-np.logaddexp(0.0, -logit))
