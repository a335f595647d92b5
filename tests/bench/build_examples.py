"""From log to examples: the columnar job against a job that handles a log row by row."""

import contextlib
import io
import pathlib
import tempfile

from pipeline import synthesize
from pipeline.arguments import BuildArguments
from pipeline.build_examples import build_examples
from pipeline.synthetic_truth import SynthesizeArguments
from preprocessing.schema import infer_schema

from . import row_wise_job
from .figures import Figure, compare

_EVENTS_PER_USER = 20


def measure(quick: bool) -> list[Figure]:
    """One unit of work is a row of the log; everything from reading to the last shard counts."""
    events, baseline_events = (4000, 1000) if quick else (300_000, 10_000)
    with tempfile.TemporaryDirectory() as directory:
        root = pathlib.Path(directory)
        log, rows = _write_log(root / "log.csv", events)
        few, few_rows = _write_log(root / "few.csv", baseline_events)
        schema = root / "schema.json"
        infer_schema(["user_id", "item_id", "category_id", "timestamp"]).save(schema)
        arguments = BuildArguments(
            input=log, output=str(root / "data"), schema=str(schema), overwrite=True
        )

        def ours() -> None:
            with contextlib.redirect_stderr(io.StringIO()):  # the times of its stages
                build_examples(arguments)

        times = compare(
            ours,
            lambda: row_wise_job.build(few, pathlib.Path(tempfile.mkdtemp(dir=root))),
            ours_units=rows,
            baseline_units=few_rows,
        )
    baseline = f"a row-wise Beam job on {few_rows:,} rows, per row; ours on {rows:,}"
    return [times.speedup("build_examples", baseline, at_least=60)]


def _write_log(path: pathlib.Path, events: int) -> tuple[str, int]:
    """A generated log of about so many events: its path and number of rows."""
    log = synthesize.synthesize(
        SynthesizeArguments(users=events // _EVENTS_PER_USER, events_per_user=_EVENTS_PER_USER)
    )
    synthesize.write(log, path)
    return str(path), len(log.item_E)
