"""Checkpoints of a run: everything needed to resume it as if it had not been interrupted.

CHECKPOINTS/  ckpt-<updates>.index  ckpt-<updates>.data-00000-of-00001

Beside the last ones there is that of the best evaluation: a run of the next day goes on from it.

The index is renamed into place after the data is complete, so a checkpoint either exists in full or
not at all, whenever the process dies. TensorFlow stores a checksum of each tensor and verifies it
on reading.
"""

import json
import pathlib
import re
import shutil
import sys
from typing import Any

from models.core import spread_tables
from models.core.base import CTRModel
from models.keras import tf
from preprocessing.errors import UserError

_NAME = re.compile(r"ckpt-(\d+)")
_BEST = "best_updates"
_SPREAD = "spread_tables"
"""Key of the state that is there and true if rows are in the order of `core.spread_tables`."""
_STATE = "state/.ATTRIBUTES/VARIABLE_VALUE"
DAMAGES = (tf.errors.OpError, LookupError, ValueError, RuntimeError)
"""Exceptions that TensorFlow raises when it reads a damaged file."""


class Checkpoints:
    """Writes checkpoints and reads the latest undamaged one.

    Args:
        model: Model whose optimisers are built, so that their slots exist.
        directory: Directory of the checkpoints; created if needed.
        keep: Number of the last checkpoints to keep; an older one serves if the last is damaged.
    """

    def __init__(self, model: CTRModel, directory: pathlib.Path, keep: int = 2) -> None:
        self._model, self._directory, self._keep = model, directory, keep
        self._state = tf.Variable("", dtype=tf.string, trainable=False)
        self._checkpoint = tf.train.Checkpoint(model=model, state=self._state)
        directory.mkdir(parents=True, exist_ok=True)
        self._remove_unfinished()

    def save(self, updates: int, state: dict[str, Any]) -> None:
        """Writes a checkpoint, then removes those that are neither among the last nor the best.

        Args:
            updates: Number of weight updates so far; the checkpoint is named after it.
            state: JSON content stored with the weights; `best_updates` in it names the checkpoint
                of the best evaluation.

        Raises:
            UserError: The checkpoint cannot be written; earlier ones are unchanged.
        """
        order = {_SPREAD: True} if self._model.embedder.spreads else {}
        self._state.assign(json.dumps(state | order))
        try:
            self._checkpoint.write(str(self._directory / f"ckpt-{updates}"))
        except (tf.errors.OpError, OSError) as error:
            self._remove_unfinished()
            last = max(_numbers(self._directory), default=None)
            kept = "there is none before" if last is None else f"ckpt-{last} is as it was"
            raise UserError(
                f"Expected to write a checkpoint to {self._directory}, found: {_reason(error)}; "
                f"{kept}.",
                "free space there, then go on with --resume.",
            ) from error
        for number in sorted(_numbers(self._directory))[: -self._keep]:
            if number != state.get(_BEST):
                self._remove(number)

    def restore(self) -> dict[str, Any] | None:
        """Reads the last checkpoint; reports a damaged one and falls back to the one before.

        Returns:
            State stored with the checkpoint; None if there is no checkpoint.

        Raises:
            UserError: All checkpoints are damaged.
        """
        numbers = sorted(_numbers(self._directory), reverse=True)
        reasons = []
        for number in numbers:
            path = self._directory / f"ckpt-{number}"
            try:
                status = self._checkpoint.read(str(path))
            except DAMAGES as error:
                reasons.append(f"{path} is damaged ({_reason(error)})")
                continue
            status.assert_existing_objects_matched()
            if reasons:
                sys.stderr.write(f"{'; '.join(reasons)}. Resuming from {path}.\n")
                for damaged in numbers[: len(reasons)]:
                    self._remove(damaged)
            state = json.loads(self._state.numpy())
            spread_tables.state_read(self._model, state.pop(_SPREAD, False))
            return state
        if reasons:
            raise UserError(
                f"Expected a checkpoint that can be read; {'; '.join(reasons)}.",
                "restore the files from a copy, or train anew in another --workdir.",
            )
        return None

    def _remove(self, number: int) -> None:
        """Removes a checkpoint, its index first: files without an index are no checkpoint."""
        (self._directory / f"ckpt-{number}.index").unlink(missing_ok=True)
        for path in self._directory.glob(f"ckpt-{number}.data-*"):
            path.unlink(missing_ok=True)

    def _remove_unfinished(self) -> None:
        """Removes the files of checkpoints that were not written to the end."""
        complete = _numbers(self._directory)
        for path in self._directory.glob("ckpt-*"):
            name = _NAME.match(path.name)
            is_complete = name and int(name[1]) in complete and "temp" not in path.name
            if name and not is_complete:
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def restore_best_state(model: CTRModel, directory: pathlib.Path) -> None:
    """Reads the checkpoint of the best evaluation: all weights, and the state of the optimisers.

    Args:
        model: Model of the settings and sizes of the run, whose optimisers are built.
        directory: Directory of the run's checkpoints, which is only read.

    Raises:
        UserError: There is no such checkpoint, or it is damaged.
    """
    last = directory / f"ckpt-{last_update(directory)}"
    try:
        state = json.loads(tf.train.load_checkpoint(str(last)).get_tensor(_STATE))
        best = directory / f"ckpt-{state[_BEST]}"
        tf.train.Checkpoint(model=model).read(
            str(best)
        ).assert_existing_objects_matched().expect_partial()
        state = json.loads(tf.train.load_checkpoint(str(best)).get_tensor(_STATE))
        spread_tables.state_read(model, state.get(_SPREAD, False))
    except (*DAMAGES, AssertionError) as error:
        raise UserError(
            f"Expected the checkpoint of the best evaluation in {directory}, found: "
            f"{_reason(error)}.",
            "begin with the run's best weights alone: --warm_start instead of --continue.",
        ) from error


def last_update(directory: pathlib.Path) -> int:
    """Number of weight updates of the last checkpoint in a directory; 0 if there is none."""
    return max(_numbers(directory), default=0)


def _numbers(directory: pathlib.Path) -> set[int]:
    """Update numbers of the complete checkpoints."""
    names = (_NAME.fullmatch(path.stem) for path in directory.glob("ckpt-*.index"))
    return {int(name[1]) for name in names if name}


def _reason(error: Exception) -> str:
    """The first line of TensorFlow's error message, without the name of the operation."""
    text = error.message if isinstance(error, tf.errors.OpError) else str(error)
    text = re.sub(r"\{\{.*?\}\}\s*", "", text)
    return (text.splitlines() or [type(error).__name__])[0]
