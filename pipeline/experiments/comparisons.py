"""Evaluates the rows of a table over several seeds: means, tests, the order of the rows.

Two sources of chance are kept apart. Over seeds, Welch's test and the paired test (a seed gives
both models the same order of the data) ask whether another training would have another result; the
former gives the star. Over users, the bootstrap asks whether other users would: it resamples the
users of the test split and takes the mean over the seeds in every draw.
"""

import itertools
import math
import pathlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from models.core import run_directory
from models.evaluation import confidence_intervals, scoring, slices
from models.evaluation.metrics import UNDEFINED, Scores, relative_improvement
from pipeline.experiments.planned_runs import PlannedRun
from pipeline.experiments.recipe import METRICS, TITLES, Row, Table
from pipeline.experiments.scheduler import seconds_of
from preprocessing.data_dir import DataDir

COMPARED = ("auc", "auc_known", "log_loss")
"""Metrics on which rows are compared."""
DRAWS = 500
NOTHING = "–"
"""Text in place of a number that does not exist."""
VALIDATION = "validation AUC"
"""Metric that chooses among models."""


class Measured(NamedTuple):
    """The finished runs of a row on one data set.

    Attributes:
        row: Row of the table.
        published: Numbers of the row in the paper by metric, empty if there are none.
        seeds: Seeds of the runs.
        paths: Run directories.
        values: Test metrics by name, and the `VALIDATION` AUC, one value per seed.
        data: Data set of the runs.
        seconds: Duration of each training.
        learning_rate: Learning rate of the runs; None until it is chosen.
    """

    row: Row
    published: dict[str, float]
    seeds: list[int]
    paths: list[pathlib.Path]
    values: dict[str, np.ndarray]
    data: DataDir
    seconds: list[float]
    learning_rate: float | None

    def mean(self, metric: str) -> float:
        """Mean over seeds."""
        return float(np.mean(self.values[metric])) if self.seeds else math.nan

    def text(self, metric: str) -> str:
        """Mean and standard deviation for people; `NOTHING` before a run is finished."""
        return spread(self.mean(metric), self.std(metric)) if self.seeds else NOTHING

    def std(self, metric: str) -> float:
        """Standard deviation over seeds; NaN with fewer than two."""
        return float(np.std(self.values[metric], ddof=1)) if len(self.seeds) > 1 else math.nan


class Comparison(NamedTuple):
    """A row against another one, on one metric.

    Attributes:
        row: Label of the row.
        baseline: Label of the other row.
        metric: Name of the metric.
        difference: Difference of the means.
        interval: Bounds of the 95% confidence interval of the difference over users.
        improvement: Improvement as both papers define it: the ratio minus one, or for log loss one
            minus the ratio.
        published: Improvement by the paper's numbers, or NaN.
        rela_impr: RelaImpr of DIN's paper; NaN for log loss.
        welch: p-value of Welch's t-test over seeds.
        paired: p-value of the paired t-test over common seeds.
        star: Whether the row is better with `welch` below the paper's level.
    """

    row: str
    baseline: str
    metric: str
    difference: float
    interval: tuple[float, float]
    improvement: float
    published: float
    rela_impr: float
    welch: float
    paired: float
    star: bool


class Reversal(NamedTuple):
    """Two rows whose order by AUC is not that of the paper.

    Attributes:
        better: Label of the row that is better in the paper.
        worse: Label of the other row.
        published: AUC of both rows in the paper.
        ours: AUC of both rows in our runs.
        welch: p-value of the difference in our runs.
    """

    better: str
    worse: str
    published: tuple[float, float]
    ours: tuple[float, float]
    welch: float


def spread(mean: float, std: float) -> str:
    """A mean with its standard deviation, as text; either is NaN where undefined."""
    if math.isnan(mean):
        return UNDEFINED
    return f"{mean:.4f}" + ("" if math.isnan(std) else f" ± {std:.4f}")


def collect(planned: Sequence[PlannedRun], published_on: str) -> list[Measured]:
    """The finished runs of one data set, row by row.

    Args:
        planned: Runs on one data set, those of a row next to each other.
        published_on: Name of the data set of the paper to compare with.
    """
    measured = []
    for _, group in itertools.groupby(planned, key=lambda run: run.row.label):
        runs = list(group)
        row_runs = [run for run in runs if not run.is_trial]
        row, finished = runs[0].row, [run for run in row_runs if run.is_finished]
        metrics = [run_directory.read_metrics(run.path) for run in finished]
        measured.append(
            Measured(
                row=row,
                # Tables that print only AUC have one number.
                published=dict(zip(METRICS, row.published.get(published_on, ()), strict=False)),
                seeds=[run.seed for run in finished],
                paths=[run.path for run in finished],
                values={
                    VALIDATION: _values(metrics, "validation", "auc"),
                    **{name: _values(metrics, "test", name) for name in TITLES},
                },
                data=runs[0].data.data,
                seconds=[seconds_of(run.path) for run in finished],
                learning_rate=row_runs[0].config.train.learning_rate if row_runs else None,
            )
        )
    return measured


def _values(
    metrics: Sequence[Mapping[str, Mapping[str, float | None]]], split: str, name: str
) -> np.ndarray:
    """A metric of several runs, NaN where undefined."""
    return np.array([run_metrics.get(split, {}).get(name) for run_metrics in metrics], np.float64)


def compare(table: Table, measured: Sequence[Measured]) -> list[Comparison]:
    """Compares every row that has a baseline with it, on every metric.

    Args:
        table: Recipe of the table.
        measured: Rows of the table on one data set.
    """
    by_label = {
        measured_row.row.label: measured_row for measured_row in measured if measured_row.seeds
    }
    draws_by_path: dict[pathlib.Path, np.ndarray] = {}
    row_comparisons = []
    for ours in by_label.values():
        baseline_label = _baseline(
            ours.row, measured, lambda measured_row: measured_row.mean("auc")
        )
        published_label = _baseline(
            ours.row, measured, lambda measured_row: measured_row.published.get("auc", math.nan)
        )
        if baseline_label not in by_label:
            continue
        baseline = by_label[baseline_label]
        low, high = confidence_intervals.interval(
            _draws(ours, draws_by_path) - _draws(baseline, draws_by_path)
        )
        for m, metric in enumerate(COMPARED):
            improvement = _improvement(metric, ours.mean(metric), baseline.mean(metric))
            welch = _welch(ours.values[metric], baseline.values[metric])
            published = next(
                (
                    measured_row.published
                    for measured_row in measured
                    if measured_row.row.label == published_label
                ),
                {},
            )
            row_comparisons.append(
                Comparison(
                    row=ours.row.label,
                    baseline=baseline_label,
                    metric=metric,
                    difference=ours.mean(metric) - baseline.mean(metric),
                    interval=(float(low[m]), float(high[m])),
                    improvement=improvement,
                    published=_improvement(
                        metric,
                        ours.published.get(metric, math.nan),
                        published.get(metric, math.nan),
                    ),
                    rela_impr=relative_improvement(ours.mean(metric), baseline.mean(metric))
                    if metric != "log_loss"
                    else math.nan,
                    welch=welch,
                    paired=_paired(ours, baseline, metric),
                    star=improvement > 0 and welch < table.level,
                )
            )
    return row_comparisons


def reversals(measured: Sequence[Measured]) -> tuple[float, list[Reversal]]:
    """Agreement of the order of the rows by AUC with that of the paper.

    Returns:
        Kendall's tau-b of both orders, NaN if the paper has no numbers; and the pairs in another
        order, the most significant ones first.
    """
    published_rows = [
        measured_row
        for measured_row in measured
        if measured_row.seeds and "auc" in measured_row.published
    ]
    if len(published_rows) < 2:
        return math.nan, []
    paper_aucs = [measured_row.published["auc"] for measured_row in published_rows]
    our_aucs = [measured_row.mean("auc") for measured_row in published_rows]
    reversed_pairs = []
    for first, second in itertools.combinations(published_rows, 2):
        better, worse = sorted(
            (first, second), key=lambda measured_row: -measured_row.published["auc"]
        )
        published = (better.published["auc"], worse.published["auc"])
        ours = (better.mean("auc"), worse.mean("auc"))
        if published[0] > published[1] and ours[0] < ours[1]:
            p_value = _welch(better.values["auc"], worse.values["auc"])
            reversed_pairs.append(
                Reversal(better.row.label, worse.row.label, published, ours, p_value)
            )
    reversed_pairs.sort(key=lambda reversal: (math.isnan(reversal.welch), reversal.welch))
    return float(stats.kendalltau(paper_aucs, our_aucs).statistic), reversed_pairs


def _baseline(
    row: Row, measured: Sequence[Measured], auc: Callable[[Measured], float]
) -> str | None:
    """Label of the baseline of a row: the named one, else the best row that is not proposed."""
    if row.baseline is not None or not row.proposed:
        return row.baseline
    unproposed = [
        measured_row
        for measured_row in measured
        if not measured_row.row.proposed and not math.isnan(auc(measured_row))
    ]
    return max(unproposed, key=auc).row.label if unproposed else None


def _draws(measured: Measured, draws_by_path: dict[pathlib.Path, np.ndarray]) -> np.ndarray:
    """The `COMPARED` metrics [R, M] of resampled users, as the mean over the seeds."""
    for path in measured.paths:
        if path not in draws_by_path:
            draws_by_path[path] = _drawn_metrics(scoring.read_scores(path, "test"), measured.data)
    return np.mean([draws_by_path[path] for path in measured.paths], axis=0)


def _drawn_metrics(scores: Scores, data: DataDir) -> np.ndarray:
    """The `COMPARED` metrics [R, M] of one run's resampled users."""
    all_metrics = confidence_intervals.UserMetrics(scores)
    known_C = slices.known_items(scores, data)
    draws = dict(zip(all_metrics.names, all_metrics.draw(DRAWS).T, strict=True))
    draws["auc_known"] = np.full(DRAWS, np.nan)
    if known_C.any():
        known_metrics = confidence_intervals.UserMetrics(scores, known_C)
        draws["auc_known"] = known_metrics.draw(DRAWS)[:, known_metrics.names.index("auc")]
    return np.stack([draws[metric] for metric in COMPARED], axis=1)


def _improvement(metric: str, value: float, baseline: float) -> float:
    ratio = value / baseline
    return 1.0 - ratio if metric == "log_loss" else ratio - 1.0


def _welch(values: np.ndarray, baseline_values: np.ndarray) -> float:
    if min(len(values), len(baseline_values)) < 2:
        return math.nan
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # Equal values: the p-value is NaN.
        return float(stats.ttest_ind(values, baseline_values, equal_var=False).pvalue)


def _paired(measured: Measured, baseline: Measured, metric: str) -> float:
    common = sorted(set(measured.seeds) & set(baseline.seeds))
    if len(common) < 2:
        return math.nan
    paired_values = [
        side.values[metric][[side.seeds.index(seed) for seed in common]]
        for side in (measured, baseline)
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return float(stats.ttest_rel(*paired_values).pvalue)
