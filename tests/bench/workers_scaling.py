"""What more synchronous workers bring, if a step takes a fixed time on the device of each."""

import json
import pathlib
import statistics
import tempfile

from tests.helpers import clusters

from . import training_data
from .figures import Figure, Target

_WORKERS = (1, 2, 4)
_REQUESTS, _CANDIDATES, _ITEMS = 1 << 16, 2, 10_000
_BATCH_SIZE = 256  # requests of a worker in a step


def measure(quick: bool) -> list[Figure]:
    """Reading for training, and evaluation: the speed of one worker times their number is 1."""
    requests, seconds, rounds = (1 << 12, 0.02, 1) if quick else (_REQUESTS, 0.1, 3)
    with tempfile.TemporaryDirectory() as directory:
        root = pathlib.Path(directory)
        drawn = training_data.draw(requests, _CANDIDATES, _ITEMS)
        training_data.write_data_set(root / "data", drawn, _ITEMS)
        flags = (f"--data={root / 'data'}", f"--seconds={seconds}", f"--rounds={rounds}")
        found = {workers: _run(root, workers, flags) for workers in _WORKERS}
    figures = []
    for kind in ("steps", "evaluation"):
        for workers in _WORKERS[1:]:
            one, several = found[1][kind], found[workers][kind]
            # A step of several workers has a batch of each; an evaluation is divided.
            shares = workers if kind == "evaluation" else 1
            figures.append(
                Figure(
                    name=f"{kind}_on_{workers}",
                    value=min(one) / (shares * min(several)),
                    median=statistics.median(one) / (shares * statistics.median(several)),
                    unit=f"of the speed of one worker times {workers}",
                    target=Target(">=", 0.9),
                    baseline=f"one worker, {seconds:g} s per step or batch of scores",
                    detail=f"{min(several):.2f} s : {min(one):.2f} s",
                )
            )
    return figures


def _run(root: pathlib.Path, workers: int, flags: tuple[str, ...]) -> dict[str, list[float]]:
    """Seconds of each round, as the first of some workers measured them."""
    cluster = clusters.addresses(worker=workers)
    result = root / f"{workers}.json"
    started = [
        clusters.start(
            root,
            cluster,
            "worker",
            index,
            result,
            f"--workdir={root / f'run-{workers}'}",
            f"--distribute={'multi_worker' if workers > 1 else 'one_device'}",
            f"--batch_size={workers * _BATCH_SIZE}",
            *flags,
            module="tests.bench.scaling_worker",
        )
        for index in range(workers)
    ]
    codes, outputs = clusters.end(*started)
    if any(codes):
        raise RuntimeError(outputs[codes.index(max(codes))][-2000:])
    return json.loads(result.read_text())
