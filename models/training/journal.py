"""What a run tells while it trains: progress bars, TensorBoard, MLflow, the rows of its tables."""

import pathlib
import sys
import time
from collections.abc import Mapping

from tqdm import tqdm

from models.config.run_config import RunConfig
from models.core import run_directory
from models.core.base import CTRModel
from models.keras import tf
from models.training import records, selection
from models.training.batches import steps_per_epoch
from models.training.board import Board
from models.training.progress import Progress, Rows
from models.training.steps import Logs, Speed, StepRunner
from models.training.tracking import Tables, Tracker
from preprocessing import dataset
from preprocessing.data_dir import DataDir


class Journal:
    """Reports the progress of a run to who watches it, and to the files of its directory.

    Args:
        workdir: Run directory.
        model: Model that is trained.
        data: Data set of the run.
        config: Configuration of the run.
        progress: Progress to report; rows are added to its tables.
        writes: Whether this process writes files; exactly one of several processes does.
        shows: Whether to show progress on standard error: bars on a terminal, elsewhere a line per
            evaluation.
        tracker: The run in MLflow, if it is tracked there.
    """

    def __init__(
        self,
        workdir: pathlib.Path,
        model: CTRModel,
        data: DataDir,
        config: RunConfig,
        progress: Progress,
        *,
        writes: bool,
        shows: bool,
        tracker: Tracker | None = None,
    ) -> None:
        train = config.train
        self._config, self._tracker = config, tracker
        self._model, self._data, self._progress = model, data, progress
        self._batch_size, self._shows = train.batch_size, shows
        self._writes_lines = shows and not sys.stderr.isatty()
        self._began = (0, time.monotonic())
        self._requests = data.num_requests("train")
        self._steps_per_epoch = steps_per_epoch(data, train)
        self._records = records.Records(workdir, writes=writes)
        self._board = Board(workdir, writes=writes)
        self._histograms = train.histograms
        candidates = data.manifest["splits"]["train"]["candidates"]
        self._speed = Speed(candidates / self._requests * train.batch_size)
        self._measured: dict[str, float] = {}
        self._sample: dict[str, tf.Tensor] | None = None

    def bar(self, title: str, done: int) -> tqdm:
        """The progress bar of an epoch, of which `done` steps are done."""
        return records.bar(title, self._requests, done * self._batch_size, self._shows)

    def advance(self, bar: tqdm, count: int) -> None:
        """Adds steps to the progress bar of an epoch, the last batch of which may be smaller."""
        bar.update(min(count * self._batch_size, self._requests - bar.n))

    def begin(self) -> None:
        """Starts to measure how long the steps of the main loss and their evaluations take."""
        self._began = (self._progress.step, time.monotonic())

    def restart_speed(self, steps: StepRunner) -> None:
        """Restarts the measurement of the speed, which other work than steps would distort."""
        self._speed.restart(steps, self._progress.step)

    def show_steps(self, steps: StepRunner, bar: tqdm) -> None:
        """Shows losses, speed and input wait in the progress bar and in TensorBoard."""
        progress = self._progress
        speed = self._measured = self._speed.measure(steps, progress.step)
        rate = self._model.optimizer.learning_rate
        values = {**progress.losses, **speed, "learning_rate": rate}
        self._board.scalars(progress.step, values, "train")
        shown = {
            "loss": f"{float(progress.logs['loss']):.4f}",
            **selection.best(progress.history),
            "samples_per_second": f"{speed['samples_per_second']:,.0f}",
        }
        if "input_wait" in speed:
            shown["input_wait"] = f"{speed['input_wait']:.0%}"
        bar.set_postfix(shown)

    def show_pretraining_steps(self, bar: tqdm) -> None:
        """Shows the self-supervised losses in the progress bar and in TensorBoard."""
        losses = self._progress.ssl_logs
        self._board.scalars(self._progress.ssl_step, losses, "pretraining/train")
        bar.set_postfix(loss=f"{float(losses['loss']):.4f}")

    def record_evaluation(self, metrics: Mapping[str, float | None], last_step: int) -> None:
        """Adds the metrics of the validation split to metrics.csv and TensorBoard.

        Args:
            metrics: Metrics of the validation split.
            last_step: Step after which training ends unless it ends early.
        """
        progress = self._progress
        values = self._add_row(progress.history, progress.step, progress.losses, metrics)
        self._records.table(run_directory.HISTORY, progress.history)
        self._board.scalars(progress.step, values)
        if progress.best_step == progress.step:
            self._board.best(progress.step, {"validation": metrics})
        if self._histograms:
            self._board.histograms(progress.step, self._model.trainable_variables)
        self._board.flush()
        if self._tracker:
            self._tracker.rows(self._tables())
        if self._writes_lines:
            began, since = self._began
            left = None
            if done := progress.step - began:
                left = (last_step - progress.step) * (time.monotonic() - since) / done
            sys.stderr.write(f"{records.line(progress.history[-1], left)}\n")

    def record_pretraining(self, measured: Mapping[str, float | None]) -> None:
        """Adds the self-supervised loss of the validation split to pretraining.csv."""
        progress = self._progress
        values = self._add_row(progress.pretraining, progress.ssl_step, progress.ssl_logs, measured)
        self._records.table(run_directory.PRETRAINING, progress.pretraining)
        self._board.scalars(progress.ssl_step, values, "pretraining")
        self._board.flush()
        if self._tracker:
            self._tracker.rows(self._tables())
        if self._writes_lines:
            sys.stderr.write(f"pretraining: {records.line(progress.pretraining[-1])}\n")

    def show_graph(self, graph: tf.Graph) -> None:
        """Shows the graph of the model in TensorBoard."""
        self._board.graph(graph)

    def record_result(self, metrics: Mapping[str, Mapping[str, float | None]]) -> None:
        """Shows the metrics of the best weights, by split, beside the settings of the run."""
        self._board.best(self._progress.best_step, metrics)
        if self._tracker:
            self._tracker.result(self._progress.best_step, metrics, self._tables())

    def __enter__(self) -> "Journal":
        """Begins the training; the run directory is there."""
        self._board.begin(self._config)
        if self._tracker:
            self._tracker.begin(self._config, self._data)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Ends the training, perhaps by an error; closes the files."""
        self._board.close()
        if self._tracker:
            was_stopped = kind is not None and issubclass(kind, SystemExit | KeyboardInterrupt)
            self._tracker.end("FINISHED" if kind is None else "KILLED" if was_stopped else "FAILED")

    def _tables(self) -> Tables:
        """The rows so far, as MLflow gets them."""
        return {"pretraining/": self._progress.pretraining, "": self._progress.history}

    def _add_row(
        self, rows: Rows, step: int, logs: Logs, measured: Mapping[str, float | None]
    ) -> dict[str, float | None]:
        """Adds a row to a table; returns the part of it that describes the weights of now."""
        values = {f"validation/{name}": value for name, value in measured.items()}
        values |= self._diagnose()
        rows.append(
            {
                "step": step,
                "epoch": step / self._steps_per_epoch,
                "seconds": self._progress.seconds,
                **{f"train/{name}": float(value) for name, value in logs.items()},
                **values,
                **{f"speed/{name}": value for name, value in self._measured.items()},
            }
        )
        return values

    def _diagnose(self) -> dict[str, float]:
        """Diagnostics of the model on a batch of validation requests."""
        if self._sample is None:
            batches = dataset.read(
                self._data,
                "validation",
                batch_size=self._batch_size,
                shuffle_seed=0,  # Without shuffling, the shortest histories come first.
            )
            self._sample = next(iter(batches))
        values = self._model.diagnostics(self._sample)
        return {f"diagnostics/{name}": float(value) for name, value in values.items()}
