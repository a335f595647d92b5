"""The slowest requests in a hundred, at half of the load that the server can bear."""

import statistics

import numpy as np

from serving.load import generator

from . import serving_model
from .figures import Figure, Target, readable
from .serving_model import Exported

_WINDOWS = 5


def measure(quick: bool) -> list[Figure]:
    """As servers for many users are set up, and by default.

    By default a request computes on all cores and shares them with those that it meets. With one
    thread per request, and as many requests at once as there are cores, the others wait their turn,
    and the slowest of them wait least: in a simulation with constant times of computation 99% take
    at most 2.6 times the median, against 3.2 for eight requests at once and 4.1 for eight that use
    all cores each.
    """
    model = serving_model.exported(quick)
    one_each = [
        "--tensorflow_intra_op_parallelism=1",
        f"--rest_api_num_threads={serving_model.cores()}",
    ]
    seconds = 1.0 if quick else 3.5
    return [
        _tail("server_tail", model, one_each, seconds, Target("<=", 3.0)),
        _tail("server_tail_default", model, [], seconds, None),
    ]


def _tail(
    name: str, model: Exported, flags: list[str], seconds: float, target: Target | None
) -> Figure:
    """The median of several windows of time, so that a stall of the machine is in one of them."""
    body = model.body()
    with serving_model.server(model, flags) as (url, _):
        level = generator.Level("open", round(serving_model.saturation(url, body, seconds) / 2, 1))
        bounds = generator.Bounds(seconds, 10**6)
        windows = [
            np.percentile(
                generator.measure(url, [body], level, bounds, seed).latencies,
                [50, 99],
                method="higher",
            ).tolist()
            for seed in range(_WINDOWS)
        ]
    half, tail = (statistics.median(values) for values in zip(*windows, strict=True))
    ratio = statistics.median(tail / half for half, tail in windows)
    return Figure(
        name=name,
        value=ratio,
        median=ratio,
        unit="times the median latency",
        target=target,
        baseline=f"p99 : p50 at half of the saturation load, {level}{' '.join(['', *flags])}",
        detail=f"{readable(tail)} : {readable(half)}",
    )
