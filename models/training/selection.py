"""The metric that selects the best weights of a run: the validation AUC.

If all validation candidates have the same label, AUC is undefined, and the log loss is used.
"""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

TITLES = {"auc": "AUC", "log_loss": "log loss"}
"""Metrics that select weights, with their names in messages."""


def metric(evaluation: Mapping[Any, Any], prefix: str = "") -> str:
    """Name of the metric of an evaluation that selects weights; it is the same for a whole run.

    Args:
        evaluation: Metrics of the validation split by name; undefined ones are None or NaN.
        prefix: Prefix of the names, as in metrics.csv.
    """
    auc = evaluation[f"{prefix}auc"]
    return "log_loss" if auc is None or math.isnan(auc) else "auc"


def score(evaluation: Mapping[Any, Any], prefix: str = "") -> float:
    """Score of an evaluation; higher is better.

    Args:
        evaluation: Metrics of the validation split, see `metric`.
        prefix: Prefix of the names, see `metric`.
    """
    name = metric(evaluation, prefix)
    return float(evaluation[f"{prefix}{name}"]) * sign(name)


def sign(name: str) -> int:
    """1 if higher values of a metric are better, -1 if lower ones are."""
    return -1 if name == "log_loss" else 1


def best(history: Sequence[Mapping[Any, Any]]) -> dict[str, str]:
    """The best value of the selecting metric so far, by name, for a progress bar.

    Args:
        history: Rows of metrics.csv.
    """
    if not history:
        return {}
    name = metric(history[-1], "validation/")
    value = max(score(row, "validation/") for row in history) * sign(name)
    return {f"best_validation_{name}": f"{value:.4f}"}


def of_history(history: "pd.DataFrame") -> list[float]:
    """The score of every row of metrics.csv."""
    return [score(row, "validation/") for row in history.to_dict("records")]
