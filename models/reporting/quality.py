"""Figures of the quality of the scores of a split, overall and by slice.

Shapes: C candidates.
"""

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from sklearn import metrics as sklearn_metrics

from models.evaluation.confidence_intervals import Estimate
from models.evaluation.metrics import Scores, reliability, shown, shown_interval, sigmoid
from models.evaluation.slices import ITEMS, USERS
from models.reporting import html_report
from models.reporting.html_report import Figure

_CURVE_POINTS = 200
_FEW_POSITIVES = 0.2
"""Share of positives below which precision is more informative than the ROC curve."""
_BARS = 40
_DIMENSIONS = {
    "history length": "Number of events in the history of the request.",
    USERS: "Whether training has requests of the user.",
    ITEMS: "Whether training has events of the item.",
    "item popularity": "How many events of the item training has.",
}
_FEW = 0.05
"""Share of the candidates of a split below which the interval of a slice may leave its figure."""
_TINY = 0.005
"""Share below which its AUC may lie beyond the figure too."""
_Z = 1.96  # Normal quantile of a 95% interval.


def of_split(scores: Scores, auc: Estimate, split: str) -> list[Figure]:
    """Figures of calibration; with both labels also of ROC, and of precision if positives are rare.

    Args:
        scores: Scores of the split.
        auc: AUC of the split.
        split: Name of the split.
    """
    label_C = scores.label.astype(np.float64)
    probability_C = sigmoid(scores.logit.astype(np.float64))
    drawn = [_calibration(label_C, probability_C, split)]
    if auc.value is not None:
        drawn.append(_roc(label_C, probability_C, auc, split))
        if label_C.mean() < _FEW_POSITIVES:
            drawn.append(_precision(label_C, probability_C, split))
    return drawn


def of_slices(slices: pd.DataFrame, auc: Estimate) -> list[Figure]:
    """Figures of AUC by slice, for each dimension with more than one slice.

    Args:
        slices: Table of `models.evaluation.slices.measure`.
        auc: AUC of the whole split.
    """
    drawn = []
    for dimension, part in slices.groupby("dimension", sort=False):
        if part["auc"].notna().sum() > 1 and auc.value is not None:
            drawn.append(_slices(str(dimension), part[part["auc"].notna()], auc.value))
    return drawn


def _calibration(label_C: np.ndarray, probability_C: np.ndarray, split: str) -> Figure:
    """Observed against predicted rate in ten bins of equal counts; a histogram of predictions."""
    predicted, observed, counts = reliability(label_C, probability_C)
    with plt.rc_context(html_report.STYLE):
        figure, (axes, below) = plt.subplots(
            2, sharex=True, figsize=(html_report.WIDTH, 3.6), height_ratios=(4, 1)
        )
        axes.plot([0, 1], [0, 1], color=html_report.INK, linewidth=0.8, linestyle=":")
        error = _Z * np.sqrt(observed * (1.0 - observed) / counts)
        axes.errorbar(
            predicted,
            observed,
            yerr=error,
            color=html_report.BLUE,
            marker="o",
            markersize=4,
            capsize=2,
        )
        axes.set(ylabel="observed rate", xlim=(0, 1), ylim=(0, 1))
        bars, edges = np.histogram(probability_C, bins=_BARS, range=(0.0, 1.0))
        below.stairs(bars / bars.sum(), edges, fill=True, color=html_report.INK)
        below.set(xlabel="predicted rate", yticks=[], ylabel="share")
        svg = html_report.svg(figure)
    gaps = np.abs(predicted - observed)
    worst = int(gaps.argmax())
    text = (
        f"Ten bins. Where {predicted[0]:.2f} is predicted, {observed[0]:.2f} is observed; in the "
        f"highest bin {predicted[-1]:.2f} against {observed[-1]:.2f}. The largest gap is "
        f"{gaps[worst]:.2f}, at {predicted[worst]:.2f}."
    )
    caption = (
        f"Of candidates that were given the same click probability, how many were clicked "
        f"({split}). On the diagonal probabilities are true; a flatter curve means "
        "overconfidence. Below, how the probabilities are spread."
    )
    return Figure("Calibration", caption, svg, text)


def _roc(label_C: np.ndarray, probability_C: np.ndarray, auc: Estimate, split: str) -> Figure:
    false, true, _ = sklearn_metrics.roc_curve(label_C, probability_C)
    points = np.linspace(0.0, 1.0, _CURVE_POINTS)
    curve = np.interp(points, false, true)
    with plt.rc_context(html_report.STYLE):
        figure, axes = plt.subplots(figsize=(html_report.WIDTH, 3.6))
        axes.plot([0, 1], [0, 1], color=html_report.INK, linewidth=0.8, linestyle=":")
        axes.plot(points, curve, color=html_report.BLUE)
        axes.fill_between(points, curve, color=html_report.BLUE, alpha=0.12, linewidth=0)
        axes.set(
            xlabel="share of the others kept",
            ylabel="share of the clicked kept",
            xlim=(0, 1),
            ylim=(0, 1),
        )
        svg = html_report.svg(figure)
    true_rate_at = {share: float(np.interp(share, false, true)) for share in (0.1, 0.5)}
    text = (
        f"Area under the curve {shown(auc.value)} {shown_interval(auc.low, auc.high)}. A threshold "
        f"that keeps 10% of the others keeps {true_rate_at[0.1]:.0%} of the clicked; one that "
        f"keeps 50% keeps {true_rate_at[0.5]:.0%}."
    )
    caption = (
        f"For every threshold on the score: the share of clicked and of other candidates above it "
        f"({split}). The area under the curve is the AUC; the diagonal is chance."
    )
    return Figure("ROC", caption, svg, text)


def _precision(label_C: np.ndarray, probability_C: np.ndarray, split: str) -> Figure:
    precision, recall, _ = sklearn_metrics.precision_recall_curve(label_C, probability_C)
    points = np.linspace(0.0, 1.0, _CURVE_POINTS)
    curve = np.interp(points, recall[::-1], precision[::-1])
    rate = float(label_C.mean())
    with plt.rc_context(html_report.STYLE):
        figure, axes = plt.subplots()
        axes.axhline(rate, color=html_report.INK, linewidth=0.8, linestyle=":")
        axes.plot(points, curve, color=html_report.BLUE)
        axes.set(
            xlabel="recall: share of the clicked kept",
            ylabel="precision",
            xlim=(0, 1),
            ylim=(0, None),
        )
        svg = html_report.svg(figure)
    average = sklearn_metrics.average_precision_score(label_C, probability_C)
    text = (
        f"Average precision {average:.4f}; at random it would be {rate:.4f}. Keeping half of the "
        f"clicked, {np.interp(0.5, recall[::-1], precision[::-1]):.1%} of what is kept was clicked."
    )
    caption = (
        f"Share of the candidates above a threshold that were clicked ({split}). It is shown "
        f"because clicks are rare here; the dotted line is chance."
    )
    return Figure("Precision and recall", caption, svg, text)


def _slices(dimension: str, part: pd.DataFrame, auc: float) -> Figure:
    """AUC and confidence interval of each slice of a dimension."""
    places = np.arange(len(part))[::-1]
    value, low, high = (part[name].to_numpy() for name in ("auc", "auc_low", "auc_high"))
    is_interval = low < high  # Draws of a handful of candidates may all give the same AUC.
    below, above = is_interval & (high < auc), is_interval & (low > auc)
    left, right = _limits(part, auc)
    with plt.rc_context(html_report.STYLE):
        figure, axes = plt.subplots(figsize=(html_report.WIDTH, 0.9 + 0.24 * len(part)))
        axes.axvline(auc, color=html_report.INK, linewidth=1.0, linestyle=":")
        for chosen, colour in (
            (below, html_report.ORANGE),
            (above, html_report.GREEN),
            (~(below | above), html_report.BLUE),
        ):
            if chosen.any():
                errors = [(value - low)[chosen], (high - value)[chosen]]
                axes.errorbar(
                    value[chosen], places[chosen], xerr=np.nan_to_num(errors), fmt="o",
                    color=colour, markersize=4, capsize=2,
                )  # fmt: skip
        axes.set_yticks(
            places,
            [
                f"{html_report.shortened(name)}  ({count:,})"
                for name, count in zip(part["slice"], part["candidates"], strict=True)
            ],
        )
        for beyond, edge, marker in ((value < left, left, "<"), (value > right, right, ">")):
            axes.plot(
                np.full(beyond.sum(), edge), places[beyond], marker, color=html_report.INK,
                markersize=7, clip_on=False,
            )  # fmt: skip
        axes.set(xlabel="AUC", xlim=(left, right), ylim=(-0.6, len(part) - 0.4))
        svg = html_report.svg(figure)
    bounds = zip(part["slice"], value, low, high, strict=True)
    text = "; ".join(
        f"{name}: {v:.3f} {shown_interval(lo, hi, '.3f')}" for name, v, lo, hi in bounds
    )
    caption = _DIMENSIONS.get(dimension, f"The most frequent values of {dimension}.")
    if (value < left).any() or (value > right).any():
        caption += " An arrow: the AUC of a small slice lies beyond the figure."
    elif (low < left).any() or (high > right).any():
        caption += " Intervals of small slices go on beyond the figure."
    return Figure(f"AUC by {dimension}", caption, svg, f"{text}.")


def _limits(part: pd.DataFrame, auc: float) -> tuple[float, float]:
    """The range of AUC of a figure: values of all but tiny slices, intervals of large ones."""
    share = part["candidates"] / part["candidates"].sum()
    large = part[share >= _FEW]
    ends = [auc, *part["auc"][share >= _TINY], *large["auc_low"], *large["auc_high"]]
    margin = 0.05 * (np.nanmax(ends) - np.nanmin(ends)) + 0.005
    return float(np.nanmin(ends) - margin), float(np.nanmax(ends) + margin)


def how_to_read(auc: Estimate, split: str) -> str:
    """An explanation for all figures of slices."""
    return (
        "A figure by slice shows the AUC of the candidates of each slice among themselves, with "
        f"its 95% interval; the number of candidates is in brackets. The dotted line is the AUC "
        f"of all {split} candidates, {shown(auc.value, '.3f')}. Orange: the whole interval is "
        "below it; green: above it."
    )
