"""The versions of one model: found on disk by polling, loaded, swapped and dropped.

The policy is "latest": the highest version on disk is served. A new version is loaded and warmed
before the old one is dropped, so there is always one to answer with; requests that are running keep
the version they hold. A version that cannot be loaded ends with its error while the old one stays.
"""

import dataclasses
import gc
import logging
import pathlib
import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from preprocessing.errors import UserError
from serving.status import Code, ServingError

_LOG = logging.getLogger(__name__)
_MAX_VERSION = 2**63 - 1

T = TypeVar("T")


@dataclasses.dataclass
class VersionStatus:
    """Where a version is in its life: START, LOADING, AVAILABLE, UNLOADING or END."""

    state: str = "START"
    code: Code = Code.OK
    message: str = ""
    failures: int = 0
    retry_at: float = 0.0


class ModelStore(Generic[T]):
    """The loaded versions of one model. Safe to read from any thread.

    Args:
        name: Name of the model.
        base_path: The directory whose numeric children are versions.
        load: Turns the directory of a version into what is served; whatever it raises ends the
            version.
        max_num_load_retries: How often a failed load is tried again.
        load_retry_interval_seconds: Time between two attempts.
    """

    def __init__(
        self,
        name: str,
        base_path: str | pathlib.Path,
        load: Callable[[pathlib.Path], T],
        *,
        max_num_load_retries: int = 5,
        load_retry_interval_seconds: float = 60.0,
    ) -> None:
        self.name = name
        self._base_path = pathlib.Path(base_path)
        self._load = load
        self._max_attempts = 1 + max_num_load_retries
        self._retry_interval = load_retry_interval_seconds
        self._lock = threading.Lock()
        self._loaded: dict[int, T] = {}
        self._statuses: dict[int, VersionStatus] = {}
        self._complaint = ""
        self._stopped = threading.Event()
        self._poller: threading.Thread | None = None

    def get(self, name: str, version: int | None = None) -> tuple[int, T]:
        """The version asked for, or the latest one that is available.

        Raises:
            ServingError: NOT_FOUND.
        """
        with self._lock:
            if name == self.name and self._loaded:
                wanted = max(self._loaded) if version is None else version
                if wanted in self._loaded:
                    return wanted, self._loaded[wanted]
        spec = f"Latest({name})" if version is None else f"Specific({name}, {version})"
        raise ServingError(Code.NOT_FOUND, f"Servable not found for request: {spec}")

    def statuses(self, name: str, version: int | None = None) -> list[tuple[int, str, str, str]]:
        """Version, state, error code and error message of every version seen, newest first.

        Raises:
            ServingError: NOT_FOUND if there is none.
        """
        with self._lock:
            found = [
                (number, status.state, status.code.name, status.message)
                for number, status in sorted(self._statuses.items(), reverse=True)
                if name == self.name and version in (None, number)
            ]
        if found:
            return found
        if version is None:
            raise ServingError(Code.NOT_FOUND, f"Could not find any versions of model {name}")
        raise ServingError(Code.NOT_FOUND, f"Could not find version {version} of model {name}")

    def poll(self) -> None:
        """Looks at the base path once and does what its versions call for."""
        try:
            directories = self._versions_on_disk()
        except OSError as error:
            self._complain(
                f"Could not find base path {self._base_path} for servable {self.name} "
                f"with error {error}"
            )
            return
        if not directories:
            self._complain(
                f"No versions of servable {self.name} found under base path {self._base_path}. "
                "Did you forget to name your leaf directory as a number (eg. '/1/')?"
            )
        wanted = max(directories, default=None)
        if wanted is not None and wanted not in self._loaded:
            self._try_to_load(wanted, directories[wanted])
        if wanted is None or wanted in self._loaded:
            for version in sorted(self._loaded.keys() - {wanted}):
                self._unload(version)

    def wait_until_available(self, poll_wait_seconds: float) -> int:
        """Polls until a version is available and returns its number (0 seconds count as 1).

        Raises:
            UserError: The first version cannot be loaded, after all retries.
        """
        while not self._stopped.is_set():
            self.poll()
            with self._lock:
                if self._loaded:
                    return max(self._loaded)
                failed = {
                    version: status.message
                    for version, status in self._statuses.items()
                    if status.failures >= self._max_attempts
                }
            if failed:
                causes = ", ".join(
                    f"{{{self.name} version: {version}}} due to error: {message}"
                    for version, message in failed.items()
                )
                raise UserError(
                    "Failed to start server. Error: 1 model(s) did not become available: "
                    f"{{{causes}}}.",
                    f"export the model anew, or remove the version from {self._base_path}.",
                )
            self._stopped.wait(poll_wait_seconds or 1.0)
        raise RuntimeError("The store was stopped before a version became available.")

    def start_polling(self, poll_wait_seconds: float) -> None:
        """Polls in a background thread until `stop`."""

        def keep_polling() -> None:
            while not self._stopped.wait(poll_wait_seconds):
                try:
                    self.poll()
                except Exception:  # the server must outlive whatever happens to a directory
                    _LOG.exception("Polling %s failed", self._base_path)

        self._poller = threading.Thread(target=keep_polling, name="model-poller", daemon=True)
        self._poller.start()

    def stop(self) -> None:
        """Stops polling and drops every version."""
        self._stopped.set()
        if self._poller is not None:
            self._poller.join()
        for version in sorted(self._loaded):
            self._unload(version)

    def _versions_on_disk(self) -> dict[int, pathlib.Path]:
        found: dict[int, pathlib.Path] = {}
        for child in sorted(self._base_path.iterdir()):
            if not (child.name.isascii() and child.name.isdecimal() and child.is_dir()):
                continue
            version = int(child.name)
            if version > _MAX_VERSION:
                continue
            if version in found:
                self._complain(f"{found[version]} and {child} are one version; using the latter.")
            found[version] = child
        with self._lock:
            # A version that left the disk and comes back starts over.
            for version in self._statuses.keys() - found.keys():
                self._statuses[version].failures = 0
        return found

    def _try_to_load(self, version: int, path: pathlib.Path) -> None:
        with self._lock:
            status = self._statuses.setdefault(version, VersionStatus())
        if status.failures >= self._max_attempts or (
            status.failures and time.monotonic() < status.retry_at
        ):
            return
        self._set(version, "LOADING")
        try:
            loaded = self._load(path)
        except Exception as error:  # a broken version must not take the server down
            status.failures += 1
            status.retry_at = time.monotonic() + self._retry_interval
            code, message = _describe(error)
            _LOG.warning("Loading %s failed: %s", path, message)
            self._set(version, "END", code, message)
            return
        status.failures = 0
        with self._lock:
            self._loaded[version] = loaded
        self._set(version, "AVAILABLE")
        self._complaint = ""
        _LOG.info("Serving version %d of %s", version, self.name)

    def _unload(self, version: int) -> None:
        self._set(version, "UNLOADING")
        with self._lock:
            self._loaded.pop(version)
        # A loaded SavedModel is full of reference cycles, and holds the weights until they go.
        gc.collect()
        self._set(version, "END")

    def _set(self, version: int, state: str, code: Code = Code.OK, message: str = "") -> None:
        with self._lock:
            status = self._statuses[version]
            status.state, status.code, status.message = state, code, message

    def _complain(self, message: str) -> None:
        """Logs a warning once, not at every poll."""
        if message != self._complaint:
            _LOG.warning(message)
        self._complaint = message


def _describe(error: Exception) -> tuple[Code, str]:
    if isinstance(error, ServingError):
        return error.code, error.message
    code = getattr(error, "error_code", None)  # of a TensorFlow error
    if isinstance(code, int):
        return Code(code), getattr(error, "message", "") or str(error)
    if isinstance(error, FileNotFoundError):
        return Code.NOT_FOUND, str(error)
    return Code.UNKNOWN, f"{type(error).__name__}: {error}"
