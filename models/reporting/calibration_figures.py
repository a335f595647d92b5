"""Section of a report on the calibration of the run's last calibrated export.

Shapes: C candidates.
"""

import numpy as np
from matplotlib import pyplot as plt

from models.evaluation import calibration_record
from models.evaluation.calibration_record import PRIOR, Record
from models.evaluation.metrics import BINS, Scores, reliability, sigmoid
from models.reporting import html_report
from models.reporting.evidence import Evidence
from models.reporting.html_report import Figure, Grid, Section


def section(evidence: Evidence) -> Section | None:
    """Section with the numbers of both splits and a figure of the last one; None without export."""
    if evidence.calibration is None:
        return None
    record, version = evidence.calibration
    figures = []
    if evidence.scores is not None and evidence.split in record.splits:
        figures.append(_reliability(evidence.scores, record, evidence.split))
    return Section(
        "Exported calibration",
        [Grid("", 1, *calibration_record.table(record))],
        figures,
        [
            f"Version {version} was exported with --calibrate={record.method}: {record.how}. All "
            "other numbers here are of the scores as the model has them."
        ],
    )


def _reliability(scores: Scores, record: Record, split: str) -> Figure:
    """Observed against predicted rate in bins of equal mass, before and after."""
    weight_C = calibration_record.candidate_weights(scores, record.splits[split].negative_weight)
    counts_C = np.ones(len(scores.label), bool) if weight_C is None else weight_C > 0
    label_C, logit_C = scores.label[counts_C].astype(np.float64), scores.logit[counts_C]
    weight_C = None if weight_C is None else weight_C[counts_C]
    sides = {
        "before": (html_report.ORANGE, sigmoid(logit_C.astype(np.float64))),
        "after": (html_report.BLUE, record.calibration.probabilities(logit_C)),
    }
    texts = []
    with plt.rc_context(html_report.STYLE):
        figure, axes = plt.subplots(figsize=(html_report.WIDTH, 3.2))
        for name, (colour, probability_C) in sides.items():
            predicted, observed, _ = reliability(label_C, probability_C, weight_C)
            axes.plot(predicted, observed, color=colour, marker="o", markersize=4, label=name)
            gap = int(np.abs(predicted - observed).argmax())
            texts.append(
                f"{name.capitalize()}, the largest gap is at {predicted[gap]:.4g}, where "
                f"{observed[gap]:.4g} is observed."
            )
        if record.method == PRIOR:  # Rates of all items are far below those of a few candidates.
            html_report.log_scale(axes, "x", "y")
            axes.axline((0.01, 0.01), (0.1, 0.1), color=html_report.INK, lw=0.8, linestyle=":")
        else:
            axes.set(xlim=(0, 1), ylim=(0, 1))
            axes.plot([0, 1], [0, 1], color=html_report.INK, linewidth=0.8, linestyle=":")
        axes.set(xlabel="predicted rate", ylabel="observed rate")
        axes.legend()
        svg = html_report.svg(figure)
    caption = (
        f"Of candidates that were given about the same probability, how many were clicked "
        f"({split}, {BINS} bins of equal mass), with the scores as the model has them and as the "
        "export has them. On the diagonal probabilities are true."
    )
    return Figure("Reliability before and after", caption, svg, " ".join(texts))
