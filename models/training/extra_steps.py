"""Steps beside those of the main loss on the run's own requests.

They are steps of the self-supervised loss alone, and steps on requests of the days before. Each
kind has a stream of batches of its own, which goes on after an interruption where it was.
"""

from collections.abc import Callable

from models.config.run_config import RunConfig
from models.core.base import CTRModel
from models.training.pretraining import SelfSupervisedSteps
from models.training.progress import Progress
from models.training.replay import Replay
from models.training.updates import Updates
from preprocessing.data_dir import DataDir
from preprocessing.reading.parts import WHOLE, Part


class ExtraSteps:
    """The extra steps of a run, as its settings ask for them.

    Args:
        config: Configuration of the run.
        data: Data set of the run.
        model: Compiled model.
        progress: Progress of the run, in which the steps are counted.
        part: The reader, if several share the streams.
        turn: This process among those that measure the self-supervised loss together.

    Attributes:
        ssl_steps: Batches and validation of the self-supervised loss; only if there are such steps.
    """

    def __init__(
        self,
        config: RunConfig,
        data: DataDir,
        model: CTRModel,
        progress: Progress,
        part: Part = WHOLE,
        turn: Part = WHOLE,
    ) -> None:
        self._train, self._progress = config.train, progress
        if config.train.has_ssl_steps:
            self.ssl_steps = SelfSupervisedSteps(config, data, model, part, turn)
        if config.train.replay:
            self._replay = Replay(config, data, part)

    def begin(self, updates: Callable[..., Updates]) -> None:
        """Opens the streams of batches after the steps that are done.

        Args:
            updates: Function that makes the updates of a stream, see `Updates`.
        """
        if self._train.has_ssl_steps:
            self._ssl_updates = updates(self.ssl_steps.dataset, self._progress.ssl_step, ssl=True)
        if self._train.replay:
            done = self._progress.replayed_step
            self._replayed_updates = updates(self._replay.dataset, done, ssl=False)

    def any_ahead_of(self, step: int) -> bool:
        """Whether there are extra steps ahead of a step of the main loss, counted from 0."""
        return bool(self._train.ssl_steps_ahead(step) or self._train.replayed_steps_ahead(step))

    def ahead_of(self, step: int) -> None:
        """Performs the extra steps ahead of a step of the main loss, counted from 0."""
        self.train_ssl(self._train.ssl_steps_ahead(step))
        for _ in range(self._train.replayed_steps_ahead(step)):
            self._replayed_updates(self._progress.replayed_step, 1)
            self._progress.replayed_step += 1

    def train_ssl(self, count: int) -> None:
        """Performs steps of the self-supervised loss alone."""
        progress, at_once = self._progress, self._train.steps_per_execution
        for done in range(0, count, at_once):
            chunk = min(at_once, count - done)
            progress.ssl_logs = self._ssl_updates(progress.ssl_step, chunk)
            progress.ssl_step += chunk
