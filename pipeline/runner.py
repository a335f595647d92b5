"""Runs one Beam pipeline: chooses the runner, shows progress, and turns workers' errors around."""

import argparse
import contextlib
import difflib
import logging
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence

from apache_beam.options.pipeline_options import (
    DirectOptions,
    PipelineOptions,
    StandardOptions,
    _BeamArgumentParser,
)
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from tqdm import tqdm

from pipeline.beam import beam
from preprocessing.errors import UserError
from preprocessing.files import AnyPath

_POLL_SECONDS = 0.25
_MAX_THREADS = 4  # each holds a partition; more of them would mostly wait for the interpreter
_USER_ERROR = re.compile(rf"^{UserError.__module__}\.{UserError.__name__}: (.*)$", re.MULTILINE)
_WHERE = re.compile(r" \[while running '.*$")


def check_options(arguments: Sequence[str], own: Iterable[str]) -> None:
    """Raises `UserError` on an argument that Beam does not know.

    Args:
        arguments: What the command line holds beside the flags of the command.
        own: Names of those flags, to suggest one for a misspelt flag.
    """
    parser = _BeamArgumentParser(add_help=False, allow_abbrev=False)
    for options in PipelineOptions.__subclasses__():
        with contextlib.suppress(argparse.ArgumentError):  # an option that two groups share
            options._add_argparse_args(parser)
    _, unknown = parser.parse_known_args(list(arguments))
    if unknown:
        name = unknown[0].lstrip("-").partition("=")[0]
        close = difflib.get_close_matches(name, list(own), 1)
        raise UserError(
            f"Expected flags of this command or of Beam, found {unknown[0]!r}.",
            f"did you mean --{close[0]}?" if close else "see --help.",
        )


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
        title: Of the stage, for people.
        construct: Adds the transforms.
        beam_options: Options from the command line.
        watch: Directory to which workers add a file for each finished piece of work.
        total: How many pieces there are.
        parallelism: How much can be done at the same time.

    Returns:
        Seconds.

    Raises:
        UserError: A worker raised it.
    """
    options = PipelineOptions(list(beam_options))
    runner = options.view_as(StandardOptions).runner
    if runner in (None, "DirectRunner"):
        runner = FnApiRunner()
        threads = min(parallelism, len(os.sched_getaffinity(0)), _MAX_THREADS)
        if threads > 1 and not any(option.startswith("--direct_") for option in beam_options):
            direct = options.view_as(DirectOptions)
            direct.direct_num_workers = threads
            direct.direct_running_mode = "multi_threading"
    start = time.perf_counter()
    watch.mkdir(parents=True, exist_ok=True)
    try:
        with _progress(title, watch, total), _quiet(), beam.Pipeline(runner, options) as pipeline:
            construct(pipeline)
    except Exception as error:
        # Other processes send their errors as text; Beam adds where in the pipeline they arose.
        messages = [str(error)] if isinstance(error, UserError) else _USER_ERROR.findall(str(error))
        if not messages:
            raise
        raise UserError(_WHERE.sub("", messages[-1])) from error
    seconds = time.perf_counter() - start
    tqdm.write(f"{title}: {seconds:.1f} s", file=sys.stderr)
    return seconds


def mark_done(watch: AnyPath, piece: str) -> None:
    """Adds a file that `run_stage` counts; harmless if repeated."""
    (watch / piece).touch()


@contextlib.contextmanager
def _progress(title: str, watch: AnyPath, total: int) -> Iterator[None]:
    """A bar on a terminal that follows the number of files in a directory."""
    stop = threading.Event()
    with tqdm(total=total, desc=title, leave=False, disable=None) as bar:

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
def _quiet() -> Iterator[None]:
    """Silences Beam's log of an error that is about to be raised, unless --debug asks for all."""
    logger = logging.getLogger()
    if logger.isEnabledFor(logging.DEBUG):
        yield
        return
    beam_logger = logging.getLogger("apache_beam")
    level = beam_logger.level
    logging.disable(logging.ERROR)
    beam_logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
        beam_logger.setLevel(level)
