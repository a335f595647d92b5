"""A table over several data sets that differ in one quantity: a curve along it for every row.

On a generated log the best AUC that any model can reach is known; there the curve shows the share
of it that a model reaches, both less the .5 of random scores.
"""

import math
import pathlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

from matplotlib import pyplot as plt

from models.evaluation.metrics import shown
from models.reporting import html_report
from pipeline.experiments import comparisons
from pipeline.experiments.planned_runs import NamedData, PlannedRun
from pipeline.experiments.recipe import Table
from pipeline.synthesize import best_auc, synthesize
from pipeline.synthetic.truth import Truth
from preprocessing.errors import UserError

_TRUTH = ".truth.json"


class _Along(NamedTuple):
    """A quantity in which data sets differ.

    Attributes:
        value: Function that gives the value of a data set.
        is_generated: Whether the data sets come from generated logs, whose best AUC is known.
    """

    value: Callable[[NamedData], float]
    is_generated: bool = False


class _Place(NamedTuple):
    """A data set on the curve.

    Attributes:
        name: Name of the data set.
        x: Value of the quantity.
        best: Best reachable AUC and its standard error; None if it is not known.
    """

    name: str
    x: float
    best: tuple[float, float] | None


def _truth(named: NamedData) -> Truth:
    """The distribution that the log of a data set was drawn from.

    Raises:
        UserError: The file that pipeline.synthesize leaves beside the log does not exist.
    """
    path = pathlib.Path(named.data.manifest["arguments"]["input"] + _TRUTH)
    if not path.exists():
        raise UserError(
            f"Expected {path}, which ctr-synthesize leaves beside a log, found none.",
            f"build {named.name} from a generated log, and keep the log where it was.",
        )
    return Truth.load(path)


ALONG = {
    "longest history": _Along(lambda named: named.data.schema.history.max_length),
    "interests": _Along(lambda named: _truth(named).arguments.interests, is_generated=True),
}
"""Quantities along which a table can be drawn, by their name in `Table.along`."""


def section(
    table: Table, data: Sequence[NamedData], planned: Sequence[PlannedRun]
) -> html_report.Section:
    """The part of the page about all data sets together.

    Args:
        table: Recipe of the table, which has `along`.
        data: Data sets of the experiment.
        planned: Runs of the table, of which the finished ones count.

    Raises:
        UserError: A data set does not have the quantity of the table.
    """
    along = ALONG[table.along]
    places = sorted((_place(named, along) for named in data), key=lambda place: place.x)
    curves: dict[str, list[tuple[float, float]]] = {row.label: [] for row in table.rows}
    texts: dict[str, list[str]] = {row.label: [] for row in table.rows}
    for place in places:
        data_runs = [run for run in planned if run.data.name == place.name]
        for measured_row in comparisons.collect(data_runs, ""):
            mean_and_std = _reached(measured_row, place)
            curves[measured_row.row.label].append(mean_and_std)
            texts[measured_row.row.label].append(
                comparisons.spread(*mean_and_std) if measured_row.seeds else comparisons.NOTHING
            )
    metric_title = "share of the reachable AUC" if along.is_generated else "test AUC"
    rows = [[label, *cells] for label, cells in texts.items()]
    notes = []
    if along.is_generated:
        rows.append(
            ["(reachable AUC)", *(f"{place.best[0]:.4f}" for place in places if place.best)]
        )
        errors = ", ".join(f"{place.best[1]:.4f}" for place in places if place.best)
        notes = [
            "Share: (AUC - .5) / (reachable AUC - .5). Reachable: by the scorer that knows how the "
            f"log was drawn; standard errors over users {errors}."
        ]
    columns = ["model", *(f"{table.along} {place.x:g}" for place in places)]
    grid = html_report.Grid(
        f"{metric_title.capitalize()} by {table.along}", 1, columns, rows, notes
    )
    return html_report.Section(
        "All data sets", [grid], [_figure(table.along, metric_title, places, curves)]
    )


def _place(named: NamedData, along: _Along) -> _Place:
    best = best_auc(synthesize(_truth(named).arguments)) if along.is_generated else None
    return _Place(named.name, along.value(named), best)


def _reached(measured: comparisons.Measured, place: _Place) -> tuple[float, float]:
    """Mean and standard deviation over seeds of the AUC, or of its share of the reachable one."""
    mean, std = measured.mean("auc"), measured.std("auc")
    if place.best is None:
        return mean, std
    reachable = place.best[0] - 0.5
    return (mean - 0.5) / reachable, std / reachable


def _figure(
    along: str,
    metric_title: str,
    places: Sequence[_Place],
    curves: dict[str, list[tuple[float, float]]],
) -> html_report.Figure:
    """A line for every row."""
    with plt.rc_context(html_report.STYLE):
        figure, axes = plt.subplots(figsize=(html_report.WIDTH, 3.6))
        x = [place.x for place in places]
        for number, (label, values) in enumerate(curves.items()):
            axes.errorbar(
                x,
                [mean for mean, _ in values],
                yerr=[0.0 if math.isnan(std) else std for _, std in values],
                marker="o",
                capsize=3,
                # Colours repeat after the last one; then lines are dashed.
                color=html_report.SERIES[number % len(html_report.SERIES)],
                linestyle="-" if number < len(html_report.SERIES) else "--",
                label=label,
            )
        axes.set(xlabel=along, ylabel=metric_title, xticks=x)
        axes.set_xticklabels([f"{value:g}" for value in x])
        figure.legend(loc="outside upper center", ncols=2, fontsize=7)
        numbers = "; ".join(
            f"{label} {', '.join(shown(mean) for mean, _ in values)}"
            for label, values in curves.items()
        )
        caption = f"A line for every row, by {along}: mean and standard deviation over the seeds."
        return html_report.Figure(
            metric_title.capitalize(), caption, html_report.svg(figure), f"{numbers}."
        )
