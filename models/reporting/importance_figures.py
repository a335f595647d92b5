"""Section of a report on the importance of the model's inputs."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt

from models.evaluation import importance
from models.evaluation.metrics import shown, shown_interval
from models.evaluation.permutation import WHOLE_HISTORY
from models.reporting import html_report
from models.reporting.html_report import Figure, Grid, Section

_HOW_TO_READ = (
    "A permuted input keeps its values, but they stand in other requests and say nothing. The "
    "further the AUC falls, the more the model relies on the input. Inputs that say the same share "
    "the credit: a model falls back on one while the other is permuted. Features of candidates and "
    "of history events are permuted one side at a time; whole histories are swapped among requests."
)


def section(tables: Mapping[str, pd.DataFrame]) -> Section | None:
    """Section with a figure and a table for each split; None without any.

    Args:
        tables: Tables of `importance.measure` by split.
    """
    if not tables:
        return None
    return Section(
        "Importance",
        [_grid(table, split) for split, table in tables.items()],
        [_bars(table, split) for split, table in tables.items()],
        [_HOW_TO_READ],
    )


def _bars(table: pd.DataFrame, split: str) -> Figure:
    """Drop in AUC of each input with its interval, the largest at the top."""
    places = np.arange(len(table))[::-1]
    drop, low, high = (table[name].to_numpy() for name in ("auc_drop", "low", "high"))
    parts = [
        "" if name == WHOLE_HISTORY else f" ({part})"
        for name, part in zip(table["feature"], table["part"], strict=True)
    ]
    names = [f"{name}{part}" for name, part in zip(table["feature"], parts, strict=True)]
    labels = [
        f"{html_report.shortened(name)}{part}"
        for name, part in zip(table["feature"], parts, strict=True)
    ]
    is_undecided = importance.includes_zero(table)
    errors = np.nan_to_num([drop - low, high - drop]).clip(min=0.0)
    with plt.rc_context(html_report.STYLE):
        figure, axes = plt.subplots(figsize=(html_report.WIDTH, 0.9 + 0.26 * len(table)))
        for chosen, colour in ((~is_undecided, html_report.BLUE), (is_undecided, html_report.INK)):
            if chosen.any():
                axes.barh(places[chosen], drop[chosen], height=0.6, color=colour, alpha=0.35)
                axes.errorbar(
                    drop[chosen], places[chosen], xerr=errors[:, chosen], fmt="none", ecolor=colour,
                    capsize=2,
                )  # fmt: skip
        axes.axvline(0.0, color=html_report.INK, linewidth=0.8)
        axes.set_yticks(places, labels)
        axes.set(xlabel="drop in AUC", ylim=(-0.6, len(table) - 0.4))
        svg = html_report.svg(figure)
    lines = [
        f"{name}: {shown(value)} {shown_interval(*bounds)}"
        for name, value, *bounds in zip(names, drop, low, high, strict=True)
    ]
    caption = f"{importance.how_measured(table, split)} Grey: the interval includes 0."
    return Figure(f"Drop in AUC by input, {split}", caption, svg, f"{'; '.join(lines)}.")


def _grid(table: pd.DataFrame, split: str) -> Grid:
    rows = [
        [
            row["feature"],
            row["part"],
            shown(row["auc_drop"]),
            shown_interval(row["low"], row["high"]),
            shown(row["gauc_drop"]),
            shown(row["log_loss_rise"]),
            mark,
        ]
        for mark, (_, row) in zip(importance.marks(table), table.iterrows(), strict=True)
    ]
    columns = ("input", "part", "AUC drop", "95%", "GAUC drop", "log loss rise", "")
    return Grid(f"All inputs on {split} in numbers", 2, columns, rows, folded=True)
