"""Runs the trainings of an experiment in several processes of one thread each, none twice.

WORKDIR/runs/ holds for each run NAME its directory, NAME.json (its configuration) and NAME.log
(its output). The log is locked while the run goes on, even if this process is gone: a second queue
on the same WORKDIR, started beside the first one or after it was killed, does not start that run.
"""

import contextlib
import fcntl
import os
import pathlib
import signal
import statistics
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from tqdm import tqdm

from models import train
from models.core import run_directory
from pipeline.experiments.planned_runs import PlannedRun
from pipeline.job import search_path

_POLL_SECONDS = 0.5
_SHOW_SECONDS = 2.0
_THREADS = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS")


class Failure(NamedTuple):
    """A run that ended without metrics."""

    name: str
    log: pathlib.Path
    last_line: str


def run_all(planned: Sequence[PlannedRun], jobs: int, progress: bool = True) -> list[Failure]:
    """Runs the trainings that are not settled, each in a process of its own.

    Args:
        planned: Planned runs, some of which may have the same directory.
        jobs: Number of processes at a time.
        progress: Whether to show progress on standard error.

    Returns:
        Runs that failed; the others are settled.

    Raises:
        KeyboardInterrupt: SIGINT or SIGTERM arrived; no process is left.
    """
    todo = list({run.path: run for run in planned}.values())
    waiting = deque(run for run in todo if not run.is_settled)
    running: dict[subprocess.Popen[bytes], tuple[PlannedRun, float]] = {}
    failures: list[Failure] = []
    bar = _Bar(todo, jobs, progress)
    with bar.shown, _noted_interrupts() as interrupts:
        try:
            while waiting or running:
                if interrupts:
                    raise KeyboardInterrupt
                for _ in range(len(waiting) if len(running) < jobs else 0):
                    run = waiting.popleft()
                    if run.is_settled:  # By another queue.
                        bar.done(run, seconds_of(run.path))
                    elif len(running) < jobs and (process := _start(run)):
                        running[process] = (run, time.monotonic())
                    else:
                        waiting.append(run)
                bar.update(waiting, running)
                time.sleep(_POLL_SECONDS)
                for process in [process for process in running if process.poll() is not None]:
                    run, started = running.pop(process)
                    bar.done(run, time.monotonic() - started)
                    if not run.is_settled or (process.returncode and run.is_finished):
                        failures.append(_failure(run))
        finally:
            for process in running:
                process.terminate()
            for process in running:
                process.wait()
    return failures


def run_here(planned: Sequence[PlannedRun]) -> list[Failure]:
    """Runs the trainings that are not settled, one after the other in this process."""
    for run in planned:
        if not run.is_settled:
            train.train(run.config, run.path, resume=True, progress=False)
    return []


def _start(run: PlannedRun) -> "subprocess.Popen[bytes] | None":
    """Starts or continues a run; returns None if another process runs it."""
    run.path.parent.mkdir(parents=True, exist_ok=True)
    config = run.path.with_name(f"{run.name}.json")
    with _log(run).open("ab") as log:
        try:
            fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return None
        run.config.save(config)
        # The process inherits the lock with the file, and releases it when it ends.
        return subprocess.Popen(
            [
                sys.executable,
                "-m",
                "models.train",
                f"--config={config}",
                f"--workdir={run.path}",
                "--resume",
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, **search_path.variables(), **dict.fromkeys(_THREADS, "1")},
        )


def _log(run: PlannedRun) -> pathlib.Path:
    return run.path.with_name(f"{run.name}.log")


def _failure(run: PlannedRun) -> Failure:
    log = _log(run)
    lines = log.read_text(encoding="utf-8", errors="replace").replace("\r", "\n").split("\n")
    return Failure(run.name, log, next((line for line in lines[::-1] if line.strip()), "nothing"))


def seconds_of(path: pathlib.Path) -> float:
    """Duration of the training of a run, over all its attempts."""
    import pandas as pd

    history = path / run_directory.HISTORY
    return float(pd.read_csv(history)["seconds"].iloc[-1]) if history.exists() else 0.0


class _Bar:
    """Shows the finished runs, the time to go, and the names of the current runs.

    Where there is no terminal, it writes a line for each run that ends instead.

    A run is expected to take as long as the finished runs of its model, else as all finished runs.
    """

    def __init__(self, todo: Sequence[PlannedRun], jobs: int, progress: bool) -> None:
        finished = [run for run in todo if run.is_settled]
        self._jobs = jobs
        self._took: dict[str, list[float]] = {}
        self._finished, self._total = len(finished), len(todo)
        for run in finished:
            self._remember(run, seconds_of(run.path))
        self.shown = tqdm(
            total=len(todo),
            initial=len(finished),
            unit="run",
            miniters=0,
            mininterval=_SHOW_SECONDS,
            disable=None if progress else True,
            bar_format="{n_fmt}/{total_fmt} runs |{bar:20}| {elapsed}{postfix}",
        )
        self._writes_lines = progress and self.shown.disable  # There is no terminal.

    def update(
        self,
        waiting: Sequence[PlannedRun],
        running: "dict[subprocess.Popen[bytes], tuple[PlannedRun, float]]",
    ) -> None:
        """Shows the current runs and the time to go."""
        now = time.monotonic()
        seconds_left = [self._expected(run) for run in waiting]
        seconds_left += [
            max(0.0, self._expected(run) - (now - started)) for run, started in running.values()
        ]
        togo = (
            f"about {tqdm.format_interval(sum(seconds_left) / self._jobs)} to go, "
            if any(seconds_left)
            else ""
        )
        names = ", ".join(run.name for run, _ in running.values())
        activity = f"running {names}" if names else "waiting"
        self.shown.set_postfix_str(togo + activity, refresh=False)
        self.shown.update(0)

    def done(self, run: PlannedRun, seconds: float) -> None:
        """Counts a run that has ended after so many seconds."""
        self._remember(run, seconds)
        self._finished += 1
        self.shown.update()
        if self._writes_lines:
            sys.stderr.write(
                f"{self._finished}/{self._total} runs  {run.name}  "
                f"{tqdm.format_interval(seconds)}\n"
            )

    def _remember(self, run: PlannedRun, seconds: float) -> None:
        self._took.setdefault(_kind(run), []).append(seconds)

    def _expected(self, run: PlannedRun) -> float:
        durations = self._took.get(_kind(run)) or [
            seconds for model_durations in self._took.values() for seconds in model_durations
        ]
        return statistics.mean(durations) if durations else 0.0


def _kind(run: PlannedRun) -> str:
    return f"{run.config.model_name} {run.config.ssl_name} {run.data.name}"


@contextlib.contextmanager
def _noted_interrupts() -> Iterator[list[int]]:
    """Notes SIGINT and SIGTERM; an exception could strike before a new process is registered."""
    noted: list[int] = []

    def note(number: int, _: Any) -> None:
        noted.append(number)

    previous_handlers = {
        number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield noted
    finally:
        for number, handler in previous_handlers.items():
            signal.signal(number, handler)
