"""What a table of a paper is made of, as data: rows, settings, published numbers."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

Content = Mapping[str, Any]
"""Part of a configuration, see `models.config`."""

METRICS = ("auc", "log_loss")
"""What the tables of both papers show, in this order."""

TITLES = {
    "auc": "AUC",
    "auc_known": "AUC, known items",
    "gauc": "GAUC",
    "log_loss": "log loss",
}
"""What our tables show, in this order."""

LEARNING_RATES = (1e-3, 1e-2, 1e-1, 1e-4)
"""What each model may choose from; the first one where nothing tells them apart."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """A line of a table: a model that is trained once per data set and seed.

    Attributes:
        label: As in the paper.
        settings: Of the run, on top of those of the table.
        by_data: Further settings for data sets of the paper, by their name there.
        published: Numbers of the paper by data set, in the order of `METRICS`.
        proposed: Whether the paper proposes it; it is compared with the best row of the others.
        baseline: Label of the row to compare it with instead.
        series: Of a sweep, the name of what is varied.
        x: Of a sweep, its value.
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
        title: What it shows.
        protocol: How its data sets must be split.
        data_sets: Names of the paper's data sets.
        reference: The one whose numbers stand beside a log that the paper does not have.
        claim: What the paper says of it.
        settings: Of all runs.
        batch_samples: Samples (candidates with their labels) of a batch, whatever the number of
            candidates of a request; 0 for the default number of requests.
        learning_rates: Of which each row takes the one that is best on the validation split of a
            data set, with the first seed; () for the default one.
        rows: Models; none in a table of data statistics.
        level: Significance level of the paper's star.
        counts: Of a table of data statistics: published counts of each data set, by column.
        curve: Of a figure over steps: column of metrics.csv.
        inside: Of a figure of what goes on inside a model: its title in the run report.
        along: What its data sets differ in, a key of `pipeline.experiments.across.ALONG`; "" if it
            is not about a difference.
        choice: Whether one of its rows is to be chosen, which the validation split does.
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
    """Configurations on top of each other, section by section; the later one wins."""
    result: dict[str, Any] = {}
    for content in contents:
        for section, values in content.items():
            old = result.get(section)
            result[section] = {**old, **values} if isinstance(old, dict) else values
    return result


def parse_published(text: str, data_sets: Sequence[str]) -> dict[str, dict[str, list[float]]]:
    """Numbers of a printed table, by label and data set.

    Args:
        text: A line per row: its label, then the metrics of each data set, all separated by "|"
            from the label and by blanks from each other.
        data_sets: In the order of the columns.
    """
    found = {}
    for line in text.strip().splitlines():
        label, _, numbers = line.partition("|")
        values = [float(number) for number in numbers.split()]
        width = len(values) // len(data_sets)
        found[label.strip()] = {
            name: values[i * width : (i + 1) * width] for i, name in enumerate(data_sets)
        }
    return found
