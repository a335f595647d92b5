"""Output of a run while it trains: tables, progress bars, lines."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from tqdm import tqdm

from models.core.base import MAIN_LOSS
from preprocessing.errors import explained_write_errors
from preprocessing.storage import files

_TOLD = ("auc", "log_loss", "loss")


class Records:
    """Tables of a run directory.

    Args:
        workdir: Run directory.
        writes: Whether this process writes files; exactly one of several processes does.
    """

    def __init__(self, workdir: pathlib.Path, writes: bool = True) -> None:
        self._workdir, self._writes = workdir, writes

    def table(self, file: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Rewrites a table, so that a resumed run has the same rows as an uninterrupted one.

        Raises:
            UserError: The disk is full or write-protected.
        """
        if not self._writes:
            return
        content = pd.DataFrame(list(rows)).to_csv(index=False)
        with explained_write_errors("--workdir", self._workdir / file):
            files.write_bytes(self._workdir / file, content.encode())


def bar(title: str, requests: int, done: int, shown: bool) -> tqdm:
    """The progress bar of an epoch: requests done, requests per second, remaining time.

    Args:
        title: Name of the epoch.
        requests: Number of requests of the epoch.
        done: Number of requests done before the bar begins.
        shown: Whether to show the bar, if standard error is a terminal.
    """
    return tqdm(
        total=requests,
        initial=done,
        desc=title,
        unit="request",
        unit_scale=True,
        disable=None if shown else True,
    )


def line(row: Mapping[str, Any], seconds_left: float | None = None) -> str:
    """A row of metrics.csv or pretraining.csv as a line of a log, where no bar can be shown.

    Args:
        row: Values by column; None is left out.
        seconds_left: Seconds to the end of the training, unless it ends early.
    """
    words = [f"step {row['step']}", f"epoch {row['epoch']:.2f}"]
    for column, value in row.items():
        group, _, name = column.partition("/")
        is_told = name.endswith("loss") if group == "train" else name in _TOLD
        if column == f"train/{MAIN_LOSS}" and value == row.get("train/loss"):
            continue  # Nothing else is in the loss.
        if value is not None and group in ("train", "validation") and is_told:
            words.append(f"{column} {value:.4f}")
    if (speed := row.get("speed/samples_per_second")) is not None:
        words.append(f"{speed:,.0f} samples/s")
    if seconds_left is not None:
        words.append(f"at most {tqdm.format_interval(seconds_left)} left")
    return "  ".join(words)
