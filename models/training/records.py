"""What a run tells while it trains: tables, TensorBoard events, progress bars."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from tqdm import tqdm

from models.keras import tf
from preprocessing.errors import explained_write_errors
from preprocessing.storage import files


class Records:
    """Tables and TensorBoard events of a run directory.

    Args:
        workdir: Run directory.
        writes: Whether anything is written; of several processes, one does.
    """

    def __init__(self, workdir: pathlib.Path, writes: bool = True) -> None:
        self._workdir, self._writes = workdir, writes
        self._events = (
            tf.summary.create_file_writer(str(workdir))
            if writes
            else tf.summary.create_noop_writer()
        )

    def table(self, file: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Writes a table anew, so that a resumed run leaves the rows of an uninterrupted one.

        Raises:
            UserError: The disk is full or write-protected.
        """
        if not self._writes:
            return
        content = pd.DataFrame(list(rows)).to_csv(index=False)
        with explained_write_errors("--workdir", self._workdir / file):
            files.write_bytes(self._workdir / file, content.encode())

    def scalars(self, step: int, values: Mapping[str, Any], group: str = "") -> None:
        """Writes numbers to TensorBoard.

        Args:
            step: Of the run.
            values: By name; None is left out.
            group: Prefix of the names.
        """
        with self._events.as_default(step=step):
            for name, value in values.items():
                if value is not None:
                    tf.summary.scalar(f"{group}/{name}" if group else name, value)

    def flush(self) -> None:
        """Makes the events visible to TensorBoard."""
        self._events.flush()

    def close(self) -> None:
        """Ends the file of events."""
        self._events.close()


def bar(title: str, requests: int, done: int, shown: bool) -> tqdm:
    """The bar of an epoch: requests done, requests per second, time to go.

    Args:
        title: Name of the epoch.
        requests: Of the epoch.
        done: Of them, before the bar begins.
        shown: On standard error, or not at all.
    """
    return tqdm(
        total=requests, initial=done, desc=title, unit="request", unit_scale=True, disable=not shown
    )
