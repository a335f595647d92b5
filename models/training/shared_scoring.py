"""Scores of a split by all synchronous processes, each of which scores some of the batches.

The batches are those of one process, and their scores are put together in its order, so metrics
and dumped scores do not depend on the number of processes. Scores travel as files of the run
directory, which all processes see: only the first one needs them.
"""

import contextlib
import functools
import pathlib
import uuid
from collections.abc import Sequence

import pyarrow as pa

from models.core import run_directory
from models.distributed.distribution import Distribution
from models.evaluation import score_parts
from models.evaluation.metrics import Scores
from models.evaluation.scoring import Scorer, require_finite
from preprocessing.errors import UserError, explained_write_errors


class SharedScorer:
    """Scores splits on all synchronous processes; all of them must make the same calls.

    Args:
        distribution: Distribution of the training.
        workdir: Run directory, which all processes share.
    """

    def __init__(self, distribution: Distribution, workdir: pathlib.Path) -> None:
        self._distribution = distribution
        self._workdir = workdir
        self._directory = workdir / run_directory.SCORING
        self._names: str | None = None
        self._calls = 0

    def score(
        self,
        scorer: Scorer,
        split: str,
        *,
        progress: bool = False,
        held: bool = True,
        with_ids: bool = True,
    ) -> Scores | None:
        """Scores every candidate of a split.

        Args:
            scorer: Scorer of this process, which has its turn of the batches.
            split: train, validation or test.
            progress: Whether to show a progress bar on standard error.
            held: Whether the split may be held in memory, see `Scorer.score`.
            with_ids: Whether the scores of several processes have `Scores.ids`.

        Returns:
            The scores on the first process, None on others.

        Raises:
            UserError: On all processes, if one of them cannot read its requests or write its
                scores, or a score is not finite.
        """
        if not self._distribution.has_peers:
            return scorer.score(split, progress, held)
        directory = self._prepared()
        self._calls += 1
        _, processes = self._distribution.place
        paths = [
            directory / f"{self._names}-{self._calls}-{index}.arrow" for index in range(processes)
        ]

        def write() -> int:
            batches, parts = scorer.score_turn(split, progress, held)
            if not with_ids:
                parts = [part._replace(ids={}) for part in parts]
            if parts:
                with explained_write_errors("--workdir", self._workdir):
                    score_parts.write(paths[self._distribution.place[0]], batches, parts)
            return len(parts)

        joined: list[Scores] = []

        def join(written: Sequence[int]) -> None:
            of_batches = [path for path, batches in zip(paths, written, strict=True) if batches]
            joined.append(_joined(of_batches))
            for path in of_batches:
                path.unlink(missing_ok=True)
            require_finite(joined[0], split)

        written = self._distribution.everywhere(write)
        self._distribution.of_chief(functools.partial(join, written))
        return joined[0] if joined else None

    def close(self) -> None:
        """Removes the directory of the scores."""
        if self._names and self._distribution.is_chief:
            with contextlib.suppress(OSError):
                self._directory.rmdir()

    def _prepared(self) -> pathlib.Path:
        """The directory, once the first process has made it.

        Names are never used twice: a machine may remember for a while that there was no such file.
        """
        if self._names is None:

            def prepare() -> str:
                with explained_write_errors("--workdir", self._workdir):
                    self._directory.mkdir(parents=True, exist_ok=True)
                    for path in self._directory.glob("*"):  # Of a run that was killed.
                        path.unlink(missing_ok=True)
                return uuid.uuid4().hex[:8]

            self._names = self._distribution.of_chief(prepare)
        return self._directory


def _joined(paths: Sequence[pathlib.Path]) -> Scores:
    try:
        return score_parts.joined(paths)
    except (OSError, pa.ArrowInvalid) as error:
        raise UserError(
            f"Expected the scores of every process in {paths[0].parent}, found: {error}.",
            "give all machines the same --workdir, on a file system that they share.",
        ) from error
