"""From log to examples: the columnar job against a row-wise Beam job and against Polars.

The log is synthesised: 100 events per user, as in Taobao's public log, of 20,000 items. The
row-wise job gets a smaller one, on which it still takes ten times as long as Beam takes to start.
"""

import contextlib
import functools
import io
import pathlib
import tempfile
from typing import NamedTuple

from pipeline import synthesize
from pipeline.arguments import BuildArguments
from pipeline.build_examples import build_examples
from pipeline.synthetic.truth import SynthesizeArguments
from preprocessing.schema_inference import infer_schema

from . import polars_job, row_wise_job
from .figures import Comparison, Figure, Spread, take_turns

_ROUNDS = 3
_EVENTS_PER_USER = 100
_ITEMS = 20_000


class _Log(NamedTuple):
    path: str
    rows: int


def measure(quick: bool) -> list[Figure]:
    """One unit of work is a row of the log; everything from reading to the last shard counts.

    `time_split` makes every event but each user's first a request, which is what the target means.
    `leave_last_out` makes three per user: there both jobs do little but read and group.
    """
    rows, rounds = (4000, 1) if quick else (3_000_000, _ROUNDS)
    with tempfile.TemporaryDirectory() as directory:
        root = pathlib.Path(directory)
        log, half = _write_log(root / "log.csv", rows), _write_log(root / "half.csv", rows // 2)
        last = _compare(root, [log], "leave_last_out", 1000 if quick else 100_000, rounds)
        every = _compare(root, [log, half], "time_split", 1000 if quick else 25_000, rounds)
    figures = []
    for suffix, (ours, row_wise, in_polars, *_) in (("", every), ("_last", last)):
        protocol, at_least = ("leave_last_out", None) if suffix else ("time_split", 60)
        figures += [
            Comparison(ours, row_wise).speedup(
                f"build_examples{suffix}", f"row-wise Beam job, per row, {protocol}", at_least
            ),
            Comparison(ours, in_polars).speedup(
                f"build_polars{suffix}", f"Polars, {log.rows:,} rows, {protocol}", at_least=0.5
            ),
        ]
    whole_log, half_log = every[0], every[-1]
    baseline = f"per row of {half.rows:,}; ours of {log.rows:,}, time_split"
    return [*figures, Comparison(whole_log, half_log).cost("build_scaling", baseline, at_most=1.15)]


def _compare(
    root: pathlib.Path, logs: list[_Log], protocol: str, few: int, rounds: int
) -> list[Spread]:
    """Time per row of ours on the first log, of both baselines, then of ours on further logs."""
    small = _write_log(root / f"few_{protocol}.csv", few)
    output = root / protocol
    output.mkdir()
    ours = [(functools.partial(_build, root, log, protocol), log.rows) for log in logs]
    calls = [
        ours[0],
        (lambda: row_wise_job.build(small.path, _new(output), protocol), small.rows),
        (lambda: polars_job.build(logs[0].path, output, protocol), logs[0].rows),
        *ours[1:],
    ]
    seconds = take_turns([call for call, _ in calls], rounds)
    return [Spread.of(times, rows) for times, (_, rows) in zip(seconds, calls, strict=True)]


def _build(root: pathlib.Path, log: _Log, protocol: str) -> None:
    schema = root / "schema.json"
    infer_schema(["user_id", "item_id", "category_id", "timestamp"]).save(schema)
    arguments = BuildArguments(
        input=log.path,
        output=str(root / "data"),
        schema=str(schema),
        protocol=protocol,
        overwrite=True,
    )
    with contextlib.redirect_stderr(io.StringIO()):  # the times of its stages
        build_examples(arguments)


def _new(directory: pathlib.Path) -> pathlib.Path:
    return pathlib.Path(tempfile.mkdtemp(dir=directory))


def _write_log(path: pathlib.Path, events: int) -> _Log:
    """A generated log of about so many events."""
    users = events // _EVENTS_PER_USER
    arguments = SynthesizeArguments(users=users, items=_ITEMS, events_per_user=_EVENTS_PER_USER)
    log = synthesize.synthesize(arguments)
    synthesize.write(log, path)
    return _Log(str(path), len(log.item_E))
