"""Exports a trained run as a SavedModel that TensorFlow Serving can load.

    python -m serving.export --run=WORKDIR/run --output=WORKDIR/model --keep=5

Writes OUTPUT/<version>/, the next integer unless --version names one, and OUTPUT/models.config, in
which it is the version labelled stable (or canary, with --canary). Servers that poll OUTPUT never
see half a version: it is filled in a hidden directory, its warm-up requests are replayed from disk,
and only then is it renamed. Nothing is published whose scores are not the offline ones, which is
worse than the live version by more than --max_auc_drop, or which has another schema (unless
--allow_schema_change).

With --calibrate, scores can be used as probabilities: a strictly increasing map is fitted to the
validation split (platt, isotonic), or undoes the uniform sampling of negatives of a log of clicks
(prior), and is part of the exported graph. Rankings stay as they are. Prints the calibration error
and the bias of validation and test before and after. See docs/publishing.md.
"""

import contextlib
import dataclasses
import itertools
import json
import os
import pathlib
import re
import shutil
import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

from absl import flags

from models.core import run_directory
from models.ops.choices import CALIBRATIONS
from preprocessing import cli
from preprocessing.data_dir import DataDir, write_json
from preprocessing.errors import UserError, explained_write_errors
from preprocessing.storage import files
from serving.exporting import publishing
from serving.exporting.publishing import Publication
from serving.tfserving.models import digests
from serving.tfserving.status import ServingError

if TYPE_CHECKING:
    import numpy as np

    from serving.exporting.signatures import ServingModule
    from serving.tfserving.models.servable import Servable

_MODEL_NAME = "ctr"
_WARMUP_REQUESTS = 8
_WARMUP_SPLITS = ("test", "validation", "train")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """How a version is published.

    Attributes:
        version: Number of the version; None for one more than the highest number ever used.
        canary: Whether to label the version canary and leave the stable version as it is.
        keep: Number of newest versions to keep beside those that are served; 0 keeps all.
        max_auc_drop: Largest allowed drop of the AUC on held-out requests below the live version's.
        allow_schema_change: Whether to publish although the live version has another schema.
        model_name: Name of the model in models.config; "" for that of the last export, or ctr.
        served_path: Path of OUTPUT as the server sees it; "" for that of the last export, or
            OUTPUT.
        calibrate: One of `CALIBRATIONS`; None for scores as the model has them.
    """

    version: int | None = None
    canary: bool = False
    keep: int = 0
    max_auc_drop: float = 0.01
    allow_schema_change: bool = False
    model_name: str = ""
    served_path: str = ""
    calibrate: str | None = None


class Exported(NamedTuple):
    """A published version.

    Attributes:
        path: Directory of the version.
        checks: Results of the checks before publishing, one line each.
        calibration: What was calibrated, and what it did, one line each; empty without.
    """

    path: pathlib.Path
    checks: list[str]
    calibration: list[str]


def export(
    run_dir: str | pathlib.Path,
    output: str | pathlib.Path,
    options: ExportOptions | None = None,
) -> Exported:
    """Exports the best weights of a run.

    Args:
        run_dir: Run directory that models.train filled.
        output: Directory of versions; created if it does not exist.
        options: How to publish the version; None for the defaults.

    Raises:
        UserError: There is no trained run, its data set has another schema, the version exists,
            OUTPUT is not on this machine, the served path is relative, the run cannot be
            calibrated, the exported model does not answer its own warm-up requests, or it fails one
            of the `gates`. Nothing is published then.
    """
    options = options or ExportOptions()
    if options.served_path and not re.match(r"/|\w+://", options.served_path):
        raise UserError(
            f"--served_path: expected an absolute path or a URI, found {options.served_path!r}.",
            "write it as servers see it, as in --served_path=/models/ctr.",
        )
    files.require_local(output, "--output")
    run_directory.require_run(run_dir)
    # They load TensorFlow, here and below, for which a wrong flag need not wait.
    from models.evaluation import calibrating, calibration_record, dumped_scores
    from serving.exporting import gates, model_card
    from serving.exporting.signatures import ServingModule

    run = run_directory.open_run(run_dir)
    output = pathlib.Path(output)
    version = options.version or publishing.next_version(output)
    target = output / str(version)
    if target.exists():
        raise _version_exists(target)
    live = publishing.live_version(output)
    checks = []
    if live is not None:
        allow_change = options.allow_schema_change
        checks = gates.check_schema(run.data.schema, live, allow_change=allow_change)
    origin = dumped_scores.origin(run.path)
    model = run_directory.load_model(run_dir)
    record = None
    if options.calibrate is not None:
        record = calibrating.of_run(run, model, options.calibrate)
    calibration = None if record is None else record.calibration
    with _directory(output):
        hidden = output / f".tmp-{version}-{os.getpid()}"
        try:
            module = ServingModule(model, run.data, calibration)
            _fill(hidden, run, module)
            if record is not None:
                write_json(hidden / "assets" / calibration_record.FILE, record.to_json())
            digests.write(hidden)  # Looked for by every load, the following one included.
            servable = _replay(hidden)
            checks.append(gates.check_parity(run, model, servable, calibration))
            checks.append(gates.check_auc(run.data, servable, live, options.max_auc_drop))
            card = model_card.write(run, module.signatures, checks, record)
            (hidden / "assets" / "model_card.md").write_text(card, encoding="utf-8")
            digests.write(hidden)
            try:
                hidden.rename(target)
            except OSError:
                raise _version_exists(target) from None
        finally:
            shutil.rmtree(hidden, ignore_errors=True)
    _announce(output, version, live, options)
    if record is None:
        return Exported(target, checks, [])
    with explained_write_errors("--run", run.path, f"{target} is published."):
        calibration_record.write(run.path, record, version, origin)
    return Exported(target, checks, calibration_record.describe(record))


def latest_version(output: str | pathlib.Path) -> pathlib.Path:
    """The directory of the highest version.

    Raises:
        UserError: The directory holds no version.
    """
    versions = publishing.versions(pathlib.Path(output))
    if not versions:
        raise UserError(
            f"Expected an exported version in {output}, found none.",
            "run python -m serving.export first.",
        )
    return versions[max(versions)]


def _announce(
    output: pathlib.Path, version: int, live: pathlib.Path | None, options: ExportOptions
) -> None:
    """Names a new version in models.config and removes old ones."""
    publication = publishing.read(output)
    if publication is None:
        stable = None if live is None else int(live.name)
        publication = Publication(_MODEL_NAME, str(output.absolute()), stable)
    publication = dataclasses.replace(
        publication,
        name=options.model_name or publication.name,
        base_path=options.served_path or publication.base_path,
    )
    publishing.write(output, publication.with_version(version, canary=options.canary))
    if options.keep:
        publishing.prune(output, options.keep)


@contextlib.contextmanager
def _directory(path: pathlib.Path) -> Iterator[None]:
    """Creates a directory; a failure removes the created directories that are still empty."""
    created = [directory for directory in (path, *path.parents) if not directory.exists()]
    path.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):  # another export may have filled it meanwhile
            for directory in created:
                directory.rmdir()
        raise


def _fill(version: pathlib.Path, run: run_directory.Run, module: "ServingModule") -> None:
    """Writes the SavedModel of a run with its assets and warm-up requests."""
    from models.keras import tf
    from serving.exporting import warmup

    tf.saved_model.save(module, str(version), signatures=module.to_save())
    assets = version / "assets"
    assets.mkdir(exist_ok=True)
    run.data.schema.save(assets / "schema.json")
    config = run.config.to_json()
    del config["data"]  # a path on the machine that trained the model
    text = json.dumps(config, indent=2) + "\n"
    (assets / "config.json").write_text(text, encoding="utf-8")
    warmup.write(version, _warmup_requests(run.data, module.signatures))


def _version_exists(target: pathlib.Path) -> UserError:
    return UserError(
        f"Expected a new version, found {target} already there.",
        "leave out --version for the next number.",
    )


def _warmup_requests(
    data: DataDir, signatures: Mapping[str, object]
) -> "Iterator[tuple[str, dict[str, np.ndarray]]]":
    """Real requests for every signature: some alone, then all of them as one batch."""
    from serving.exporting import raw_requests
    from serving.exporting.signatures import EXAMPLES, EXPLAIN, SERIALIZED, SERVING_DEFAULT

    split = next((s for s in _WARMUP_SPLITS if data.num_requests(s)), None)
    if split is None:
        raise UserError(
            f"Expected requests in {data.path} to warm up with, found none.",
            "build the data from a larger log.",
        )
    alone = itertools.islice(raw_requests.batches(data, split, batch_size=1), 2)
    together = raw_requests.batches(data, split, _WARMUP_REQUESTS, limit=_WARMUP_REQUESTS)
    for batch in itertools.chain(alone, together):
        yield SERVING_DEFAULT, batch.raw
        yield SERIALIZED, {EXAMPLES: batch.examples}
        if EXPLAIN in signatures:
            yield EXPLAIN, batch.raw


def _replay(version: pathlib.Path) -> "Servable":
    """Loads a version as servers do, and runs its warm-up requests."""
    from models.keras import tf
    from serving.exporting import warmup
    from serving.tfserving.models.servable import Servable

    try:
        servable = Servable(version)
        warmup.replay(servable)
    except (ServingError, tf.errors.OpError) as error:
        raise UserError(
            f"Expected the exported model to answer its warm-up requests, found: {error}. "
            "Nothing was published.",
            "check the model's code: it must score requests of any shape.",
        ) from error
    return servable


def define_flags() -> None:
    """Defines the command's flags."""
    flags.DEFINE_string("run", None, "Run directory that ctr-train filled.")
    flags.DEFINE_string("output", None, "Directory that gets a new version.")
    flags.DEFINE_integer("version", None, "Number of the version (default: the next).", 1)
    flags.DEFINE_bool(
        "canary", False, "Label the version canary, and leave the stable one as it is."
    )
    flags.DEFINE_integer(
        "keep", 0, "Number of newest versions to keep beside the served ones; 0 keeps all.", 0
    )
    flags.DEFINE_float(
        "max_auc_drop", 0.01, "Refuse a model whose AUC on held-out requests is lower by more.", 0
    )
    flags.DEFINE_bool("allow_schema_change", False, "Publish although the schema differs.")
    flags.DEFINE_string("model_name", "", "Name in models.config (default: as before, or ctr).")
    flags.DEFINE_string("served_path", "", "OUTPUT as servers see it (default: as before).")
    flags.DEFINE_enum(
        "calibrate",
        None,
        CALIBRATIONS,
        "Make scores probabilities by this method (default: leave them as they are).",
    )
    flags.mark_flags_as_required(["run", "output"])


def main() -> None:
    """Exports the run, and prints the results of the checks and the version's directory."""
    values = flags.FLAGS
    settings = {field.name: values[field.name].value for field in dataclasses.fields(ExportOptions)}
    exported = export(values.run, values.output, ExportOptions(**settings))  # type: ignore[arg-type]
    lines = [*exported.checks, *exported.calibration, f"Exported {exported.path}"]
    sys.stdout.write("\n".join(lines) + "\n")


def console_main() -> None:
    """Entry point."""
    define_flags()
    cli.run(main, __doc__)


if __name__ == "__main__":
    console_main()
