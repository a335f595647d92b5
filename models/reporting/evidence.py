"""The content of a run directory, read once for all parts of its report."""

from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from models.config import run_config as config_module
from models.core import run_directory
from models.evaluation import (
    calibration_record,
    dumped_scores,
    importance,
    scoring,
    yardsticks,
)
from models.evaluation.calibration_record import OfExport
from models.evaluation.metrics import Scores, defined
from models.evaluation.scoring import Analysis
from models.evaluation.yardsticks import Yardstick
from models.keras import tf
from models.training import selection
from preprocessing.errors import UserError
from preprocessing.json_checks import read_json
from preprocessing.splits import SPLITS


class Evidence(NamedTuple):
    """The data of a report.

    Attributes:
        run: The run.
        history: Table metrics.csv, a row per evaluation; empty if there is none.
        kept: Row of `history` whose weights were kept; None if `history` is empty.
        pretraining: Table pretraining.csv; empty if there is none.
        metrics: Metrics by split; None where undefined.
        split: Split of the figures and slices; "" if none was scored.
        scores: Scores of the candidates of `split`.
        analysis: Metrics of `split` and of its slices, with confidence intervals.
        yardsticks: Metrics of baselines on `split`.
        importance: Tables of `importance.measure` by split, as far as they are current.
        calibration: The last calibrated export; None if there is none of the current weights.
        sessions: Entries of the processes of the run, see `training.sessions`.
        origins: Origin of each value of the configuration.
        has_weights: Whether there are best weights.
    """

    run: run_directory.Run
    history: pd.DataFrame
    kept: pd.Series | None
    pretraining: pd.DataFrame
    metrics: dict[str, dict[str, float | None]]
    split: str
    scores: Scores | None
    analysis: Analysis | None
    yardsticks: list[Yardstick]
    importance: dict[str, pd.DataFrame]
    calibration: OfExport | None
    sessions: list[dict[str, Any]]
    origins: dict[str, str]
    has_weights: bool

    @property
    def title(self) -> str:
        """Names of the model and of its self-supervision, if any."""
        config = self.run.config
        has_ssl = config.ssl_name != "none"
        return f"{config.model_name} + {config.ssl_name}" if has_ssl else config.model_name


def gather(run: run_directory.Run, with_intervals: bool = True) -> Evidence:
    """Reads a run; measures its splits again if the weights have changed, and its slices.

    Args:
        run: A run that is finished or was evaluated at least once.
        with_intervals: Whether to compute confidence intervals and slices, which takes most of the
            time.

    Raises:
        UserError: The run has no metrics yet.
    """
    history = _table(run, run_directory.HISTORY)
    kept = history.iloc[int(np.argmax(selection.of_history(history)))] if len(history) else None
    scored = [split for split in SPLITS if dumped_scores.path(run.path, split).exists()]
    for split in scored:
        if not dumped_scores.are_current(run.path, split):
            scoring.evaluate(run.path, split)
    metrics = run.metrics
    if not metrics and kept is not None:  # The run was stopped: use its best evaluation.
        metrics = {
            "validation": {
                str(name).removeprefix("validation/"): defined(float(value))
                for name, value in kept.items()
                if str(name).startswith("validation/")
            }
        }
    if not metrics:
        raise UserError(
            f"Expected a finished run in {run.path}, found no metrics.",
            "train it first (python -m models.train --resume).",
        )
    split = scored[-1] if scored else ""
    return Evidence(
        run=run,
        history=history,
        kept=kept,
        pretraining=_table(run, run_directory.PRETRAINING),
        metrics=metrics,
        split=split,
        scores=scoring.read_scores(run.path, split) if split else None,
        analysis=(
            scoring.analyse(run.path, split, progress=False) if split and with_intervals else None
        ),
        yardsticks=yardsticks.of_run(run, split) if split not in ("", "train") else [],
        importance={
            split: table
            for split in SPLITS
            if (table := importance.read_current(run.path, split)) is not None
        },
        calibration=calibration_record.read_current(run.path),
        sessions=run_directory.read_sessions(run.path),
        origins=_origins(run),
        has_weights=tf.train.latest_checkpoint(str(run.path / run_directory.BEST)) is not None,
    )


def _table(run: run_directory.Run, name: str) -> pd.DataFrame:
    return pd.read_csv(run.path / name) if (run.path / name).exists() else pd.DataFrame()


def _origins(run: run_directory.Run) -> dict[str, str]:
    """Recorded origins; for a run without a record, whether values differ from the defaults."""
    file = run.path / run_directory.ORIGINS
    if file.exists():
        return read_json(file, "the origins of a configuration", "remove it.")
    names = {
        "data": run.config.data,
        "model": {"name": run.config.model_name},
        "ssl": {"name": run.config.ssl_name},
    }
    plain = config_module.flat(config_module.resolve(names).to_json())
    values = config_module.flat(run.config.to_json())
    return {
        key: "default" if value == plain.get(key) else "config.json"
        for key, value in values.items()
    }
