"""The input pipeline: what it delivers, how long training waits for it, what training needs.

Shapes: B requests, N candidates.
"""

import pathlib
import subprocess
import sys
import tempfile

from preprocessing import dataset
from preprocessing.data_dir import DataDir

from . import model_steps, training_data
from .figures import Figure, Target, compare, take_turns
from .processes import TrainingProcess

_REQUESTS, _BATCH_SIZE, _CANDIDATES = 1 << 14, 256, 2
_FEW_ITEMS, _MANY_ITEMS = 100_000, 4_000_000
_FASTEST = "lr"


def measure(quick: bool) -> list[Figure]:
    """Reading alone, against the step of the fastest model; then both together, for DIN."""
    requests = _REQUESTS // 64 if quick else _REQUESTS
    with tempfile.TemporaryDirectory() as directory:
        root = pathlib.Path(directory)
        for items in (_FEW_ITEMS, _MANY_ITEMS):
            drawn = training_data.draw(requests, _CANDIDATES, items)
            training_data.write_data_set(root / str(items), drawn, items)
        few = root / str(_FEW_ITEMS)
        return [*_delivery(few, requests), _wait(few, quick), _memory(root / str(_MANY_ITEMS))]


def _delivery(path: pathlib.Path, requests: int) -> list[Figure]:
    """Requests per second of an epoch without a model, of a model without reading."""
    data = DataDir.open(path)
    batch = model_steps.batch(_BATCH_SIZE, _CANDIDATES)
    step = model_steps.training_step(model_steps.model(_FASTEST), batch)
    figures = []
    for name, budget in (("input_pipeline", 0), ("input_pipeline_memory", 1 << 30)):
        batches = dataset.read(
            data, "train", batch_size=_BATCH_SIZE, shuffle_seed=1, memory_budget=budget
        )
        times = compare(
            lambda batches=batches: batches.reduce(0, lambda count, _: count + 1),
            lambda: step(batch),
            rounds=10,
            ours_units=requests,
            baseline_units=_BATCH_SIZE,
        )
        baseline = f"the step of {_FASTEST}, per request, B={_BATCH_SIZE} L={training_data.LENGTH}"
        figures.append(times.speedup(name, baseline, at_least=3))
    return figures


def _wait(path: pathlib.Path, quick: bool) -> Figure:
    """Share of DIN's steps that is spent waiting for batches."""
    steps = 2 if quick else 100
    flags = [f"--data={path}", f"--batch_size={_BATCH_SIZE}", f"--steps={steps}"]
    command = [sys.executable, "-m", "tests.bench.training_worker", *flags]
    shares = []
    with TrainingProcess(command) as process:

        def turn() -> None:
            process()
            shares.append(process.result["input_wait"])

        take_turns([turn], 1 if quick else 5)
    counted = sorted(shares[1:])
    return Figure(
        name="input_wait",
        value=counted[0],
        median=counted[len(counted) // 2],
        unit="of the time of a training step",
        target=Target("<=", 0.05),
        baseline=f"the step of din, B={_BATCH_SIZE} N={_CANDIDATES}, shards on disk",
        detail=f"{100 * counted[0]:.2g}% of {steps} steps",
    )


def _memory(path: pathlib.Path) -> Figure:
    """Peak of a training process above what it holds before there is a model."""
    command = [sys.executable, "-m", "tests.bench.training_memory", f"--data={path}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    peak, tables, activations = map(int, done.stdout.split()[-3:])
    return Figure(
        name="training_memory",
        value=peak / (tables + activations),
        median=peak / (tables + activations),
        unit="times the baseline",
        target=Target("<=", 1.3),
        baseline=f"tables and slots ({tables / 2**20:.0f} MiB) and what a step adds "
        f"({activations / 2**20:.0f} MiB); {_MANY_ITEMS:,} items",
        detail=f"{peak / 2**20:.0f} : {(tables + activations) / 2**20:.0f} MiB",
    )
