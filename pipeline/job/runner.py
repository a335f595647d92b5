"""Runs one Beam pipeline: chooses the runner, shows progress, and explains workers' errors."""

import argparse
import contextlib
import difflib
import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NoReturn

from tqdm import tqdm

# First, as it keeps away a warning of the modules below.
from pipeline.job.beam import FnApiRunner, beam

# isort: split
from apache_beam.options.pipeline_options import (
    DirectOptions,
    FlinkRunnerOptions,
    PipelineOptions,
    PortableOptions,
    StandardOptions,
    _BeamArgumentParser,
)
from apache_beam.runners.portability.fn_api_runner import worker_handlers

from pipeline.job import mistakes, search_path, worker_errors
from preprocessing.cli import Hint
from preprocessing.errors import UserError, one_line
from preprocessing.storage.files import AnyPath

# Every second Beam would send what a thread has written so far, from another thread and whatever
# that one is doing: elements get lost in between, or are cut in two and read as something else
# (`TimeBasedBufferingClosableOutputStream`, Beam 2.77). Without a limit, sizes alone decide.
worker_handlers.DATA_BUFFER_TIME_LIMIT_MS = 0

_POLL_SECONDS = 0.25
_CONNECT_SECONDS = 10
_OF_NOTEBOOKS = {
    "is_in_ipython": lambda: False,
    "alter_label_if_ipython": lambda transform, pvalueish: None,
}
"""What Beam's pipelines ask about notebooks, with the answers for a program."""
_MAX_THREADS = 4  # each holds a partition; more threads would mostly wait for the interpreter


class _Parser(_BeamArgumentParser):
    """A parser of Beam's options; argparse itself would print its usage and exit."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"Expected options that Beam can read, found {message}.", "see --help.")


def check_options(arguments: Sequence[str], own: Iterable[str], hint: Hint | None = None) -> None:
    """Raises `UserError` on an argument that Beam does not know, or cannot read.

    Args:
        arguments: Arguments of the command line other than the command's own flags.
        own: Names of the command's own flags, one of which is suggested for a misspelt flag.
        hint: Function that suggests a replacement for an unknown flag.
    """
    parser = _Parser(add_help=False, allow_abbrev=False)
    for options in PipelineOptions.__subclasses__():
        with contextlib.suppress(argparse.ArgumentError):  # an option that two groups share
            options._add_argparse_args(parser)
    values, unknown = parser.parse_known_args(list(arguments))
    if unknown:
        name = unknown[0].lstrip("-").partition("=")[0]
        fix = hint(name, arguments) if hint else ""
        close_matches = difflib.get_close_matches(name, list(own), 1)
        raise UserError(
            f"Expected flags of this command or of Beam, found {unknown[0]!r}.",
            fix or (f"did you mean --{close_matches[0]}?" if close_matches else "see --help."),
        )
    if values.direct_num_workers < 0:
        raise UserError(
            f"--direct_num_workers: expected at least 0, found {values.direct_num_workers}."
        )


def require_reachable(beam_options: Sequence[str]) -> None:
    """Raises `UserError` if a remote runner does not answer, for which Beam would wait minutes.

    Args:
        beam_options: Options from the command line.

    Raises:
        UserError: Nothing listens at the runner's address.
    """
    options = PipelineOptions(list(beam_options))
    endpoint = options.view_as(PortableOptions).job_endpoint
    master = options.view_as(FlinkRunnerOptions).flink_master
    if endpoint and endpoint != "embed":
        flag, address = "--job_endpoint", endpoint
    elif options.view_as(StandardOptions).runner == "FlinkRunner" and master[:1] != "[":
        flag, address = "--flink_master", master
    else:
        return
    host, _, port = address.rpartition("://")[2].rstrip("/").rpartition(":")
    try:
        socket.create_connection((host, int(port)), _CONNECT_SECONDS).close()
    except (OSError, ValueError) as error:
        raise UserError(
            f"{flag}: expected a runner that answers at HOST:PORT, found {address}: "
            f"{one_line(str(error))}",
            "start it, or mend the address.",
        ) from None


def run_stage(
    title: str,
    construct: Callable[[beam.Pipeline], object],
    beam_options: Sequence[str],
    watch: AnyPath,
    total: int,
    parallelism: int = 1,
) -> float:
    """Runs a pipeline to its end and says how long it took.

    Without --runner the pipeline runs in this process on Beam's FnApiRunner. That is named
    explicitly: Beam's default would first look for a runner to download. It gets several threads
    if there is work for them: Arrow, NumPy and compression leave the interpreter's lock to others.

    Args:
        title: Title of the stage, for people.
        construct: Function that adds the transforms to the pipeline.
        beam_options: Options from the command line.
        watch: Directory to which workers add a file for each finished piece of work; the one above
            is the work directory of the build.
        total: Number of pieces of work.
        parallelism: Number of pieces that can be worked on at the same time.

    Returns:
        Seconds that the pipeline took.

    Raises:
        UserError: A worker found a mistake.
        StageError: The pipeline ended for another reason.
    """
    options = PipelineOptions(list(beam_options))
    direct = options.view_as(DirectOptions)
    runner = options.view_as(StandardOptions).runner
    if runner in (None, "DirectRunner"):
        runner = FnApiRunner()
        threads = min(parallelism, len(os.sched_getaffinity(0)), _MAX_THREADS)
        if threads > 1 and not any(option.startswith("--direct_") for option in beam_options):
            direct.direct_num_workers = threads
            direct.direct_running_mode = "multi_threading"
    uses_processes = isinstance(runner, FnApiRunner) and (
        direct.direct_running_mode == "multi_processing"
    )

    work = watch.parent

    def run() -> None:
        with _as_in_a_program(), beam.Pipeline(runner, options) as pipeline:
            construct(pipeline)

    start = time.perf_counter()
    watch.mkdir(parents=True, exist_ok=True)
    mistakes.forget(work)
    try:
        with _progress(title, watch, total), _quiet():
            if uses_processes:
                with search_path.inherited():
                    worker_errors.until_a_worker_dies(run)
            else:
                run()
    except Exception as error:
        if not logging.getLogger().isEnabledFor(logging.DEBUG):
            worker_errors.ignore_threads_of_beam()
        mistakes.check(work)
        raise worker_errors.explained(title, error) from error
    mistakes.check(work)
    seconds = time.perf_counter() - start
    tqdm.write(f"{title}: {seconds:.1f} s", file=sys.stderr)
    return seconds


def mark_done(watch: AnyPath, piece: str) -> None:
    """Adds a file that `run_stage` counts; harmless if repeated."""
    (watch / piece).touch()


@contextlib.contextmanager
def _progress(title: str, watch: AnyPath, total: int) -> Iterator[None]:
    """Shows a bar on a terminal that follows the number of files in a directory."""
    stop = threading.Event()
    # The bar has its own file, because `_quiet` redirects standard error.
    with (
        os.fdopen(os.dup(2), "w") as terminal,
        tqdm(total=total, desc=title, leave=False, disable=None, file=terminal) as bar,
    ):

        def follow() -> None:
            while not stop.wait(_POLL_SECONDS):
                bar.n = min(sum(1 for _ in watch.iterdir()), total)
                bar.refresh()

        thread = threading.Thread(target=follow, daemon=True)
        if not bar.disable:
            thread.start()
        try:
            yield
        finally:
            stop.set()
            if thread.is_alive():
                thread.join()


@contextlib.contextmanager
def _as_in_a_program() -> Iterator[None]:
    """Lets Beam treat a pipeline alike in a notebook and in a program.

    In a notebook it would load its interactive parts, which need pandas 2 and more packages, to
    name transforms after cells, and would leave the pipeline's temporary directory to them.
    """
    module = sys.modules[beam.Pipeline.__module__]
    before = {name: getattr(module, name) for name in _OF_NOTEBOOKS}
    vars(module).update(_OF_NOTEBOOKS)
    try:
        yield
    finally:
        vars(module).update(before)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silences what Beam prints about an error that is about to be raised, unless --debug is on.

    Beam's workers print stacks to standard error, also those in processes of their own.
    """
    logger = logging.getLogger()
    if logger.isEnabledFor(logging.DEBUG):
        yield
        return
    beam_logger = logging.getLogger("apache_beam")
    level = beam_logger.level
    logging.disable(logging.ERROR)
    beam_logger.setLevel(logging.CRITICAL)
    terminal = os.dup(2)
    try:
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere):
            os.dup2(nowhere.fileno(), 2)
            yield
    finally:
        os.dup2(terminal, 2)
        os.close(terminal)
        logging.disable(logging.NOTSET)
        beam_logger.setLevel(level)
