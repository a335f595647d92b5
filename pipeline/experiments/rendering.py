"""Writes the results of an experiment: WORKDIR/NAME.html, NAME.md, NAME.csv, NAME-runs.csv."""

import importlib.metadata
import math
import pathlib
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from models.core import run_directory
from models.evaluation import yardsticks
from models.evaluation.metrics import UNDEFINED, shown, shown_interval
from models.evaluation.yardsticks import Yardstick
from models.reporting import html_report, interest_figures
from models.reporting.html_report import Grid, Section
from pipeline.experiments import across, comparisons, figures, table_notes
from pipeline.experiments.comparisons import Comparison, Measured
from pipeline.experiments.plan import NamedData, Planned
from pipeline.experiments.recipe import METRICS, TITLES, Table
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
_SIGNIFICANT = 0.05
_OF_YARDSTICKS = ("auc", "auc_known", "gauc")
"""Metrics of a yardstick."""


def write(
    table: Table,
    data: Sequence[NamedData],
    planned: Sequence[Planned],
    workdir: pathlib.Path,
    command: str,
) -> pathlib.Path:
    """Writes the pages and the CSV files of an experiment, with the runs that are finished.

    Args:
        table: Recipe of the table.
        data: Data sets of the experiment.
        planned: Runs of the table.
        workdir: Directory of the experiment.
        command: Command that was called.

    Returns:
        The path of the HTML file.
    """
    if table.counts:
        rows, sections = _statistics(table, data)
    else:
        rows, sections = _results(table, data, planned, workdir)
    output = workdir / f"{table.id.replace('/', '-')}.html"
    workdir.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows).to_csv(output.with_suffix(".csv"), index=False)
    if planned:
        _run_frame(planned).to_csv(output.with_name(f"{output.stem}-runs.csv"), index=False)
    content = {
        "id": table.id,
        "title": table.title,
        "claim": table.claim,
        "facts": _facts(planned, command),
        "settings": dict(table.settings),
        "data": _data_grid(data),
        "sections": sections,
    }
    html_report.write("pipeline", "experiment", content, output)
    return output


def _results(
    table: Table, data: Sequence[NamedData], planned: Sequence[Planned], workdir: pathlib.Path
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
        rows += [
            {
                "data": named.name,
                "model": yardstick.name,
                "metric": metric,
                "mean": getattr(yardstick, metric),
            }
            for yardstick in yardstick_scores
            for metric in _OF_YARDSTICKS
        ]
        rows += _csv_rows(named, paper, measured, row_comparisons)
        notes = table_notes.notes(table, data_runs)
        grids = [
            _metric_grid(table, named, paper, yardstick_scores, measured, row_comparisons, notes)
        ]
        if table.choice:
            grids.append(_choice_grid(measured))
        if row_comparisons:
            grids.append(_comparison_grid(table, row_comparisons))
        order = _order_grid(measured)
        if order:
            grids.append(order)
        sections.append(Section(named.name, grids, _figures(table, measured, paper)))
    if table.along:
        sections.append(across.section(table, data, planned))
    return rows, sections


def _yardsticks(
    data: NamedData, planned: Sequence[Planned], workdir: pathlib.Path
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


def _metric_grid(
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
            has_metric = metric in _OF_YARDSTICKS
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


def _choice_grid(measured: Sequence[Measured]) -> Grid:
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


def _comparison_grid(table: Table, row_comparisons: Sequence[Comparison]) -> Grid:
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


def _order_grid(measured: Sequence[Measured]) -> Grid | None:
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


def _csv_rows(
    data: NamedData, paper: str, measured: Sequence[Measured], row_comparisons: Sequence[Comparison]
) -> list[dict[str, Any]]:
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


def _statistics(
    table: Table, data: Sequence[NamedData]
) -> tuple[list[dict[str, Any]], list[Section]]:
    """A table of counts: our data sets, then those of the paper."""
    columns = list(table.counts[table.reference])
    named_counts = [
        *((named.name, _counts(named)) for named in data),
        *((f"paper, {name}", counts) for name, counts in table.counts.items()),
    ]
    grid = Grid(
        "Counts",
        1,
        ["data set", *columns],
        [[name, *(f"{counts[column]:,}" for column in columns)] for name, counts in named_counts],
        [
            "Samples: requests of all splits. Instances: candidates of the test split. Features: "
            "distinct values of all categorical fields. Fields: features of user, context and "
            "candidate, and one per history feature."
        ],
    )
    rows = [
        {"data": name, **{column: counts[column] for column in columns}}
        for name, counts in named_counts
    ]
    return rows, [Section("Data sets", [grid])]


def _counts(named: NamedData) -> Mapping[str, int]:
    """The counts of a data set that the papers print."""
    schema, splits = named.data.schema, named.data.stats["splits"]

    def distinct(name: str) -> int:
        return max(
            key_stats["distinct"]
            for split in splits.values()
            for key, key_stats in split["features"].items()
            if key.rpartition("/")[2] == name and "distinct" in key_stats
        )

    users = named.data.stats["users"]
    items = splits["test"]["items_to_draw_from"]
    other_counts = [
        distinct(feature.name)
        for feature in (*schema.user_features, *schema.item_features)
        if feature.is_categorical and feature not in (schema.user_key, schema.item_key)
    ]
    categories = [
        distinct(feature.name)
        for feature in schema.history_features
        if feature.is_categorical and feature != schema.item_key
    ]
    return {
        "users": users,
        "items": items,
        "categories": next(iter(categories), 0),
        "samples": sum(split["requests"] for split in splits.values()),
        "instances": splits["test"]["candidates"],
        "features": users + items + sum(other_counts),
        "fields": len(schema.encoded_features) + len(schema.history_features),
    }


def _run_frame(planned: Sequence[Planned]) -> pd.DataFrame:
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


def _facts(planned: Sequence[Planned], command: str) -> list[tuple[str, str]]:
    """Facts on how the page was made."""
    facts = [("command", command), ("code", _version())]
    if planned:
        unique = {run.path: run for run in planned}.values()
        seconds = sum(comparisons.seconds_of(run.path) for run in unique)
        facts += [
            ("seeds", ", ".join(str(seed) for seed in sorted({run.seed for run in planned}))),
            ("runs", f"{sum(run.is_finished for run in unique)} of {len(unique)} finished"),
            ("training, all runs together", f"{seconds / 60.0:.1f} minutes"),
        ]
    return facts


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


def _csv(value: float) -> float | str:
    """A number for a CSV file, or `UNDEFINED` for NaN."""
    return UNDEFINED if math.isnan(value) else value


def _number(value: float, form: str = ".4f") -> str:
    """A number as text, or `NOTHING` for NaN."""
    return comparisons.NOTHING if math.isnan(value) else f"{value:{form}}"
