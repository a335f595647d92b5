"""Orderly end of a run on Ctrl-C, and on SIGTERM, which clusters send to reclaim a machine."""

import contextlib
import pathlib
import shlex
import signal
import threading
from collections.abc import Iterator
from typing import Any

from preprocessing import cli

_NAMES = {signal.SIGTERM: "SIGTERM", signal.SIGINT: "Ctrl-C"}


class Interrupted(SystemExit):
    """The run was asked to stop and can be resumed.

    The process ends with status 0 after SIGTERM, which is no failure, and with 130 after Ctrl-C.

    Args:
        message: Message on where the run stopped and how to resume it.
        number: Signal that asked for it.
    """

    def __init__(self, message: str, number: int = signal.SIGTERM) -> None:
        super().__init__(cli.STOPPED if number == signal.SIGINT else 0)
        self.message = message


class StopRequest:
    """Whether the process was asked to stop.

    Attributes:
        number: Signal that asked for it.
    """

    def __init__(self) -> None:
        self._asked = False
        self.number: int = signal.SIGTERM

    def ask(self, number: int) -> None:
        """Asks the process to stop."""
        self._asked, self.number = True, number

    def __bool__(self) -> bool:
        return self._asked


def interrupted(number: int, workdir: pathlib.Path, step: int | None = None) -> Interrupted:
    """The end of a run in a run directory, with the command that resumes it.

    Args:
        number: Signal that asked for it.
        workdir: Run directory.
        step: Last step; None if the run goes on from its last checkpoint.
    """
    where = "" if step is None else f" at step {step}"
    return Interrupted(
        cli.as_started(
            f"stopped by {_NAMES[signal.Signals(number)]}{where}; resume with "
            f"python -m models.train --workdir={shlex.quote(str(workdir))} --resume"
        ),
        number,
    )


@contextlib.contextmanager
def on_stop_signals() -> Iterator[StopRequest]:
    """Turns SIGTERM and Ctrl-C into a request that the run checks between steps.

    A second Ctrl-C stops at once, with a `KeyboardInterrupt`. Python handles signals in the main
    thread only; in other threads nothing changes.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return

    def ask(number: int, frame: Any) -> None:
        if request and number == signal.SIGINT:
            signal.default_int_handler(number, frame)
        request.ask(number)

    previous_handlers = {number: signal.getsignal(number) for number in _NAMES}
    for number, handler in previous_handlers.items():
        # Shells let processes in the background ignore Ctrl-C, which is meant for others then.
        if handler is not signal.SIG_IGN:
            signal.signal(number, ask)
    try:
        yield request
    finally:
        for number, handler in previous_handlers.items():
            signal.signal(number, handler)
