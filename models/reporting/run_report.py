"""The report of a run: what each section holds, from the evidence that the run left.

Two files with the same content: HTML (self-contained, no network) and Markdown. Sections without
content, for example without self-supervision or a test split, are left out.
"""

import pathlib
import shlex
from collections.abc import Mapping
from typing import Any

import pandas as pd

from models.core import run_directory
from models.evaluation import confidence_intervals
from models.evaluation.metrics import UNDEFINED, shown, shown_interval
from models.reporting import (
    calibration_figures,
    curves,
    data_sets,
    findings,
    html_report,
    importance_figures,
    interest_figures,
    model_card,
    quality,
    reproduction,
)
from models.reporting.evidence import Evidence, gather
from models.reporting.html_report import Figure, Grid, Section
from preprocessing import cli
from preprocessing.errors import UserError
from preprocessing.splits import SPLITS
from preprocessing.storage.files import AnyPath

_METRICS = {
    "auc": ("AUC", 4, "How often a clicked candidate scores above one that was not."),
    "auc_known": (
        "AUC, known items",
        4,
        "The same of the candidates whose item is in the training vocabulary.",
    ),
    "gauc": (
        "GAUC",
        4,
        "AUC within each user who has both, weighted by the number of candidates.",
    ),
    "log_loss": ("log loss", 4, "Cross-entropy of the probabilities; lower is better."),
    "normalised_entropy": (
        "normalised entropy",
        4,
        "Log loss over that of always saying the click rate; useful below 1.",
    ),
    "calibration_error": (
        "calibration error",
        4,
        "Mean gap between predicted and observed rate, over ten bins.",
    ),
    "bias_ratio": ("bias ratio", 3, "Predicted clicks over observed ones; 1 is unbiased."),
    "mrr": (
        "MRR",
        4,
        "One over the rank of the first clicked candidate, mean over the requests with clicked "
        "candidates and others, as are the next ones.",
    ),
}
_COUNTS = ("requests", "candidates")
_NOTHING = "–"


def write_report(
    run_dir: str | pathlib.Path,
    output: str | pathlib.Path,
    serving: Mapping[str, Any] | None = None,
) -> AnyPath:
    """Writes the report as HTML and, beside it, as Markdown.

    Args:
        run_dir: Run directory of `models.train`.
        output: The HTML file; the Markdown file has the same name with the ending .md.
        serving: Results of the end-to-end run on the exported model, for the section on serving:
            `model` (its directory), `parity` (largest difference by pair), `requests` (a file of
            requests), `scores` (answers over REST).

    Returns:
        The path of the HTML file.

    Raises:
        UserError: The run has no metrics yet, or the output does not end in .html.
    """
    if pathlib.Path(output).suffix != ".html":
        raise UserError(
            f"--output: expected a file name that ends in .html, found {output}.",
            "the Markdown page is written beside it.",
        )
    evidence = gather(run_directory.open_run(run_dir))
    sections = [
        _card(evidence),
        Section("Limits", points=findings.limits(evidence)),
        _metrics(evidence),
        calibration_figures.section(evidence),
        _slices(evidence),
        importance_figures.section(evidence.importance),
        _training(evidence),
        _inside(evidence),
        _data(evidence),
        _serving(serving),
        reproduction.cost(evidence),
        reproduction.configuration(evidence),
        reproduction.reproduction(evidence),
    ]
    content = {
        "title": f"{evidence.title} on {evidence.run.data.path.name}",
        "day": _day(evidence),
        "subtitle": _origin(evidence),
        "headline": _headline(evidence),
        "alarms": findings.alarms(evidence),
        "sections": [section for section in sections if section is not None],
    }
    return html_report.write("models.reporting", "report", content, output)


def _origin(evidence: Evidence) -> str:
    """Data set, day and directory of the run."""
    data, run, day = evidence.run.data.path, evidence.run.path.resolve(), _day(evidence)
    return f"Trained {f'on {day} ' if day else ''}with the data set {data}, in {run}"


def _day(evidence: Evidence) -> str:
    """The day on which the last process of the run started; "" if that was not recorded."""
    days = [str(session["started"])[:10] for session in evidence.sessions if "started" in session]
    return days[-1] if days else ""


def _headline(evidence: Evidence) -> list[tuple[str, str, str]]:
    """Name, value and confidence interval of the main metrics, beside the best yardstick."""
    split = evidence.split or next(reversed(evidence.metrics))
    numbers = []
    for name in ("auc", "log_loss", "calibration_error", "bias_ratio"):
        title, digits, _ = _METRICS[name]
        value = _cell(evidence.metrics[split], name, digits)
        numbers.append((f"{split} {title}", value, _around(evidence, name, digits)))
    measured = [yardstick for yardstick in evidence.yardsticks if yardstick.auc is not None]
    if measured:
        best = max(measured, key=lambda yardstick: yardstick.auc or 0.0)
        numbers.insert(1, ("AUC without a model", shown(best.auc), best.name))
    return numbers


def _around(evidence: Evidence, name: str, digits: int) -> str:
    """The confidence interval of a metric as text; "" if it was not measured."""
    if evidence.analysis is None or name not in evidence.analysis.metrics:
        return ""
    _, low, high = evidence.analysis.metrics[name]
    return shown_interval(low, high, f".{digits}f")


def _card(evidence: Evidence) -> Section:
    """Section that describes the model and its intended use."""
    rows = [list(row) for row in model_card.description(evidence.run)]
    return Section("Model card", [Grid("", 2, ("", ""), rows)])


def _metrics(evidence: Evidence) -> Section:
    """Section of the metrics of every split, with figures of the last one."""
    figures: list[Figure] = []
    if evidence.analysis is not None and evidence.scores is not None:
        auc = evidence.analysis.metrics["auc"]
        figures = quality.of_split(evidence.scores, auc, evidence.split)
    return Section("Metrics", _metric_grids(evidence), figures)


def _yardstick_grids(evidence: Evidence) -> list[Grid]:
    """Table of the yardsticks of the split, and of the model in its last row."""
    if not evidence.yardsticks:
        return []
    model = evidence.metrics[evidence.split]
    rows = [
        [yardstick.name, shown(yardstick.auc), shown(yardstick.gauc), shown(yardstick.auc_known)]
        for yardstick in evidence.yardsticks
    ]
    metrics = [shown(model.get(name)) for name in ("auc", "gauc", "auc_known")]
    rows.append([evidence.title, *metrics])
    columns = ["", "AUC", "GAUC", "AUC, known items"]
    notes = [
        "Popularity: how many users clicked the item. Unknown item: whether it is out of the "
        "training vocabulary, either way round. Item-kNN: cosine of who clicked the item and who "
        "clicked those of the history. PPMI-SVD: cosine of vectors that factorise which items the "
        "same users clicked. All from the clicks of the training split alone, none from labels of "
        "candidates."
    ]
    return [Grid("Without a model", 1, columns, rows, notes)]


def _slices(evidence: Evidence) -> Section | None:
    """Section of the last split by slice."""
    if evidence.analysis is None:
        return None
    auc, slices = evidence.analysis.metrics["auc"], evidence.analysis.slices
    return Section(
        "Slices",
        [_slice_grid(slices, evidence.split)],
        quality.of_slices(slices, auc),
        [quality.how_to_read(auc, evidence.split)] if auc.value is not None else [],
    )


def _metric_grids(evidence: Evidence) -> list[Grid]:
    """Tables of every metric of every split, of the yardsticks, and of the metrics' meanings."""
    splits = [split for split in SPLITS if split in evidence.metrics]
    measured = dict.fromkeys(name for split in splits for name in evidence.metrics[split])
    rows, meanings = [], []
    for name in (n for n in measured if n not in _COUNTS):
        title, digits, meaning = _METRICS.get(name) or _ranking(name)
        cells = [_cell(evidence.metrics[split], name, digits) for split in splits]
        rows.append([title, *cells, _around(evidence, name, digits)])
        meanings.append([title, meaning])
    for name in _COUNTS:
        rows.append([name, *(_cell(evidence.metrics[split], name, 0) for split in splits), ""])
    columns = ["metric", *splits, f"95%, {evidence.split}" if evidence.split else ""]
    notes = []
    if evidence.analysis is not None:
        notes.append(f"Intervals: bootstrap of the users, {confidence_intervals.DRAWS:,} draws.")
    if any(value is None for split in splits for value in evidence.metrics[split].values()):
        notes.append(f"{UNDEFINED}: there is nothing that it could be computed from.")
    return [
        Grid("", 1, columns, rows, notes),
        *_yardstick_grids(evidence),
        Grid("What the metrics mean", 2, ("metric", "meaning"), meanings, folded=True),
    ]


def _ranking(name: str) -> tuple[str, int, str]:
    """Title, number of digits and meaning of a ranking metric with a cut-off."""
    kind, _, k = name.partition("@")
    if name == "hr@1":
        return "HR@1", 4, "Requests whose first candidate was clicked."
    if kind == "hr":
        return f"HR@{k}", 4, f"Requests with a clicked candidate among the first {k}."
    return f"NDCG@{k}", 4, f"Discounted gain of the first {k} candidates over the largest possible."


def _slice_grid(slices: pd.DataFrame, split: str) -> Grid:
    rows = [
        [
            row["dimension"],
            row["slice"],
            f"{row['candidates']:,}",
            f"{row['positives']:,}",
            shown(row["auc"]),
            shown_interval(row["auc_low"], row["auc_high"]),
            shown(row["log_loss"]),
            shown(row["calibration_error"]),
            shown(row["bias_ratio"], ".3f"),
        ]
        for _, row in slices.iterrows()
    ]
    columns = (
        *("by", "slice", "candidates", "positives", "AUC", "95%"),
        *("log loss", "calibration error", "bias ratio"),
    )
    title = f"All slices of {split} in numbers"
    return Grid(title, 2, columns, rows, ["300 draws of users for each slice."], folded=True)


def _training(evidence: Evidence) -> Section | None:
    """Section of curves over the training steps."""
    figures = curves.pretraining(evidence.pretraining) if len(evidence.pretraining) else []
    grids = []
    if evidence.kept is not None:
        figures += curves.training(evidence.history, evidence.kept, evidence.run.config.train)
        grids.append(_evaluations(evidence.history))
    return Section("Training", grids, figures) if figures else None


def _evaluations(history: pd.DataFrame) -> Grid:
    columns = {
        "step": ("step", ".0f"),
        "epoch": ("epoch", ".2f"),
        "seconds": ("seconds", ".0f"),
        "train/loss": ("train loss", ".4f"),
        "validation/log_loss": ("validation log loss", ".4f"),
        "validation/auc": ("validation AUC", ".4f"),
    }
    present = [column for column in columns if column in history]
    rows = [
        [shown(row[column], columns[column][1]) for column in present]
        for _, row in history.iterrows()
    ]
    titles = [columns[column][0] for column in present]
    return Grid(f"All {len(rows)} evaluations", 0, titles, rows, folded=True)


def _inside(evidence: Evidence) -> Section | None:
    """Section of diagnostics and figures of the inside of the model."""
    figures = curves.diagnostics(evidence.history)
    if evidence.has_weights and evidence.split:
        figures += interest_figures.figures(evidence.run, evidence.split)
    if not figures:
        return None
    grids = []
    columns = [c for c in evidence.history.columns if c.startswith("diagnostics/")]
    if columns and evidence.kept is not None:
        history = evidence.history
        rows = [
            [column.removeprefix("diagnostics/")]
            + [shown(row[column]) for row in (history.iloc[0], evidence.kept, history.iloc[-1])]
            for column in columns
        ]
        titles = ("on a batch of validation", "first", "kept", "last")
        grids.append(Grid("All diagnostics", 1, titles, rows, folded=True))
    return Section("Inside the model", grids, figures)


def _data(evidence: Evidence) -> Section:
    data = evidence.run.data
    arguments = data.manifest["arguments"]
    paragraphs = [
        f"{data.path}, from {arguments.get('input', '')}, protocol {arguments.get('protocol', '')}."
    ]
    if (data.path / "data_card.html").exists():
        paragraphs.append(f"More in {data.path / 'data_card.html'}.")
    return Section("Data", data_sets.grids(data), data_sets.figures(data), paragraphs)


def _serving(serving: Mapping[str, Any] | None) -> Section | None:
    """Section on how the exported model answered."""
    if serving is None:
        return None
    gaps = ", ".join(f"{pair} {value:.1e}" for pair, value in serving["parity"].items())
    model, requests = (shlex.quote(str(serving[name])) for name in ("model", "requests"))
    server, score = map(cli.as_started, ("python -m serving.server", "python -m serving.score"))
    return Section(
        "Serving",
        paragraphs=[
            f"Largest difference between offline and served scores: {gaps}.",
            "To serve it and to score requests; then the scores of a few test requests over REST, "
            "candidates from best to worst.",
        ],
        commands=[
            f"{server} --model_name=ctr --model_base_path={model} --rest_api_port=8501\n{score} "
            f"--url=http://127.0.0.1:8501/v1/models/ctr --requests={requests}",
            serving["scores"],
        ],
    )


def _cell(metrics: Mapping[str, float | None], name: str, digits: int) -> str:
    """A metric of a split as text; a dash if it was not measured there."""
    return shown(metrics[name], f",.{digits}f") if name in metrics else _NOTHING
