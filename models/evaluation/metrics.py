"""Exact ranking and calibration metrics from dumped scores, in float64.

Each metric needs certain candidates; without them it is undefined: None, shown as "n/a":

    log_loss, calibration_error        a candidate
    bias_ratio                         a positive
    auc, normalised_entropy            a positive and a negative
    weighted_...                       the same of candidates with a weight above 0
    auc_known                          both among the candidates known from training
    gauc                               a user with both
    mrr, hr@k, ndcg@k                  a request with both
    an interval, a p-value             two users that affect it, see `confidence_intervals`
"""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

UNDEFINED = "n/a"
"""Text shown for an undefined metric."""

CUTOFFS = (1, 5, 10)
"""Cut-off ranks k of HR@k and NDCG@k."""

BINS = 10
"""Number of bins of the calibration error."""


class Scores(NamedTuple):
    """Scored candidates of a split, one entry per candidate.

    Attributes:
        user: Raw user of the request, as text.
        request_id: Name of the request.
        label: Label, 0 or 1.
        logit: Logit, not clipped.
        history_length: Number of events in the request's history.
        ids: Encoded values by key of the example: categorical features of users, requests and
            items; of many values the most frequent one.
        weight: Weight of the candidate as a sample, 0 or more; None if the log has no weights.
    """

    user: np.ndarray
    request_id: np.ndarray
    label: np.ndarray
    logit: np.ndarray
    history_length: np.ndarray
    ids: Mapping[str, np.ndarray]
    weight: np.ndarray | None = None


_PLAIN_FIELDS = tuple(name for name in Scores._fields if name not in ("ids", "weight"))
_IDS = "ids/"
"""What the names of columns of `Scores.ids` begin with, which no other column's name does."""


def to_columns(scores: Scores) -> dict[str, np.ndarray]:
    """The columns of a table of scores, a row per candidate; `weight` only if there are weights."""
    columns = {name: getattr(scores, name) for name in _PLAIN_FIELDS}
    columns |= {f"{_IDS}{key}": ids for key, ids in scores.ids.items()}
    return columns if scores.weight is None else {**columns, "weight": scores.weight}


def of_columns(columns: Mapping[str, np.ndarray]) -> Scores:
    """The scores of the columns that `to_columns` gave; others are left out."""
    plain = {name: columns[name] for name in _PLAIN_FIELDS}
    ids = {
        key.removeprefix(_IDS): values for key, values in columns.items() if key.startswith(_IDS)
    }
    return Scores(**plain, ids=ids, weight=columns.get("weight"))


def concatenated(parts: Sequence[Scores]) -> Scores:
    """The scores of several splits or batches as one, in order."""
    columns = {
        name: np.concatenate([getattr(part, name) for part in parts]) for name in _PLAIN_FIELDS
    }
    ids = {key: np.concatenate([part.ids[key] for part in parts]) for key in parts[0].ids}
    weights = [part.weight for part in parts if part.weight is not None]
    return Scores(**columns, ids=ids, weight=np.concatenate(weights) if weights else None)


def reordered(scores: Scores, order_C: np.ndarray) -> Scores:
    """The entries of scores at some places, in the order of the places."""
    columns = {name: getattr(scores, name)[order_C] for name in _PLAIN_FIELDS}
    ids = {key: values[order_C] for key, values in scores.ids.items()}
    weight = None if scores.weight is None else scores.weight[order_C]
    return Scores(**columns, ids=ids, weight=weight)


def ranking_metrics(scores: Scores, known_C: np.ndarray | None = None) -> dict[str, float | None]:
    """All metrics of a split; None where undefined.

    Args:
        scores: Scores of the split.
        known_C: Whether the item of each candidate is known from training.

    Returns:
        auc, auc_known (of the known candidates among themselves; only with `known_C`), gauc,
        log_loss, normalised_entropy (log loss over that of the base rate),
        calibration_error (expected, ten bins of equal counts), bias_ratio (mean predicted over
        mean observed rate), the means of `request_metrics`, `weighted_metrics` if there are
        weights, candidates and requests.
    """
    label = scores.label.astype(np.float64)
    logit = scores.logit.astype(np.float64)
    probability = sigmoid(logit)
    base_rate = label.mean()
    loss = log_loss(label, logit)
    requests = request_metrics(scores.request_id, label, logit)
    with np.errstate(divide="ignore", invalid="ignore"):
        base_logit = np.log(base_rate / (1.0 - base_rate))
        values = {
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
            **{str(name): column.mean() for name, column in requests.items()},
        }
        if scores.weight is not None:
            values |= weighted_metrics(label, logit, scores.weight.astype(np.float64))
    counts = {"candidates": len(label), "requests": len(set(scores.request_id))}
    return {name: defined(value) for name, value in values.items()} | counts


def defined(value: float) -> float | None:
    """The value, or None if it is not finite, that is undefined."""
    return float(value) if math.isfinite(value) else None


def shown(value: float | None, form: str = ".4f") -> str:
    """A number as text, zero without a sign; `UNDEFINED` for None and NaN."""
    return UNDEFINED if value is None or math.isnan(value) else _formatted(value, form)


def shown_interval(low: float | None, high: float | None, form: str = ".4f") -> str:
    """Both bounds of an interval as text; `UNDEFINED` if there are none."""
    if low is None or high is None or math.isnan(low) or math.isnan(high):
        return UNDEFINED
    return f"[{_formatted(low, form)}, {_formatted(high, form)}]"


def _formatted(value: float, form: str) -> str:
    text = f"{value:{form}}"
    return text if any(digit in text for digit in "123456789") else text.lstrip("+-")


def log_loss(label: np.ndarray, logit: np.ndarray) -> float:
    """Mean binary cross-entropy from logits: log(1 + e^z) - y z."""
    return float(np.mean(np.logaddexp(0.0, logit) - label * logit))


def weighted_metrics(label: np.ndarray, logit: np.ndarray, weight: np.ndarray) -> dict[str, float]:
    """Metrics in which each candidate counts by its weight; NaN where undefined.

    Args:
        label: Labels, 0 or 1.
        logit: Logits.
        weight: Weights, 0 or more.

    Returns:
        weighted_auc (share of the products of the weights of a positive and a negative in which the
        positive is ahead, ties half), weighted_log_loss, weighted_bias_ratio.
    """
    chosen = weight > 0
    label, logit, weight = label[chosen], logit[chosen], weight[chosen]
    if not len(label):
        return dict.fromkeys(
            ("weighted_auc", "weighted_log_loss", "weighted_bias_ratio"), float("nan")
        )
    _, level = np.unique(logit, return_inverse=True)
    positive = np.bincount(level, weight * label)
    negative = np.bincount(level, weight * (1.0 - label))
    pairs = positive.sum() * negative.sum()
    ahead = (positive * (np.cumsum(negative) - 0.5 * negative)).sum()
    with np.errstate(divide="ignore", invalid="ignore"):
        return {
            "weighted_auc": float(ahead / pairs),
            "weighted_log_loss": float(
                np.average(np.logaddexp(0.0, logit) - label * logit, weights=weight)
            ),
            "weighted_bias_ratio": float((weight * sigmoid(logit)).sum() / positive.sum()),
        }


def overall_auc(label: np.ndarray, logit: np.ndarray) -> float:
    """AUC over all candidates; NaN without both labels."""
    return grouped_auc(np.zeros_like(label), label, logit)


def grouped_auc(group: np.ndarray, label: np.ndarray, logit: np.ndarray) -> float:
    """AUC within each group, averaged with the groups' sizes as weights (Zhu et al., 2017).

    Groups without both labels have no AUC and are left out; NaN if no group remains.
    """
    aucs = group_aucs(group, label, logit)
    return float(np.average(aucs["auc"], weights=aucs["size"])) if len(aucs) else float("nan")


def group_aucs(group: np.ndarray, label: np.ndarray, logit: np.ndarray) -> "pd.DataFrame":
    """AUC and size of each group with both labels; the index is the group."""
    import pandas as pd

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


def request_metrics(request: np.ndarray, label: np.ndarray, logit: np.ndarray) -> "pd.DataFrame":
    """Ranking metrics of each request.

    Positives rank below negatives of the same score, so that constant scores gain nothing.

    Args:
        request: Request of each candidate.
        label: Label of each candidate, 0 or 1.
        logit: Logit of each candidate.

    Returns:
        A row per request with a positive and a negative, as others have nothing to rank: `mrr`, one
        over the rank of the first positive; `hr@k`, whether that rank is at most k; `ndcg@k`, the
        discounted gain of the first k over the largest possible. Values k of `CUTOFFS` that are not
        below the largest number of candidates are left out, except 1; `ndcg@1` equals `hr@1`.
    """
    import pandas as pd

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

    columns = {"mrr": 1.0 / first}
    for k in CUTOFFS:
        if k == 1 or k < largest:
            columns[f"hr@{k}"] = (first <= k).astype(np.float64)
        if 1 < k < largest:
            gained = np.bincount(code, gain * (rank <= k), minlength=len(names))
            columns[f"ndcg@{k}"] = gained / ideal[np.minimum(positives, k)]
    return pd.DataFrame(columns, index=names)


def relative_improvement(auc: float | None, baseline: float | None) -> float:
    """Relative improvement of the AUC above chance over the baseline, RelaImpr of DIN's paper.

    The result is NaN if the baseline gains nothing, or an AUC is undefined.
    """
    if auc is None or baseline is None or not baseline > 0.5:
        return math.nan
    return (auc - 0.5) / (baseline - 0.5) - 1.0


def reliability(
    label: np.ndarray, probability: np.ndarray, weight: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Predicted and observed rate in `BINS` bins of (nearly) equal counts, or of equal weight.

    Args:
        label: Labels, 0 or 1.
        probability: Predictions.
        weight: Weights above 0; None if all candidates count alike.

    Returns:
        Mean prediction, observed rate and count (or weight) of each bin, from low to high
        predictions.
    """
    order = np.argsort(probability, kind="stable")
    if weight is None:
        parts = np.array_split(order, BINS)
        weight = np.ones(len(order))
    else:
        reached = np.cumsum(weight[order])
        ends = reached[-1] * np.arange(1, BINS) / BINS
        parts = np.split(order, np.searchsorted(reached, ends, side="right"))
    parts = [part for part in parts if len(part)]
    return (
        np.array([np.average(probability[part], weights=weight[part]) for part in parts]),
        np.array([np.average(label[part], weights=weight[part]) for part in parts]),
        np.array([weight[part].sum() for part in parts]),
    )


def calibration_error(
    label: np.ndarray, probability: np.ndarray, weight: np.ndarray | None = None
) -> float:
    """Expected calibration error: mean |predicted - observed| over the bins of `reliability`."""
    predicted, observed, counts = reliability(label, probability, weight)
    return float(np.average(np.abs(predicted - observed), weights=counts))


def sigmoid(logit: np.ndarray) -> np.ndarray:
    """Probability of a logit, without overflow."""
    return np.exp(-np.logaddexp(0.0, -logit))
