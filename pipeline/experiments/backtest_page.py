"""The page of a backtest: metrics and costs of each way to train every day."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib import ticker

from models.config import run_config
from models.core import provenance, run_directory
from models.reporting import html_report
from models.reporting.html_report import Figure, Grid, Section

_METRICS = {"auc": ("AUC", 4), "gauc": ("GAUC", 4), "log_loss": ("log loss", 4)}


def write_page(
    workdir: pathlib.Path,
    rows: Sequence[Mapping[str, Any]],
    ways: Sequence[str],
    note: str,
    command: str,
) -> pathlib.Path:
    """Writes backtest.html and backtest.md.

    Args:
        workdir: Directory of the backtest.
        rows: Rows of backtest.csv.
        ways: The ways to train, in their order on the page.
        note: What the names of the ways do not say.
        command: Command that was called.

    Returns:
        The path of the HTML file.
    """
    table = pd.DataFrame(list(rows))
    requests = table.groupby("day")["requests"].first()
    days = sorted(table["day"].unique())
    grids = [_means(table, ways, note), _costs(table, ways)]
    for metric, (title, digits) in _METRICS.items():
        means = table.pivot_table(metric, "way", "day").reindex(list(ways))
        cells = [
            [way, *(f"{means.loc[way, day]:.{digits}f}" for day in days)] for way in means.index
        ]
        grids.append(
            Grid(
                f"{title[0].upper()}{title[1:]} by day",
                1,
                ("way", *(f"day {day + 1}" for day in days)),
                cells,
                folded=True,
            )
        )
    config = run_config.load(workdir / "runs" / "first-1" / run_directory.CONFIG)
    content = {
        "id": "backtest",
        "title": "ways to train every day",
        "quick": "",
        "claim": "",
        "command": command,
        "facts": [("code", provenance.code()["version"])],
        "settings": {"model": config["model"]["name"], "ssl": config["ssl"]["name"]},
        "data": Grid(
            "Days",
            1,
            ("day", "requests"),
            [[str(day + 1), f"{requests[day]:,}"] for day in days],
            folded=True,
        ),
        "sections": [Section("Results", grids, [_figure(table, ways)])],
    }
    output = workdir / "backtest.html"
    html_report.write("pipeline", "experiment", content, output)
    return output


def _means(table: pd.DataFrame, ways: Sequence[str], note: str) -> Grid:
    """Metrics over all days, with the spread over seeds."""
    rows = []
    for way in ways:
        ours = table[table["way"] == way]
        cells = [way]
        for metric, (_, digits) in _METRICS.items():
            seeds = ours.groupby("seed")[metric].mean()
            spread = f" ± {seeds.std():.{digits}f}" if len(seeds) > 1 else ""
            cells.append(f"{seeds.mean():.{digits}f}{spread}")
        rows.append(cells)
    return Grid(
        "Metrics on the day after, mean over days, ± standard deviation over seeds",
        1,
        ("way", *(title for title, _ in _METRICS.values())),
        rows,
        notes=[f"{note}."],
    )


def _costs(table: pd.DataFrame, ways: Sequence[str]) -> Grid:
    """Seconds and steps of a day."""
    rows = []
    for way in ways:
        ours = table[table["way"] == way][["build_seconds", "train_seconds", "steps"]].mean()
        *seconds, steps = ours
        rows.append([way, *(f"{value:,.1f}" for value in seconds), f"{steps:,.0f}"])
    return Grid(
        "Cost of a day, mean over days and seeds",
        1,
        ("way", "build, s", "train, s", "steps"),
        rows,
        notes=["Training includes start and evaluations, without imports."],
    )


def _figure(table: pd.DataFrame, ways: Sequence[str]) -> Figure:
    with plt.rc_context(html_report.STYLE):
        figure, axes = plt.subplots()
        for way in ways:
            means = table[table["way"] == way].groupby("day")["auc"].mean()
            axes.plot(means.index + 1, means.to_numpy(), marker="o", markersize=3, label=way)
        axes.set(xlabel="day", ylabel="AUC")
        axes.xaxis.set_major_locator(ticker.MaxNLocator("auto", integer=True))
        figure.legend(loc="outside upper center", ncols=3, fontsize=8)
        caption = "AUC on the requests of each day, of models trained on the days before it."
        return Figure("AUC by day", caption, html_report.svg(figure))
