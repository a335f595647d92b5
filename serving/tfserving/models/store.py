"""The models of a server: a config that may change, versions found on disk by polling, and labels.

Every poll looks at the base paths of all models, and loads and drops versions as their version
policies ask. A new config replaces the set of models: those left out are dropped. Labels are
assigned when every model that the config added has an available version, and only to versions that
are available.
"""

import functools
import logging
import pathlib
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, Generic, TypeVar

from preprocessing.errors import UserError
from serving.tfserving.models import model_config
from serving.tfserving.models.model_config import ServedModelConfig
from serving.tfserving.models.versions import ModelVersions
from serving.tfserving.status import Code, ServingError, invalid

_LOG = logging.getLogger(__name__)
_MAX_VERSION = 2**63 - 1

T = TypeVar("T")


class ModelStore(Generic[T]):
    """The loaded versions of all models. Safe to use from any thread.

    Args:
        load: Function that loads a version from its directory; a version for which it raises an
            error is not served.
        max_num_load_retries: Number of times that a failed load is tried again.
        load_retry_interval_seconds: Time between two attempts.
        allow_version_labels_for_unavailable_models: Whether a new label may name a version that is
            not loaded (yet). An existing label may never be moved to one.
    """

    def __init__(
        self,
        load: Callable[[pathlib.Path], T],
        *,
        max_num_load_retries: int = 5,
        load_retry_interval_seconds: float = 60.0,
        allow_version_labels_for_unavailable_models: bool = False,
    ) -> None:
        self._new_versions = functools.partial(
            ModelVersions[T],
            load=load,
            max_num_load_retries=max_num_load_retries,
            load_retry_interval_seconds=load_retry_interval_seconds,
        )
        self._allow_labels_early = allow_version_labels_for_unavailable_models
        self._changing = threading.Lock()  # held while versions are loaded and dropped
        self._reloading = threading.Lock()  # held from a new config until its labels are assigned
        # Replaced, never changed in place: readers take no lock.
        self._configs: dict[str, ServedModelConfig] = {}
        self._models: dict[str, ModelVersions[T]] = {}  # including models that a config left out
        self._labels: dict[str, dict[str, int]] | None = None
        self._complaints: dict[object, str] = {}
        self._stopped = threading.Event()
        self._wake = threading.Event()
        self._threads: list[threading.Thread] = []

    def get(self, name: str, version: int | None = None, label: str | None = None) -> tuple[int, T]:
        """The version asked for by number or label, or the latest one that is available.

        Raises:
            ServingError: NOT_FOUND if the version is not available, INVALID_ARGUMENT for an unknown
                label, UNAVAILABLE for a label before labels are assigned for the first time.
        """
        if label is not None:
            version = self._labelled(name, label)
        model = self._models.get(name)
        numbered_version = model.get(version) if model else None
        if numbered_version is None:
            spec = f"Latest({name})" if version is None else f"Specific({name}, {version})"
            raise ServingError(Code.NOT_FOUND, f"Servable not found for request: {spec}")
        return numbered_version

    def statuses(self, name: str, version: int | None = None) -> list[tuple[int, str, str, str]]:
        """Version, state, error code and error message of every version seen, newest first.

        Raises:
            ServingError: NOT_FOUND if no such version was seen.
        """
        model = self._models.get(name)
        matching = [
            status for status in (model.statuses() if model else ()) if version in (None, status[0])
        ]
        if matching:
            return matching
        if version is None:
            raise ServingError(Code.NOT_FOUND, f"Could not find any versions of model {name}")
        raise ServingError(Code.NOT_FOUND, f"Could not find version {version} of model {name}")

    def start(self, config: Any, poll_wait_seconds: float) -> None:
        """Applies the first `ModelServerConfig` and waits until its models are available.

        Args:
            config: `ModelServerConfig` message.
            poll_wait_seconds: Time between two polls of the base paths (0 seconds count as 1).

        Raises:
            UserError: The config is wrong, one of its models cannot be loaded after all retries, or
                one of its labels names a version that is not available.
        """
        try:
            self._reload(config, poll_wait_seconds or 1.0, deadline=None)
        except ServingError as error:
            raise UserError(
                f"Failed to start server. Error: {error.message}.",
                "correct the config, or export the model anew.",
            ) from error

    def reload(self, config: Any, timeout_seconds: float | None = None) -> None:
        """Replaces the set of models by that of a `ModelServerConfig` message.

        Returns when every new model has an available version and labels are assigned. The set is
        replaced even if an error is raised, unless it is one of a wrong config.

        Args:
            config: `ModelServerConfig` message; an empty one changes nothing.
            timeout_seconds: Longest time to wait for new models; None for no limit.

        Raises:
            ServingError: INVALID_ARGUMENT or UNIMPLEMENTED (wrong config), UNKNOWN (a new model
                cannot be loaded), FAILED_PRECONDITION (a label's version is not available),
                DEADLINE_EXCEEDED.
        """
        deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        self._reload(config, 0.1, deadline)
        self._wake.set()

    def poll(self) -> None:
        """Looks at every base path once, and loads and drops versions as the policies ask.

        If one of the paths cannot be read, no model is changed.
        """
        with self._changing:
            configs, directories = self._configs, {}
            for name, config in configs.items():
                try:
                    directories[name] = self._versions_on_disk(config)
                except OSError as error:
                    self._complain(
                        name,
                        f"Could not find base path {config.base_path} for servable {name} "
                        f"with error {error}",
                    )
                    return
            for name, model in self._models.items():
                if name in configs:
                    selected = configs[name].policy.select(directories[name])
                    model.update({version: directories[name][version] for version in selected})
                else:
                    model.update({})

    def start_polling(self, poll_wait_seconds: float) -> None:
        """Polls in a background thread until `stop`; with 0 seconds, only after a `reload`."""

        def poll() -> None:
            self._wake.wait(poll_wait_seconds or None)
            self._wake.clear()
            if not self._stopped.is_set():
                self.poll()

        self._in_background("model-poller", poll)

    def follow_config_file(self, path: str | pathlib.Path, poll_wait_seconds: float) -> None:
        """Reads a model config file again and again in a background thread until `stop`.

        A mistake in the file is logged, and the old set of models stays. There is no waiting for
        models: labels are assigned by the first read of the file at which their versions are
        available.
        """

        def look() -> None:
            if self._stopped.wait(poll_wait_seconds):
                return
            try:
                with self._reloading:
                    configs = self._apply(model_config.read(path))
                    self._wake.set()
                    self._assign_labels(configs)
            except (UserError, ServingError) as error:
                self._complain(path, f"Reloading {path} failed: {error}")
            else:
                self._complain(path, "")

        self._in_background("config-poller", look)

    def stop(self) -> None:
        """Stops polling and drops every version."""
        self._stopped.set()
        self._wake.set()
        for thread in self._threads:
            thread.join()
        with self._changing:
            for model in self._models.values():
                model.update({})

    def _labelled(self, name: str, label: str) -> int:
        labels = self._labels
        if labels is None:
            raise ServingError(Code.UNAVAILABLE, f"Model labels does not init yet.{label}")
        version = labels.get(name, {}).get(label)
        if version is None:
            raise invalid(f"Unrecognized servable version label: {label}")
        return version

    def _reload(self, config: Any, poll_wait_seconds: float, deadline: float | None) -> None:
        with self._reloading:
            old = self._configs
            new = self._apply(config)
            if new is not None:
                self._wait_for(new.keys() - old.keys(), poll_wait_seconds, deadline)
            self._assign_labels(new)

    def _apply(self, config: Any) -> dict[str, ServedModelConfig] | None:
        configs = model_config.models(config)
        if configs is not None:
            new = {name: self._new_versions(name) for name in configs.keys() - self._models.keys()}
            with self._changing:
                self._models = {**self._models, **new}
                self._configs = configs
        return configs

    def _wait_for(
        self, names: Iterable[str], poll_wait_seconds: float, deadline: float | None
    ) -> None:
        """Polls until each of the models has an available version."""
        waiting = sorted(names)
        while waiting:
            self.poll()
            waiting = [name for name in waiting if self._models[name].get() is None]
            failed = {name: self._models[name].failures() for name in waiting}
            causes = [
                f"{{{name} version: {version}}} due to error: {message}"
                for name, messages in failed.items()
                for version, message in sorted(messages.items())
            ]
            if causes:
                models = sum(map(bool, failed.values()))
                raise ServingError(
                    Code.UNKNOWN,
                    f"{models} model(s) did not become available: {{{', '.join(causes)}}}",
                )
            if waiting and deadline is not None and time.monotonic() >= deadline:
                raise ServingError(
                    Code.DEADLINE_EXCEEDED, f"Still waiting for versions of {', '.join(waiting)}"
                )
            if waiting and self._stopped.wait(poll_wait_seconds):
                raise ServingError(Code.CANCELLED, "The server is being stopped")

    def _assign_labels(self, configs: dict[str, ServedModelConfig] | None) -> None:
        if configs is None:
            return
        old = self._labels or {}
        for name, config in configs.items():
            for label, version in config.labels.items():
                assigned = old.get(name, {}).get(label)
                early = self._allow_labels_early and assigned in (None, version)
                if not early and self._models[name].get(version) is None:
                    raise ServingError(
                        Code.FAILED_PRECONDITION,
                        f"Request to assign label to version {version} of model {name}, which is "
                        "not currently available for inference",
                    )
        self._labels = {name: dict(config.labels) for name, config in configs.items()}

    def _versions_on_disk(self, config: ServedModelConfig) -> dict[int, pathlib.Path]:
        directories: dict[int, pathlib.Path] = {}
        complaint = ""
        for child in sorted(config.base_path.iterdir()):
            if not (child.name.isascii() and child.name.isdecimal() and child.is_dir()):
                continue
            version = int(child.name)
            if version > _MAX_VERSION:
                continue
            if version in directories:
                complaint = f"{directories[version]} and {child} are one version; using the latter."
            directories[version] = child
        if missing := config.policy.versions - directories.keys():
            complaint = (
                f"Version(s) {', '.join(map(str, sorted(missing)))} of servable {config.name} "
                f"were not found under base path {config.base_path}"
            )
        if not directories:
            complaint = (
                f"No versions of servable {config.name} found under base path {config.base_path}. "
                "Did you forget to name your leaf directory as a number (eg. '/1/')?"
            )
        self._complain(config.name, complaint)
        return directories

    def _complain(self, about: object, message: str) -> None:
        """Logs a warning once, not at every poll; an empty message resets this."""
        if message and message != self._complaints.get(about):
            _LOG.warning(message)
        self._complaints[about] = message

    def _in_background(self, name: str, step: Callable[[], None]) -> None:
        """Repeats a step in a thread until the store is stopped."""

        def repeat() -> None:
            while not self._stopped.is_set():
                try:
                    step()
                except Exception:  # no error of a directory may end the thread
                    _LOG.exception("The %s failed", name)

        thread = threading.Thread(target=repeat, name=name, daemon=True)
        thread.start()
        self._threads.append(thread)
