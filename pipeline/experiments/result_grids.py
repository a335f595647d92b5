"""Grids of the page of an experiment: metrics, choice, improvements and order of the rows."""

import math
from collections.abc import Sequence

import numpy as np

from models.evaluation.metrics import shown, shown_interval
from models.evaluation.yardsticks import Yardstick
from models.reporting.html_report import Grid
from pipeline.experiments import comparisons
from pipeline.experiments.comparisons import Comparison, Measured
from pipeline.experiments.planned_runs import NamedData
from pipeline.experiments.recipe import METRICS, TITLES, YARDSTICK_METRICS, Table

_SIGNIFICANT = 0.05


def metric_grid(
    table: Table,
    data: NamedData,
    paper: str,
    yardstick_scores: Sequence[Yardstick],
    measured: Sequence[Measured],
    row_comparisons: Sequence[Comparison],
    notes: Sequence[str],
) -> Grid:
    """Our value, the paper's and the difference of each metric; first the rows without a model."""
    stars = {(pair.row, pair.metric) for pair in row_comparisons if pair.star}
    printed = [
        metric
        for metric in METRICS
        if any(metric in measured_row.published for measured_row in measured)
    ]
    columns = ["model"]
    for metric in TITLES:
        columns += [TITLES[metric]]
        columns += ["paper", "difference"] if metric in printed else []
    rows = []
    for yardstick in yardstick_scores:
        cells = [f"{yardstick.name} (no model)"]
        for metric in TITLES:
            has_metric = metric in YARDSTICK_METRICS
            cells.append(shown(getattr(yardstick, metric)) if has_metric else comparisons.NOTHING)
            cells += [comparisons.NOTHING] * 2 if metric in printed else []
        rows.append([*cells, "", "", ""])
    for measured_row in measured:
        cells = [measured_row.row.label]
        for metric in TITLES:
            star = "*" if (measured_row.row.label, metric) in stars else ""
            cells.append(measured_row.text(metric) + star)
            if metric in printed:
                published = measured_row.published.get(metric, math.nan)
                cells += [
                    _number(published),
                    _number(measured_row.mean(metric) - published, "+.4f"),
                ]
        minutes = float(np.mean(measured_row.seconds)) / 60.0 if measured_row.seconds else math.nan
        rate = (
            comparisons.NOTHING
            if measured_row.learning_rate is None
            else f"{measured_row.learning_rate:g}"
        )
        rows.append([*cells, rate, str(len(measured_row.seeds)), _number(minutes, ".1f")])
    notes = list(notes)
    if stars:
        notes.append(f"* better than what it is compared with, p < {table.level:g} (Welch's test).")
    if printed:
        notes.append(
            f"The paper's numbers are those of {paper}"
            + ("." if data.published else ", another log: the differences are those of the logs.")
        )
    return Grid(
        "Test metrics, mean ± standard deviation over seeds",
        1,
        [*columns, "learning rate", "seeds", "minutes"],
        rows,
        notes,
    )


def choice_grid(measured: Sequence[Measured]) -> Grid:
    """Rows by validation AUC, with their AUC on the test split."""
    best_first = sorted(
        (measured_row for measured_row in measured if measured_row.seeds),
        key=lambda measured_row: measured_row.mean(comparisons.VALIDATION),
        reverse=True,
    )
    rows = [
        [
            measured_row.row.label,
            *(measured_row.text(name) for name in (comparisons.VALIDATION, "auc")),
        ]
        for measured_row in best_first
    ]
    notes = [
        f"The validation split chooses {measured_row.row.label}." for measured_row in best_first[:1]
    ]
    return Grid("The choice", 1, ["model", comparisons.VALIDATION, "test AUC"], rows, notes)


def comparison_grid(table: Table, row_comparisons: Sequence[Comparison]) -> Grid:
    """Differences of rows from what they are compared with, with their intervals and tests."""
    rows = [
        [
            comparison.row,
            comparison.baseline,
            TITLES[comparison.metric],
            shown(comparison.difference, "+.4f") + ("*" if comparison.star else ""),
            shown_interval(*comparison.interval, "+.4f"),
            shown(comparison.improvement, "+.2%"),
            _number(comparison.published, "+.2%"),
            shown(comparison.rela_impr, "+.2%")
            if comparison.metric != "log_loss"
            else comparisons.NOTHING,
            shown(comparison.welch, ".3g"),
            shown(comparison.paired, ".3g"),
        ]
        for comparison in row_comparisons
    ]
    columns = [
        "model",
        "compared with",
        "metric",
        "difference",
        "95 % over users",
        "improvement",
        "paper's",
        "RelaImpr",
        "p, Welch",
        "p, paired",
    ]
    notes = [
        f"Interval: bootstrap of the users of the test split, {comparisons.DRAWS} draws. "
        "Improvement: as in the paper, the ratio of both AUCs minus one, or one minus the ratio of "
        "both log losses; the paper's is against its own best baseline where none is named. "
        "RelaImpr: (AUC - .5) / (AUC of the other - .5) - 1. Tests over seeds."
    ]
    return Grid("Improvements", 3, columns, rows, notes)


def order_grid(measured: Sequence[Measured]) -> Grid | None:
    """Grid of the pairs of rows whose order differs from the paper; None without its numbers."""
    tau, reversed_pairs = comparisons.reversals(measured)
    if math.isnan(tau):
        return None
    rows = [
        [
            pair.better,
            pair.worse,
            f"{pair.published[0]:.4f} : {pair.published[1]:.4f}",
            f"{pair.ours[0]:.4f} : {pair.ours[1]:.4f}",
            shown(pair.welch, ".3g"),
        ]
        for pair in reversed_pairs
    ]
    num_significant = sum(pair.welch < _SIGNIFICANT for pair in reversed_pairs)
    notes = [
        f"Kendall's tau of both orders by AUC: {tau:.2f}. Pairs in another order than in the "
        f"paper: {len(reversed_pairs)}, of which {num_significant} with p < {_SIGNIFICANT:g}."
    ]
    columns = ["better in the paper", "than", "AUC there", "AUC here", "p, Welch"]
    return Grid("Order of the rows", 2, columns, rows, notes)


def _number(value: float, form: str = ".4f") -> str:
    """A number as text, or `NOTHING` for NaN."""
    return comparisons.NOTHING if math.isnan(value) else f"{value:{form}}"
