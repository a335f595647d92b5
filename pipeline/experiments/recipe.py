"""The recipe of a table as data: rows, settings, published numbers."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

Content = Mapping[str, Any]
"""Part of a configuration, see `models.config`."""

METRICS = ("auc", "log_loss")
"""Metrics of the tables of both papers, in their order."""

TITLES = {
    "auc": "AUC",
    "auc_known": "AUC, known items",
    "gauc": "GAUC",
    "log_loss": "log loss",
}
"""Titles of the metrics of our tables, in their order."""

YARDSTICK_METRICS = ("auc", "auc_known", "gauc")
"""Metrics of a yardstick."""

LEARNING_RATES = (1e-3, 1e-2, 1e-1, 1e-4)
"""Learning rates from which each model chooses; the first one wins a tie."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """A line of a table: a model that is trained once per data set and seed.

    Attributes:
        label: Label of the row, as in the paper.
        settings: Settings of the run, on top of those of the table.
        by_data: Further settings for data sets of the paper, by their name there.
        published: Numbers of the paper by data set, in the order of `METRICS`.
        proposed: Whether the paper proposes the model; it is compared with the best other row.
        baseline: Label of the row to compare it with instead.
        series: Name of the setting that a sweep varies; "" outside sweeps.
        x: Value of that setting in a sweep.
    """

    label: str
    settings: Content
    by_data: Mapping[str, Content] = dataclasses.field(default_factory=dict)
    published: Mapping[str, Sequence[float]] = dataclasses.field(default_factory=dict)
    proposed: bool = False
    baseline: str | None = None
    series: str = ""
    x: float = 0.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table:
    """A table or figure, of a paper or beyond both.

    Attributes:
        id: Name on the command line, e.g. deminet/2.
        title: Title of the table.
        protocol: Protocol by which its data sets must be split.
        data_sets: Names of the paper's data sets.
        reference: Data set of the paper whose numbers are shown for a log that it does not have.
        claim: Claim of the paper about the table.
        settings: Settings of all runs.
        batch_samples: Number of samples (candidates with their labels) of a batch, whatever the
            number of candidates of a request; 0 for the default number of requests.
        learning_rates: Learning rates of which each row takes the one that is best on the
            validation split of a data set, with the first seed; () for the default one.
        rows: Models; none in a table of data statistics.
        level: Significance level of the paper's star.
        counts: Published counts of each data set, by column; for a table of data statistics.
        curve: Column of metrics.csv; for a figure over steps.
        inside: Title of a figure in the run report; for a figure of the inside of a model.
        along: Quantity in which its data sets differ, a key of
            `pipeline.experiments.data_set_curves.ALONG`; "" if it does not compare data sets.
        choice: Whether one of its rows is to be chosen by the validation split.
    """

    id: str
    title: str
    protocol: str
    data_sets: Sequence[str]
    reference: str
    claim: str
    settings: Content = dataclasses.field(default_factory=dict)
    batch_samples: int = 0
    learning_rates: Sequence[float] = ()
    rows: Sequence[Row] = ()
    level: float = 0.05
    counts: Mapping[str, Mapping[str, int]] = dataclasses.field(default_factory=dict)
    curve: str = ""
    inside: str = ""
    along: str = ""
    choice: bool = False


def merged(*contents: Content) -> dict[str, Any]:
    """Configurations merged section by section; later ones take precedence."""
    result: dict[str, Any] = {}
    for content in contents:
        for section, values in content.items():
            previous = result.get(section)
            result[section] = {**previous, **values} if isinstance(previous, dict) else values
    return result


def parse_published(text: str, data_sets: Sequence[str]) -> dict[str, dict[str, list[float]]]:
    """Numbers of a printed table, by label and data set.

    Args:
        text: A line per row: its label, "|", then the metrics of all data sets between blanks.
        data_sets: Names of the data sets, in the order of the columns.
    """
    published = {}
    for line in text.strip().splitlines():
        label, _, numbers = line.partition("|")
        values = [float(number) for number in numbers.split()]
        width = len(values) // len(data_sets)
        published[label.strip()] = {
            name: values[i * width : (i + 1) * width] for i, name in enumerate(data_sets)
        }
    return published
