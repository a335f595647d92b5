"""The training loop: restore, pre-train, train, evaluate, checkpoint, stop early, measure."""

import pathlib
import sys
import time
from collections.abc import Callable, Mapping

import numpy as np
from tqdm import tqdm

from models.config import pretrained
from models.config.run_config import RunConfig
from models.core import run_directory, schedules
from models.core.checkpoints import Checkpoints
from models.core.factory import build_model, compile_model
from models.distributed.distribution import Distribution
from models.keras import tf
from models.training import (
    data_checks,
    days,
    memory,
    model_checks,
    native_operations,
    selection,
    sharing,
)
from models.training.batches import steps_per_epoch, training_batches
from models.training.extra_steps import ExtraSteps
from models.training.interruption import Interrupted, StopRequest, interrupted
from models.training.journal import Journal
from models.training.measuring import Measuring, Metrics
from models.training.pretraining import mean_losses
from models.training.profiling import Profile
from models.training.progress import Progress
from models.training.sessions import Session, phase
from models.training.tracking import Tracker
from models.training.updates import Updates
from preprocessing.data_dir import DataDir
from preprocessing.reading.parts import Part

LOG_EVERY = 20
EVALUATION_INTERVAL = 40
"""Minimum number of steps between evaluations, so that small data sets train in between."""


class Trainer:
    """Trains the model of a configuration in a run directory.

    On resume, weights, optimisers and progress are restored from the last checkpoint; the data then
    continues at the batch after the checkpoint (the order of an epoch depends on seed and epoch).

    Args:
        config: Configuration of the run.
        workdir: Run directory; exists and holds config.json.
        progress: Whether to show progress on standard error.
        stop: Stop request, checked between steps and between batches of an evaluation.
        profile: Steps to profile.
        on_evaluation: Callback for the validation metrics of each evaluation; an exception in it
            ends the run.
        tracker: The run in MLflow, if it is tracked there.
    """

    def __init__(
        self,
        config: RunConfig,
        workdir: pathlib.Path,
        progress: bool = True,
        *,
        stop: StopRequest | None = None,
        profile: Profile | None = None,
        on_evaluation: Callable[[Mapping[str, float | None]], None] | None = None,
        tracker: Tracker | None = None,
    ) -> None:
        self.config = config
        self.workdir = workdir
        self._stop = StopRequest() if stop is None else stop
        self._profile = Profile() if profile is None else profile
        self._on_evaluation = on_evaluation

        # Data.
        self.data = DataDir.open(config.data)
        data_checks.check_splits(self.data)
        data_checks.check_sample_weight(self.data.schema, config.train.sample_weight)
        pretrained.check(config.pretrained, self.data.schema, config.model.compressed_features)
        self.steps_per_epoch = steps_per_epoch(self.data, config.train)
        self.evaluate_every = max(
            EVALUATION_INTERVAL, self.steps_per_epoch // config.train.evaluations_per_epoch
        )

        # Model.
        model_checks.check_user_parts(config, self.data.schema)
        self.distribution = Distribution(
            config.train.distribute, config.train.peer_timeout, config.train.tables_on_cpu
        )
        self.session = Session(workdir, writes=self.distribution.is_chief)
        self.shows_progress = progress and self.distribution.is_chief
        self._check_workers()
        self.part = sharing.part_of(config.train, self.distribution)
        needed = memory.estimate(config, self.data, self.distribution, self.part)
        if self.shows_progress:
            sys.stderr.write(f"{needed}\n")
        memory.require_room(needed, self.distribution, config.train.tables_on_cpu)
        self.session.expect(needed)
        with self.distribution.strategy.scope():
            self.model = build_model(config, self.data, config.train.precision)
            self.model.embedder.spreads = self.distribution.asynchronous
            compile_model(self.model, config)
            self.model.build_optimizers()
        self.operations = native_operations.use(self.model, config.train, self.distribution)
        self.session.computes_with(self.operations)
        self.measuring = Measuring(
            self.model,
            self.data,
            config,
            workdir,
            self.distribution,
            between=self._stop_if_asked,
            progress=self.shows_progress,
        )
        # The weights that a run continues with are the first to be evaluated.
        evaluated_step = -1 if config.continues else 0
        self.progress = Progress(
            pretrained=not config.train.pretrain_epochs, evaluated_step=evaluated_step
        )
        place = Part(*self.distribution.place)
        self.extra = ExtraSteps(config, self.data, self.model, self.progress, self.part, place)
        self.checkpoints = Checkpoints(self.model, workdir / run_directory.CHECKPOINTS)
        self.best = run_directory.best_checkpoint(self.model, workdir)
        self.journal = Journal(
            workdir,
            self.model,
            self.data,
            config,
            self.progress,
            writes=self.distribution.is_chief,
            shows=self.shows_progress,
            tracker=tracker if self.distribution.is_chief else None,
        )
        self.started = self._saved = time.monotonic()

    def _check_workers(self) -> None:
        """Raises `UserError` if workers differ in configuration or data set."""
        content = self.config.to_json()
        settings = {
            f"{section}.{name}": value
            for section in ("model", "ssl", "train", pretrained.SECTION)
            for name, value in content[section].items()
        }
        self.distribution.require_equal(settings | {"data set": self.data.fingerprint})

    # Restore.

    def restore(self) -> bool:
        """Restores the last checkpoint; returns whether there is one.

        Raises:
            UserError: Another number of processes shared the pass that it is in the middle of.
        """
        content = self.checkpoints.restore()
        if content is None:
            return False
        self.progress.restore(content)
        sharing.require_whole_pass(self.progress, self.part, self.steps_per_epoch)
        self._set_learning_rate()
        return True

    @phase("evaluation")
    def measure_day(self) -> None:
        """Scores the new data with the weights of the run that is continued, into days.csv.

        So every day tells how good the model was on requests that it had not learned from.

        Raises:
            UserError: The disk is full or write-protected.
        """
        row = self.measuring.day()
        if self.distribution.is_chief:
            days.append(self.workdir, self.config.continues, row)
        if self.shows_progress:
            sys.stdout.write(f"{days.line(row)}\n")

    # From start to end.

    def run(self) -> dict[str, dict[str, float | None]]:
        """Trains to the end and measures the best weights.

        Returns:
            Metrics by split.

        Raises:
            UserError: The loss is not finite; the disk is full.
            Interrupted: The run was asked to stop; a checkpoint is written.
        """
        with self.journal:
            self.fit()
            measured = self._measure()
            self.journal.record_result(measured)
        self.session.save(self.progress.step)
        return measured

    def fit(self) -> None:
        """Trains to the end, with the journal open; raises as `run` does."""
        self.distribution.require_equal(
            {"last checkpoint (--workdir must be shared)": self.progress.step}
        )
        self.started = time.monotonic() - self.progress.seconds
        self.progress.parts = self.part.count
        try:
            self.extra.begin(self._updates)
            if not self.progress.pretrained:
                self._pretrain()
            self._train()
        except Interrupted:
            self.save()
            raise
        finally:
            self._profile.close()

    # Pre-train.

    @phase("pre-training")
    def _pretrain(self) -> None:
        """Trains with the self-supervised loss alone, with a checkpoint after every pass."""
        progress = self.progress
        while not progress.pretrained:
            epoch, done = divmod(progress.ssl_step, self.steps_per_epoch)
            if epoch > len(progress.pretraining):  # The run was stopped during evaluation.
                self._evaluate_pretraining()
                continue
            with self.journal.bar(f"pretraining {epoch + 1}", done) as bar:
                while done < self.steps_per_epoch:
                    count = min(self.config.train.steps_per_execution, self.steps_per_epoch - done)
                    self.extra.train_ssl(count)
                    if _is_due(done, count):
                        self.journal.show_pretraining_steps(bar)
                    self._after_steps(bar, done, count)
                    done += count
            self._evaluate_pretraining()

    # Train.

    @phase("training")
    def _train(self) -> None:
        """Trains with the main loss."""
        progress, train = self.progress, self.config.train
        if not train.ssl_steps:
            progress.ssl_logs = {}  # Pre-training is over.
        updates = self._updates(self._dataset, progress.step, ssl=False)
        if progress.step % self.evaluate_every == 0:
            self._evaluate_once()  # The run may have been stopped during an evaluation.
        self.journal.begin()
        self.journal.restart_speed(updates.steps)
        while not self._finished():
            epoch, done = divmod(progress.step, self.steps_per_epoch)
            with self.journal.bar(f"epoch {epoch + 1}", done) as bar:
                while not self._finished():
                    before = progress.step
                    count = self._steps_ahead()
                    self._profile.at(before)
                    self.extra.ahead_of(before)
                    progress.logs = updates(before, count)
                    progress.step += count
                    self._after_steps(bar, before, count)
                    if _is_due(before, count):
                        self.journal.show_steps(updates.steps, bar)
                    if progress.step % self.evaluate_every == 0:
                        self._evaluate_once()
                        self.journal.restart_speed(updates.steps)
                    if progress.step % self.steps_per_epoch == 0:
                        break
        if progress.step:
            self._evaluate_once()

    def _updates(
        self, batches: Callable[[int], tf.data.Dataset], done: int, *, ssl: bool
    ) -> Updates:
        """The steps of one loss, after those that are done."""
        return Updates(
            self.model,
            self.data,
            self.config.train,
            self.distribution,
            self.workdir,
            batches=batches,
            done=done,
            ssl=ssl,
            are_parts=self.part.count > 1,
        )

    def _dataset(self, step: int) -> tf.data.Dataset:
        """The batches of the main loss after `step` steps, to the end of the last epoch."""
        train = self.config.train
        return training_batches(self.data, train, step, train.epochs, part=self.part)

    def _steps_ahead(self) -> int:
        """Number of steps to run until Python has to act between steps."""
        train, step = self.config.train, self.progress.step
        count = 1
        while count < train.steps_per_execution and not self.extra.any_ahead_of(step + count):
            count += 1
        return min(
            count,
            self.steps_per_epoch - step % self.steps_per_epoch,
            self.evaluate_every - step % self.evaluate_every,
            self._last_step() - step,
            self._profile.steps_ahead(step),
        )

    def _finished(self) -> bool:
        progress, train = self.progress, self.config.train
        patience = train.patience * train.evaluations_per_epoch
        return progress.step >= self._last_step() or progress.evaluations_without_gain >= patience

    def _last_step(self) -> int:
        """The step after which training ends unless it ends early."""
        train = self.config.train
        bounds = [train.epochs * self.steps_per_epoch, *[train.max_steps] * (train.max_steps > 0)]
        return min(bounds)

    def _set_learning_rate(self) -> None:
        """Updates the factor of the learning-rate schedules from the evaluations so far."""
        scale = schedules.plateau_scale(
            self.config.train,
            [selection.score(row, "validation/") for row in self.progress.history],
        )
        schedules.set_scale([self.model.optimizer, self.model.embedding_optimizer], scale)

    # Evaluate.

    @phase("evaluation")
    def _evaluate_pretraining(self) -> None:
        """Evaluates the self-supervised loss on validation histories, writes a checkpoint."""
        self.distribution.join()
        measured = mean_losses(self.distribution.everywhere(self.extra.ssl_steps.validation_losses))
        losses = [row["validation/loss"] for row in self.progress.pretraining] + [measured["loss"]]
        passes_without_gain = len(losses) - 1 - int(np.argmin(losses))
        train = self.config.train
        self.progress.pretrained = (
            len(losses) >= train.pretrain_epochs or passes_without_gain >= train.patience
        )
        self.journal.record_pretraining(measured)
        self.save()

    @phase("evaluation")
    def _evaluate_once(self) -> None:
        """Evaluates on validation, saves the weights if they are the best, writes a checkpoint."""
        if self.progress.step == self.progress.evaluated_step:
            return
        self.distribution.join()
        metrics = self.measuring.validation()
        if self.progress.evaluated(selection.score(metrics)) and self.distribution.is_chief:
            run_directory.save_best(self.best)
        self.journal.record_evaluation(metrics, self._last_step())
        if len(self.progress.history) == 1 and (graph := self.measuring.graph()):
            self.journal.show_graph(graph)
        self.save()
        self._set_learning_rate()
        if self._on_evaluation is not None:
            self._on_evaluation(metrics)

    # Write a checkpoint.

    @phase("checkpoints")
    def save(self) -> None:
        """Writes a checkpoint after all scheduled steps are done."""
        self.distribution.join()
        self._saved = time.monotonic()
        if not self.distribution.is_chief:
            return
        self.checkpoints.save(self.progress.updates, self.progress.to_json())
        self.session.save(self.progress.step)

    # Stop.

    def _after_steps(self, bar: tqdm, before: int, count: int) -> None:
        """Updates time and progress bar; stops, or writes a checkpoint, if it is due.

        Args:
            bar: Progress bar of the pass.
            before: Number of steps of this kind done before.
            count: Number of steps just done.
        """
        self.progress.seconds = time.monotonic() - self.started
        self.journal.advance(bar, count)
        # All processes must stop after the same step, so they exchange requests regularly.
        exchanges = self.distribution.has_peers and _is_due(before, count)
        if exchanges and any(self.distribution.exchange(bool(self._stop))):
            raise self._interrupted()
        self._stop_if_asked()
        if time.monotonic() - self._saved > 60 * self.config.train.checkpoint_minutes:
            self.save()

    def _stop_if_asked(self) -> None:
        if self._stop and not self.distribution.has_peers:
            raise self._interrupted()

    def _interrupted(self) -> Interrupted:
        return interrupted(self._stop.number, self.workdir, self.progress.step)

    # Measure.

    @phase("final evaluation")
    def _measure(self) -> dict[str, Metrics]:
        return self.measuring.best()


def _is_due(before: int, count: int) -> bool:
    """Whether steps are reported after `count` steps that followed `before` ones."""
    return (before + count) // LOG_EVERY > before // LOG_EVERY
