"""Writes the data card of a data set: what went in, what came out, how the splits differ.

    python -m pipeline.data_card DATA

Two files in DATA with the same content: data_card.html (self-contained, with figures) and
data_card.md. They follow from manifest.json, stats.json and schema.json alone and are no part of
what the manifest vouches for: they can be removed, and written again at any time.
"""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from absl import flags
from matplotlib import pyplot as plt

from models.reporting import data_sets, html_report
from models.reporting.html_report import Figure
from pipeline.log import file_accounts
from pipeline.stats import statistics
from pipeline.stats.drift import by_chance
from preprocessing import cli, time_units
from preprocessing.data_dir import DataDir, missing_share, word_counts
from preprocessing.errors import UserError, explained_write_errors, shown
from preprocessing.features.feature import Feature
from preprocessing.known_items import UnknownItems
from preprocessing.schema import encoded_keys
from preprocessing.splits import SPLITS
from preprocessing.storage.files import AnyPath

CARD = "data_card.html"
_SHOWN_VALUES, _WIDTH = 4, 28
_SHOWN_FILES = 20
_DRIFT_COLUMNS = (
    *(f"unknown, {name}" for name in SPLITS),
    *(f"drift, {name}" for name in SPLITS[1:]),
)
_UNKNOWN_COLUMNS = ("unknown of the positives", "unknown of the negatives", "AUC of that bit")
_UNKNOWN_LEGEND = (
    "An item is unknown if the training vocabulary does not have it. The AUC is that of a score "
    "that says only this; 0.5 tells nothing apart, and below it unknown items are clicked less."
)
_MISSING = (
    "Missing in the log: share of the values that the log does not have. Defaulted: share of the "
    "values that are the default of their feature for that reason."
)
_LEGEND = (
    "Unknown: share of the values out of vocabulary. Drift: distance from train, from 0 (the same "
    "distribution) to 1 (disjoint ones); Jensen-Shannon divergence of categories, "
    "Kolmogorov-Smirnov statistic of numbers. Much: above .02, and more than twice what two "
    "samples of one distribution, as large as these, differ by in the mean."
)
_NEGLIGIBLE = 0.02
"""Drift that is not much, however large the samples are."""


def write_card(path: str | AnyPath) -> AnyPath:
    """Writes both files.

    Args:
        path: The data directory.

    Returns:
        The path of the HTML file.

    Raises:
        UserError: The directory is no complete data set, or its stats.json is of another version.
    """
    data = DataDir.open(path, verify=False)
    statistics.require(data)
    by_split = data.stats["splits"]
    content = {
        "name": data.path.name,
        "input": data.manifest["arguments"]["input"],
        "headline": [
            ("rows read", data.manifest["conservation"]["read"]),
            ("users", data.stats["users"]),
            *((f"{name} requests", by_split[name]["requests"]) for name in SPLITS),
        ],
        "findings": data.findings,
        "split_columns": data_sets.SPLIT_COLUMNS,
        "counted": "all of a request" if data.schema.is_impression_log else "the positives",
        "missing": " ".join([_MISSING, *data_sets.cut_values(data)]),
        "drift_columns": _DRIFT_COLUMNS,
        "legend": _LEGEND,
        "account": [
            (name, [f"{count:,}"])
            for name, count in data_sets.account(data.manifest["conservation"])
        ],
        "base": _base_rows(data),
        "file_columns": ("read", "used", "filtered", "rejected", "lines within values"),
        "files": _file_rows(data.manifest.get("inputs", [])),
        "file_remarks": file_accounts.remarks(data.manifest.get("inputs", [])),
        "splits": [(name, data_sets.split_cells(data.schema, by_split[name])) for name in SPLITS],
        "unknown": [(name, _unknown_cells(by_split[name])) for name in SPLITS],
        "unknown_columns": _UNKNOWN_COLUMNS,
        "unknown_legend": _UNKNOWN_LEGEND,
        "values": [
            _value_cells(key, feature, by_split["train"]["features"][key])
            for key, feature in encoded_keys(data.schema)
        ],
        "drift": [
            (key, _drift_cells([by_split[name]["features"][key] for name in SPLITS]))
            for key, _ in encoded_keys(data.schema)
        ],
        "figures": _figures(data),
        "arguments": {
            name: value
            for name, value in data.manifest["arguments"].items()
            if value not in (None, [])
        },
        "schema_hash": data.manifest["schema_hash"],
        "code_version": data.manifest["code_version"],
    }
    with explained_write_errors("--data", data.path / CARD):
        return html_report.write("pipeline", "data_card", content, data.path / CARD)


def _base_rows(data: DataDir) -> list[tuple[str, str]]:
    """What the data set continues: the base, its latest time, and what came again or late."""
    record = data.manifest.get("base")
    if record is None:
        return []
    new_words = {
        name: len(word_counts(words)) - words["given"]
        for name, words in data.stats["vocabularies"].items()
    }
    return [
        ("data set", shown(record["path"])),
        ("SHA-256 of its manifest", record["sha256"][:12]),
        ("latest time", time_units.text(data.schema, record["watermark"])),
        ("rankings of its vocabularies", f"{record['generation'] + 1:,}"),
        *((f"new words of {name}", f"{count:,}") for name, count in new_words.items()),
        *(
            (f"expired values of {name}", f"{count:,}")
            for name, count in data.manifest.get("expired", {}).items()
        ),
        ("late rows", f"{record['late']:,}"),
        ("repeated rows", f"{record['duplicates']:,}"),
    ]


def _unknown_cells(stats: Mapping[str, Any]) -> list[str]:
    """Shares of unknown items, and how well they separate labels; empty if not counted."""
    unknown = UnknownItems.of_split(stats)
    if unknown is None:
        return ["", "", ""]
    auc = "" if unknown.auc is None else f"{unknown.auc:.3f}"
    return [f"{unknown.positive_share:.2%}", f"{unknown.negative_share:.2%}", auc]


def _file_rows(inputs: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[str]]]:
    """Names and accounts of the first files, then the total of all others."""
    kinds = ("read", "used", "filtered", "rejected", "continued")
    rows = [
        (file_accounts.title(file), [file[kind] for kind in kinds])
        for file in inputs[:_SHOWN_FILES]
    ]
    if other_files := inputs[_SHOWN_FILES:]:
        totals = [sum(file[kind] for file in other_files) for kind in kinds]
        rows.append((f"{len(other_files):,} others", totals))
    return [(name, [f"{count:,}" for count in counts]) for name, counts in rows]


def _value_cells(key: str, feature: Feature, train: Mapping[str, Any]) -> list[str]:
    """Cells of the table of training values for a key of the examples."""
    summary = ""
    if "top_values" in train:
        top = sorted(train["top_values"].items(), key=lambda item: (-item[1], item[0].encode()))
        summary = ", ".join(
            f"{html_report.shortened(shown(value), _WIDTH)} ({n:,})"
            for value, n in top[:_SHOWN_VALUES]
        )
    elif "percentiles" in train:
        summary = "norm " * feature.is_vector + (
            f"{train['percentiles'][0]:.4g} to {train['percentiles'][100]:.4g}, "
            f"mean {train['mean']:.4g} ± {train['std']:.4g}"
        )
    return [
        key,
        data_sets.encoding(feature),
        f"{train['count']:,}",
        f"{missing_share(train):.2%}",
        ""
        if feature.default is None
        else f"{train.get('defaulted', 0) / max(1, train['count']):.2%}",
        f"{train['distinct']:,}",
        summary,
    ]


def _drift_cells(by_split: list[Mapping[str, Any]]) -> list[str]:
    """Rates of unknown values in all splits, then the drift of all splits but the first."""
    return [
        *(f"{stats['oov_rate']:.2%}" if "oov_rate" in stats else "" for stats in by_split),
        *(_drift(by_split[0], stats) for stats in by_split[1:]),
    ]


def _drift(train: Mapping[str, Any], stats: Mapping[str, Any]) -> str:
    """The drift of a split from train, and whether it is much."""
    drift = stats["drift"]
    if drift is None:
        return ""
    distinct = max(train["distinct"], stats["distinct"])
    is_number = "percentiles" in train
    chance = by_chance(distinct, train["count"], stats["count"], is_number)
    return f"{drift:.3f}{', much' * (drift > max(_NEGLIGIBLE, 2 * chance))}"


def _figures(data: DataDir) -> list[Figure]:
    """Each figure that the data set has numbers for."""
    by_split = data.stats["splits"]
    figures = data_sets.figures(data)
    words = data.stats["vocabularies"].get(data.schema.item_key.name)
    if words is not None and words["words_by_count"]:
        figures.insert(0, _popularity(np.sort(word_counts(words))[::-1]))
    unknown = {
        key: [by_split[name]["features"][key]["oov_rate"] for name in SPLITS]
        for key, _ in encoded_keys(data.schema)
        if "oov_rate" in by_split[SPLITS[0]]["features"][key]
    }
    if unknown:
        figures.append(_unknown(unknown))
    return figures


def _popularity(counts: np.ndarray) -> Figure:
    with plt.rc_context(html_report.STYLE):
        figure, axes = plt.subplots()
        axes.plot(np.arange(1, len(counts) + 1), counts, color=html_report.BLUE)
        axes.set(xlabel="item, by popularity", ylabel="training events")
        html_report.log_scale(axes, "x", "y")
        head = counts[: max(1, round(len(counts) / 100))].sum() / counts.sum()
        caption = (
            f"How often training requests hold each of {len(counts):,} items; the most popular 1% "
            f"make up {head:.0%}."
        )
        return Figure("Popularity", caption, html_report.svg(figure))


def _unknown(rates: Mapping[str, list[float]]) -> Figure:
    with plt.rc_context(html_report.STYLE):
        figure, axes = plt.subplots()
        places = np.arange(len(rates))
        for number, (name, colour) in enumerate(data_sets.COLOURS.items()):
            heights = [100 * split_rates[number] for split_rates in rates.values()]
            axes.barh(places + 0.26 * (number - 1), heights, 0.24, color=colour, label=name)
        axes.set_yticks(places, list(rates))
        axes.invert_yaxis()
        axes.set(xlabel="values out of vocabulary, %", xlim=(0, max(1.0, axes.get_xlim()[1])))
        figure.legend(loc="outside upper center", ncols=len(SPLITS), fontsize=8)
        caption = "Share of the values that the training vocabulary does not have."
        return Figure("Unknown values", caption, html_report.svg(figure))


def define_flags() -> None:
    """Defines the flags of this command."""
    flags.DEFINE_string("data", None, "The data directory; may be given without --data.")


def main() -> None:
    """Writes the data card and prints its path."""
    if flags.FLAGS.data is None:
        raise UserError(
            "Expected a data directory, found none.", "python -m pipeline.data_card DATA"
        )
    sys.stdout.write(f"data card: {write_card(flags.FLAGS.data)}\n")


def console_main() -> None:
    """Entry point of `ctr-data-card`."""
    define_flags()
    cli.run(main, __doc__, positional="data")


if __name__ == "__main__":
    console_main()
