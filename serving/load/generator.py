"""Load generator: sends requests in closed or open loops and measures their latency.

In a closed loop, callers ask again as soon as they are answered; an overloaded server slows them
down. In an open loop, requests come at random times whatever the server does, like those of users.
Their latency is measured from when they were due, so that it includes waiting for a connection.
"""

import asyncio
import collections
import contextlib
import dataclasses
import itertools
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any

import numpy as np

from serving.load.http_client import LoadClient

PERCENTILES = (50.0, 95.0, 99.0, 99.9)
NO_REPLY = "no reply"

_CONNECTIONS = 256
_WARM_UPS = 3


@dataclasses.dataclass(frozen=True)
class Level:
    """Kind and size of the load on the server.

    Attributes:
        loop: Kind of load, "closed" or "open".
        load: Number of callers of a closed loop, or requests per second of an open one.
    """

    loop: str
    load: float

    def __str__(self) -> str:
        if self.loop == "open":
            return f"{self.load:g}/s"
        return "1 caller" if self.load == 1 else f"{self.load:g} callers"


@dataclasses.dataclass(frozen=True)
class Bounds:
    """Bounds of a measurement, which ends at the first that it reaches.

    Attributes:
        seconds: Time after which no request is begun.
        requests: Largest number of requests.
        timeout_seconds: Time after which a request without reply counts as failed.
    """

    seconds: float
    requests: int
    timeout_seconds: float = 30.0


@dataclasses.dataclass
class Samples:
    """Observations of a measurement.

    Attributes:
        latencies: Latencies in seconds of the requests that were answered with 200.
        failures: Number of other requests by HTTP status, or `NO_REPLY`.
        reply_bytes: Total size of the bodies of successful replies in bytes.
        elapsed: Seconds from the first request to the last reply.
    """

    latencies: list[float] = dataclasses.field(default_factory=list)
    failures: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    reply_bytes: int = 0
    elapsed: float = 0.0

    def summary(self) -> dict[str, Any]:
        """Requests, failures, requests per second, bytes, and percentiles in milliseconds.

        A percentile is an observed latency, never a value below one: with fewer than 1,000
        requests, p99.9 is the slowest. Percentiles are None if no request was successful.
        """
        count = len(self.latencies)
        values: list[float | None] = [None] * len(PERCENTILES)
        if count:
            milliseconds = np.array(self.latencies) * 1000
            values = np.percentile(milliseconds, PERCENTILES, method="higher").round(3).tolist()
        return {
            "requests": count,
            "failures": dict(self.failures),
            "seconds": round(self.elapsed, 3),
            "per_second": round(count / self.elapsed, 2) if self.elapsed else 0.0,
            "reply_bytes": round(self.reply_bytes / count) if count else None,
            "latency_ms": {f"p{q:g}": value for q, value in zip(PERCENTILES, values, strict=True)},
        }


def measure(url: str, bodies: Sequence[bytes], level: Level, bounds: Bounds, seed: int) -> Samples:
    """Measures a server under load.

    Args:
        url: Address to which the bodies are posted.
        bodies: Request bodies, sent in turns.
        level: Kind and size of the load.
        bounds: Bounds of the measurement.
        seed: Seed of the arrival times of an open loop.

    Returns:
        Observations without those of the first requests, which warm the server up.
    """
    return asyncio.run(_measure(url, itertools.cycle(bodies), level, bounds, seed))


async def _measure(
    url: str, bodies: Iterator[bytes], level: Level, bounds: Bounds, seed: int
) -> Samples:
    # Waiting for one of the connections is part of what an open loop measures.
    client = LoadClient(url, _CONNECTIONS, bounds.timeout_seconds)

    async def ask(samples: Samples, due: float) -> None:
        try:
            status, size = await client.post(next(bodies))
        except OSError:
            samples.failures[NO_REPLY] += 1
            return
        if status == 200:
            samples.latencies.append(time.perf_counter() - due)
            samples.reply_bytes += size
        else:
            samples.failures[str(status)] += 1

    with contextlib.closing(client):
        for _ in range(_WARM_UPS):
            await ask(Samples(), time.perf_counter())
        samples = Samples()
        start = time.perf_counter()
        if level.loop == "closed":
            await _closed(lambda due: ask(samples, due), int(level.load), start, bounds)
        else:
            await _open(lambda due: ask(samples, due), level.load, start, bounds, seed)
        samples.elapsed = time.perf_counter() - start
    return samples


async def _closed(
    ask: Callable[[float], Awaitable[None]], callers: int, start: float, bounds: Bounds
) -> None:
    tickets = itertools.count()

    async def call() -> None:
        while (now := time.perf_counter()) < start + bounds.seconds:
            if next(tickets) >= bounds.requests:
                return
            await ask(now)

    await asyncio.gather(*(call() for _ in range(callers)))


async def _open(
    ask: Callable[[float], Awaitable[None]],
    per_second: float,
    start: float,
    bounds: Bounds,
    seed: int,
) -> None:
    gaps = np.random.default_rng(seed).exponential(1 / per_second, bounds.requests)
    due = start + np.cumsum(gaps)
    pending = []
    for moment in due[due < start + bounds.seconds].tolist():
        await asyncio.sleep(moment - time.perf_counter())
        pending.append(asyncio.ensure_future(ask(moment)))
    await asyncio.gather(*pending)
