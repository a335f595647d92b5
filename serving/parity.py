"""Proves that an exported model scores as the trained one does, whichever way it is asked.

    python -m serving.parity --run=WORKDIR/run --model=WORKDIR/model/1 --split=test

Every request of the split is scored offline, by the signature that takes raw values, by the one
that takes serialized examples, and over REST. Offline means: by the model that models.evaluate
restores, from the stored examples, with every history padded to the schema's full length.
(Evaluation pads to the next of a few lengths, served models as little as they can. Padding may
change a score by rounding, no more, and this command would show it if it did.) A calibration that
the version was exported with is applied to the offline scores too. Prints the largest
difference of each from the offline scores; the exit status is 1 if one exceeds --tolerance. Without
--url an embedded server is started for the REST leg.
"""

import contextlib
import pathlib
import sys
import tempfile
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from absl import flags
from tqdm import tqdm

from models.core import run_directory
from preprocessing import cli
from preprocessing.errors import UserError
from preprocessing.schema import Schema
from serving.client import Client
from serving.exporting.tolerance import TOLERANCE
from serving.tfserving.status import ServingError

if TYPE_CHECKING:
    from serving.tfserving.models.servable import Servable

REST = "rest"
_BATCH_SIZE = 64
_MODEL_NAME = "parity"


def parity(
    run_dir: str | pathlib.Path,
    version: str | pathlib.Path,
    *,
    url: str = "",
    split: str = "test",
    limit: int = 0,
    tolerance: float = TOLERANCE,
    progress: bool = False,
) -> dict[str, Any]:
    """Compares the scores of all interfaces of an exported model with the offline ones.

    Args:
        run_dir: Run directory of the run that was exported.
        version: Directory of the exported version.
        url: Address of the served model; "" starts a server for the time of the comparison.
        split: Split whose requests are scored.
        limit: Number of requests to stop at; 0 for all.
        tolerance: Largest difference of probabilities that passes.
        progress: Whether to show a progress bar on standard error.

    Returns:
        Numbers of `requests` and `candidates`, `max_difference` {interface: number}, `tolerance`,
        and whether all scores agree, `ok`.

    Raises:
        UserError: A directory holds no run or no export, the two have different schemas, files of
            the version are not those that were exported, the split is empty, or the server does not
            answer.
    """
    run_directory.require_run(run_dir)
    _require_version(pathlib.Path(version))
    # They load TensorFlow, here and below, for which a wrong path need not wait.
    from models.evaluation import calibration_record
    from serving.exporting import raw_requests
    from serving.exporting.offline_scores import OfflineScorer, difference
    from serving.exporting.signatures import EXAMPLES, SCORES, SERIALIZED, SERVING_DEFAULT

    run = run_directory.open_run(run_dir)
    schema = run.data.schema
    servable = _load(pathlib.Path(version), schema)
    record = calibration_record.read(servable.path / "assets" / calibration_record.FILE)
    calibration = None if record is None else record.calibration
    offline = OfflineScorer(run_directory.load_model(run_dir), schema, calibration)
    largest = dict.fromkeys((SERVING_DEFAULT, SERIALIZED, REST), 0.0)
    requests = candidates = 0
    if not run.data.num_requests(split):
        raise UserError(
            f"Expected requests in split {split!r} of {run.data.path}, found none.",
            "compare on another split.",
        )
    total = min(run.data.num_requests(split), limit or sys.maxsize)
    with contextlib.ExitStack() as stack:
        client = stack.enter_context(Client(url or stack.enter_context(_serving(servable.path))))
        bar = stack.enter_context(
            tqdm(total=total, desc="parity", unit="request", disable=None if progress else True)
        )
        for batch in raw_requests.batches(run.data, split, _BATCH_SIZE, limit):
            mask_BN, expected_BN = offline(batch.features)
            scores_by_way = {
                SERVING_DEFAULT: servable.predict(SERVING_DEFAULT, batch.raw)[SCORES],
                SERIALIZED: servable.predict(SERIALIZED, {EXAMPLES: batch.examples})[SCORES],
                REST: np.array(client.predict(batch.raw), np.float32),
            }
            for way, scores_BN in scores_by_way.items():
                largest[way] = max(largest[way], difference(scores_BN, expected_BN))
            requests += len(mask_BN)
            candidates += int(mask_BN.sum())
            bar.update(len(mask_BN))
    return {
        "requests": requests,
        "candidates": candidates,
        "max_difference": largest,
        "tolerance": tolerance,
        "ok": max(largest.values()) <= tolerance,
    }


def describe(result: dict[str, Any]) -> str:
    """Formats the result of `parity` as text for people."""
    lines = [
        f"{way:16} largest difference {difference:.3g}"
        for way, difference in result["max_difference"].items()
    ]
    verdict = "agree with" if result["ok"] else "DIFFER from"
    lines.append(
        f"Served scores {verdict} offline ones on {result['requests']} requests with "
        f"{result['candidates']} candidates (tolerance {result['tolerance']:g})."
    )
    return "\n".join(lines) + "\n"


def _require_version(version: pathlib.Path) -> None:
    if not (version / "saved_model.pb").exists():
        raise UserError(
            f"Expected an exported model, found no saved_model.pb in {version}.",
            "name a version, as in --model=WORKDIR/model/1.",
        )


def _load(version: pathlib.Path, schema: Schema) -> "Servable":
    """Loads the exported version; a `UserError` if it has another schema or is not complete."""
    from models.keras import tf
    from serving.tfserving.models.servable import Servable

    exported = version / "assets" / "schema.json"
    Schema.load(exported).require_equal(schema, str(exported), "that of the run")
    try:
        return Servable(version)
    except (ServingError, tf.errors.OpError) as error:
        raise UserError(
            f"Expected a version that loads, found: {error}.", "export the run again."
        ) from error


@contextlib.contextmanager
def _serving(version: pathlib.Path) -> Iterator[str]:
    """Runs a server for this version alone and yields its address."""
    from serving import embedded_server

    with tempfile.TemporaryDirectory() as base:
        (pathlib.Path(base) / "1").symlink_to(version.resolve(), target_is_directory=True)
        with embedded_server.running(base, _MODEL_NAME, file_system_poll_wait_seconds=0) as running:
            yield running.url


def define_flags() -> None:
    """Defines the command's flags."""
    flags.DEFINE_string("run", None, "Run directory that ctr-train filled.")
    flags.DEFINE_string("model", None, "Directory of the exported version.")
    flags.DEFINE_string("url", "", "Address of the served model (default: serve it here).")
    flags.DEFINE_string("split", "test", "Split whose requests are scored.")
    flags.DEFINE_integer("limit", 0, "Number of requests to stop at; 0 for all.", 0)
    flags.DEFINE_float("tolerance", TOLERANCE, "Largest difference that passes.", 0)
    flags.mark_flags_as_required(["run", "model"])


def main() -> int:
    """Compares and prints the differences."""
    values = flags.FLAGS
    result = parity(
        values.run,
        values.model,
        url=values.url,
        split=values.split,
        limit=values.limit,
        tolerance=values.tolerance,
        progress=True,
    )
    sys.stdout.write(describe(result))
    return 0 if result["ok"] else 1


def console_main() -> None:
    """Entry point."""
    define_flags()
    cli.run(main, __doc__)


if __name__ == "__main__":
    console_main()
