"""DIN's training step with the compiled attention unit against TensorFlow's operations.

    python -m tests.bench.native_steps --threads=1

Prints the best and the median seconds of both, which take turns, as JSON. The number of threads is
that of a process.
"""

import json
import subprocess
import sys
from collections.abc import Callable

from absl import flags

from models.keras import tf
from models.ops.native import build, library
from preprocessing import cli

from . import model_steps
from .figures import Comparison, Figure, Spread, compare

_ROUNDS = 60
_SHAPES = ((128, 2), (26, 10))
"""Requests and candidates of a batch; both have about 13,000 pairs of a candidate and an event."""


def measure(quick: bool) -> list[Figure]:
    """Whole steps, on one thread and on two."""
    figures = []
    for requests, candidates in _SHAPES:
        for threads in (1, 2):
            sizes = (8 if quick else requests, candidates)
            options = zip(("requests", "candidates", "threads"), (*sizes, threads), strict=True)
            command = [sys.executable, "-m", "tests.bench.native_steps"]
            command += [f"--{name}={value}" for name, value in options]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            ours, baseline = json.loads(done.stdout.splitlines()[-1])
            name = f"din_native_{candidates}x{threads}"
            title = f"the plain step, B={sizes[0]} N={candidates} L=50 K=4, threads: {threads}"
            times = Comparison(Spread(*ours), Spread(*baseline))
            figures.append(times.speedup(name, title, at_least=1.5))
    return figures


def _step(requests: model_steps.Batch, native: bool) -> Callable[[], float]:
    trained = model_steps.model("din")
    if native:
        operations = library.load(build.build())
        trained.backbone.attention.use_native(operations)
    step = model_steps.training_step(trained, requests)
    return lambda: step(requests)


def define_flags() -> None:
    """Defines the command's flags."""
    flags.DEFINE_integer("requests", 128, "Of a batch.", 1)
    flags.DEFINE_integer("candidates", 2, "Of a request.", 1)
    flags.DEFINE_integer("threads", 1, "For operations.", 1)


def main() -> None:
    """Prints the seconds."""
    values = flags.FLAGS
    tf.config.threading.set_intra_op_parallelism_threads(values.threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    requests = model_steps.batch(values.requests, values.candidates)
    times = compare(_step(requests, native=True), _step(requests, native=False), rounds=_ROUNDS)
    sys.stdout.write(f"{json.dumps([times.ours, times.baseline])}\n")


def console_main() -> None:
    """Entry point."""
    define_flags()
    cli.run(main, __doc__)


if __name__ == "__main__":
    console_main()
