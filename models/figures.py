"""The figures of a run report, as SVG text."""

import io
from typing import Any

import matplotlib

matplotlib.use("Agg")

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from sklearn import metrics as sklearn_metrics

from models.metrics import reliability

# Legible on white and on near-black, so that one file serves light and dark readers.
_INK = "#7a8290"
_BLUE, _ORANGE = "#3b82f6", "#f59e0b"
_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "report",
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "axes.titlecolor": _INK,
    "text.color": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "legend.frameon": False,
    "figure.figsize": (5.2, 3.2),
    "figure.constrained_layout.use": True,
}
_LENGTHS = (1, 2, 3, 5, 8, 13, 21, 34, np.inf)


def curves(history: pd.DataFrame) -> str:
    """Training log loss and validation AUC by step, from metrics.csv."""
    with plt.rc_context(_STYLE):
        figure, loss = plt.subplots()
        loss.plot(history["step"], history["train/log_loss"], color=_ORANGE, label="train log loss")
        loss.plot(
            history["step"],
            history["validation/log_loss"],
            color=_ORANGE,
            linestyle="--",
            label="validation log loss",
        )
        loss.set(xlabel="step", ylabel="log loss")
        auc = loss.twinx()
        auc.spines["right"].set_visible(True)
        auc.plot(history["step"], history["validation/auc"], color=_BLUE, label="validation AUC")
        best = int(history["validation/auc"].to_numpy().argmax())
        kept = history.iloc[best]
        auc.scatter(kept["step"], kept["validation/auc"], color=_BLUE, zorder=3)
        auc.set_ylabel("AUC")
        handles = [*loss.get_lines(), *auc.get_lines()]
        figure.legend(handles=handles, loc="outside upper center", ncols=3, fontsize=8)
        return _svg(figure)


def calibration(label: np.ndarray, probability: np.ndarray) -> str:
    """Observed against predicted rate in ten bins of equal counts."""
    predicted, observed, _ = reliability(label, probability)
    with plt.rc_context(_STYLE):
        figure, axes = plt.subplots()
        axes.plot([0, 1], [0, 1], color=_INK, linewidth=0.8, linestyle=":")
        axes.plot(predicted, observed, color=_BLUE, marker="o")
        axes.set(xlabel="predicted rate", ylabel="observed rate", xlim=(0, 1), ylim=(0, 1))
        return _svg(figure)


def auc_by_length(label: np.ndarray, logit: np.ndarray, length: np.ndarray) -> str:
    """AUC of requests by the length of their history."""
    names, values = [], []
    for low, high in zip(_LENGTHS[:-1], _LENGTHS[1:], strict=True):
        chosen = (length >= low) & (length < high)
        if len(set(label[chosen])) == 2:
            names.append(f"{low:g}+" if np.isinf(high) else f"{low:g}-{high - 1:g}")
            values.append(sklearn_metrics.roc_auc_score(label[chosen], logit[chosen]))
    with plt.rc_context(_STYLE):
        figure, axes = plt.subplots()
        axes.bar(names, values, color=_BLUE, width=0.7)
        axes.axhline(0.5, color=_INK, linewidth=0.8, linestyle=":")
        axes.set(xlabel="events in history", ylabel="AUC", ylim=(0.4, 1.0))
        return _svg(figure)


def _svg(figure: plt.Figure) -> str:
    """The figure without the XML header, fit to stand inside HTML."""
    buffer = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    plt.close(figure)
    text = buffer.getvalue()
    return text[text.index("<svg") :]
