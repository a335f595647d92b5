"""How long `--help` takes, of the command that takes longest."""

import statistics
import subprocess
import sys
import time

from tests import command_page

from .figures import Figure, Target
from .processes import ROOT

_ROUNDS = 3


def measure(quick: bool) -> list[Figure]:
    """Seconds of the slowest command, as people wait for them."""
    seconds = {}
    for module in command_page.scripts().values():
        times = []
        for _ in range(1 if quick else 1 + _ROUNDS):
            start = time.perf_counter()
            command = [sys.executable, "-m", module, "--help"]
            subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
            times.append(time.perf_counter() - start)
        seconds[module] = times[0 if quick else 1 :]  # The first one may have compiled bytecode.
    slowest = max(seconds, key=lambda module: min(seconds[module]))
    return [
        Figure(
            name="help",
            value=min(seconds[slowest]),
            median=statistics.median(seconds[slowest]),
            unit="seconds",
            target=Target("<=", 2),
            baseline=f"none; the slowest of {len(seconds)} commands",
            detail=f"{slowest} {min(seconds[slowest]):.2f} s",
        )
    ]
