"""Figures of an experiment, as SVG text."""

import math
from collections.abc import Sequence

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib import ticker

from models.core import run_directory
from models.evaluation.metrics import shown
from models.reporting import html_report
from pipeline.experiments.comparisons import Measured
from pipeline.experiments.recipe import TITLES

_COLUMNS = 2
"""Panels beside each other in the figure of a series."""
_LEAST_RANGE = 0.004
"""Range of a metric that a panel shows at least."""


def overview(measured: Sequence[Measured], paper: str) -> html_report.Figure:
    """AUC of every row with its spread, beside the AUC of the paper.

    Args:
        measured: Rows with finished runs.
        paper: Name of the paper's data set.
    """
    with plt.rc_context(html_report.STYLE):
        figure, axes = plt.subplots(figsize=(html_report.WIDTH, 0.6 + 0.3 * len(measured)))
        places = range(len(measured))[::-1]
        axes.errorbar(
            [measured_row.mean("auc") for measured_row in measured],
            places,
            xerr=[_or_zero(measured_row.std("auc")) for measured_row in measured],
            fmt="o",
            color=html_report.BLUE,
            capsize=3,
            label="ours",
        )
        published_points = [
            (p, measured_row.published["auc"])
            for p, measured_row in zip(places, measured, strict=True)
            if measured_row.published
        ]
        if published_points:
            axes.plot(
                [auc for _, auc in published_points],
                [place for place, _ in published_points],
                linestyle="none",
                marker="D",
                markerfacecolor="none",
                color=html_report.ORANGE,
                label=f"paper, {paper}",
            )
            figure.legend(loc="outside upper center", ncols=2, fontsize=8)
        axes.set(xlabel="test AUC", yticks=list(places), ylim=(-0.5, len(measured) - 0.5))
        axes.set_yticklabels([measured_row.row.label for measured_row in measured])
        caption = "Mean and standard deviation over the seeds."
        numbers = "; ".join(
            f"{measured_row.row.label} {shown(measured_row.mean('auc'))}"
            for measured_row in measured
        )
        return html_report.Figure("AUC", caption, html_report.svg(figure), f"{numbers}.")


def sweeps(measured: Sequence[Measured]) -> list[html_report.Figure]:
    """A figure for each series: each metric by the value of the setting that is varied."""
    series_figures = []
    for series in dict.fromkeys(measured_row.row.series for measured_row in measured):
        series_rows = [
            measured_row for measured_row in measured if measured_row.row.series == series
        ]
        with plt.rc_context(html_report.STYLE):
            rows = -(-len(TITLES) // _COLUMNS)
            figure, panels = plt.subplots(
                rows, _COLUMNS, squeeze=False, figsize=(html_report.WIDTH, 1.9 * rows)
            )
            for axes in panels.flat[len(TITLES) :]:
                axes.set_axis_off()
            for axes, (metric, title) in zip(panels.flat, TITLES.items(), strict=False):
                axes.errorbar(
                    range(len(series_rows)),
                    [measured_row.mean(metric) for measured_row in series_rows],
                    yerr=[_or_zero(measured_row.std(metric)) for measured_row in series_rows],
                    marker="o",
                    color=html_report.BLUE,
                    capsize=3,
                )
                axes.set_xticks(range(len(series_rows)))
                axes.set_title(title, fontsize=9, loc="left")
                axes.set_xticklabels([f"{measured_row.row.x:g}" for measured_row in series_rows])
                # Values that hardly differ keep their digits, and look as flat as they are.
                axes.ticklabel_format(axis="y", useOffset=False)
                low, high = axes.get_ylim()
                spare = max(0.0, _LEAST_RANGE - (high - low)) / 2
                axes.set_ylim(low - spare, high + spare)
                axes.yaxis.set_major_locator(ticker.MaxNLocator(4))
            figure.supxlabel(series, fontsize=9, color=html_report.INK)
            caption = f"Test metrics by {series}: mean and standard deviation over the seeds."
            title = f"{series[:1].upper()}{series[1:]}"
            series_figures.append(html_report.Figure(title, caption, html_report.svg(figure)))
    return series_figures


def curves(measured: Sequence[Measured], column: str) -> html_report.Figure:
    """A column of metrics.csv by step: a colour for each row, a line for each seed."""
    with plt.rc_context(html_report.STYLE):
        figure, axes = plt.subplots()
        for number, measured_row in enumerate(measured):
            for path in measured_row.paths:
                history = pd.read_csv(path / run_directory.HISTORY)
                axes.plot(
                    history["step"],
                    history[column],
                    color=f"C{number}",
                    marker=".",
                    label=measured_row.row.label if path == measured_row.paths[0] else None,
                )
        name = column.rpartition("/")[2].replace("_", " ")
        axes.set(xlabel="step", ylabel=name)
        figure.legend(loc="outside upper center", ncols=3, fontsize=8)
        caption = "By step, a line for each seed."
        return html_report.Figure(name.capitalize(), caption, html_report.svg(figure))


def _or_zero(value: float) -> float:
    return 0.0 if math.isnan(value) else value
