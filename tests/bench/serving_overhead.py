"""What the server costs over calling the signature in the same process.

Model and request are those of serving_payload: one user, N candidates, the history once.
"""

import contextlib
import pathlib
import resource
import statistics

from . import serving_model
from .figures import Figure, Target, readable, take_turns
from .serving_model import Connection

_MANY = 1000
"""Candidates of the requests that must not fill the memory."""


def overhead(quick: bool) -> list[Figure]:
    """Time of a request over REST, at the median."""
    model = serving_model.exported(quick)
    body = model.body()
    with (
        serving_model.server(model) as (url, _),
        contextlib.closing(Connection(url, body)) as connection,
    ):
        ours, baseline = (
            statistics.median(seconds)
            for seconds in take_turns(
                [connection.ask, model.caller(body)], rounds=30 if quick else 500
            )
        )
    return [
        Figure(
            name="server_overhead",
            value=ours / baseline,
            median=ours / baseline,
            unit="times the time of the baseline at the median",
            target=Target("<=", 1.15),
            baseline="the signature called in-process",
            detail=f"{readable(ours)} : {readable(baseline)}",
        )
    ]


def throughput(quick: bool) -> list[Figure]:
    """Requests per second over REST if there is always some to do."""
    model = serving_model.exported(quick)
    body, seconds, cores = model.body(), 1.0 if quick else 10.0, serving_model.cores()
    with serving_model.server(model) as (url, _):
        baseline = serving_model.calls_per_second([model.caller(body)] * cores, seconds)
        ours = serving_model.saturation(url, body, seconds)
    return [
        Figure(
            name="server_throughput",
            value=ours / baseline,
            median=ours / baseline,
            unit="times the requests per second of the baseline",
            target=Target(">=", 0.9),
            baseline=f"the signature called in-process from {cores} threads",
            detail=f"{ours:.0f}/s : {baseline:.0f}/s",
        )
    ]


def memory(quick: bool) -> list[Figure]:
    """Memory after the last request, over that after the first half of them."""
    model = serving_model.exported(quick)
    requests = 1000 if quick else 10_000
    with (
        serving_model.server(model) as (url, pid),
        contextlib.closing(Connection(url, model.body(_MANY))) as connection,
    ):
        sizes = []
        for _ in range(2):
            for _ in range(requests // 2):
                connection.ask()
            sizes.append(_resident_bytes(pid))
    return [
        Figure(
            name="server_memory",
            value=sizes[1] / sizes[0],
            median=sizes[1] / sizes[0],
            unit="times the memory of the baseline",
            target=Target("<=", 1.02),
            baseline=f"after half of {requests:,} requests with {_MANY:,} candidates",
            detail=f"{sizes[1] / 2**20:.0f} : {sizes[0] / 2**20:.0f} MiB",
        )
    ]


def _resident_bytes(pid: int) -> int:
    pages = pathlib.Path(f"/proc/{pid}/statm").read_text().split()[1]
    return int(pages) * resource.getpagesize()
