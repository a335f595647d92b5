"""Exact ranking and calibration metrics from dumped scores, in float64."""

from typing import NamedTuple

import numpy as np
import pandas as pd
from sklearn import metrics as sklearn_metrics

from preprocessing.errors import UserError


class Scores(NamedTuple):
    """Scored candidates of a split, one entry per candidate.

    Attributes:
        user: Raw user of the request.
        request_id: Of the request.
        label: 0 or 1.
        logit: Un-clipped logit.
        history_length: Events in the request's history.
    """

    user: np.ndarray
    request_id: np.ndarray
    label: np.ndarray
    logit: np.ndarray
    history_length: np.ndarray


def ranking_metrics(scores: Scores) -> dict[str, float]:
    """All metrics of a split.

    Returns:
        auc, gauc, log_loss, normalised_entropy (log loss over that of the base rate),
        calibration_error (expected, ten bins of equal counts), bias_ratio (mean predicted over
        mean observed rate), candidates and requests.

    Raises:
        UserError: All labels are the same, so that there is nothing to rank.
    """
    label = scores.label.astype(np.float64)
    if label.min() == label.max():
        raise UserError(
            f"Expected positive and negative candidates, found {len(label)} with the label "
            f"{label[0]:g}.",
            "build the data with --negatives of at least 1.",
        )
    logit = scores.logit.astype(np.float64)
    probability = _sigmoid(logit)
    base_rate = label.mean()
    base_logit = np.log(base_rate / (1.0 - base_rate))
    loss = log_loss(label, logit)
    return {
        "auc": float(sklearn_metrics.roc_auc_score(label, logit)),
        "gauc": grouped_auc(scores.user, label, logit),
        "log_loss": loss,
        "normalised_entropy": loss / log_loss(label, np.full_like(logit, base_logit)),
        "calibration_error": calibration_error(label, probability),
        "bias_ratio": float(probability.mean() / base_rate),
        "candidates": len(label),
        "requests": len(np.unique(scores.request_id)),
    }


def log_loss(label: np.ndarray, logit: np.ndarray) -> float:
    """Mean binary cross-entropy from logits: log(1 + e^z) - y z."""
    return float(np.mean(np.logaddexp(0.0, logit) - label * logit))


def grouped_auc(group: np.ndarray, label: np.ndarray, logit: np.ndarray) -> float:
    """AUC within each group, averaged with the groups' sizes as weights (Zhu et al., 2017).

    Groups without both labels have no AUC and are left out; NaN if none is left.
    """
    frame = pd.DataFrame({"group": group, "label": label, "logit": logit})
    frame["rank"] = frame.groupby("group")["logit"].rank(method="average")
    frame["positive_rank"] = frame["rank"] * frame["label"]
    totals = frame.groupby("group").agg(
        size=("label", "size"), positives=("label", "sum"), ranks=("positive_rank", "sum")
    )
    pairs = totals["positives"] * (totals["size"] - totals["positives"])
    totals, pairs = totals[pairs > 0], pairs[pairs > 0]
    if totals.empty:
        return float("nan")
    auc = (totals["ranks"] - totals["positives"] * (totals["positives"] + 1) / 2) / pairs
    return float(np.average(auc, weights=totals["size"]))


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


def _sigmoid(logit: np.ndarray) -> np.ndarray:
    return np.exp(-np.logaddexp(0.0, -logit))
