"""A user's mistake that a worker finds: told to the driver through a file, which ends the job.

A runner cannot tell a mistake in the log from a machine that broke: it would try again and again,
and then report a stack. The driver does not wait for that. It cancels the pipeline once the file is
there, whatever the runner's own rules for another attempt are.
"""

import contextlib
import threading
from collections.abc import Iterator
from typing import Protocol

from preprocessing.errors import UserError
from preprocessing.storage import files
from preprocessing.storage.files import AnyPath

_FILE = "mistake.txt"
_POLL_SECONDS = 1.0


class Cancellable(Protocol):
    """What `ends_job` needs of a pipeline's result."""

    def cancel(self) -> object:
        """Ends the pipeline."""


def report(work: AnyPath, error: UserError) -> None:
    """Tells the driver, unless another attempt may help.

    Args:
        work: Work directory of the build.
        error: The mistake, which the worker raises as well.
    """
    if _may_pass(error):
        return
    with contextlib.suppress(OSError):  # the mistake itself is raised, which takes longer
        files.write_bytes(work / _FILE, str(error).encode())


def _may_pass(error: UserError) -> bool:
    """Whether a file system or an object store caused the error; damaged content has no number."""
    cause = error.__cause__
    return isinstance(cause, OSError) and (cause.errno is not None or "://" in str(error))


def reported(work: AnyPath) -> UserError | None:
    """The mistake that a worker reported, if one did; of several the last one."""
    try:
        return UserError((work / _FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None


def forget(work: AnyPath) -> None:
    """Removes what an attempt that was cut off has reported."""
    (work / _FILE).unlink(missing_ok=True)


@contextlib.contextmanager
def ends_job(result: Cancellable, work: AnyPath) -> Iterator[None]:
    """Within it a reported mistake cancels the pipeline.

    Args:
        result: The pipeline, which runs.
        work: Work directory of the build.
    """
    stop = threading.Event()

    def follow() -> None:
        while not stop.wait(_POLL_SECONDS):
            if (work / _FILE).exists():
                with contextlib.suppress(Exception):  # it has ended by itself
                    result.cancel()
                return

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
