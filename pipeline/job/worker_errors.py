"""Why a Beam pipeline ended early: the cause on one line, taken from the runner's error."""

import contextlib
import os
import pathlib
import re
import signal
import threading
import traceback
from collections.abc import Callable, Iterator

from preprocessing.errors import UserError, one_line
from preprocessing.storage.files import AnyPath

_POLL_SECONDS = 0.25
_USER_ERROR = re.compile(rf"^{UserError.__module__}\.{UserError.__name__}: (.*)$", re.MULTILINE)
_WHERE = re.compile(r"\s*\[while running '[^']*'\]")
_PYTHON_ERROR = re.compile(r"^(?!java|org\.)[\w.]*(Error|Exception)\b.*", re.MULTILINE)
_END_OF_ERROR = re.compile(r"\n\s*\n|\n\s+at |\nTraceback")
_WRAPPED = re.compile(r"^RuntimeError: (?=[\w.]*(Error|Exception)\b)")
_EXIT = re.compile(r"Worker subprocess exited with return code (-?\d+)")
_LOST = re.compile(
    r"client cancelled|recipient is unreachable|no longer reachable|remote task manager|"
    r"heartbeat of TaskManager"
)
_NO_SLOTS = "NoResourceAvailableException"
_WORKER_THREAD, _WORKER_MODULE = "run_worker", b"apache_beam.runners.worker.sdk_worker_main"


class StageError(Exception):
    """A pipeline that ended early.

    Args:
        title: Title of the stage.
        cause: Cause of the end on one line, with a full stop.
        fix: Advice on what may help.
    """

    def __init__(self, title: str, cause: str, fix: str) -> None:
        super().__init__(f"{title}: {cause}")
        self.title, self.cause, self.fix = title, cause, fix


def explained(title: str, error: Exception) -> Exception:
    """The `UserError` that a worker raised, or else a `StageError`.

    Args:
        title: Title of the stage.
        error: Error that the runner raised. Other processes send their errors as text; Beam adds
            where in the pipeline they arose.
    """
    text = str(error)
    messages = [text] if isinstance(error, UserError) else _USER_ERROR.findall(text)
    if messages:
        return UserError(_WHERE.sub("", messages[-1]))
    exit_match = _EXIT.search(text)
    if exit_match:
        return StageError(
            title,
            f"a worker process was ended by {_end(int(exit_match[1]))}.",
            "give it more memory, or take fewer workers (--direct_num_workers)",
        )
    if type(error).__name__ == "FutureTimeoutError":
        return StageError(
            title,
            "the runner cannot be reached.",
            "check that it is running, and its address (--job_endpoint, --flink_master)",
        )
    python_errors = list(_PYTHON_ERROR.finditer(text)) if "Traceback" in text else []
    if python_errors:
        text = _END_OF_ERROR.split(text[python_errors[-1].start() :])[0]
        cause = one_line(_WRAPPED.sub("", _WHERE.sub("", text)))
    else:
        cause = one_line(error)
    if _NO_SLOTS in text:
        return StageError(
            title,
            f"no free slots in the cluster: {cause}",
            "add task managers, or lower --parallelism",
        )
    if _LOST.search(text):
        return StageError(
            title,
            f"a worker or its machine was lost: {cause}",
            "let the cluster start jobs again by itself (docs/running_on_clusters.md)",
        )
    return StageError(title, cause, "mend the cause (--debug shows where it arose)")


def _end(status: int) -> str:
    """The cause of the end of a process, by its own exit status or that of its shell."""
    number = -status if status < 0 else status - 128
    try:
        return f"the signal {signal.Signals(number).name}"
    except ValueError:
        return f"itself, with status {status}"


@contextlib.contextmanager
def explained_stage_errors(output: AnyPath) -> Iterator[None]:
    """Turns a `StageError` into a `UserError` that says what the build leaves behind.

    Args:
        output: The data directory that was to be written.
    """
    try:
        yield
    except StageError as error:
        raise UserError(
            f"Expected the workers of the stage {error.title!r} to finish, found: {error.cause} "
            f"{left(output)}",
            f"{error.fix}, then run the same command again.",
        ) from error


def left(output: AnyPath) -> str:
    """Sentence on what a failed build leaves behind."""
    return (
        f"{output} holds no data set now, only parts of one, with which --resume goes on "
        "(ctr-run does so by itself)."
    )


def ignore_threads_of_beam() -> None:
    """Silences Beam's threads from now on; after a failure they report its consequences."""
    previous_hook = threading.excepthook

    def on_error(raised: threading.ExceptHookArgs) -> None:
        frames = traceback.walk_tb(raised.exc_traceback)
        if not any(f.f_globals.get("__name__", "").startswith("apache_beam.") for f, _ in frames):
            previous_hook(raised)

    threading.excepthook = on_error


def until_a_worker_dies(run: Callable[[], None]) -> None:
    """Runs a pipeline whose workers are processes; Beam would wait for ever for one that died.

    Args:
        run: Function that runs the pipeline to its end.

    Raises:
        RuntimeError: A worker died; the other workers are killed.
    """
    errors: list[BaseException] = []

    def work() -> None:
        try:
            run()
        except BaseException as error:
            errors.append(error)

    previous_hook = threading.excepthook

    def on_error(raised: threading.ExceptHookArgs) -> None:
        if raised.thread and raised.thread.name == _WORKER_THREAD and raised.exc_value:
            errors.append(raised.exc_value)

    thread = threading.Thread(target=work, daemon=True)
    threading.excepthook = on_error
    try:
        thread.start()
        while thread.is_alive() and not errors:
            thread.join(_POLL_SECONDS)
        if thread.is_alive():
            _end_workers()
    finally:
        threading.excepthook = previous_hook
    if errors:
        raise errors[0]


def _end_workers() -> None:
    """Kills the worker processes of this process, which would wait for them at its end."""
    for directory in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parent = (directory / "stat").read_text().rpartition(")")[2].split()[1]
            if (
                int(parent) == os.getpid()
                and _WORKER_MODULE in (directory / "cmdline").read_bytes()
            ):
                os.kill(int(directory.name), signal.SIGKILL)
