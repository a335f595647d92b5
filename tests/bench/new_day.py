"""A day of a long log, built on what is below it, against one build over everything.

The log is synthesised, 100 events per user; the last 5% of it by time are the day, in which nearly
every user comes again. Each build is a process of its own, whose peak memory is what the system
says of it. Both are built in turns; writes to disk make single ones differ by a sixth.
"""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
from typing import Any, NamedTuple

import numpy as np

from pipeline import synthesize
from pipeline.synthetic.truth import SynthesizeArguments
from preprocessing.schema_inference import infer_schema

from .figures import Comparison, Figure, Spread, Target

_EVENTS_PER_USER = 100
_ITEMS = 20_000
_DAY = 0.05
_TURNS = 3
_PROGRAM = """
import json, sys, time
from pipeline.arguments import BuildArguments
from pipeline.build_examples import build_examples
start = time.perf_counter()
build_examples(BuildArguments(**json.loads(sys.argv[1])))
print(time.perf_counter() - start)
"""


class _Build(NamedTuple):
    seconds: float
    peak_bytes: int


def measure(quick: bool) -> list[Figure]:
    """Time and peak memory of the day, as parts of those of a build over the whole log."""
    rows = 4000 if quick else 10_000_000
    with tempfile.TemporaryDirectory() as directory:
        root = pathlib.Path(directory)
        whole_log, base_log, day_log = _write_logs(root, rows)
        _build(root / "base", base_log, protocol="time_split")
        wholes, days = [], []
        for turn in range(1 if quick else _TURNS):
            whole, day = root / f"whole{turn}", root / f"day{turn}"
            wholes.append(_build(whole, whole_log, protocol="time_split"))
            days.append(_build(day, day_log, protocol="day", base=str(root / "base")))
            shutil.rmtree(whole)
            shutil.rmtree(day)
    baseline = f"one build over {rows:,} rows; ours of their last {_DAY:.0%}, time_split"
    times = Comparison(*(Spread.of([one.seconds for one in side], 1) for side in (days, wholes)))
    day_peak, whole_peak = (max(one.peak_bytes for one in side) for side in (days, wholes))
    peak = day_peak / whole_peak
    return [
        times.speedup("new_day", baseline, at_least=8),
        Figure(
            name="new_day_memory",
            value=peak,
            median=peak,
            unit="times the peak memory of the baseline",
            target=Target("<=", 1),
            baseline=baseline,
            detail=f"{day_peak >> 20:,} MiB : {whole_peak >> 20:,} MiB",
        ),
    ]


def _write_logs(root: pathlib.Path, events: int) -> tuple[str, str, str]:
    """A generated log of about so many events as two files: both, the first, the last of them."""
    infer_schema(["user_id", "item_id", "category_id", "timestamp"]).save(root / "schema.json")
    log = synthesize.synthesize(
        SynthesizeArguments(
            users=events // _EVENTS_PER_USER, items=_ITEMS, events_per_user=_EVENTS_PER_USER
        )
    )
    whole = root / "whole.csv"
    synthesize.write(log, whole)
    header, *lines = whole.read_bytes().splitlines(keepends=True)
    whole.unlink()
    times = np.array([int(line.rpartition(b",")[2]) for line in lines])
    is_of_day = times > np.quantile(times, 1 - _DAY)
    paths = [root / name for name in ("base.csv", "day.csv")]
    for path, wanted in zip(paths, (~is_of_day, is_of_day), strict=True):
        rows = np.flatnonzero(wanted)[np.argsort(times[wanted], kind="stable")]
        with path.open("wb") as file:
            file.write(header)
            file.writelines(lines[row] for row in rows.tolist())
    base_log, day_log = map(str, paths)
    return f"{base_log},{day_log}", base_log, day_log


def _build(output: pathlib.Path, log: str, **arguments: Any) -> _Build:
    """Builds a data set in a process of its own."""
    schema = str(output.parent / "schema.json")
    given = json.dumps({"input": log, "output": str(output), "schema": schema, **arguments})
    process = subprocess.Popen(
        [sys.executable, "-c", _PROGRAM, given],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    said = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:  # such as for a full disk
        raise RuntimeError(f"a build ended with status {process.returncode}:\n{said}")
    seconds = float(said.split()[-1])
    return _Build(seconds, usage.ru_maxrss * 1024)
