"""What the server costs over calling the signature in the same process.

Model and request are those of serving_payload: one user, N candidates, the history once.
"""

import concurrent.futures
import contextlib
import http.client
import json
import os
import pathlib
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.parse
from collections.abc import Callable, Iterator

import numpy as np

from serving import export, json_tensors, load
from serving.servable import Servable

from .figures import Figure, Target, readable, take_turns
from .serving_payload import build_data, request, write_run

_ROOT = pathlib.Path(__file__).parents[2]
_MANY = 1000
"""Candidates of the requests that must not fill the memory."""


def measure(quick: bool) -> list[Figure]:
    """Overhead at the median, throughput at saturation, tail at half of it, and memory."""
    count, model, scale = (50, "din", 10) if quick else (200, "deminet", 1)
    with tempfile.TemporaryDirectory() as directory:
        root = pathlib.Path(directory)
        data = build_data(root)
        export.export(write_run(root / "run", data, model), root / "model")
        columns = request(data, count)[0]
        with _server(root / "model") as (url, pid):
            in_process = _caller(root / "model", columns)
            return [
                _overhead(in_process, url, columns, 300 // scale),
                _throughput(in_process, url, columns, 10 / scale),
                _memory(url, pid, request(data, _MANY)[0], 10_000 // scale),
                *_tails(root / "model", columns, 10 / scale),
            ]


def _overhead(in_process: Callable[[], object], url: str, body: bytes, rounds: int) -> Figure:
    with contextlib.closing(_Connection(url)) as connection:
        ours, baseline = (
            statistics.median(seconds)
            for seconds in take_turns([lambda: connection.ask(body), in_process], rounds)
        )
    return Figure(
        name="server_overhead",
        value=ours / baseline,
        median=ours / baseline,
        unit="times the time of the baseline at the median",
        target=Target("<=", 1.15),
        baseline="the signature called in-process",
        detail=f"{readable(ours)} : {readable(baseline)}",
    )


def _throughput(in_process: Callable[[], object], url: str, body: bytes, seconds: float) -> Figure:
    cores = len(os.sched_getaffinity(0))
    baseline = _calls_per_second([in_process] * cores, seconds)
    ours = _saturation(url, body, seconds)
    return Figure(
        name="server_throughput",
        value=ours / baseline,
        median=ours / baseline,
        unit="times the requests per second of the baseline",
        target=Target(">=", 0.9),
        baseline=f"the signature called in-process from {cores} threads",
        detail=f"{ours:.0f}/s : {baseline:.0f}/s",
    )


def _tails(model: pathlib.Path, body: bytes, seconds: float) -> Iterator[Figure]:
    """The slowest requests in a hundred, as servers for many users are set up, and by default.

    By default a request computes on all cores, so two that meet share them, and a queue forms at
    random as soon as a few do. With one thread each, as many go on side by side as there are cores.
    """
    for name, flags, target in (
        ("server_tail", ["--tensorflow_intra_op_parallelism=1"], Target("<=", 3.0)),
        ("server_tail_default", [], None),
    ):
        with _server(model, *flags) as (url, _):
            level = load.Level("open", _saturation(url, body, seconds) / 2)
            samples = load.measure(url, [body], level, load.Bounds(2 * seconds, 10**6), seed=0)
        half, tail = np.percentile(np.array(samples.latencies), [50, 99], method="higher")
        yield Figure(
            name=name,
            value=float(tail / half),
            median=float(tail / half),
            unit="times the median latency",
            target=target,
            baseline=f"p99 : p50 at half of the saturation load, {level}{' '.join(['', *flags])}",
            detail=f"{readable(float(tail))} : {readable(float(half))}",
        )


def _saturation(url: str, body: bytes, seconds: float) -> float:
    """Requests per second that the server answers if it always has some to do."""
    with contextlib.ExitStack() as stack:
        connections = [
            stack.enter_context(contextlib.closing(_Connection(url)))
            for _ in range(2 * len(os.sched_getaffinity(0)))
        ]
        asking = [lambda each=connection: each.ask(body) for connection in connections]
        return _calls_per_second(asking, seconds)  # type: ignore[arg-type]


def _memory(url: str, pid: int, body: bytes, requests: int) -> Figure:
    """Memory after the last request, over that after the first half of them."""
    with contextlib.closing(_Connection(url)) as connection:
        sizes = []
        for _ in range(2):
            for _ in range(requests // 2):
                connection.ask(body)
            sizes.append(_resident_bytes(pid))
    return Figure(
        name="server_memory",
        value=sizes[1] / sizes[0],
        median=sizes[1] / sizes[0],
        unit="times the memory of the baseline",
        target=Target("<=", 1.02),
        baseline=f"after half of {requests:,} requests with {_MANY:,} candidates",
        detail=f"{sizes[1] / 2**20:.0f} : {sizes[0] / 2**20:.0f} MiB",
    )


class _Connection:
    """A kept-alive connection that costs the client as little as possible."""

    def __init__(self, url: str) -> None:
        parsed = urllib.parse.urlsplit(url)
        self._path = parsed.path
        self._connection = http.client.HTTPConnection(parsed.netloc, timeout=60)

    def ask(self, body: bytes) -> bytes:
        """The body of the reply."""
        self._connection.request("POST", self._path, body)
        reply = self._connection.getresponse()
        found = reply.read()
        if reply.status != 200:
            raise RuntimeError(found.decode())
        return found

    def close(self) -> None:
        self._connection.close()


def _caller(model: pathlib.Path, body: bytes) -> Callable[[], object]:
    """Calls the signature on the tensors of a request."""
    version = next(path for path in model.iterdir() if path.name.isdecimal())
    servable = Servable(version)
    inputs, _ = json_tensors.input_tensors(json.loads(body), servable.input_types(""))
    return lambda: servable.predict("", inputs)


@contextlib.contextmanager
def _server(model: pathlib.Path, *flags: str) -> Iterator[tuple[str, int]]:
    """A server in a process of its own: address to post to, and process id."""
    served = (f"--model_base_path={model}", "--model_name=ctr", "--rest_api_port=0")
    with subprocess.Popen(
        [sys.executable, "-m", "serving.server", *served, *flags],
        cwd=_ROOT,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            yield f"{process.stdout.readline().split()[-1]}:predict", process.pid
        finally:
            process.terminate()


def _calls_per_second(calls: list[Callable[[], object]], seconds: float) -> float:
    """How often the calls, each in a thread of its own, return within some seconds."""
    end = time.perf_counter() + seconds

    def repeat(call: Callable[[], object]) -> int:
        count = 0
        while time.perf_counter() < end:
            call()
            count += 1
        return count

    start = time.perf_counter()
    with concurrent.futures.ThreadPoolExecutor(len(calls)) as pool:
        total = sum(pool.map(repeat, calls))
    return total / (time.perf_counter() - start)


def _resident_bytes(pid: int) -> int:
    pages = pathlib.Path(f"/proc/{pid}/statm").read_text().split()[1]
    return int(pages) * resource.getpagesize()
