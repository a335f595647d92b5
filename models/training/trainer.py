"""The training loop: restore, pre-train, train, evaluate, checkpoint, stop early, measure."""

import pathlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from tqdm import tqdm

from models.config.run_config import RunConfig
from models.core import run_directory, schedules
from models.core.checkpoints import Checkpoints
from models.core.factory import build_model, compile_model
from models.distributed.distribution import Distribution
from models.evaluation.metrics import ranking_metrics
from models.evaluation.scoring import Scorer, record
from models.keras import tf
from models.training import checks, memory, model_checks, records, selection
from models.training.batches import steps_per_epoch, training_batches
from models.training.interruption import Interrupted, StopRequest
from models.training.not_finite import culprits
from models.training.pretraining import SelfSupervisedSteps
from models.training.profiling import Profile
from models.training.sessions import Session, phase
from models.training.steps import Logs, Speed, StepRunner
from models.training.worker_steps import steps_of
from preprocessing import dataset
from preprocessing.data_dir import DataDir
from preprocessing.errors import UserError
from preprocessing.storage import files

LOG_EVERY = 20
EVALUATION_INTERVAL = 40
"""Minimum number of steps between evaluations, so that small data sets train in between."""


class Trainer:
    """Trains the model of a configuration in a run directory.

    On resume, weights, optimisers and state are restored from the last checkpoint; the data then
    continues at the batch after the checkpoint (the order of an epoch depends on seed and epoch).

    Args:
        config: Configuration of the run.
        workdir: Run directory; exists and holds config.json.
        progress: Whether to show progress bars on standard error.
        stop: Stop request, checked between steps and between batches of an evaluation.
        profile: Steps to profile.
        on_evaluation: Callback for the validation metrics of each evaluation; an exception in it
            ends the run.
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
    ) -> None:
        self.config = config
        self.workdir = workdir
        self._stop = StopRequest() if stop is None else stop
        self._profile = Profile() if profile is None else profile
        self._on_evaluation = on_evaluation

        # Data.
        self.data = DataDir.open(config.data)
        checks.check_splits(self.data)
        checks.check_sample_weight(self.data.schema, config.train.sample_weight)
        self.requests = self.data.num_requests("train")
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
        self.progress = progress and self.distribution.is_chief
        self._check_workers()
        needed = memory.estimate(config, self.data, self.distribution)
        if self.progress:
            sys.stderr.write(f"{needed}\n")
        memory.require_room(needed, self.distribution, config.train.tables_on_cpu)
        self.session.expect(needed)
        with self.distribution.strategy.scope():
            self.model = build_model(config, self.data, config.train.precision)
            compile_model(self.model, config)
            self.model.build_optimizers()
        data_memory = config.train.data_memory << 20
        self.scorer = Scorer(self.model, self.data, self._stop_if_asked, data_memory)
        if config.train.has_ssl_steps:
            self.ssl_steps = SelfSupervisedSteps(config, self.data, self.model)
        self._sample: dict[str, tf.Tensor] | None = None

        # State that a resumed run needs, stored as JSON in the checkpoint.
        self.state: dict[str, Any] = {
            "step": 0,
            "ssl_step": 0,
            "pretrained": not config.train.pretrain_epochs,
            "pretraining": [],
            "evaluated_step": 0,
            "best_score": None,
            "best_step": 0,
            "evaluations_without_gain": 0,
            "seconds": 0.0,
            "history": [],
            "logs": {},
            "ssl_logs": {},
        }
        self.checkpoints = Checkpoints(self.model, workdir / run_directory.CHECKPOINTS)
        self.best = run_directory.best_checkpoint(self.model, workdir)
        self.records = records.Records(workdir, writes=self.distribution.is_chief)
        self._logs: Logs = {}
        self._ssl_logs: Logs = {}
        candidates = self.data.manifest["splits"]["train"]["candidates"]
        self._speed = Speed(candidates / self.requests * config.train.batch_size)
        self._measured: dict[str, float] = {}
        self.started = self._saved = time.monotonic()

    def _check_workers(self) -> None:
        """Raises `UserError` if workers differ in configuration or data set."""
        content = self.config.to_json()
        settings = {
            f"{section}.{name}": value
            for section in ("model", "ssl", "train")
            for name, value in content[section].items()
        }
        self.distribution.require_equal(settings | {"data set": self.data.fingerprint})

    def restore(self) -> bool:
        """Restores the last checkpoint, if there is one.

        Returns:
            Whether there was a checkpoint.
        """
        state = self.checkpoints.restore()
        if state is None:
            return False
        self.state |= state
        self._logs, self._ssl_logs = self.state["logs"], self.state["ssl_logs"]
        self._set_learning_rate()
        return True

    def run(self) -> dict[str, dict[str, float | None]]:
        """Trains to the end and measures the best weights.

        Returns:
            Metrics by split.

        Raises:
            UserError: The loss is not finite; the disk is full.
            Interrupted: The run was asked to stop; a checkpoint is written.
        """
        self.fit()
        measured = self.distribution.of_chief(self._measure)
        self.session.save(self.state["step"])
        return measured

    def fit(self) -> None:
        """Trains to the end; raises as `run` does."""
        self.distribution.require_equal(
            {"last checkpoint (--workdir must be shared)": self.state["step"]}
        )
        self.started = time.monotonic() - self.state["seconds"]
        try:
            train_ssl = self._ssl_steps()
            if not self.state["pretrained"]:
                self._pretrain(train_ssl)
            self._train(train_ssl)
        except Interrupted:
            self.save()
            raise
        finally:
            self._profile.close()
            self.records.close()

    @phase("checkpoints")
    def save(self) -> None:
        """Writes a checkpoint after all scheduled steps are done."""
        self.distribution.join()
        self._saved = time.monotonic()
        if not self.distribution.is_chief:
            return
        for name, logs in (("logs", self._logs), ("ssl_logs", self._ssl_logs)):
            self.state[name] = {key: float(value) for key, value in logs.items()}
        self.checkpoints.save(self.state["step"] + self.state["ssl_step"], self.state)
        self.session.save(self.state["step"])

    @phase("training")
    def _train(self, train_ssl: Callable[[int], None]) -> None:
        """Trains with the main loss."""
        train = self.config.train
        if not train.ssl_steps:
            self._ssl_logs = {}  # Pre-training is over.
        steps = steps_of(self.model.train_step, self.distribution)
        batches = self.distribution.batches(self._dataset(self.state["step"]))
        if self.state["step"] % self.evaluate_every == 0:
            self._evaluate_once()  # The run may have been stopped during an evaluation.
        self._speed.restart(steps, self.state["step"])
        while not self._finished():
            epoch, done = divmod(self.state["step"], self.steps_per_epoch)
            with self._bar(f"epoch {epoch + 1}", done) as bar:
                while not self._finished():
                    before = self.state["step"]
                    count = self._steps_ahead()
                    self._profile.at(before)
                    train_ssl(train.ssl_steps_ahead(before))
                    self._logs = self._step(steps, batches, count)
                    self.state["step"] += count
                    self._after_steps(bar, before, count)
                    if self.state["step"] // LOG_EVERY > before // LOG_EVERY:
                        self._log(steps, bar)
                    if self.state["step"] % self.evaluate_every == 0:
                        self._evaluate_once()
                        self._speed.restart(steps, self.state["step"])
                    if self.state["step"] % self.steps_per_epoch == 0:
                        break
        if self.state["step"]:
            self._evaluate_once()

    def _ssl_steps(self) -> Callable[[int], None]:
        """A function that performs a given number of steps of the self-supervised loss."""
        if not self.config.train.has_ssl_steps:
            return lambda _: None
        steps = steps_of(self.model.ssl_step, self.distribution)
        batches = self.distribution.batches(self.ssl_steps.dataset(self.state["ssl_step"]))
        at_once = self.config.train.steps_per_execution

        def train(count: int) -> None:
            for done in range(0, count, at_once):
                chunk = min(at_once, count - done)
                self._ssl_logs = self._step(steps, batches, chunk, ssl=True)
                self.state["ssl_step"] += chunk

        return train

    @phase("pre-training")
    def _pretrain(self, train_ssl: Callable[[int], None]) -> None:
        """Trains with the self-supervised loss alone, with a checkpoint after every pass."""
        while not self.state["pretrained"]:
            epoch, done = divmod(self.state["ssl_step"], self.steps_per_epoch)
            if epoch > len(self.state["pretraining"]):  # The run was stopped during evaluation.
                self._evaluate_pretraining()
                continue
            with self._bar(f"pretraining {epoch + 1}", done) as bar:
                while done < self.steps_per_epoch:
                    count = min(self.config.train.steps_per_execution, self.steps_per_epoch - done)
                    train_ssl(count)
                    if (done + count) // LOG_EVERY > done // LOG_EVERY:
                        step = self.state["ssl_step"]
                        self.records.scalars(step, self._ssl_logs, "pretraining/train")
                        bar.set_postfix(loss=f"{float(self._ssl_logs['loss']):.4f}")
                    self._after_steps(bar, done, count)
                    done += count
            self._evaluate_pretraining()

    def _after_steps(self, bar: tqdm, before: int, count: int) -> None:
        """Updates time and progress bar; stops, or writes a checkpoint, if it is due.

        Args:
            bar: Progress bar of the pass.
            before: Number of steps of this kind done before.
            count: Number of steps just done.
        """
        self.state["seconds"] = time.monotonic() - self.started
        bar.update(min(count * self.config.train.batch_size, self.requests - bar.n))
        if self.distribution.has_peers:
            # All processes must stop after the same step, so they exchange requests regularly.
            due = (before + count) // LOG_EVERY > before // LOG_EVERY
            if due and any(self.distribution.exchange(bool(self._stop))):
                raise self._interrupted()
        self._stop_if_asked()
        if time.monotonic() - self._saved > 60 * self.config.train.checkpoint_minutes:
            self.save()

    def _stop_if_asked(self) -> None:
        if self._stop and not self.distribution.has_peers:
            raise self._interrupted()

    def _interrupted(self) -> Interrupted:
        return Interrupted(
            f"stopped by SIGTERM at step {self.state['step']}; resume with "
            f"python -m models.train --workdir={self.workdir} --resume"
        )

    def _last_step(self) -> int:
        """The step after which training ends unless it ends early."""
        train = self.config.train
        bounds = [train.epochs * self.steps_per_epoch, *[train.max_steps] * (train.max_steps > 0)]
        return min(bounds)

    def _finished(self) -> bool:
        train = self.config.train
        return (
            self.state["step"] >= self._last_step()
            or self.state["evaluations_without_gain"]
            >= train.patience * train.evaluations_per_epoch
        )

    def _steps_ahead(self) -> int:
        """Number of steps to run until Python has to act between steps."""
        train, step = self.config.train, self.state["step"]
        count = 1
        while count < train.steps_per_execution and not train.ssl_steps_ahead(step + count):
            count += 1
        return min(
            count,
            self.steps_per_epoch - step % self.steps_per_epoch,
            self.evaluate_every - step % self.evaluate_every,
            self._last_step() - step,
            self._profile.steps_ahead(step),
        )

    def _dataset(self, step: int) -> tf.data.Dataset:
        """The batches of the main loss after `step` steps, to the end of the last epoch."""
        train = self.config.train
        return training_batches(self.data, train, step, train.epochs)

    def _step(
        self, steps: StepRunner, batches: Iterator[Any], count: int, ssl: bool = False
    ) -> Logs:
        """Trains on the next batches; returns the losses of the last one."""
        try:
            with dataset.reading(self.data), self.distribution.explained_losses():
                return steps(batches, count)
        except tf.errors.InvalidArgumentError as error:
            if "not finite" not in str(error):
                raise
            raise self._not_finite(ssl) from None

    def _not_finite(self, ssl: bool) -> UserError:
        """Repeats the failed step; returns an error that names the first tensors not finite."""
        optimizer = self.model.ssl_optimizer if ssl else self.model.optimizer
        failed = self.state["ssl_step" if ssl else "step"]
        if self.config.train.steps_per_execution > 1:
            # Only the optimiser counts the steps of a failed execution that succeeded.
            failed = int(optimizer.iterations.numpy())  # type: ignore[union-attr]
        batches = self.ssl_steps.dataset(failed) if ssl else self._dataset(failed)
        where = culprits(self.model, next(iter(batches)), ssl)
        kind = "step of self-supervision" if ssl else "step"
        error = UserError(
            f"Expected finite numbers, found NaN or infinity at {kind} {failed + 1} of "
            f"{self.workdir}: {where or 'in the gradient of all replicas'}.",
            f"lower train.{'ssl_' if ssl else ''}learning_rate or set train.clip_norm.",
        )
        files.write_bytes(self.workdir / run_directory.DIVERGED, f"{error}\n".encode())
        return error

    def _set_learning_rate(self) -> None:
        """Updates the factor of the learning-rate schedules from the evaluations so far."""
        scale = schedules.plateau_scale(
            self.config.train,
            [selection.score(row, "validation/") for row in self.state["history"]],
        )
        schedules.set_scale([self.model.optimizer, self.model.embedding_optimizer], scale)

    @phase("evaluation")
    def _evaluate_once(self) -> None:
        """Evaluates on validation, saves the weights if they are the best, writes a checkpoint."""
        if self.state["step"] == self.state["evaluated_step"]:
            return
        self.distribution.join()
        metrics = self.distribution.of_chief(
            lambda: ranking_metrics(self.scorer.score("validation"))
        )
        score, best = selection.score(metrics), self.state["best_score"]
        if best is None or score > best:
            self.state |= {"best_score": score, "best_step": self.state["step"]}
            self.state["evaluations_without_gain"] = 0
            if self.distribution.is_chief:
                run_directory.save_best(self.best)
        else:
            self.state["evaluations_without_gain"] += 1
        self.state["evaluated_step"] = self.state["step"]
        self._record("history", run_directory.HISTORY, self.state["step"], self._losses(), metrics)
        self._set_learning_rate()
        if self._on_evaluation is not None:
            self._on_evaluation(metrics)

    @phase("evaluation")
    def _evaluate_pretraining(self) -> None:
        """Evaluates the self-supervised loss on validation histories, writes a checkpoint."""
        self.distribution.join()
        measured = self.distribution.of_chief(self.ssl_steps.validation_loss)
        losses = [row["validation/loss"] for row in self.state["pretraining"]] + [measured["loss"]]
        passes_without_gain = len(losses) - 1 - int(np.argmin(losses))
        train = self.config.train
        self.state["pretrained"] = (
            len(losses) >= train.pretrain_epochs or passes_without_gain >= train.patience
        )
        step = self.state["ssl_step"]
        self._record("pretraining", run_directory.PRETRAINING, step, self._ssl_logs, measured)

    def _losses(self) -> Logs:
        """Losses and norms of the last steps.

        Values of `ssl_step` get the prefix `ssl_` if `train_step` has values of the same names; the
        other terms of self-supervision keep their names.
        """
        ssl_losses = {
            f"ssl_{name}" if name in self._logs else name: value
            for name, value in self._ssl_logs.items()
        }
        return ssl_losses | dict(self._logs)

    def _record(
        self, table: str, file: str, step: int, logs: Logs, measured: Mapping[str, float | None]
    ) -> None:
        """Adds a row to a table of the run and to TensorBoard; writes a checkpoint."""
        values = {f"validation/{name}": value for name, value in measured.items()}
        values |= self._diagnose()
        row = {
            "step": step,
            "epoch": step / self.steps_per_epoch,
            "seconds": self.state["seconds"],
            **{f"train/{name}": float(value) for name, value in logs.items()},
            **values,
            **{f"speed/{name}": value for name, value in self._measured.items()},
        }
        self.state[table].append(row)
        self.records.table(file, self.state[table])
        self.records.scalars(step, values, "" if table == "history" else table)
        self.records.flush()
        self.save()

    def _diagnose(self) -> dict[str, float]:
        """Diagnostics of the model on a batch of validation requests."""
        if self._sample is None:
            batches = dataset.read(
                self.data,
                "validation",
                batch_size=self.config.train.batch_size,
                shuffle_seed=0,  # Without shuffling, the shortest histories come first.
            )
            self._sample = next(iter(batches))
        values = self.model.diagnostics(self._sample)
        return {f"diagnostics/{name}": float(value) for name, value in values.items()}

    def _log(self, steps: StepRunner, bar: tqdm) -> None:
        """Shows losses, speed and input wait in the progress bar and in TensorBoard."""
        speed = self._measured = self._speed.measure(steps, self.state["step"])
        rate = self.model.optimizer.learning_rate
        values = {**self._losses(), **speed, "learning_rate": rate}
        self.records.scalars(self.state["step"], values, "train")
        shown = {
            "loss": f"{float(self._logs['loss']):.4f}",
            **selection.best(self.state["history"]),
            "samples_per_second": f"{speed['samples_per_second']:,.0f}",
        }
        if "input_wait" in speed:
            shown["input_wait"] = f"{speed['input_wait']:.0%}"
        bar.set_postfix(shown)

    def _bar(self, title: str, done: int) -> tqdm:
        """The progress bar of an epoch, of which `done` steps are done."""
        requests = done * self.config.train.batch_size
        return records.bar(title, self.requests, requests, self.progress)

    @phase("final evaluation")
    def _measure(self) -> dict[str, dict[str, float | None]]:
        """Metrics of the best weights on the splits that have requests."""
        if self.config.train.precision == "float32":
            run_directory.restore_best(self.model, self.workdir)
            scorer = self.scorer
        else:  # Measured in float32, in which the model is evaluated and served.
            scorer = Scorer(run_directory.load_model(self.workdir), self.data, self._stop_if_asked)
        return {
            split: record(
                self.workdir, split, scorer.score(split, progress=self.progress), self.data
            )
            for split in ("validation", "test")
            if self.data.num_requests(split)
        }
