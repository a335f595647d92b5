"""Writes the report of a run: data, curves, metrics, how to serve it.

    python -m models.report --run=RUN [--output=RUN/report.html]

Two files with the same content: report.html (self-contained, no network) and report.md.
"""

import pathlib
import sys
from typing import Any

import numpy as np
import pandas as pd
from absl import flags

from models import figures, interests, pages, runs
from preprocessing import cli
from preprocessing.errors import UserError
from preprocessing.files import AnyPath

_SPLITS = ("train", "validation", "test")
_METRICS = (
    ("auc", "AUC", 4),
    ("gauc", "GAUC", 4),
    ("log_loss", "log loss", 4),
    ("normalised_entropy", "normalised entropy", 4),
    ("calibration_error", "calibration error", 4),
    ("bias_ratio", "bias ratio", 3),
    ("requests", "requests", 0),
    ("candidates", "candidates", 0),
)


def write_report(
    run_dir: str | pathlib.Path,
    output: str | pathlib.Path,
    serving: dict[str, Any] | None = None,
) -> AnyPath:
    """Writes the report as HTML and, beside it, as Markdown.

    Args:
        run_dir: Of `models.train`.
        output: The HTML file; the Markdown file has the same name with the ending .md.
        serving: What the end-to-end run knows of the exported model, for the section on serving:
            `model` (its directory), `parity` (largest difference by pair), `scores` (a table of
            answers over REST).

    Returns:
        The path of the HTML file.

    Raises:
        UserError: The run has no metrics yet.
    """
    run = runs.open_run(run_dir)
    if not run.metrics or not (run.path / runs.HISTORY).exists():
        raise UserError(
            f"Expected a finished run in {run.path}, found no metrics.",
            "train it first (models.train --resume).",
        )
    scores = {
        split: pd.read_parquet(run.path / f"scores-{split}.parquet")
        for split in _SPLITS
        if (run.path / f"scores-{split}.parquet").exists()
    }
    split = "test" if "test" in scores else next(iter(scores))
    measured = scores[split]
    label, logit = measured["label"].to_numpy(), measured["logit"].to_numpy(np.float64)
    history = pd.read_csv(run.path / runs.HISTORY)
    content = {
        "run": run.path,
        "model": run.config.model_name,
        "ssl": run.config.ssl_name,
        "config": run.config.to_json(),
        "data": _data_rows(run),
        "features": _feature_rows(run),
        "metric_names": [title for _, title, _ in _METRICS],
        "metrics": _metric_rows(run.metrics),
        "history": _history_rows(history),
        "diagnostics": _diagnostic_rows(history),
        "figures": [
            *_pretraining_figure(run),
            (
                "Training",
                "Log loss and validation AUC by step; the dot marks the weights that were kept.",
                figures.curves(history),
            ),
            (
                f"Calibration ({split})",
                "Observed against predicted rate in ten bins of equal counts.",
                figures.calibration(label, 1.0 / (1.0 + np.exp(-logit))),
            ),
            (
                f"AUC by history length ({split})",
                "AUC of requests with so many events in their history.",
                figures.auc_by_length(label, logit, measured["history_length"].to_numpy()),
            ),
            *interests.figures(run, split),
        ],
        "serving": serving,
    }
    return pages.write("models", "report", content, output)


def _data_rows(run: runs.Run) -> list[tuple[str, str]]:
    """What the data set is, by name."""
    manifest = run.data.manifest
    conservation = manifest["conservation"]
    rows = [("Directory", str(run.data.path))]
    rows += [
        (f"Requests, {split}", f"{manifest['splits'][split]['requests']:,}")
        for split in _SPLITS
        if split in manifest["splits"]
    ]
    rows += [("Rows read", f"{conservation['read']:,}"), ("Rows used", f"{conservation['used']:,}")]
    for kind in ("filtered", "rejected"):
        for reason, count in conservation[kind].items():
            rows.append((f"Rows {kind}: {reason}", f"{count:,}"))
    rows += [("Protocol", str(manifest["arguments"].get("protocol", "")))]
    rows += [("Schema hash", manifest["schema_hash"][:16])]
    return rows


def _feature_rows(run: runs.Run) -> list[tuple[str, str, str, str]]:
    """Name, role, encoder and number of ids of each feature."""
    return [
        (
            feature.name,
            feature.role.value,
            feature.encoder.kind if feature.encoder else "",
            f"{run.data.encoders[feature.name].cardinality:,}" if feature.is_categorical else "",
        )
        for feature in run.data.schema.features
    ]


def _metric_rows(metrics: dict[str, dict[str, float]]) -> list[tuple[str, list[str]]]:
    """Each split with its metrics, formatted."""
    return [
        (split, [f"{metrics[split][name]:,.{digits}f}" for name, _, digits in _METRICS])
        for split in _SPLITS
        if split in metrics
    ]


def _history_rows(history: pd.DataFrame) -> list[list[str]]:
    """Step, epoch, seconds, training loss and validation metrics at each evaluation."""
    return [
        [
            f"{row['step']:.0f}",
            f"{row['epoch']:.2f}",
            f"{row['seconds']:.0f}",
            f"{row['train/loss']:.4f}",
            f"{row['validation/log_loss']:.4f}",
            f"{row['validation/auc']:.4f}",
        ]
        for _, row in history.iterrows()
    ]


def _diagnostic_rows(history: pd.DataFrame) -> list[list[str]]:
    """Each diagnostic at the first evaluation, at that of the kept weights, and at the last one."""
    kept = int(history["validation/auc"].to_numpy().argmax())
    return [
        [column.removeprefix("diagnostics/")]
        + [f"{history[column].iloc[row]:.4g}" for row in (0, kept, -1)]
        for column in history.columns
        if column.startswith("diagnostics/")
    ]


def _pretraining_figure(run: runs.Run) -> list[tuple[str, str, str]]:
    """The figure of pre-training, if there was one."""
    table = run.path / runs.PRETRAINING
    if not table.exists():
        return []
    text = "Self-supervised loss by pass over the histories, before the main loss."
    return [("Pre-training", text, figures.pretraining(pd.read_csv(table)))]


def define_flags() -> None:
    """Flags of this command."""
    flags.DEFINE_string("run", None, "Run directory of models.train.", required=True)
    flags.DEFINE_string("output", None, "HTML file (default: RUN/report.html).")


def main() -> None:
    """Writes the report and prints its path."""
    output = flags.FLAGS.output or pathlib.Path(flags.FLAGS.run) / "report.html"
    sys.stdout.write(f"report: {write_report(flags.FLAGS.run, output)}\n")


def console_main() -> None:
    """Entry point."""
    define_flags()
    cli.run(main, __doc__)


if __name__ == "__main__":
    console_main()
