"""The model that the benches of the server ask, servers for it, and clients that cost little."""

import atexit
import concurrent.futures
import contextlib
import dataclasses
import functools
import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse
from collections.abc import Callable, Iterator, Sequence

from preprocessing.data_dir import DataDir
from serving import export
from serving.tfserving.models.servable import Servable
from serving.tfserving.rest import json_tensors

from .serving_payload import build_data, request, write_run

_ROOT = pathlib.Path(__file__).parents[2]


@dataclasses.dataclass(frozen=True)
class Exported:
    """A model with random weights, and requests for it.

    Attributes:
        base: The directory that holds the version.
        data: What it was made for.
        candidates: Of the usual request.
    """

    base: pathlib.Path
    data: DataDir
    candidates: int

    def body(self, candidates: int | None = None) -> bytes:
        """A request in column form: one user, the history once, some candidates."""
        return request(self.data, candidates or self.candidates)[0]

    def caller(self, body: bytes) -> Callable[[], object]:
        """Calls the signature in this process, on the tensors of a request.

        Called once already: what TensorFlow sets up at the first call takes a second.
        """
        version = next(path for path in self.base.iterdir() if path.name.isdecimal())
        servable = Servable(version)
        inputs, _ = json_tensors.input_tensors(json.loads(body), servable.input_types(""))
        servable.predict("", inputs)
        return lambda: servable.predict("", inputs)


@functools.cache
def exported(quick: bool) -> Exported:
    """DemiNet and 200 candidates; made once per process, and removed at its end."""
    root = pathlib.Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    data = build_data(root)
    export.export(write_run(root / "run", data, "din" if quick else "deminet"), root / "model")
    return Exported(root / "model", data, 50 if quick else 200)


@contextlib.contextmanager
def server(model: Exported, flags: Sequence[str] = ()) -> Iterator[tuple[str, int]]:
    """A server in a process of its own: address to post to, and process id."""
    served = (f"--model_base_path={model.base}", "--model_name=ctr", "--rest_api_port=0")
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


class Connection:
    """A connection that stays open and costs the client as little as possible.

    It knows just enough of HTTP for one request in one packet and a reply of known length: the
    client of Python's library takes half a millisecond, which would be counted as the server's.
    """

    def __init__(self, url: str, body: bytes) -> None:
        parsed = urllib.parse.urlsplit(url)
        assert parsed.hostname is not None
        lines = (f"POST {parsed.path} HTTP/1.1", "Host: bench", f"Content-Length: {len(body)}")
        self._request = "\r\n".join((*lines, "", "")).encode() + body
        self._socket = socket.create_connection((parsed.hostname, parsed.port), timeout=60)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self) -> bytes:
        """The body of the reply."""
        self._socket.sendall(self._request)
        received = self._receive()
        while b"\r\n\r\n" not in received:
            received += self._receive()
        head, body = received.split(b"\r\n\r\n", 1)
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        while len(body) < length:
            body += self._receive()
        if not head.startswith(b"HTTP/1.1 200 "):
            raise RuntimeError(body.decode())
        return body

    def close(self) -> None:
        """Closes the connection."""
        self._socket.close()

    def _receive(self) -> bytes:
        received = self._socket.recv(2**16)
        if not received:
            raise RuntimeError("The server closed the connection.")
        return received


def answers_per_second(url: str, body: bytes, seconds: float, clients: int) -> float:
    """Requests per second that the server answers to so many who ask without pause."""
    with contextlib.ExitStack() as stack:
        connections = [
            stack.enter_context(contextlib.closing(Connection(url, body))) for _ in range(clients)
        ]
        return calls_per_second([connection.ask for connection in connections], seconds)


def saturation(url: str, body: bytes, seconds: float) -> float:
    """Requests per second that the server answers if it always has some to do."""
    return answers_per_second(url, body, seconds, 2 * cores())


def calls_per_second(calls: Sequence[Callable[[], object]], seconds: float) -> float:
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


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))
