"""Updates of the weights by one of the two losses, batch after batch."""

import pathlib
from collections.abc import Callable

from models.config.training import TrainConfig
from models.core import run_directory
from models.core.base import CTRModel
from models.distributed.distribution import Distribution
from models.distributed.equal_widths import with_equal_widths
from models.keras import tf
from models.training.not_finite import culprits
from models.training.steps import Logs
from models.training.worker_steps import steps_of
from preprocessing import dataset
from preprocessing.data_dir import DataDir
from preprocessing.errors import UserError
from preprocessing.storage import files


class Updates:
    """Steps of one of the model's losses on a stream of batches.

    Args:
        model: Compiled model.
        data: Data set of the batches.
        train: Settings of the training.
        distribution: Distribution under which the model was built.
        workdir: Run directory, for the reason why a run diverged.
        batches: Function from a number of steps done to the batches that remain.
        done: Number of steps done.
        ssl: Whether the steps are those of the self-supervised loss alone.
        are_parts: Whether each process has batches of its own, which make up one together.
    """

    def __init__(
        self,
        model: CTRModel,
        data: DataDir,
        train: TrainConfig,
        distribution: Distribution,
        workdir: pathlib.Path,
        *,
        batches: Callable[[int], tf.data.Dataset],
        done: int,
        ssl: bool,
        are_parts: bool = False,
    ) -> None:
        self._model, self._data, self._train = model, data, train
        self._distribution, self._workdir = distribution, workdir
        self._remaining, self.ssl = batches, ssl
        optimizer = model.ssl_optimizer if ssl else model.optimizer
        assert optimizer is not None
        self._optimizer = optimizer
        step = model.ssl_step if ssl else model.main_step
        self.steps = steps_of(with_equal_widths(step) if are_parts else step, distribution)
        self._batches = distribution.batches(batches(done), is_part=are_parts)

    def __call__(self, done: int, count: int) -> Logs:
        """Trains on the next batches.

        Args:
            done: Number of steps done.
            count: Number of steps to do.

        Returns:
            The losses of the last step.

        Raises:
            UserError: The loss or its gradient is not finite.
        """
        # Only the optimiser counts the steps of a failed execution that succeeded.
        first = int(self._optimizer.iterations.numpy()) if count > 1 else 0
        try:
            with dataset.reading(self._data), self._distribution.explained_losses():
                return self.steps(self._batches, count)
        except tf.errors.InvalidArgumentError as error:
            if "not finite" not in str(error):
                raise
            if count > 1:
                done += int(self._optimizer.iterations.numpy()) - first
            raise self._not_finite(done) from None

    def _not_finite(self, done: int) -> UserError:
        """Repeats the failed step; returns an error that names the first tensors not finite."""
        ssl = self.ssl
        where = culprits(self._model, next(iter(self._remaining(done))), ssl)
        kind = "step of self-supervision" if ssl else "step"
        error = UserError(
            f"Expected finite numbers, found NaN or infinity at {kind} {done + 1} of "
            f"{self._workdir}: {where or 'in the gradient of all replicas'}.",
            f"lower train.{'ssl_' if ssl else ''}learning_rate or set train.clip_norm.",
        )
        files.write_bytes(self._workdir / run_directory.DIVERGED, f"{error}\n".encode())
        return error
