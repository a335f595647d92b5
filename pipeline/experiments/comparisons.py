"""What runs of several seeds say about the rows of a table: means, tests, the order of the rows.

Two sources of chance are kept apart. Over seeds, Welch's test and the paired one (a seed gives both
models the same order of the data) ask whether another training would come out differently; the
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
from pipeline.experiments.plan import Planned
from pipeline.experiments.recipe import METRICS, TITLES, Row, Table
from pipeline.experiments.scheduler import seconds_of
from preprocessing.data_dir import DataDir

COMPARED = ("auc", "auc_known", "log_loss")
"""Metrics on which rows are compared."""
DRAWS = 500
NOTHING = "–"
"""Where a page has no number to show."""
VALIDATION = "validation AUC"
"""What chooses among models."""


class Measured(NamedTuple):
    """The finished runs of a row on one data set.

    Attributes:
        row: Of the table.
        published: Its numbers in the paper by metric, empty if there are none.
        seeds: Of its runs.
        paths: Of its runs.
        values: Test metrics by name, and the `VALIDATION` AUC, one per seed.
        data: What the runs are of.
        seconds: That each training took.
        learning_rate: Of its runs; None as long as it is not chosen.
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
        row: Label.
        baseline: Label of the other one.
        metric: Its name.
        difference: Of the means.
        interval: Bounds of the difference for other users.
        improvement: As both papers define it: the ratio minus one, for log loss one minus it.
        published: The same of the paper's numbers, or NaN.
        rela_impr: RelaImpr of DIN's paper; NaN for log loss.
        welch: p-value of Welch's t-test over seeds.
        paired: p-value of the paired t-test over common seeds.
        star: Whether it is better with `welch` below the paper's level.
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
        worse: Label of the other one.
        published: Their AUC there.
        ours: Their AUC here.
        welch: p-value of the difference here.
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


def collect(planned: Sequence[Planned], published_on: str) -> list[Measured]:
    """The finished runs of one data set, row by row.

    Args:
        planned: Runs of one data set, those of a row next to each other.
        published_on: The data set of the paper to compare with.
    """
    found = []
    for _, group in itertools.groupby(planned, key=lambda run: run.row.label):
        some = list(group)
        of_row = [run for run in some if not run.is_trial]
        row, finished = some[0].row, [run for run in of_row if run.is_finished]
        metrics = [run_directory.read_metrics(run.path) for run in finished]
        found.append(
            Measured(
                row=row,
                # Tables of AUC alone have one number.
                published=dict(zip(METRICS, row.published.get(published_on, ()), strict=False)),
                seeds=[run.seed for run in finished],
                paths=[run.path for run in finished],
                values={
                    VALIDATION: _values(metrics, "validation", "auc"),
                    **{name: _values(metrics, "test", name) for name in TITLES},
                },
                data=some[0].data.data,
                seconds=[seconds_of(run.path) for run in finished],
                learning_rate=of_row[0].config.train.learning_rate if of_row else None,
            )
        )
    return found


def _values(
    metrics: Sequence[Mapping[str, Mapping[str, float | None]]], split: str, name: str
) -> np.ndarray:
    """A metric of several runs, NaN where undefined."""
    return np.array([one.get(split, {}).get(name) for one in metrics], np.float64)


def compare(table: Table, measured: Sequence[Measured]) -> list[Comparison]:
    """Every row that has another one to be compared with, on every metric.

    Args:
        table: The recipe.
        measured: Its rows on one data set.
    """
    by_label = {each.row.label: each for each in measured if each.seeds}
    drawn: dict[pathlib.Path, np.ndarray] = {}
    found = []
    for each in by_label.values():
        ours = _baseline(each.row, measured, lambda other: other.mean("auc"))
        theirs = _baseline(each.row, measured, lambda other: other.published.get("auc", math.nan))
        if ours not in by_label:
            continue
        baseline = by_label[ours]
        low, high = confidence_intervals.interval(_draws(each, drawn) - _draws(baseline, drawn))
        for m, metric in enumerate(COMPARED):
            improvement = _improvement(metric, each.mean(metric), baseline.mean(metric))
            welch = _welch(each.values[metric], baseline.values[metric])
            published = next(
                (other.published for other in measured if other.row.label == theirs), {}
            )
            found.append(
                Comparison(
                    row=each.row.label,
                    baseline=ours,
                    metric=metric,
                    difference=each.mean(metric) - baseline.mean(metric),
                    interval=(float(low[m]), float(high[m])),
                    improvement=improvement,
                    published=_improvement(
                        metric,
                        each.published.get(metric, math.nan),
                        published.get(metric, math.nan),
                    ),
                    rela_impr=relative_improvement(each.mean(metric), baseline.mean(metric))
                    if metric != "log_loss"
                    else math.nan,
                    welch=welch,
                    paired=_paired(each, baseline, metric),
                    star=improvement > 0 and welch < table.level,
                )
            )
    return found


def reversals(measured: Sequence[Measured]) -> tuple[float, list[Reversal]]:
    """How far the order of the rows by AUC is that of the paper.

    Returns:
        Kendall's tau-b of both orders, NaN if the paper has no numbers, and the pairs in another
        order, the most significant ones first.
    """
    known = [each for each in measured if each.seeds and "auc" in each.published]
    if len(known) < 2:
        return math.nan, []
    there = [each.published["auc"] for each in known]
    here = [each.mean("auc") for each in known]
    found = []
    for first, second in itertools.combinations(known, 2):
        better, worse = sorted((first, second), key=lambda each: -each.published["auc"])
        published = (better.published["auc"], worse.published["auc"])
        ours = (better.mean("auc"), worse.mean("auc"))
        if published[0] > published[1] and ours[0] < ours[1]:
            p_value = _welch(better.values["auc"], worse.values["auc"])
            found.append(Reversal(better.row.label, worse.row.label, published, ours, p_value))
    found.sort(key=lambda each: (math.isnan(each.welch), each.welch))
    return float(stats.kendalltau(there, here).statistic), found


def _baseline(
    row: Row, measured: Sequence[Measured], auc: Callable[[Measured], float]
) -> str | None:
    """Label of the row to compare with: the one that is named, else the best of the others."""
    if row.baseline is not None or not row.proposed:
        return row.baseline
    others = [each for each in measured if not each.row.proposed and not math.isnan(auc(each))]
    return max(others, key=auc).row.label if others else None


def _draws(measured: Measured, known: dict[pathlib.Path, np.ndarray]) -> np.ndarray:
    """The `COMPARED` metrics [R, M] of resampled users, as the mean over the seeds."""
    for path in measured.paths:
        if path not in known:
            known[path] = _drawn_metrics(scoring.read_scores(path, "test"), measured.data)
    return np.mean([known[path] for path in measured.paths], axis=0)


def _drawn_metrics(scores: Scores, data: DataDir) -> np.ndarray:
    """The `COMPARED` metrics [R, M] of one run's resampled users."""
    of_all, known_C = confidence_intervals.UserMetrics(scores), slices.known_items(scores, data)
    drawn = dict(zip(of_all.names, of_all.draw(DRAWS).T, strict=True))
    drawn["auc_known"] = np.full(DRAWS, np.nan)
    if known_C.any():
        of_known = confidence_intervals.UserMetrics(scores, known_C)
        drawn["auc_known"] = of_known.draw(DRAWS)[:, of_known.names.index("auc")]
    return np.stack([drawn[metric] for metric in COMPARED], axis=1)


def _improvement(metric: str, value: float, baseline: float) -> float:
    ratio = value / baseline
    return 1.0 - ratio if metric == "log_loss" else ratio - 1.0


def _welch(one: np.ndarray, other: np.ndarray) -> float:
    if min(len(one), len(other)) < 2:
        return math.nan
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # Equal values: the p-value is NaN.
        return float(stats.ttest_ind(one, other, equal_var=False).pvalue)


def _paired(one: Measured, other: Measured, metric: str) -> float:
    common = sorted(set(one.seeds) & set(other.seeds))
    if len(common) < 2:
        return math.nan
    values = [
        each.values[metric][[each.seeds.index(seed) for seed in common]] for each in (one, other)
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return float(stats.ttest_rel(*values).pvalue)
