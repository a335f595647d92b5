"""Trains a model on a data set.

    python -m models.train --data=DATA --model=deminet --workdir=RUN
    python -m models.train --data=DATA --model=din --ssl=miss --set=ssl.alpha=0.5 --workdir=RUN
    python -m models.train --data=DATA --model=din --ssl=miss --pretrain_epochs=40 --workdir=RUN
    python -m models.train --workdir=RUN --resume

Leaves in RUN: config.json (every default spelled out), schema.json, metrics.json, metrics.csv,
pretraining.csv, TensorBoard events, checkpoints/ (to resume) and best/ (weights of the best
validation AUC).
"""

import json
import math
import pathlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
from absl import flags
from tqdm import tqdm

from models import config as config_module
from models import distribution, registry, runs
from models.building import build_model, compile_model
from models.config import RunConfig
from models.evaluate import Scorer, record
from models.keras import tf
from models.label_stress import stressed
from models.metrics import ranking_metrics
from models.precision import PRECISIONS
from models.pretraining import SelfSupervisedSteps
from preprocessing import cli, dataset, files
from preprocessing.data_dir import DataDir
from preprocessing.errors import UserError

_LOG_EVERY = 20
_EVALUATION_INTERVAL = 40
"""Steps between evaluations at least, so that a small data set trains before it is judged."""


_RESUMABLE_SETTINGS = ("epochs", "max_steps", "patience", "distribute")


class Trainer:
    """The life of one run: restore, train, evaluate, checkpoint, stop early, measure.

    Order on resume: weights, optimisers and state from the last checkpoint, then the data of its
    epoch (whose order is a function of seed and epoch) from the batch after the checkpoint.

    Args:
        config: Of the run.
        workdir: Run directory; exists and holds config.json.
        progress: Show bars on standard error.
    """

    def __init__(self, config: RunConfig, workdir: pathlib.Path, progress: bool = True) -> None:
        self.config = config
        self.workdir = workdir
        self.progress = progress

        # Data.
        self.data = DataDir.open(config.data)
        self.requests = self.data.num_requests("train")
        if not self.requests:
            raise UserError(
                f"Expected training requests in {self.data.path}, found none.",
                "build the data with more events per user.",
            )
        validation = self.data.manifest["splits"]["validation"]
        if not validation["candidates"] > validation["requests"] > 0:
            raise UserError(
                f"Expected validation requests with several candidates in {self.data.path}, found "
                f"{validation['requests']} requests with {validation['candidates']} candidates.",
                "build the data with --negatives of at least 1, from a longer log.",
            )
        self.steps_per_epoch = math.ceil(self.requests / config.train.batch_size)
        self.evaluate_every = max(
            _EVALUATION_INTERVAL, self.steps_per_epoch // config.train.evaluations_per_epoch
        )

        # Model.
        self.strategy = distribution.strategy(config.train.distribute)
        with self.strategy.scope():
            self.model = build_model(config, self.data, config.train.precision)
            compile_model(self.model, config)
            self.model.build_optimizers()
        self.scorer = Scorer(self.model, self.data)
        if config.train.has_ssl_steps:
            self.ssl_steps = SelfSupervisedSteps(config, self.data, self.model, self.strategy)
        self._sample: dict[str, tf.Tensor] | None = None

        # State: all that a resumed run must know, stored as JSON in the checkpoint.
        self.state: dict[str, Any] = {
            "step": 0,
            "ssl_step": 0,
            "pretrained": not config.train.pretrain_epochs,
            "pretraining": [],
            "evaluated_step": 0,
            "best_auc": 0.0,
            "best_step": 0,
            "evaluations_without_gain": 0,
            "seconds": 0.0,
            "history": [],
        }
        self._stored_state = tf.Variable("", dtype=tf.string, trainable=False)
        self.checkpoints = tf.train.CheckpointManager(
            tf.train.Checkpoint(model=self.model, state=self._stored_state),
            str(workdir / runs.CHECKPOINTS),
            max_to_keep=2,
        )
        self.best = runs.best_checkpoint(self.model, workdir)
        self.events = tf.summary.create_file_writer(str(workdir))
        self.started = time.monotonic()

    def restore(self) -> None:
        """Continues from the last checkpoint, or from the start if there is none."""
        latest = self.checkpoints.latest_checkpoint
        if latest is None:
            return
        self.checkpoints.checkpoint.restore(latest).assert_existing_objects_matched()
        self.state = json.loads(self._stored_state.numpy())

    def run(self) -> dict[str, dict[str, float]]:
        """Trains to the end and measures the best weights.

        Returns:
            Metrics by split.

        Raises:
            UserError: The loss is not finite.
        """
        self.started = time.monotonic() - self.state["seconds"]
        train_ssl = self._ssl_steps()
        self._pretrain(train_ssl)
        train_function = self.model.make_train_function()
        batches = self._batches()
        while not self._finished():
            epoch, done = divmod(self.state["step"], self.steps_per_epoch)
            with self._bar(f"epoch {epoch + 1}", done) as bar:
                for _ in range(done, self.steps_per_epoch):
                    for _ in range(self.config.train.ssl_steps):
                        ssl_logs = train_ssl()
                    logs = self._step(train_function, batches)
                    if self.config.train.ssl_steps:
                        logs["ssl_step_loss"] = ssl_logs["loss"]
                    self.state["step"] += 1
                    self.state["seconds"] = time.monotonic() - self.started
                    bar.update(min(self.config.train.batch_size, self.requests - bar.n))
                    if self.state["step"] % _LOG_EVERY == 0:
                        self._log(logs, bar)
                    if self.state["step"] % self.evaluate_every == 0:
                        self._evaluate(logs)
                    if self._finished():
                        break
        if self.state["step"] != self.state["evaluated_step"]:
            self._evaluate(logs)
        self.events.close()
        return self._measure()

    def _ssl_steps(self) -> Callable[[], dict[str, tf.Tensor]]:
        """A function that does the next step of the self-supervised loss and returns its losses."""
        if not self.config.train.has_ssl_steps:
            return dict
        function = self.ssl_steps.step_function()
        batches = self.ssl_steps.batches(self.state["ssl_step"])

        def step() -> dict[str, tf.Tensor]:
            logs = self._step(function, batches)
            self.state["ssl_step"] += 1
            return logs

        return step

    def _pretrain(self, train_ssl: Callable[[], dict[str, tf.Tensor]]) -> None:
        """Trains with the self-supervised loss alone; a checkpoint follows every pass."""
        while not self.state["pretrained"]:
            epoch, done = divmod(self.state["ssl_step"], self.steps_per_epoch)
            with self._bar(f"pretraining {epoch + 1}", done) as bar:
                for _ in range(done, self.steps_per_epoch):
                    logs = train_ssl()
                    bar.update(min(self.config.train.batch_size, self.requests - bar.n))
                    step = self.state["ssl_step"]
                    self.state["seconds"] = time.monotonic() - self.started
                    if step % _LOG_EVERY == 0:
                        self._write_events(step, logs, "pretraining/train")
                        bar.set_postfix(loss=f"{float(logs['loss']):.4f}")
            self._evaluate_pretraining(logs)

    def _finished(self) -> bool:
        train = self.config.train
        return (
            self.state["step"] >= train.epochs * self.steps_per_epoch
            or self.state["evaluations_without_gain"] >= train.patience
            or 0 < train.max_steps <= self.state["step"]
        )

    def _batches(self) -> Iterator[dict[str, tf.Tensor]]:
        """The batches that are still to be trained on, to the last epoch."""
        epoch, done = divmod(self.state["step"], self.steps_per_epoch)
        batches = dataset.read(
            self.data,
            "train",
            batch_size=self.config.train.batch_size,
            shuffle_seed=self.config.train.seed,
            first_epoch=epoch,
            epochs=max(1, self.config.train.epochs - epoch),
        )
        batches = stressed(batches.skip(done), self.data.schema, self.config.train)
        return iter(self.strategy.experimental_distribute_dataset(batches))

    def _step(self, train_function: Any, batches: Iterator[Any]) -> dict[str, tf.Tensor]:
        """Trains on the next batch; returns its losses."""
        try:
            with dataset.reading(self.data):
                return train_function(batches)
        except tf.errors.InvalidArgumentError as error:
            if "not finite" not in str(error):
                raise
            raise UserError(
                "Expected a finite loss, found NaN or infinity at step "
                f"{self.state['step'] + 1} of {self.workdir}.",
                "lower train.learning_rate or set train.clip_norm.",
            ) from None

    def _evaluate(self, logs: dict[str, tf.Tensor]) -> None:
        """Measures validation, keeps the weights if they are the best, writes a checkpoint."""
        metrics = ranking_metrics(self.scorer.score("validation"))
        if metrics["auc"] > self.state["best_auc"]:
            self.state |= {"best_auc": metrics["auc"], "best_step": self.state["step"]}
            self.state["evaluations_without_gain"] = 0
            self.best.save()
        else:
            self.state["evaluations_without_gain"] += 1
        self.state["evaluated_step"] = self.state["step"]
        self._record("history", runs.HISTORY, self.state["step"], logs, metrics)

    def _evaluate_pretraining(self, logs: dict[str, tf.Tensor]) -> None:
        """Measures the self-supervised loss of validation histories, writes a checkpoint."""
        measured = self.ssl_steps.validation_loss()
        losses = [row["validation/loss"] for row in self.state["pretraining"]] + [measured["loss"]]
        passes_without_gain = len(losses) - 1 - int(np.argmin(losses))
        train = self.config.train
        self.state["pretrained"] = (
            len(losses) >= train.pretrain_epochs or passes_without_gain >= train.patience
        )
        self._record("pretraining", runs.PRETRAINING, self.state["ssl_step"], logs, measured)

    def _record(
        self,
        table: str,
        file: str,
        step: int,
        logs: dict[str, tf.Tensor],
        measured: dict[str, float],
    ) -> None:
        """Adds a row to a table of the run, its numbers to TensorBoard; writes a checkpoint."""
        found = {f"validation/{name}": value for name, value in measured.items()}
        found |= self._diagnose()
        row = {
            "step": step,
            "epoch": step / self.steps_per_epoch,
            "seconds": self.state["seconds"],
            **{f"train/{name}": float(value) for name, value in logs.items()},
            **found,
        }
        self.state[table].append(row)
        pd.DataFrame(self.state[table]).to_csv(self.workdir / file, index=False)
        self._write_events(step, found, "" if table == "history" else table)
        self.events.flush()
        self._stored_state.assign(json.dumps(self.state))
        self.checkpoints.save(self.state["step"] + self.state["ssl_step"])

    def _write_events(self, step: int, values: Mapping[str, Any], group: str) -> None:
        """Writes scalars to TensorBoard."""
        with self.events.as_default(step=step):
            for name, value in values.items():
                tf.summary.scalar(f"{group}/{name}" if group else name, value)

    def _diagnose(self) -> dict[str, float]:
        """What the parts of the model do, on a batch of validation requests."""
        if self._sample is None:
            batches = dataset.read(
                self.data,
                "validation",
                batch_size=self.config.train.batch_size,
                shuffle_seed=0,  # In order, the shortest histories come first.
            )
            self._sample = next(iter(batches))
        found = self.model.diagnostics(self._sample)
        return {f"diagnostics/{name}": float(value) for name, value in found.items()}

    def _log(self, logs: dict[str, tf.Tensor], bar: tqdm) -> None:
        """Shows the losses of a step in the bar and in TensorBoard."""
        self._write_events(self.state["step"], logs, "train")
        bar.set_postfix(
            loss=f"{float(logs['loss']):.4f}", best_validation_auc=f"{self.state['best_auc']:.4f}"
        )

    def _bar(self, title: str, done: int) -> tqdm:
        """The bar of an epoch: requests done, requests per second, time to go."""
        return tqdm(
            total=self.requests,
            initial=done * self.config.train.batch_size,
            desc=title,
            unit="request",
            disable=not self.progress,
        )

    def _measure(self) -> dict[str, dict[str, float]]:
        """Metrics of the best weights on the splits that have requests."""
        if self.config.train.precision == "float32":
            runs.restore_best(self.model, self.workdir)
            scorer = self.scorer
        else:  # As the model will be evaluated and served.
            scorer = Scorer(runs.load_model(self.workdir), self.data)
        return {
            split: record(self.workdir, split, scorer.score(split, progress=self.progress))
            for split in ("validation", "test")
            if self.data.num_requests(split)
        }


def train(
    config: RunConfig, workdir: str | pathlib.Path, resume: bool = False, progress: bool = True
) -> dict[str, dict[str, float]]:
    """Trains a model; the library function behind this command.

    Args:
        config: Of the run.
        workdir: Run directory, created if needed.
        resume: Continue what is there. Without it a directory that holds a run is refused.
        progress: Show bars on standard error.

    Returns:
        Metrics of the best weights by split.

    Raises:
        UserError: A run is already there, or it was begun with other settings, or the data set
            cannot be used.
    """
    files.require_local(workdir, "--workdir")
    workdir = pathlib.Path(workdir)
    begun = (workdir / runs.CONFIG).exists()
    if begun and not resume:
        raise UserError(
            f"Expected an empty --workdir, found a run in {workdir}.",
            "add --resume to continue it, or choose another directory.",
        )
    if begun:
        _check_resumable(runs.open_run(workdir).config, config)
    if config.train.deterministic:
        tf.config.experimental.enable_op_determinism()
    trainer = Trainer(config, workdir, progress)
    if begun:
        trainer.restore()
    runs.begin(workdir, config, trainer.data)
    return trainer.run()


def _check_resumable(stored: RunConfig, config: RunConfig) -> None:
    """Refuses settings under which the stored weights or data position mean something else."""
    before, after = stored.to_json(), config.to_json()
    changed = [
        f"{section}.{key} was {before[section].get(key)!r}, is {value!r}"
        for section in ("model", "ssl", "train")
        for key, value in after[section].items()
        if before[section].get(key) != value
        and not (section == "train" and key in _RESUMABLE_SETTINGS)
    ]
    if stored.data != config.data:
        changed.append(f"data was {stored.data}, is {config.data}")
    if changed:
        raise UserError(
            f"Expected the settings that the run was begun with; {'; '.join(changed)}.",
            f"leave them out; only train.{', train.'.join(_RESUMABLE_SETTINGS)} may change.",
        )


def define_config_flags() -> None:
    """Flags that make up a configuration; those left out keep the configuration's value."""
    flags.DEFINE_string("model", None, "Model name, or package.module[:Class] (default din).")
    flags.DEFINE_string(
        "ssl", None, f"Self-supervision: none, {', '.join(registry.SSL)} (default none)."
    )
    flags.DEFINE_string("config", None, "Configuration file to start from, e.g. a config.json.")
    flags.DEFINE_multi_string("set", [], "Override, as in train.learning_rate=0.01; repeatable.")
    flags.DEFINE_string("distribute", None, "auto, one_device or mirrored (default auto).")
    flags.DEFINE_integer(
        "pretrain_epochs", None, "Passes with the self-supervised loss alone, first (default 0)."
    )
    flags.DEFINE_integer("max_steps", None, "Steps at most (default: no bound).")
    flags.DEFINE_bool("deterministic", None, "Use deterministic operations only.")
    flags.DEFINE_string("precision", None, f"{', '.join(PRECISIONS)} (default float32).")


def config_from_flags(data: str | None, seed: int | None, stored: str | None = None) -> RunConfig:
    """The configuration: file, then flags, then --set.

    Args:
        data: Data set directory; None for that of the file.
        seed: Of the training; None for that of the file.
        stored: Configuration file to start from where --config names none.

    Raises:
        UserError: No data set named, or anything that `config.resolve` refuses.
    """
    given = flags.FLAGS
    source = given.config or stored
    content = config_module.load(source) if source else {}
    for section, name in (("model", given.model), ("ssl", given.ssl)):
        if name is not None and name != content.get(section, {}).get("name"):
            content[section] = {"name": name}
    content["train"] = content.get("train", {}) | {
        name: value
        for name, value in (
            ("seed", seed),
            ("distribute", given.distribute),
            ("pretrain_epochs", given.pretrain_epochs),
            ("max_steps", given.max_steps),
            ("deterministic", given.deterministic),
            ("precision", given.precision),
        )
        if value is not None
    }
    if data is not None:
        content["data"] = files.absolute(data, pathlib.Path())
    if not content.get("data"):
        raise UserError("Expected --data, found neither the flag nor a configuration with it.")
    return config_module.resolve(content, given.set)


def define_flags() -> None:
    """Flags of this command."""
    define_config_flags()
    flags.DEFINE_string("data", None, "Data set directory of pipeline.build_examples.")
    flags.DEFINE_string("workdir", None, "Run directory.", required=True)
    flags.DEFINE_integer("seed", None, "Seed of weights, data order and draws (default 1).")
    flags.DEFINE_bool("resume", False, "Continue the run in --workdir.")


def main() -> None:
    """Trains and prints the metrics of the best weights."""
    given = flags.FLAGS
    workdir = pathlib.Path(given.workdir)
    stored = workdir / runs.CONFIG
    start = str(stored) if given.resume and stored.exists() else None
    config = config_from_flags(given.data, given.seed, start)
    for split, metrics in train(config, given.workdir, given.resume).items():
        sys.stdout.write(
            f"{split}: AUC {metrics['auc']:.4f}  GAUC {metrics['gauc']:.4f}  "
            f"log loss {metrics['log_loss']:.4f}  "
            f"calibration error {metrics['calibration_error']:.4f}\n"
        )
    sys.stdout.write(f"run: {workdir}\n")


def console_main() -> None:
    """Entry point."""
    define_flags()
    cli.run(main, __doc__)


if __name__ == "__main__":
    console_main()
