"""Orderly end of a run on SIGTERM, which clusters send before they reclaim a machine."""

import contextlib
import signal
import threading
from collections.abc import Iterator


class Interrupted(SystemExit):
    """The run was asked to stop and can be resumed; the process ends with status 0.

    Args:
        message: Message on where the run stopped and how to resume it.
    """

    def __init__(self, message: str) -> None:
        super().__init__(0)
        self.message = message


class StopRequest:
    """Whether the process was asked to stop."""

    def __init__(self) -> None:
        self._asked = False

    def ask(self) -> None:
        """Asks the process to stop."""
        self._asked = True

    def __bool__(self) -> bool:
        return self._asked


@contextlib.contextmanager
def on_sigterm() -> Iterator[StopRequest]:
    """Turns SIGTERM into a request that the run checks between steps.

    Python handles signals in the main thread only; in other threads nothing changes.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    previous_handler = signal.signal(signal.SIGTERM, lambda *_: request.ask())
    try:
        yield request
    finally:
        signal.signal(signal.SIGTERM, previous_handler)
