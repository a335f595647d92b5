"""What the weights of a run are chosen by: the validation AUC.

Where validation has candidates of one class only, and so no AUC, it is the log loss.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

TITLES = {"auc": "AUC", "log_loss": "log loss"}
"""Metrics that weights are chosen by, with their names for people."""


def metric(evaluation: Mapping[Any, Any], prefix: str = "") -> str:
    """Name of the metric that an evaluation is judged by; the same for all of a run.

    Args:
        evaluation: Metrics of the validation split by name; undefined ones are None or NaN.
        prefix: Of the names, as in metrics.csv.
    """
    return "log_loss" if pd.isna(evaluation[f"{prefix}auc"]) else "auc"


def score(evaluation: Mapping[Any, Any], prefix: str = "") -> float:
    """How good an evaluation is: the higher, the better.

    Args:
        evaluation: As of `metric`.
        prefix: As of `metric`.
    """
    name = metric(evaluation, prefix)
    return float(evaluation[f"{prefix}{name}"]) * sign(name)


def sign(name: str) -> int:
    """1 if a metric is better where it is higher, -1 if it is better where it is lower."""
    return -1 if name == "log_loss" else 1


def best(history: Sequence[Mapping[Any, Any]]) -> dict[str, str]:
    """The best of the evaluations so far by its name, for a progress bar.

    Args:
        history: Rows of metrics.csv.
    """
    if not history:
        return {}
    name = metric(history[-1], "validation/")
    value = max(score(row, "validation/") for row in history) * sign(name)
    return {f"best_validation_{name}": f"{value:.4f}"}


def of_history(history: pd.DataFrame) -> list[float]:
    """The score of every row of metrics.csv."""
    return [score(row, "validation/") for row in history.to_dict("records")]
