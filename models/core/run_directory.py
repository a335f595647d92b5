"""A run directory: the output of training, and the input of all later commands.

RUN/  config.json  origins.json  schema.json  metrics.json  metrics.csv  pretraining.csv
      sessions.json  data.sha256  checkpoints/  best/  events.*  overview/  diverged.txt
      calibration.json  days.csv  tracking.json  scoring/ (while several workers train)
"""

import json
import pathlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from models.config import run_config as config_module
from models.config.run_config import RunConfig
from preprocessing.data_dir import DataDir, sha256_file
from preprocessing.errors import UserError, explained_write_errors, one_line
from preprocessing.json_checks import read_json
from preprocessing.schema import Schema
from preprocessing.storage import files

if TYPE_CHECKING:
    from models.core.base import CTRModel
    from models.keras import tf

CONFIG, SCHEMA, METRICS, HISTORY = "config.json", "schema.json", "metrics.json", "metrics.csv"
PRETRAINING, ORIGINS, SESSIONS = "pretraining.csv", "origins.json", "sessions.json"
DAYS = "days.csv"
SCORING = "scoring"
"""Directory of the scores of several processes on their way to the first of them."""
TRACKING = "tracking.json"
"""File with the id of the run in MLflow."""
CHECKPOINTS, BEST, FINGERPRINT = "checkpoints", "best", "data.sha256"
_SPREAD = "spread_tables/.ATTRIBUTES/VARIABLE_VALUE"
"""Tensor of the best weights that is there if rows are in the order of `core.spread_tables`."""
DIVERGED = "diverged.txt"
"""File with the reason why a run ended whose numbers are no longer finite."""


def begin(
    path: pathlib.Path,
    config: RunConfig,
    data: DataDir,
    origins: Mapping[str, str] | None = None,
) -> None:
    """Writes the files of a run directory that exist before the first training step.

    Args:
        path: Run directory.
        config: Configuration of the run.
        data: Data set of the run.
        origins: Origin of each value of the configuration, if known.

    Raises:
        UserError: The disk is full or write-protected.
    """
    path.mkdir(parents=True, exist_ok=True)
    with explained_write_errors("--workdir", path):
        data.schema.save(path / SCHEMA)
        files.write_bytes(path / FINGERPRINT, data.fingerprint.encode())
        if origins is not None:
            files.write_bytes(path / ORIGINS, f"{json.dumps(origins, indent=2)}\n".encode())
        config.save(path / CONFIG)  # Last: a directory that has it holds a run.


class Run(NamedTuple):
    """A finished or unfinished run and the data set it was trained on."""

    path: pathlib.Path
    config: RunConfig
    data: DataDir

    @property
    def metrics(self) -> dict[str, dict[str, float | None]]:
        """Metrics by split; None where undefined."""
        return read_metrics(self.path)


def require_run(path: str | pathlib.Path) -> pathlib.Path:
    """The path of a run; raises `UserError` if there is none. Needs no TensorFlow."""
    path = pathlib.Path(path)
    if not (path / CONFIG).exists():
        raise UserError(
            f"Expected a run directory with {CONFIG}, found none at {path}.",
            "give the --workdir of ctr-train, or WORKDIR/run of ctr-run.",
        )
    return path


def open_run(path: str | pathlib.Path, verify: bool = False) -> Run:
    """Opens a run and its data set.

    Args:
        path: Run directory.
        verify: Whether to check the hashes of all shards of the data set.

    Raises:
        UserError: There is no run, or its data set is gone or has another schema.
    """
    path = require_run(path)
    config = config_module.resolve(config_module.load(path / CONFIG))
    data = DataDir.open(config.data, verify=verify)
    Schema.load(path / SCHEMA).require_equal(data.schema, f"{path / SCHEMA}", f"{data.path}")
    if data_fingerprint(path) != data.fingerprint:
        # The ids of another build stand for other values, so the embeddings would not match them.
        raise UserError(
            f"Expected the data set that {path} was trained on in {data.path}, found another "
            "build of it.",
            "train anew, or build the data set with the arguments it had.",
        )
    return Run(path, config, data)


def load_model(path: str | pathlib.Path) -> "CTRModel":
    """The model of a run with its best weights.

    Raises:
        UserError: There is no run, or it has no weights yet.

    Example:
        >>> from preprocessing import dataset
        >>> run = open_run("work/run")  # from pipeline.run --workdir=work
        >>> batch = next(iter(dataset.read(run.data, "test", batch_size=256, shuffle_seed=None)))
        >>> model = load_model(run.path)
        >>> model(batch).shape == batch["label"].shape  # Logits [B, N].
        True
    """
    from models.core.factory import build_model

    run = open_run(path)
    model = build_model(run.config, run.data)
    restore_best(model, run.path)
    return model


def best_checkpoint(model: "CTRModel", path: pathlib.Path) -> "tf.train.CheckpointManager":
    """Checkpoint manager of the best weights: embedder and backbone, which serving needs.

    Raises:
        UserError: The file that names the best weights is damaged.
    """
    from models.keras import tf

    checkpoint = tf.train.Checkpoint(embedder=model.embedder, backbone=model.backbone)
    if model.embedder.spreads:
        checkpoint.spread_tables = tf.Variable(1, trainable=False)
    try:
        return tf.train.CheckpointManager(checkpoint, str(path / BEST), max_to_keep=1)
    except ValueError:
        raise UserError(
            f"Expected the name of the best weights in {path / BEST / 'checkpoint'}, found it "
            "damaged.",
            "restore the file from a copy, or train anew.",
        ) from None


def save_best(best: "tf.train.CheckpointManager") -> None:
    """Writes the best weights, then removes the previous ones.

    metrics.json describes the previous weights, so it is removed first.

    Raises:
        UserError: The weights cannot be written; the previous ones are unchanged.
    """
    from models.keras import tf

    try:
        (pathlib.Path(best.directory).parent / METRICS).unlink(missing_ok=True)
        best.save()
    except (tf.errors.OpError, OSError) as error:
        raise UserError(
            f"Expected to write the best weights to {best.directory}, found: {error}.",
            "free space there, then go on with --resume.",
        ) from error


def restore_best(model: "CTRModel", path: pathlib.Path) -> None:
    """Loads the best weights of a run into a model.

    Raises:
        UserError: The run has no weights yet, or they are damaged or belong to another model.
    """
    from models.core import spread_tables
    from models.core.checkpoints import DAMAGES
    from models.keras import tf

    manager = best_checkpoint(model, path)
    if manager.latest_checkpoint is None:
        raise UserError(
            f"Expected trained weights in {path / BEST}, found none.",
            "train first, or resume with python -m models.train --resume.",
        )
    # Only the best weights of parameter servers say in which order their rows are.
    checkpoint = tf.train.Checkpoint(embedder=model.embedder, backbone=model.backbone)
    try:
        status = checkpoint.restore(manager.latest_checkpoint)
        status.assert_existing_objects_matched().expect_partial()
        reader = tf.train.load_checkpoint(manager.latest_checkpoint)
        spread_tables.weights_read(model, reader.has_tensor(_SPREAD))
    except (*DAMAGES, AssertionError) as error:
        raise UserError(
            f"Expected the weights of the model of {path / CONFIG} in {path / BEST}, found them "
            f"damaged or of another model: {one_line(str(error))}",
            "restore the files from a copy, or train anew.",
        ) from error


def weights_digest(path: pathlib.Path) -> str:
    """Digest that identifies the best weights of a run; "" if there are none.

    The digest is the SHA-256 of the checkpoint's index, which holds a checksum of each weight.
    """
    from models.keras import tf

    checkpoint = tf.train.latest_checkpoint(str(path / BEST))
    return "" if checkpoint is None else sha256_file(f"{checkpoint}.index")


def data_fingerprint(path: pathlib.Path) -> str:
    """Fingerprint of the data set that a run was started with; "" if none is recorded."""
    file = path / FINGERPRINT
    return file.read_text(encoding="utf-8") if file.exists() else ""


def read_metrics(path: pathlib.Path) -> dict[str, dict[str, float | None]]:
    """Metrics by split, for the splits measured so far; None where undefined."""
    file = path / METRICS
    fix = "remove it, and measure anew with python -m models.evaluate."
    return read_json(file, "the metrics of a run", fix) if file.exists() else {}


def is_measured(path: pathlib.Path, data: DataDir) -> bool:
    """Whether a run has the metrics of the last split that training measures, so is complete.

    Args:
        path: Run directory.
        data: Data set of the run.
    """
    last = "test" if data.num_requests("test") else "validation"
    return last in read_metrics(path)


def read_sessions(path: pathlib.Path) -> list[dict[str, Any]]:
    """Entries of the processes that worked on a run, see `training.sessions`; none if old."""
    file = path / SESSIONS
    description = "what the processes of a run did"
    return read_json(file, description, "remove it.", list) if file.exists() else []


def write_metrics(path: pathlib.Path, metrics: Mapping[str, Mapping[str, float | None]]) -> None:
    """Adds metrics by split to the metrics of the run."""
    merged = {**read_metrics(path), **metrics}
    content = json.dumps(merged, indent=2, allow_nan=False)
    files.write_bytes(path / METRICS, f"{content}\n".encode())
