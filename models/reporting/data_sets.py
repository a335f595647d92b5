"""Tables and figures of the statistics of a data set, for data cards and reports."""

import datetime
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib import dates
from matplotlib import pyplot as plt

from models.reporting import html_report
from models.reporting.html_report import Figure, Grid
from preprocessing import time_units
from preprocessing.data_dir import DataDir, missing_share
from preprocessing.example_keys import candidate_key, history_key
from preprocessing.features.feature import Feature
from preprocessing.schema import Schema
from preprocessing.splits import SPLITS
from preprocessing.time_units import EARLIEST, LATEST

COLOURS = dict(zip(SPLITS, (html_report.BLUE, html_report.ORANGE, html_report.GREEN), strict=True))
SPLIT_COLUMNS = (
    "requests",
    "candidates",
    "positives",
    "users",
    "items",
    "catalogue",
    "mean history",
    "from",
    "to",
)
DAY = 86_400  # in seconds


def account(conservation: Mapping[str, Any]) -> list[tuple[str, int]]:
    """Number of rows of the log by outcome: read, used, filtered or rejected by reason."""
    return [
        ("read", conservation["read"]),
        ("used", conservation["used"]),
        *(
            (f"{kind}: {reason}", count)
            for kind in ("filtered", "rejected")
            for reason, count in conservation[kind].items()
        ),
    ]


def split_cells(schema: Schema, stats: Mapping[str, Any]) -> list[str]:
    """The cells of `SPLIT_COLUMNS` for the statistics of a split."""
    lengths = {int(length): count for length, count in stats["history_length"].items()}
    total = sum(length * count for length, count in lengths.items())
    counts = ("requests", "candidates", "positives", "users", "items", "items_to_draw_from")
    return [
        *(f"{stats[name]:,}" for name in counts),
        f"{total / max(1, stats['requests']):.1f}",
        *(time_units.brief(schema, time) for time in stats["time_range"] or ()),
    ]


def history_lengths(by_split: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Distribution of the lengths of the histories.

    Args:
        by_split: Statistics of the splits by name.
    """
    lengths = {name: by_split[name]["history_length"] for name in SPLITS}
    longest = max(
        (int(length) for counts_by_length in lengths.values() for length in counts_by_length),
        default=0,
    )
    parts = []
    with plt.rc_context(html_report.STYLE):
        figure, axes = plt.subplots()
        for name, counts in lengths.items():
            share = np.array([counts.get(str(length), 0) for length in range(longest + 1)], float)
            if share.sum():
                axes.step(
                    range(longest + 1), share / share.sum(), where="mid", color=COLOURS[name],
                    label=name,
                )  # fmt: skip
                middle = int(np.searchsorted(share.cumsum(), share.sum() / 2))
                parts.append(f"{name}: median {middle}, at {longest} {share[-1] / share.sum():.1%}")
        axes.set(xlabel="events in history", ylabel="share of requests", ylim=(0, None))
        figure.legend(loc="outside upper center", ncols=len(SPLITS), fontsize=8)
        caption = "Length of the histories, up to the maximum."
        return Figure("Histories", caption, html_report.svg(figure), f"{'; '.join(parts)}.")


def events(schema: Schema, by_split: Mapping[str, Mapping[str, Any]], period: int) -> Figure | None:
    """Events over time; None if all of them fall into one period.

    Args:
        schema: Schema with the unit of times.
        by_split: Statistics of the splits by name.
        period: Length of a period, in units of the log's time.
    """
    ticks = time_units.ticks_per_second(schema)
    day = DAY * ticks
    periods = {name: by_split[name]["events_by_period"] for name in SPLITS}
    period_starts = {
        int(start) for counts_by_start in periods.values() for start in counts_by_start
    }
    if len(period_starts) < 2:
        return None
    starts = np.arange(min(period_starts), max(period_starts) + 1, period)
    are_dates = min(period_starts) >= EARLIEST * ticks and max(period_starts) < LATEST * ticks
    edges = np.append(starts, starts[-1] + period) / (day if are_dates else 1)
    base = np.zeros(len(starts))
    parts = []
    with plt.rc_context(html_report.STYLE):
        figure, axes = plt.subplots()
        for name, counts in periods.items():
            top = base + [counts.get(str(start), 0) for start in starts]
            axes.stairs(top, edges, baseline=base, fill=True, color=COLOURS[name], label=name)
            base = top
            if counts:
                first, last = (
                    time_units.brief(schema, end(map(int, counts))) for end in (min, max)
                )
                parts.append(f"{name}: {sum(counts.values()):,} events from {first} to {last}")
        if are_dates:
            axes.xaxis_date(datetime.timezone.utc)
            axes.xaxis.set_major_formatter(
                dates.ConciseDateFormatter(axes.xaxis.get_major_locator())
            )
        length = f"{period:,} units of time"
        if are_dates:
            length = "day" if period == day else f"{period // day} days"
        axes.set(xlabel="time", ylabel=f"events per {length}")
        figure.legend(loc="outside upper center", ncols=len(SPLITS), fontsize=8)
        caption = f"Events per {length}, by the first split whose requests hold them."
        return Figure("Time", caption, html_report.svg(figure), f"{'; '.join(parts)}.")


def grids(data: DataDir) -> list[Grid]:
    """Tables of the splits, features and rows of a data set."""
    tables = []
    if data.describes_values:
        rows = [[name, *split_cells(data.schema, data.stats["splits"][name])] for name in SPLITS]
        tables.append(Grid("Splits", 1, ("split", *SPLIT_COLUMNS), rows))
        tables.append(_values(data))
    rows = [[name, f"{count:,}"] for name, count in account(data.manifest["conservation"])]
    note = "Every row of the log is used by a request, filtered by a rule, or rejected."
    tables.append(Grid("Rows of the log", 1, ("rows", "number"), rows, [note]))
    return tables


def figures(data: DataDir) -> list[Figure]:
    """Figures of history lengths and of events over time."""
    if not data.describes_values:
        return []
    by_split = data.stats["splits"]
    drawn = [history_lengths(by_split), events(data.schema, by_split, data.stats["period"])]
    return [figure for figure in drawn if figure is not None]


def _values(data: DataDir) -> Grid:
    """Table of the features: their encoders, missing and unknown values, and drift."""
    schema = data.schema
    by_split = data.stats["splits"]
    rows = []
    for feature in schema.features:
        key = feature.name
        if feature in schema.item_features:
            key = candidate_key(feature.name)
        elif feature in schema.event_features:
            key = history_key(feature.name)
        train, test = (by_split[name]["features"].get(key, {}) for name in ("train", "test"))
        rows.append(
            [
                feature.name,
                feature.role.value,
                encoding(feature),
                f"{data.encoders[feature.name].cardinality:,}" if feature.is_categorical else "",
                f"{missing_share(train):.2%}" if train else "",
                f"{test['oov_rate']:.2%}" if "oov_rate" in test else "",
                "" if test.get("drift") is None else f"{test['drift']:.3f}",
            ]
        )
    columns = ("feature", "role", "encoder", "ids", "missing", "unknown in test", "drift to test")
    note = (
        "Of candidates, the positives are counted, or all of an impression log. Missing: share of "
        "the training values that the log does not have, with or without a default. Drift: "
        "distance of the distributions of train and test, from 0 (the same) to 1 (disjoint)."
    )
    return Grid("Features", 3, columns, rows, [note, *cut_values(data)])


def cut_values(data: DataDir) -> list[str]:
    """A sentence on the values that sets lost; none if there are no such."""
    counts = [f"{count:,} of {name}" for name, count in data.stats.get("cut", {}).items() if count]
    if not counts:
        return []
    return [f"Values of the log beyond the `max` of their set, left out: {', '.join(counts)}."]


def encoding(feature: Feature) -> str:
    """The kind of a feature's encoder, how many values or numbers a row may have, its source."""
    if feature.encoder is None:
        return ""
    if feature.is_vector:
        return f"{feature.encoder.kind}, {feature.shape[0]} numbers"
    up_to = "" if feature.many is None else f", up to {feature.many.max} values"
    source = "" if feature.derived is None else f", from {feature.derived.value}"
    return f"{feature.encoder.kind}{up_to}{source}"
