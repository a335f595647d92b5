"""Log of the processes that worked on a run: RUN/sessions.json, with an entry for each."""

import contextlib
import datetime
import functools
import json
import pathlib
import resource
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from models.core import provenance, run_directory
from models.training.memory import MemoryEstimate
from preprocessing.errors import explained_write_errors
from preprocessing.storage import files

_Method = TypeVar("_Method", bound=Callable[..., Any])


class Session:
    """Records the time of this process by phase, its memory, and its environment.

    Args:
        workdir: Run directory.
        writes: Whether this process writes files; exactly one of several processes does.
    """

    def __init__(self, workdir: pathlib.Path, writes: bool = True) -> None:
        self._file = workdir / run_directory.SESSIONS
        self._writes = writes
        self._phase, self._since = "preparation", time.monotonic()
        self._before = run_directory.read_sessions(workdir)
        self._seconds: dict[str, float] = {}
        self._entry: dict[str, Any] = {}
        if writes:
            now = datetime.datetime.now(datetime.timezone.utc)
            self._entry = {
                "command": provenance.command(),
                "started": now.isoformat(timespec="seconds"),
                "code": provenance.code(),
                "versions": provenance.versions(),
                "machine": provenance.machine(),
                "memory_before": _peak_memory(),
            }

    def expect(self, needed: MemoryEstimate) -> None:
        """Records the estimate of the memory that training needs beside `memory_before`."""
        self._entry["memory_estimate"] = needed._asdict() | {"total": needed.total}

    def computes_with(self, operations: str) -> None:
        """Records the line on compiled operations; "" for none."""
        if operations:
            self._entry["operations"] = operations

    def filled_with(self, lines: Sequence[str]) -> None:
        """Records the lines on tables that began with vectors from a file."""
        self._entry["pretrained"] = list(lines)

    def began_with(self, lines: Sequence[str]) -> None:
        """Records the lines on what a warm start took over."""
        self._entry["warm_start"] = list(lines)

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Counts the time inside the context towards a phase, and not towards the outer one."""
        outer = self._enter(name)
        try:
            yield
        finally:
            self._enter(outer)

    def _enter(self, phase: str) -> str:
        """Changes the phase; returns the previous one."""
        now = time.monotonic()
        self._seconds[self._phase] = self._seconds.get(self._phase, 0.0) + now - self._since
        outer, self._phase, self._since = self._phase, phase, now
        return outer

    def save(self, step: int) -> None:
        """Rewrites the entry of this process.

        Args:
            step: Number of steps done.

        Raises:
            UserError: The disk is full or write-protected.
        """
        if not self._writes:
            return
        self._enter(self._phase)
        seconds = {name: round(value, 3) for name, value in self._seconds.items()}
        self._entry |= {"last_step": step, "seconds": seconds, "memory_peak": _peak_memory()}
        content = json.dumps([*self._before, self._entry], indent=2)
        with explained_write_errors("--workdir", self._file):
            files.write_bytes(self._file, f"{content}\n".encode())


def phase(name: str) -> Callable[[_Method], _Method]:
    """Decorator that counts the time of a method towards a phase of `self.session`."""

    def decorate(method: _Method) -> _Method:
        @functools.wraps(method)
        def timed(self: Any, *arguments: Any, **options: Any) -> Any:
            with self.session.phase(name):
                return method(self, *arguments, **options)

        return timed  # type: ignore[return-value]

    return decorate


def _peak_memory() -> int:
    """Peak resident memory of this process in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
