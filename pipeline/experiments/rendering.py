"""Writes the results of an experiment: WORKDIR/NAME.html, NAME.md, NAME.csv, NAME-runs.csv."""

import importlib.metadata
import pathlib
import subprocess
from collections.abc import Sequence
from typing import Any

import pandas as pd

from models.core import run_directory
from models.evaluation import yardsticks
from models.evaluation.yardsticks import Yardstick
from models.reporting import html_report, interest_figures
from models.reporting.html_report import Grid, Section
from pipeline.experiments import (
    comparisons,
    csv_rows,
    data_counts,
    data_set_curves,
    figures,
    result_grids,
    table_notes,
)
from pipeline.experiments.comparisons import Measured
from pipeline.experiments.planned_runs import NamedData, PlannedRun
from pipeline.experiments.recipe import Table
from preprocessing.splits import SPLITS

_ARGUMENTS = (
    "protocol",
    "split_fraction",
    "negatives",
    "negative_sampling",
    "train_prefixes",
    "min_history",
    "min_user_events",
    "min_item_events",
    "core_filter",
    "seed",
)
"""Arguments of a build that determine the prediction task."""
_QUICK = (
    "A quick run, to see that everything works: every model had a few steps, so the figures below "
    "say nothing about the models. Without --quick the same command makes the table."
)


def write(
    table: Table,
    data: Sequence[NamedData],
    planned: Sequence[PlannedRun],
    workdir: pathlib.Path,
    command: str,
    quick: bool = False,
) -> pathlib.Path:
    """Writes the pages and the CSV files of an experiment, with the runs that are finished.

    Args:
        table: Recipe of the table.
        data: Data sets of the experiment.
        planned: Runs of the table.
        workdir: Directory of the experiment.
        command: Command that was called.
        quick: Whether the runs had a few steps only, of which the pages then warn.

    Returns:
        The path of the HTML file.
    """
    if table.counts:
        rows, sections = data_counts.rows_and_sections(table, data)
    else:
        rows, sections = _results(table, data, planned, workdir)
    output = workdir / f"{table.id.replace('/', '-')}.html"
    workdir.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows).to_csv(output.with_suffix(".csv"), index=False)
    if planned:
        csv_rows.of_runs(planned).to_csv(output.with_name(f"{output.stem}-runs.csv"), index=False)
    content = {
        "id": table.id,
        "title": table.title,
        "quick": _QUICK if quick else "",
        "claim": table.claim,
        "command": command,
        "facts": _facts(planned),
        "settings": dict(table.settings),
        "data": _data_grid(data),
        "sections": sections,
    }
    html_report.write("pipeline", "experiment", content, output)
    return output


def _results(
    table: Table, data: Sequence[NamedData], planned: Sequence[PlannedRun], workdir: pathlib.Path
) -> tuple[list[dict[str, Any]], list[Section]]:
    """Rows of the CSV file and sections of the page."""
    rows: list[dict[str, Any]] = []
    sections = []
    for named in data:
        paper = named.published or table.reference
        data_runs = [run for run in planned if run.data.name == named.name]
        measured = comparisons.collect(data_runs, paper)
        row_comparisons = comparisons.compare(table, measured)
        yardstick_scores = _yardsticks(named, data_runs, workdir)
        rows += csv_rows.of_yardsticks(named, yardstick_scores)
        rows += csv_rows.of_models(named, paper, measured, row_comparisons)
        notes = table_notes.notes(table, data_runs)
        grids = [
            result_grids.metric_grid(
                table, named, paper, yardstick_scores, measured, row_comparisons, notes
            )
        ]
        if table.choice:
            grids.append(result_grids.choice_grid(measured))
        if row_comparisons:
            grids.append(result_grids.comparison_grid(table, row_comparisons))
        order = result_grids.order_grid(measured)
        if order:
            grids.append(order)
        sections.append(Section(named.name, grids, _figures(table, measured, paper)))
    if table.along:
        sections.append(data_set_curves.section(table, data, planned))
    return rows, sections


def _yardsticks(
    data: NamedData, planned: Sequence[PlannedRun], workdir: pathlib.Path
) -> list[Yardstick]:
    """Scores on the test split without a model, also for the embedding widths of the runs."""
    widths = {run.config.model.embedding_size for run in planned}
    directory = workdir / "yardsticks" / data.data.fingerprint[:8]
    return yardsticks.of_data(data.data, "test", widths, directory)


def _figures(table: Table, measured: Sequence[Measured], paper: str) -> list[html_report.Figure]:
    finished = [measured_row for measured_row in measured if measured_row.seeds]
    if not finished:
        return []
    if table.inside:
        inside_figures = interest_figures.figures(
            run_directory.open_run(finished[0].paths[0]), "test"
        )
        return [figure for figure in inside_figures if figure[0] == table.inside]
    if table.curve:
        return [figures.curves(finished, table.curve)]
    if any(measured_row.row.series for measured_row in finished):
        return figures.sweeps(finished)
    return [figures.overview(finished, paper)]


def _facts(planned: Sequence[PlannedRun]) -> list[tuple[str, str]]:
    """Facts on how the page was made."""
    facts = [("code", _version())]
    if planned:
        unique = {run.path: run for run in planned}.values()
        seconds = sum(comparisons.seconds_of(run.path) for run in unique)
        facts += [
            ("seeds", ", ".join(str(seed) for seed in sorted({run.seed for run in planned}))),
            ("runs", f"{sum(run.is_finished for run in unique)} of {len(unique)} finished"),
            ("training, all runs together", _duration(seconds)),
        ]
    return facts


def _duration(seconds: float) -> str:
    return f"{seconds:.1f} seconds" if seconds < 120.0 else f"{seconds / 60.0:.1f} minutes"


def _version() -> str:
    """Version of the package, and the commit if it runs from a checkout."""
    version = importlib.metadata.version("sequence-ctr")
    root = pathlib.Path(__file__).parents[2]
    if (root / ".git").exists():
        git_command = ["git", "-C", str(root), "rev-parse", "--short=10", "HEAD"]
        completed = subprocess.run(git_command, capture_output=True, text=True, check=False)
        version += f", commit {completed.stdout.strip()}"
    return version


def _data_grid(data: Sequence[NamedData]) -> Grid:
    rows, notes = [], []
    for named in data:
        arguments = named.data.manifest["arguments"]
        requests = [f"{named.data.num_requests(split):,}" for split in SPLITS]
        rows.append([named.name, named.data.fingerprint[:12], *requests])
        argument_text = " ".join(
            f"--{name}={arguments[name]}" for name in _ARGUMENTS if name in arguments
        )
        notes.append(f"{named.name} was built with {argument_text}")
    return Grid("Requests", 2, ["data set", "build", *SPLITS], rows, notes)
