"""The versions of one model: loading, swapping, retries and removal.

A new version is loaded and warmed up before an old one is dropped, so that one is always available;
running requests keep their version. A version that cannot be loaded ends with its error, and the
others stay.
"""

import dataclasses
import gc
import logging
import pathlib
import threading
import time
from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

from serving.tfserving.status import Code, ServingError

_LOG = logging.getLogger(__name__)

T = TypeVar("T")


@dataclasses.dataclass
class _Status:
    """Status of a version: its state (START, LOADING, AVAILABLE, UNLOADING or END) and error."""

    state: str = "START"
    code: Code = Code.OK
    message: str = ""
    failures: int = 0
    retry_at: float = 0.0


class ModelVersions(Generic[T]):
    """The versions of a model. Safe to read from any thread; one thread at a time may `update`.

    Args:
        name: Name of the model.
        load: Function that loads a version from its directory; a version for which it raises an
            error is not served.
        max_num_load_retries: Number of times that a failed load is tried again.
        load_retry_interval_seconds: Time between two attempts.
    """

    def __init__(
        self,
        name: str,
        load: Callable[[pathlib.Path], T],
        max_num_load_retries: int,
        load_retry_interval_seconds: float,
    ) -> None:
        self.name = name
        self._load = load
        self._max_attempts = 1 + max_num_load_retries
        self._retry_interval = load_retry_interval_seconds
        self._lock = threading.Lock()
        self._loaded: dict[int, T] = {}
        self._statuses: dict[int, _Status] = {}

    def get(self, version: int | None = None) -> tuple[int, T] | None:
        """The version asked for or the latest one, if it is available."""
        with self._lock:
            number = max(self._loaded, default=None) if version is None else version
            if number is None or number not in self._loaded:
                return None
            return number, self._loaded[number]

    def statuses(self) -> list[tuple[int, str, str, str]]:
        """Version, state, error code and error message of every version seen, newest first."""
        with self._lock:
            return [
                (version, status.state, status.code.name, status.message)
                for version, status in sorted(self._statuses.items(), reverse=True)
            ]

    def failures(self) -> dict[int, str]:
        """The error message of every version that ended after all retries."""
        with self._lock:
            return {
                version: status.message
                for version, status in self._statuses.items()
                if status.failures >= self._max_attempts
            }

    def update(self, wanted: Mapping[int, pathlib.Path]) -> None:
        """Loads the wanted versions, then drops the others if a wanted one is available.

        Args:
            wanted: Directory of each wanted version by number. The failures of versions that are
                not among them are forgotten.
        """
        with self._lock:
            for version in self._statuses.keys() - wanted.keys():
                self._statuses[version].failures = 0
            missing = sorted(wanted.keys() - self._loaded.keys())
        for version in missing:
            self._try_to_load(version, wanted[version])
        if not wanted or self._loaded.keys() & wanted.keys():
            for version in sorted(self._loaded.keys() - wanted.keys()):
                self._unload(version)

    def _try_to_load(self, version: int, path: pathlib.Path) -> None:
        with self._lock:
            status = self._statuses.setdefault(version, _Status())
        if status.failures >= self._max_attempts or (
            status.failures and time.monotonic() < status.retry_at
        ):
            return
        self._set(version, "LOADING")
        try:
            loaded = self._load(path)
        except Exception as error:  # a broken version must not take the server down
            code, message = _describe(error)
            _LOG.warning("Loading %s failed: %s", path, message)
            self._set(version, "END", code, message)
            with self._lock:
                status.failures += 1
                status.retry_at = time.monotonic() + self._retry_interval
            return
        with self._lock:
            status.failures = 0
            self._loaded[version] = loaded
        self._set(version, "AVAILABLE")
        _LOG.info("Serving version %d of %s", version, self.name)

    def _unload(self, version: int) -> None:
        self._set(version, "UNLOADING")
        with self._lock:
            self._loaded.pop(version)
        # A loaded SavedModel has reference cycles, which hold the weights until they are collected.
        gc.collect()
        self._set(version, "END")

    def _set(self, version: int, state: str, code: Code = Code.OK, message: str = "") -> None:
        with self._lock:
            status = self._statuses[version]
            status.state, status.code, status.message = state, code, message


def _describe(error: Exception) -> tuple[Code, str]:
    if isinstance(error, ServingError):
        return error.code, error.message
    code = getattr(error, "error_code", None)  # of a TensorFlow error
    if isinstance(code, int):
        return Code(code), getattr(error, "message", "") or str(error)
    if isinstance(error, FileNotFoundError):
        return Code.NOT_FOUND, str(error)
    return Code.UNKNOWN, f"{type(error).__name__}: {error}"
