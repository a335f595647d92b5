"""Rows of the CSV files of an experiment."""

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd

from models.core import run_directory
from models.evaluation.metrics import UNDEFINED
from models.evaluation.yardsticks import Yardstick
from pipeline.experiments import comparisons
from pipeline.experiments.comparisons import Comparison, Measured
from pipeline.experiments.planned_runs import NamedData, PlannedRun
from pipeline.experiments.recipe import TITLES, YARDSTICK_METRICS


def of_yardsticks(data: NamedData, yardstick_scores: Sequence[Yardstick]) -> list[dict[str, Any]]:
    """A row per yardstick and metric."""
    return [
        {
            "data": data.name,
            "model": yardstick.name,
            "metric": metric,
            "mean": getattr(yardstick, metric),
        }
        for yardstick in yardstick_scores
        for metric in YARDSTICK_METRICS
    ]


def of_models(
    data: NamedData, paper: str, measured: Sequence[Measured], row_comparisons: Sequence[Comparison]
) -> list[dict[str, Any]]:
    """A row per model and metric, with the comparison if there is one."""
    comparison_of = {(pair.row, pair.metric): pair for pair in row_comparisons}
    rows = []
    for measured_row in measured:
        for metric in TITLES:
            row: dict[str, Any] = {
                "data": data.name,
                "model": measured_row.row.label,
                "metric": metric,
                "learning_rate": measured_row.learning_rate,
                "seeds": len(measured_row.seeds),
                "mean": _csv(measured_row.mean(metric)) if measured_row.seeds else None,
                "std": measured_row.std(metric),
                "paper": measured_row.published.get(metric),
                "paper_data": paper if metric in measured_row.published else None,
            }
            if comparison := comparison_of.get((measured_row.row.label, metric)):
                low, high = comparison.interval
                row |= {
                    "baseline": comparison.baseline,
                    "difference": _csv(comparison.difference),
                    "low": _csv(low),
                    "high": _csv(high),
                    "improvement": _csv(comparison.improvement),
                    "paper_improvement": comparison.published,
                    "rela_impr": _csv(comparison.rela_impr) if metric != "log_loss" else None,
                    "welch_p": _csv(comparison.welch),
                    "paired_p": _csv(comparison.paired),
                    "star": comparison.star,
                }
            rows.append(row)
    return rows


def of_runs(planned: Sequence[PlannedRun]) -> pd.DataFrame:
    """One row per model, data set and seed."""
    rows = []
    for run in planned:
        test = run_directory.read_metrics(run.path).get("test", {})
        seconds = comparisons.seconds_of(run.path)
        rows.append(
            {"data": run.data.name, "model": run.row.label, "seed": run.seed, "run": run.name}
            | {"learning_rate": run.config.train.learning_rate, "trial": run.is_trial}
            | {"finished": run.is_finished, "seconds": round(seconds, 1)}
            | {name: UNDEFINED if value is None else value for name, value in test.items()}
        )
    return pd.DataFrame(rows)


def _csv(value: float) -> float | str:
    """A number for a CSV file, or `UNDEFINED` for NaN."""
    return UNDEFINED if math.isnan(value) else value
