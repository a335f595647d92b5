"""Progressive validation: how good a model is on each day before it learns from that day.

RUN/days.csv has a row per day of a chain of runs that continue each other.
"""

import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd

from models.core import run_directory
from models.core.embeddings import Features
from models.evaluation.metrics import Scores, concatenated, ranking_metrics, shown
from models.evaluation.scoring import BATCH_SIZE, Scorer
from models.keras import tf
from preprocessing import dataset
from preprocessing.data_dir import DataDir
from preprocessing.errors import explained_write_errors
from preprocessing.splits import SPLITS
from preprocessing.storage import files

_METRICS = ("auc", "gauc", "log_loss", "calibration_error", "bias_ratio")


def measure(
    scorer: Scorer,
    data: DataDir,
    translate: Callable[[Features], dict[str, tf.Tensor]] | None = None,
) -> dict[str, Any]:
    """Scores all requests of a data set.

    Args:
        scorer: Scorer of the model as it is before it learns from them.
        data: Data set of the day.
        translate: Function that gives batches the ids of the model, see `row_growth.translation`;
            None if they have them.

    Returns:
        A row of days.csv; metrics are None where undefined.

    Raises:
        UserError: A score is not finite.
    """
    scores = []
    for split in filter(data.num_requests, SPLITS):
        batches = dataset.read(
            data, split, batch_size=BATCH_SIZE, shuffle_seed=None, with_users=True
        )
        with dataset.reading(data):
            scores.append(
                scorer.score_batches(
                    batches if translate is None else batches.map(translate), split
                )
            )
    return row(data, scores)


def row(data: DataDir, scores: Sequence[Scores]) -> dict[str, Any]:
    """A row of days.csv; metrics are None where undefined.

    Args:
        data: Data set of the day.
        scores: Scores of its splits.
    """
    metrics = ranking_metrics(concatenated(scores))
    return {
        "data": data.path.name,
        "fingerprint": data.fingerprint,
        "requests": metrics["requests"],
        **{name: metrics[name] for name in _METRICS},
    }


def append(workdir: pathlib.Path, continued: str, day: Mapping[str, Any]) -> None:
    """Writes days.csv: the days of the continued run, and one more.

    Args:
        workdir: Run directory.
        continued: Directory of the run that is continued.
        day: Row of the new day.

    Raises:
        UserError: The disk is full or write-protected.
    """
    earlier = pathlib.Path(continued, run_directory.DAYS)
    rows = pd.read_csv(earlier).to_dict("records") if earlier.exists() else []
    content = pd.DataFrame([*rows, dict(day)]).to_csv(index=False)
    with explained_write_errors("--workdir", workdir):
        files.write_bytes(workdir / run_directory.DAYS, content.encode())


def line(day: Mapping[str, Any]) -> str:
    """A row as a line for people."""
    return (
        f"{day['data']} before training on it: {day['requests']:,.0f} requests, "
        f"AUC {shown(day['auc'])}  GAUC {shown(day['gauc'])}  log loss {shown(day['log_loss'])}"
    )
