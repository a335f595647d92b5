"""From the start of the process to the first training step, with Python's bytecode compiled."""

import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

from . import training_data
from .figures import Figure, Target
from .processes import ROOT

_ITEMS, _REQUESTS, _ROUNDS = 100_000, 1 << 14, 3


def measure(quick: bool) -> list[Figure]:
    """Seconds, as people wait for them; what imports take of them is shown."""
    times, imports = [], []
    with tempfile.TemporaryDirectory() as directory:
        root = pathlib.Path(directory)
        requests = _REQUESTS // 100 if quick else _REQUESTS
        drawn = training_data.draw(requests, 2, _ITEMS)
        training_data.write_data_set(root / "data", drawn, _ITEMS)
        for i in range(1 if quick else 1 + _ROUNDS):
            start = time.perf_counter()
            done = subprocess.run(
                [
                    *(sys.executable, "-m", "tests.bench.first_step"),
                    *(f"--data={root / 'data'}", f"--workdir={root / f'run{i}'}"),
                ],
                cwd=ROOT,
                capture_output=True,
                text=True,
                check=True,
            )
            times.append(time.perf_counter() - start)
            imports.append(float(done.stdout.splitlines()[-1]))
    counted = slice(0 if quick else 1, None)  # The first one may have compiled bytecode.
    best, imported = min(times[counted]), min(imports[counted])
    return [
        Figure(
            name="startup",
            value=best,
            median=statistics.median(times[counted]),
            unit="seconds",
            target=Target("<=", 15),
            baseline=f"none; process start to first step of din, {requests:,} requests",
            detail=f"{best:.1f} s, imports {imported:.1f} s",
        )
    ]
