"""The figures of a run report, as SVG text."""

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from sklearn import metrics as sklearn_metrics

from models import pages
from models.metrics import reliability

_LENGTHS = (1, 2, 3, 5, 8, 13, 21, 34, np.inf)


def curves(history: pd.DataFrame) -> str:
    """Training log loss and validation AUC by step, from metrics.csv."""
    with plt.rc_context(pages.STYLE):
        figure, loss = plt.subplots()
        loss.plot(
            history["step"], history["train/log_loss"], color=pages.ORANGE, label="train log loss"
        )
        loss.plot(
            history["step"],
            history["validation/log_loss"],
            color=pages.ORANGE,
            linestyle="--",
            label="validation log loss",
        )
        loss.set(xlabel="step", ylabel="log loss")
        auc = loss.twinx()
        auc.spines["right"].set_visible(True)
        auc.plot(
            history["step"], history["validation/auc"], color=pages.BLUE, label="validation AUC"
        )
        best = int(history["validation/auc"].to_numpy().argmax())
        kept = history.iloc[best]
        auc.scatter(kept["step"], kept["validation/auc"], color=pages.BLUE, zorder=3)
        auc.set_ylabel("AUC")
        handles = [*loss.get_lines(), *auc.get_lines()]
        figure.legend(handles=handles, loc="outside upper center", ncols=3, fontsize=8)
        return pages.svg(figure)


def pretraining(table: pd.DataFrame) -> str:
    """Self-supervised loss of training and validation histories by pass, from pretraining.csv."""
    with plt.rc_context(pages.STYLE):
        figure, axes = plt.subplots()
        axes.plot(table["epoch"], table["train/loss"], color=pages.ORANGE, label="train")
        axes.plot(table["epoch"], table["validation/loss"], color=pages.BLUE, label="validation")
        axes.set(xlabel="pass", ylabel="self-supervised loss")
        figure.legend(loc="outside upper center", ncols=2, fontsize=8)
        return pages.svg(figure)


def calibration(label: np.ndarray, probability: np.ndarray) -> str:
    """Observed against predicted rate in ten bins of equal counts."""
    predicted, observed, _ = reliability(label, probability)
    with plt.rc_context(pages.STYLE):
        figure, axes = plt.subplots()
        axes.plot([0, 1], [0, 1], color=pages.INK, linewidth=0.8, linestyle=":")
        axes.plot(predicted, observed, color=pages.BLUE, marker="o")
        axes.set(xlabel="predicted rate", ylabel="observed rate", xlim=(0, 1), ylim=(0, 1))
        return pages.svg(figure)


def auc_by_length(label: np.ndarray, logit: np.ndarray, length: np.ndarray) -> str:
    """AUC of requests by the length of their history."""
    names, values = [], []
    for low, high in zip(_LENGTHS[:-1], _LENGTHS[1:], strict=True):
        chosen = (length >= low) & (length < high)
        if len(set(label[chosen])) == 2:
            names.append(f"{low:g}+" if np.isinf(high) else f"{low:g}-{high - 1:g}")
            values.append(sklearn_metrics.roc_auc_score(label[chosen], logit[chosen]))
    with plt.rc_context(pages.STYLE):
        figure, axes = plt.subplots()
        axes.bar(names, values, color=pages.BLUE, width=0.7)
        axes.axhline(0.5, color=pages.INK, linewidth=0.8, linestyle=":")
        axes.set(xlabel="events in history", ylabel="AUC", ylim=(0.4, 1.0))
        return pages.svg(figure)
