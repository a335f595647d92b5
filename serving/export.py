"""Exports a trained run as a SavedModel that TensorFlow Serving can load.

    python -m serving.export --run=WORKDIR/run --output=WORKDIR/model

Writes OUTPUT/<version>/, the next integer unless --version names one. Servers that poll OUTPUT
never see half a version: it is filled in a hidden directory, its warm-up requests are replayed from
disk, and only then is it renamed.
"""

import contextlib
import itertools
import json
import os
import pathlib
import shutil
import sys
from collections.abc import Iterator, Mapping

import numpy as np
from absl import flags

from models import runs
from models.keras import tf
from preprocessing import cli
from preprocessing.data_dir import DataDir
from preprocessing.errors import UserError
from serving import model_card, raw_requests, warmup
from serving.servable import Servable
from serving.signatures import EXAMPLES, EXPLAIN, SERIALIZED, SERVING_DEFAULT, ServingModule
from serving.status import ServingError

_WARMUP_REQUESTS = 8
_WARMUP_SPLITS = ("test", "validation", "train")


def export(
    run_dir: str | pathlib.Path, output: str | pathlib.Path, version: int | None = None
) -> pathlib.Path:
    """Exports the best weights of a run.

    Args:
        run_dir: What models.train left behind.
        output: Directory of versions; created if need be.
        version: Number of the version; None for one more than the highest there is.

    Returns:
        The directory of the version.

    Raises:
        UserError: No trained run there, its data set has another schema, the version exists, or the
            exported model does not answer its own warm-up requests: nothing is published then.
    """
    run = runs.open_run(run_dir)
    model = runs.load_model(run_dir)
    output = pathlib.Path(output)
    if version is None:
        version = max(_versions(output), default=0) + 1
    target = output / str(version)
    if target.exists():
        raise _version_exists(target)
    with _directory(output):
        hidden = output / f".tmp-{version}-{os.getpid()}"
        try:
            _fill(hidden, run, ServingModule(model, run.data))
            _replay(hidden)
            try:
                hidden.rename(target)
            except OSError:
                raise _version_exists(target) from None
        finally:
            shutil.rmtree(hidden, ignore_errors=True)
    return target


def latest_version(output: str | pathlib.Path) -> pathlib.Path:
    """The directory of the highest version.

    Raises:
        UserError: There is none.
    """
    versions = _versions(pathlib.Path(output))
    if not versions:
        raise UserError(
            f"Expected an exported version in {output}, found none.", "run serving.export first."
        )
    return versions[max(versions)]


@contextlib.contextmanager
def _directory(path: pathlib.Path) -> Iterator[None]:
    """Makes a directory; a failure takes back whatever was made and is still empty."""
    made = [directory for directory in (path, *path.parents) if not directory.exists()]
    path.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):  # another export may have filled it meanwhile
            for directory in made:
                directory.rmdir()
        raise


def _fill(version: pathlib.Path, run: runs.Run, module: ServingModule) -> None:
    """Writes the SavedModel of a run with its assets and warm-up requests."""
    signatures = module.signatures
    tf.saved_model.save(module, str(version), signatures=signatures)
    assets = version / "assets"
    assets.mkdir(exist_ok=True)
    run.data.schema.save(assets / "schema.json")
    config = run.config.to_json()
    del config["data"]  # a path on the machine that trained the model
    text = json.dumps(config, indent=2) + "\n"
    (assets / "config.json").write_text(text, encoding="utf-8")
    card = model_card.write(run, signatures)
    (assets / "model_card.md").write_text(card, encoding="utf-8")
    warmup.write(version, _warmup_requests(run.data, signatures))


def _versions(output: pathlib.Path) -> dict[int, pathlib.Path]:
    children = output.iterdir() if output.is_dir() else ()
    return {int(child.name): child for child in children if child.name.isdecimal()}


def _version_exists(target: pathlib.Path) -> UserError:
    return UserError(
        f"Expected a new version, found {target} already there.",
        "leave out --version for the next number.",
    )


def _warmup_requests(
    data: DataDir, signatures: Mapping[str, object]
) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """Real requests for every signature: some alone, then all of them as one batch."""
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


def _replay(version: pathlib.Path) -> None:
    try:
        warmup.replay(Servable(version))
    except (ServingError, tf.errors.OpError) as error:
        raise UserError(
            f"Expected the exported model to answer its warm-up requests, found: {error}. "
            "Nothing was published.",
            "check the model's code: it must score requests of any shape.",
        ) from error


def define_flags() -> None:
    """Defines the command's flags."""
    flags.DEFINE_string("run", None, "Run directory that models.train filled.")
    flags.DEFINE_string("output", None, "Directory that gets a new version.")
    flags.DEFINE_integer("version", None, "Number of the version (default: the next).", 1)
    flags.mark_flags_as_required(["run", "output"])


def main() -> None:
    """Exports and says where."""
    target = export(flags.FLAGS.run, flags.FLAGS.output, flags.FLAGS.version)
    sys.stdout.write(f"Exported {target}\n")


def console_main() -> None:
    """Entry point."""
    define_flags()
    cli.run(main, __doc__)


if __name__ == "__main__":
    console_main()
