"""Figures of a run over its steps: losses, gradients, learning rates, diagnostics.

Every value comes from the last batch before an evaluation, or from the evaluation itself.
"""

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib import ticker
from matplotlib.axes import Axes

from models.config.training import TrainConfig
from models.core import schedules
from models.core.base import MAIN_LOSS
from models.reporting import html_report
from models.reporting.html_report import Figure
from models.training import selection

_TRAIN, _DIAGNOSTICS, _NORM = "train/", "diagnostics/", "gradient_norm"
_RATE_POINTS = 200
_LEGEND_COLUMNS = 3
_LOG_SPREAD = 50.0
"""Ratio of largest to smallest value above which an axis is logarithmic."""

_CAPTIONS = {
    "edge_density": (
        "Relations",
        "Share of the pairs of events that each relation of the graph connects. At 0 a relation "
        "says nothing, at 1 it connects everything.",
    ),
    "embedding_gradient": (
        "Pull at the embeddings",
        "How strongly the click loss and the weighted self-supervised loss change the tables that "
        "they share.",
    ),
}
_LIKENESS, _CHOICE, _PARTS = "Likeness inside the model", "Attention and experts", "Parts"
_MEANINGS = {
    "event_cosine": (
        _LIKENESS,
        "Event cosine: of two events of a history, behind the graph; at 1 they are the same.",
    ),
    "view_cosine": (
        _LIKENESS,
        "View cosine: how alike the interests of two views with dropped edges are; at 1 "
        "self-supervision has nothing to learn.",
    ),
    "interest_cosine": (
        _LIKENESS,
        "Interest cosine: of two interests, its sign aside; at 1 all are one.",
    ),
    "interest_cosine_candidates": (
        _LIKENESS,
        "Interest cosine candidates: of an interest for two candidates; at 1 the candidate has no "
        "effect.",
    ),
    "attention_entropy": (
        _CHOICE,
        "Attention entropy: at 1 all events of a history have equal weight.",
    ),
    "confidence_max": (_CHOICE, "Confidence max: mean weight of the most trusted expert."),
    "expert_usage_min": (_CHOICE, "Expert usage min: mean weight of the least used expert."),
    "expert_usage_entropy": (
        _CHOICE,
        "Expert usage entropy: from 0, where all but one expert are never listened to, to 1, where "
        "all are equally often.",
    ),
    "expert_information": (
        _CHOICE,
        "Expert information: how far the choice of an expert depends on the candidate; at 0 it "
        "does not.",
    ),
}
"""Figure and explanation of each diagnostic of a model."""
_SPLIT_COLOURS = {"train": html_report.ORANGE, "validation": html_report.BLUE}
_LINES = ("-", "--", ":", "-.")
_OF_VIEWS = (
    "Similarity: mean cosine of two views of the same thing. Alignment: their mean squared "
    "distance. Uniformity: the lower, the further apart everything else lies; at 0 all views have "
    "collapsed into one."
)
_SHOWN_OF_VIEWS = ("similarity", "alignment", "uniformity", "interest_similarity")


def training(history: pd.DataFrame, kept: pd.Series, train: TrainConfig) -> list[Figure]:
    """Figures of metrics.csv.

    Args:
        history: Table with a row per evaluation.
        kept: Row of the evaluation whose weights were kept.
        train: Settings of the training.
    """
    figures = [_loss(history, kept)]
    if history["validation/auc"].notna().any():
        figures.append(_auc(history, kept))
    terms = [
        column
        for column in history.columns
        if column.startswith(_TRAIN)
        and not column.endswith("_ratio")
        and column.removeprefix(_TRAIN) not in ("loss", MAIN_LOSS)
        and _NORM not in column
    ]
    if terms:
        caption = (
            "Every further term of the loss, before its weight, at the last batch before each "
            "evaluation."
        )
        figures.append(_panels(history, terms, "Further loss terms", caption))
    for start, title, loss in (
        (_NORM, "Gradient norm", "the whole loss"),
        (f"ssl_{_NORM}", "Gradient norm of self-supervision", "the self-supervised loss"),
    ):
        norms = [c for c in history.columns if c.startswith(f"{_TRAIN}{start}")]
        if norms:
            caption = f"Length of the gradient of {loss}, before any clipping."
            figures.append(_lines(history, norms, title, caption))
    if train.schedule != "constant" or train.warmup_steps:
        figures.append(_learning_rate(history, train))
    return figures


def pretraining(table: pd.DataFrame) -> list[Figure]:
    """Figures of pretraining.csv: the self-supervised loss and its terms by pass."""
    terms = sorted(
        {
            column.partition("/")[2]
            for column in table.columns
            if column.startswith("validation/") and column != "validation/loss"
        }
    )
    figures = []
    for term in ["loss", *terms]:
        columns = [c for c in (f"train/{term}", f"validation/{term}") if c in table]
        name = "Pre-training" if term == "loss" else f"Pre-training, {_words(term)}"
        caption = "Self-supervised loss by pass over the histories, before the main loss."
        if term != "loss":
            caption = f"The term {term} of it."
        figures.append(_lines(table, columns, name, caption, by="epoch"))
    return figures


def diagnostics(history: pd.DataFrame) -> list[Figure]:
    """Figures of the diagnostics of model and self-supervision on one batch of validation."""
    groups: dict[str, list[str]] = {}
    for column in history.columns:
        if column.startswith(_DIAGNOSTICS):
            name = column.removeprefix(_DIAGNOSTICS)
            group = name.partition("/")[0] if "/" in name else ""
            group = "edge_density" if name.startswith("edge_density_") else group
            group = group or _MEANINGS.get(name, (_PARTS, ""))[0]
            groups.setdefault(group, []).append(column)
    figures = []
    for group, columns in groups.items():
        names = [column.rpartition("/")[2] for column in columns]
        if group in _CAPTIONS:
            title, caption = _CAPTIONS[group]
        elif group in (_LIKENESS, _CHOICE):
            title, caption = group, " ".join(_MEANINGS[name][1] for name in names)
        elif shown := [c for c in columns if c.rpartition("/")[2] in _SHOWN_OF_VIEWS]:
            title, caption, columns = f"Views of {_words(group)}", _OF_VIEWS, shown
        else:
            title, caption = _words(group).capitalize(), f"{', '.join(map(_words, names))}."
            caption = f"{caption[:1].upper()}{caption[1:]}"
        figures.append(_lines(history, columns, title, caption))
    return figures


def _loss(history: pd.DataFrame, kept: pd.Series) -> Figure:
    with plt.rc_context(html_report.STYLE):
        figure, axes = plt.subplots()
        columns = {"train": f"{_TRAIN}{MAIN_LOSS}", "validation": f"validation/{MAIN_LOSS}"}
        for split, column in columns.items():
            if column in history:
                axes.plot(
                    history["step"], history[column], color=_SPLIT_COLOURS[split], marker=".",
                    label=split,
                )  # fmt: skip
        _mark(axes, kept)
        axes.set(xlabel="step", ylabel="log loss")
        _legend(figure, axes)
        lowest = history.iloc[int(history[columns["validation"]].to_numpy().argmin())]
        text = (
            f"Validation log loss is {kept[columns['validation']]:.4f} at the kept step "
            f"{kept['step']:.0f}; its lowest is {lowest[columns['validation']]:.4f} at step "
            f"{lowest['step']:.0f}, its last {history[columns['validation']].iloc[-1]:.4f}."
        )
        caption = (
            "Cross-entropy of the click probabilities, on the last training batch before each "
            "evaluation and on all of validation. The dotted line marks the weights that were kept."
        )
        return Figure("Log loss", caption, html_report.svg(figure), text)


def _auc(history: pd.DataFrame, kept: pd.Series) -> Figure:
    with plt.rc_context(html_report.STYLE):
        figure, axes = plt.subplots()
        axes.plot(
            history["step"],
            history["validation/auc"],
            color=html_report.BLUE,
            marker=".",
            label="AUC",
        )
        if "validation/gauc" in history and history["validation/gauc"].notna().any():
            axes.plot(
                history["step"],
                history["validation/gauc"],
                color=html_report.GREEN,
                marker=".",
                label="GAUC, within users",
            )
        _mark(axes, kept)
        axes.set(xlabel="step", ylabel="validation")
        _legend(figure, axes)
        text = (
            f"AUC rises from {history['validation/auc'].iloc[0]:.4f} at step "
            f"{history['step'].iloc[0]:.0f} to {kept['validation/auc']:.4f} at step "
            f"{kept['step']:.0f}, of {len(history)} evaluations."
        )
        caption = (
            "How often a clicked candidate scores above one that was not, by step; 0.5 is chance. "
            "The weights of the highest AUC were kept (dotted line)."
        )
        return Figure("Validation AUC", caption, html_report.svg(figure), text)


def _panels(table: pd.DataFrame, columns: list[str], title: str, caption: str) -> Figure:
    """A panel for each column, since their scales are not comparable."""
    with plt.rc_context(html_report.STYLE):
        figure, panels = plt.subplots(
            len(columns),
            sharex=True,
            squeeze=False,
            figsize=(html_report.WIDTH, 0.8 + 1.0 * len(columns)),
        )
        for axes, column, colour in zip(panels[:, 0], columns, _colours(columns), strict=True):
            axes.plot(table["step"], table[column], color=colour, marker=".")
            axes.set_title(_words(column.rpartition("/")[2]), fontsize=9, loc="left")
        panels[-1, 0].set_xlabel("step")
        return Figure(title, caption, html_report.svg(figure), _ends(table, columns))


def _lines(
    table: pd.DataFrame, columns: list[str], title: str, caption: str, by: str = "step"
) -> Figure:
    """A line for each column."""
    with plt.rc_context(html_report.STYLE):
        figure, axes = plt.subplots()
        for number, (column, colour) in enumerate(zip(columns, _colours(columns), strict=True)):
            axes.plot(
                table[by], table[column], _LINES[number % len(_LINES)], color=colour, marker=".",
                label=_label(column),
            )  # fmt: skip
        values = table[columns].to_numpy(np.float64)
        if title in (_LIKENESS, _CHOICE):
            axes.set_ylim(min(0.0, np.nanmin(values)) - 0.03, max(1.0, np.nanmax(values)) + 0.03)
        elif np.nanmin(values) > 0 and np.nanmax(values) / np.nanmin(values) > _LOG_SPREAD:
            html_report.log_scale(axes, "y")
        axes.set_xlabel("pass" if by == "epoch" else by)
        axes.xaxis.set_major_locator(ticker.MaxNLocator("auto", steps=[1, 2, 5, 10], integer=True))
        _legend(figure, axes)
        return Figure(title, caption, html_report.svg(figure), _ends(table, columns))


def _learning_rate(history: pd.DataFrame, train: TrainConfig) -> Figure:
    """Learning rates by step, recomputed from the settings and the evaluations."""
    last = float(history["step"].iloc[-1])
    steps = np.unique(np.linspace(0, last, _RATE_POINTS).round())
    evaluated_steps = history["step"].to_numpy()
    scores = selection.of_history(history)
    scales = np.array(
        [
            schedules.plateau_scale(train, scores[: np.searchsorted(evaluated_steps, s, "right")])
            for s in steps
        ]
    )
    with plt.rc_context(html_report.STYLE):
        figure, axes = plt.subplots()
        parts = []
        rates_of = {"all weights": train.learning_rate}
        if train.embedding_learning_rate not in (0.0, train.learning_rate):
            rates_of = {
                "dense weights": train.learning_rate,
                "embedding tables": train.embedding_learning_rate,
            }
        for label, base in rates_of.items():
            schedule = schedules.Schedule(base, train.warmup_steps, train.decay_steps)
            rates = scales * [float(schedule(step)) for step in steps]
            axes.plot(steps, rates, label=label)
            parts.append(f"{label}: at most {rates.max():.3g}, {rates[-1]:.3g} at the end")
        axes.set(xlabel="step", ylabel="learning rate", ylim=(0, None))
        _legend(figure, axes)
        caption = f"Schedule {train.schedule}, with {train.warmup_steps} steps of warm-up."
        return Figure("Learning rate", caption, html_report.svg(figure), f"{'; '.join(parts)}.")


def _mark(axes: Axes, kept: pd.Series) -> None:
    axes.axvline(kept["step"], color=html_report.INK, linewidth=1.0, linestyle=":")


def _legend(figure: plt.Figure, axes: Axes) -> None:
    lines, _ = axes.get_legend_handles_labels()
    ncols = len(lines) if len(lines) <= _LEGEND_COLUMNS else 2
    figure.legend(handles=lines, loc="outside upper center", ncols=ncols, fontsize=9)


def _colours(columns: list[str]) -> list[str]:
    """A colour for each column; a pair of training and validation has fixed colours."""
    heads = [column.rpartition("/")[0] for column in columns]
    if heads == list(_SPLIT_COLOURS):
        return list(_SPLIT_COLOURS.values())
    return [html_report.SERIES[n % len(html_report.SERIES)] for n in range(len(columns))]


def _label(column: str) -> str:
    """Label of a column: the last part of its name, or the split for train and validation."""
    head, _, name = column.rpartition("/")
    if _NORM in name:
        return name.partition(_NORM)[2].removeprefix("_") or "all weights"
    if head in _SPLIT_COLOURS:
        return head
    return _words(name.removeprefix("edge_density_"))


def _ends(table: pd.DataFrame, columns: list[str]) -> str:
    parts = [
        f"{_words(column.rpartition('/')[2]) if '/' in column else column}"
        f"{' of ' + column.partition('/')[0] if column.startswith('validation/') else ''} from "
        f"{table[column].iloc[0]:.3g} to {table[column].iloc[-1]:.3g}"
        for column in columns
    ]
    text = "; ".join(parts)
    return f"{text[:1].upper()}{text[1:]}."


def _words(name: str) -> str:
    return name.replace("_", " ")
