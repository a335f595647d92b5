"""A ranking request over REST: the user once in columns, or repeated in a row per candidate.

Shapes: N candidates, L history length.
"""

import contextlib
import io
import json
import pathlib
import tempfile
from typing import Any

import httpx
import numpy as np

from models.config import run_config
from models.core import run_directory
from models.core.factory import build_model
from pipeline import synthesize
from pipeline.arguments import BuildArguments
from pipeline.build_examples import build_examples
from pipeline.synthetic.truth import SynthesizeArguments
from preprocessing.data_dir import DataDir
from preprocessing.schema_inference import infer_schema
from serving import embedded_server, export
from serving.exporting.signatures import candidate_input, history_input

from .figures import Figure, Target, compare

_LENGTH = 50
_ROUNDS = 15
_SMALLEST_RATIO = Target(">=", 20)
_LONGEST_TIME = 0.45


def measure(quick: bool) -> list[Figure]:
    """Bytes sent, and milliseconds until the scores are there, for one user's candidates."""
    count, model = (50, "din") if quick else (200, "deminet")
    with tempfile.TemporaryDirectory() as directory:
        root = pathlib.Path(directory)
        data = build_data(root)
        export.export(write_run(root / "run", data, model), root / "model")
        columns, rows = request(data, count)
        with (
            embedded_server.running(root / "model", "ctr") as running,
            httpx.Client(timeout=60) as client,
        ):

            def ask(body: bytes) -> dict[str, Any]:
                reply = client.post(f"{running.url}:predict", content=body)
                reply.raise_for_status()
                return reply.json()

            np.testing.assert_allclose(
                ask(columns)["outputs"][0], np.ravel(ask(rows)["predictions"]), atol=1e-5
            )
            times = compare(lambda: ask(columns), lambda: ask(rows), rounds=_ROUNDS)
    ratio = len(rows) / len(columns)
    baseline = f"{model}, history repeated in rows, {count} candidates x {_LENGTH} steps"
    return [
        Figure(
            name="serving_payload",
            value=ratio,
            median=ratio,
            unit="times fewer bytes than the baseline",
            target=_SMALLEST_RATIO,
            baseline=baseline,
            detail=f"{len(columns):,} : {len(rows):,} bytes",
        ),
        times.cost("serving_latency", baseline, at_most=_LONGEST_TIME),
    ]


def build_data(root: pathlib.Path) -> DataDir:
    log, schema = root / "log.csv", root / "schema.json"
    arguments = SynthesizeArguments(users=50, items=100, interests=5, events_per_user=12)
    synthesize.write(synthesize.synthesize(arguments), log)
    columns = ["user_id", "item_id", "category_id", "timestamp"]
    infer_schema(columns, max_length=_LENGTH).save(schema)
    with contextlib.redirect_stderr(io.StringIO()):  # the times of its stages
        return build_examples(
            BuildArguments(input=str(log), output=str(root / "data"), schema=str(schema))
        )


def write_run(path: pathlib.Path, data: DataDir, model: str) -> pathlib.Path:
    """A run of a model as it is before the first step."""
    config = run_config.resolve({"data": str(data.path), "model": {"name": model}})
    run_directory.begin(path, config, data)
    run_directory.best_checkpoint(build_model(config, data), path).save()
    return path


def request(data: DataDir, count: int) -> tuple[bytes, bytes]:
    """The same request in the column form of TensorFlow Serving's REST interface and in rows."""
    rng = np.random.default_rng(0)

    def values(name: str, number: int) -> list[str]:
        encoder = data.encoders[name]
        ids = rng.integers(1 + encoder.num_oov, encoder.cardinality, number)
        return encoder.decode(ids).tolist()

    user = data.schema.user_key.name
    items = data.schema.item_features
    columns: dict[str, list[Any]] = {user: values(user, 1)}
    columns |= {history_input(item.name): [values(item.name, _LENGTH)] for item in items}
    shared = {name: column[0] for name, column in columns.items()}
    candidates = {candidate_input(item.name): values(item.name, count) for item in items}
    columns |= {name: [column] for name, column in candidates.items()}
    rows = [
        shared | {name: [column[i]] for name, column in candidates.items()} for i in range(count)
    ]
    return _json({"inputs": columns}), _json({"instances": rows})


def _json(document: dict[str, Any]) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()
