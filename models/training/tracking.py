"""A run in MLflow: `--tracking=mlflow:URI`. Once a training has begun, nothing here ends it.

The client is mlflow-skinny, an extra that only tracked runs need.
"""

import json
import logging
import math
import os
import pathlib
import re
import sys
import time
import urllib.parse
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from absl import flags
from tqdm import tqdm

from models.config import run_config
from models.config.run_config import RunConfig
from models.core import run_directory
from preprocessing.data_dir import DataDir
from preprocessing.errors import UserError, one_line
from preprocessing.json_checks import read_json
from preprocessing.storage import files

Tables = Mapping[str, Sequence[Mapping[str, Any]]]
"""Rows of tables, by the prefix that their columns have in MLflow."""

_SCHEME = "mlflow:"
_SQLITE = "sqlite:///"
_EXAMPLES = "for example --tracking=mlflow:http://localhost:5000 or mlflow:sqlite:///mlflow.db."
_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    # Unasked, MLflow waits four minutes for a server that is not there.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
}
_EXPERIMENT = "MLFLOW_EXPERIMENT_NAME"
_LONGEST = 500
_AT_ONCE = 100
_PAUSE = 60.0
_UNKNOWN_CHARACTER = re.compile(r"[^/\w.\- :]")


def define_flag() -> None:
    """Defines the flag --tracking."""
    flags.DEFINE_string(
        "tracking",
        None,
        "Log the run to MLflow as well: mlflow:URI, a server or a database such as "
        "sqlite:///mlflow.db.",
    )


class Tracker:
    """The MLflow run of a run directory; its id stands in tracking.json, for whoever goes on.

    Rows that MLflow does not take are sent with the next ones.

    Args:
        uri: URI of a server or of a database.
        workdir: Run directory.
        client: A `mlflow.MlflowClient` for the URI; None if there is none, so that nothing is sent.
        stored: Content of tracking.json for this URI, if the run has one.
    """

    def __init__(
        self, uri: str, workdir: pathlib.Path, client: Any, stored: Mapping[str, Any] | None = None
    ) -> None:
        self._uri, self._workdir, self._client = uri, workdir, client
        self._stored: dict[str, Any] = {"uri": uri, "run_id": None, "rows": {}, **(stored or {})}
        self._noted, self._silent_until = client is None, 0.0
        self._create: Callable[[], None] = lambda: None

    def begin(self, config: RunConfig, data: DataDir) -> None:
        """Begins the MLflow run, or goes on with it; its parameters stay those of its beginning.

        Args:
            config: Configuration of the run.
            data: Data set of the run.
        """
        from models.core import provenance

        path = self._workdir.resolve()
        tags = {
            "model": config.model_name,
            "ssl": config.ssl_name,
            "data fingerprint": data.fingerprint,
            "version": provenance.project_version(),
            "run directory": str(path),
        }
        settings = run_config.changed(config)

        def create() -> None:
            from mlflow.entities import Param

            params = [Param(_name(key), _text(value)) for key, value in settings.items()]
            run = self._client.create_run(
                _experiment(self._client), tags=tags, run_name="/".join(path.parts[-2:])
            )
            for start in range(0, len(params), _AT_ONCE):
                self._client.log_batch(run.info.run_id, params=params[start : start + _AT_ONCE])
            self._stored["run_id"] = run.info.run_id
            self._save()

        self._create = create
        self._send(lambda run_id: self._client.update_run(run_id, status="RUNNING"))

    def rows(self, tables: Tables) -> None:
        """Sends the rows of tables that were not sent yet.

        Args:
            tables: All rows of each table, each with its `step`, by the prefix of their names.
        """

        def work(run_id: str) -> None:
            for prefix, rows in tables.items():
                for number in range(self._stored["rows"].get(prefix, 0), len(rows)):
                    self._log(run_id, rows[number]["step"], rows[number], prefix)
                    self._stored["rows"][prefix] = number + 1
                    self._save()

        self._send(work)

    def result(
        self, step: int, metrics: Mapping[str, Mapping[str, float | None]], tables: Tables
    ) -> None:
        """Sends the metrics of the best weights, and the configuration as a file.

        Args:
            step: Step of these weights.
            metrics: Metrics by split; None where undefined.
            tables: As in `rows`, of which those that were not sent yet are sent as well.
        """
        self._silent_until = 0.0
        self.rows(tables)

        def work(run_id: str) -> None:
            for split, values in metrics.items():
                self._log(run_id, step, values, f"final/{split}/")
            self._client.log_artifact(run_id, str(self._workdir / run_directory.CONFIG))

        self._send(work)

    def attach(self, file: pathlib.Path) -> None:
        """Sends a file, if the run is one of MLflow's."""
        if self._stored["run_id"]:
            self._send(lambda run_id: self._client.log_artifact(run_id, str(file)))

    def end(self, status: str) -> None:
        """Ends the MLflow run, as FINISHED, FAILED or KILLED."""
        self._send(lambda run_id: self._client.set_terminated(run_id, status))

    def _send(self, work: Callable[[str], None]) -> None:
        """Calls MLflow; a failure is said once, and nothing is tried again within a minute."""
        if self._client is None or time.monotonic() < self._silent_until:
            return
        try:
            if not self._stored["run_id"]:
                self._create()
            work(self._stored["run_id"])
        except Exception as error:
            self._silent_until = time.monotonic() + _PAUSE
            if not self._noted:
                _note(self._uri, error)
            self._noted = True

    def _log(self, run_id: str, step: int, values: Mapping[str, Any], prefix: str) -> None:
        """Sends the numbers of a row."""
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        metrics = [
            Metric(_name(f"{prefix}{name}"), float(value), now, int(step))
            for name, value in values.items()
            if name != "step" and value is not None and math.isfinite(value)
        ]
        self._client.log_batch(run_id, metrics=metrics)

    def _save(self) -> None:
        content = json.dumps(self._stored, indent=2)
        files.write_bytes(self._workdir / run_directory.TRACKING, f"{content}\n".encode())


def check(text: str | None) -> None:
    """Raises `UserError` if MLflow cannot be reached by a value of --tracking; None is right."""
    if text is not None:
        _client(_parse(text), None)


def open_tracker(
    text: str | None, workdir: pathlib.Path, *, required: bool = True
) -> Tracker | None:
    """The tracker of a run; needs no TensorFlow.

    Args:
        text: Value of --tracking; without it a tracked run goes on where it is tracked, or, if
            MLflow cannot be reached, untracked.
        workdir: Run directory.
        required: Whether a run with a value must be tracked. Otherwise it goes on untracked, too.

    Returns:
        A tracker that has reached MLflow, or that sends nothing; None for a run that is not
        tracked.

    Raises:
        UserError: The value has another form, MLflow is not installed, does not answer, or lacks
            the run.
    """
    stored = _read(workdir)
    if text is None and stored is None:
        return None
    uri = stored["uri"] if text is None and stored is not None else _parse(text or "")
    if stored is not None and stored["uri"] != uri:
        stored = None  # All rows are sent to the other place.
    try:
        return Tracker(uri, workdir, _client(uri, stored), stored)
    except UserError as error:
        if text is not None and required:
            raise
        _note(uri, error)
        return Tracker(uri, workdir, None, stored)


def _read(workdir: pathlib.Path) -> dict[str, Any] | None:
    file = workdir / run_directory.TRACKING
    if not file.exists():
        return None
    return read_json(file, "the MLflow run of a run", "remove it, to begin another one.")


def _parse(text: str) -> str:
    """The URI in a value of --tracking."""
    uri = text.removeprefix(_SCHEME)
    if uri == text or not uri:
        raise UserError(f"Expected --tracking=mlflow:URI, found {text!r}.", _EXAMPLES)
    if urllib.parse.urlsplit(uri).password:
        raise UserError(
            "Expected --tracking without a password, which the run directory would hold, found "
            "one.",
            "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or track on a server.",
        )
    if uri.startswith(_SQLITE):
        # Whoever goes on may do so from another directory.
        return _SQLITE + str(pathlib.Path(uri.removeprefix(_SQLITE)).absolute())
    return uri


def _client(uri: str, stored: Mapping[str, Any] | None) -> Any:
    """A client that has reached its server or database, and the run if there is one."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        import mlflow
    except ImportError:
        raise UserError(
            "Expected the package mlflow with --tracking, found none.",
            "pip install 'sequence-ctr[mlflow]' (in a checkout: '.[mlflow]').",
        ) from None
    for logger in ("mlflow", "alembic", "urllib3"):
        logging.getLogger(logger).setLevel(logging.ERROR)
    try:
        client = mlflow.MlflowClient(tracking_uri=uri)
        _experiment(client)
    except Exception as error:
        raise UserError(
            f"Expected a server or database of MLflow at {uri}, found: {one_line(_cause(error))}",
            f"check that it is there; {_EXAMPLES}",
        ) from None
    if stored is not None and stored["run_id"]:
        try:
            is_there = client.get_run(stored["run_id"]).info.lifecycle_stage == "active"
        except mlflow.MlflowException:
            is_there = False
        if not is_there:
            raise UserError(
                f"Expected the MLflow run {stored['run_id']} at {uri}, found none.",
                "restore it there, or remove tracking.json from the run to begin another one.",
            )
    return client


def _experiment(client: Any) -> str:
    """The id of the experiment, which MLflow's own variable names; it is created if needed."""
    name = os.environ.get(_EXPERIMENT) or "Default"
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        try:
            return str(client.create_experiment(name))
        except Exception:
            experiment = client.get_experiment_by_name(name)
            if experiment is None:  # Otherwise another worker was faster.
                raise
    return str(experiment.experiment_id)


def _cause(error: BaseException) -> BaseException:
    """The fault of a network or file behind an exception, or the exception itself."""
    innermost = error
    while innermost.__cause__ or innermost.__context__:
        innermost = innermost.__cause__ or innermost.__context__ or innermost
    return innermost if isinstance(innermost, OSError) else error


def _note(uri: str, error: Exception) -> None:
    words = str(error) if isinstance(error, UserError) else one_line(_cause(error))
    tqdm.write(
        f"note: MLflow at {uri} fails; the training goes on, and what is missing is sent when it "
        f"answers, or with --resume: {words}",
        file=sys.stderr,
    )


def _name(name: str) -> str:
    """A name as MLflow allows it."""
    return _UNKNOWN_CHARACTER.sub("-", name)


def _text(value: Any) -> str:
    """A setting as a parameter of MLflow."""
    return (value if isinstance(value, str) else json.dumps(value))[:_LONGEST]
