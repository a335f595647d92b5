"""A server under requests that no client should send, and on a machine that runs out of things."""

import contextlib
import json
import os
import pathlib
import random
import resource
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.parse

import httpx
import pytest
from fuzz import malformed

ROOT = pathlib.Path(__file__).parents[3]
STATUSES = {200, 400, 404, 413, 417, 501, 503, 504}
"""What the contract has for a request, with the limits that are ours. Above all: no 500."""
PROBE = b'{"instances": [1.0, 2.0, 5.0]}'


class Target:
    """A server and what is known about its health.

    Args:
        root: `http://HOST:PORT`.
        pid: Its process.
    """

    def __init__(self, root, pid):
        parsed = urllib.parse.urlsplit(root)
        self.address = (parsed.hostname, parsed.port)
        self.root = root
        self.pid = pid

    def probe(self):
        """The right answer to a good request."""
        reply = httpx.post(f"{self.root}{malformed.PREDICT}", content=PROBE, timeout=30)
        assert (reply.status_code, reply.json()) == (200, {"predictions": [2.5, 3.0, 4.5]})

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def resident_bytes(self):
        pages = pathlib.Path(f"/proc/{self.pid}/statm").read_text().split()[1]
        return int(pages) * resource.getpagesize()


def check_reply(received, attack):
    """Every reply within what came is HTTP, and none says that the server failed."""
    rest = received
    while rest:
        head, _, rest = rest.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        version, status = lines[0].split(" ")[:2]
        assert version == "HTTP/1.1", (attack, received[:300])
        if status == "100":
            continue
        assert int(status) in STATUSES, (attack, received[:600])
        headers = dict(line.lower().split(": ", 1) for line in lines[1:])
        length = int(headers["content-length"])
        body, rest = rest[:length], rest[length:]
        assert len(body) == length, (attack, received[:300])
        if headers["content-type"] == "application/json" and status != "200":
            assert set(json.loads(body)) == {"error"}, (attack, received[:600])


def reply_to(connection, attack):
    """The bytes of the reply; b"" if the server hung up first."""
    received = b""
    while b"\r\n\r\n" not in received:
        chunk = connection.recv(65536)
        if not chunk:
            return received
        received += chunk
    head, _, body = received.partition(b"\r\n\r\n")
    length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    while len(body) < length:
        chunk = connection.recv(65536)
        assert chunk, (attack, received[:300])
        body += chunk
    return head + b"\r\n\r\n" + body


def run(target, attack):
    """Sends an attack and holds what comes back against the contract."""
    with socket.create_connection(target.address, timeout=30) as connection:
        try:
            connection.sendall(attack.sent)
            if attack.answered:
                received = reply_to(connection, attack)
                assert received, attack
            elif attack.ends == "half-close":
                connection.shutdown(socket.SHUT_WR)
                received = b"".join(iter(lambda: connection.recv(65536), b""))
            else:
                received = b""
        except (ConnectionResetError, BrokenPipeError):
            # The server refused and closed before all was sent.
            assert not attack.answered, attack
            received = b""
        check_reply(received, attack)
        if attack.ends == "reset":
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


@contextlib.contextmanager
def slow_senders(target, number):
    """Connections on which a request never ends, opened anew whenever the server closes them."""
    stop = threading.Event()

    def send_slowly():
        while not stop.is_set():
            with (
                contextlib.suppress(OSError),
                socket.create_connection(target.address, timeout=30) as connection,
            ):
                connection.sendall(malformed.post(b" " * 1000)[:-900])
                while not stop.wait(0.1):
                    connection.sendall(b" ")
            stop.wait(0.1)

    threads = [threading.Thread(target=send_slowly, daemon=True) for _ in range(number)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def send_much(target, size):
    """A body of so many bytes, or as much of it as the server takes; returns the status."""
    with socket.create_connection(target.address, timeout=30) as connection:
        head = f"POST {malformed.PREDICT} HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n"
        connection.sendall(head.encode())
        block = b"[" * 2**20
        for _ in range(size // len(block)):
            connection.sendall(block)
        connection.sendall(block[: size % len(block)])
        return reply_to(connection, "large body").split()[1]


@contextlib.contextmanager
def server_process(base, *flags, stderr=None):
    """A server of its own process, so that a crash is seen as one."""
    command = [sys.executable, "-m", "serving.server", f"--model_base_path={base}"]
    with subprocess.Popen(
        [*command, "--model_name=toy", "--rest_api_port=0", *flags],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
    ) as process:
        try:
            line = process.stdout.readline()
            yield process, Target(line.split()[-1].split("/v1/")[0], process.pid)
        finally:
            process.kill()


def test_malformed_requests(served):
    target = Target(served.root, os.getpid())
    rng = random.Random(7)
    for _ in range(300):
        run(target, malformed.draw(rng))
    target.probe()


@pytest.mark.parametrize(
    "sent",
    [
        b"\x00\x01\r\n\r\n",
        b"GET\r\n",
        b"GET \xff HTTP/1.1\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"BREW / HTTP/1.1\r\n\r\n",
        b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n",
        malformed.post(b"{}", "Content-Length: x\r\n"),
        malformed.post(b"{}", "Transfer-Encoding: chunked\r\n"),
    ],
    ids=["binary", "line", "path", "version", "method", "connect", "length", "both-lengths"],
)
def test_bytes_that_are_not_http_are_refused(served, sent):
    target = Target(served.root, os.getpid())
    with socket.create_connection(target.address, timeout=30) as connection:
        connection.sendall(sent)
        received = b"".join(iter(lambda: connection.recv(65536), b""))
    assert received.startswith(b"HTTP/1.1 400 ")
    check_reply(received, sent)
    target.probe()


@pytest.mark.slow
def test_ten_thousand_malformed_requests(exported, tmp_path):
    log = tmp_path / "stderr"
    with (
        log.open("w") as stderr,
        server_process(exported, "--rest_api_timeout_in_ms=2000", stderr=stderr) as (
            process,
            target,
        ),
    ):
        target.probe()
        rng = random.Random(20)
        with slow_senders(target, 5):
            for i in range(10_000):
                run(target, malformed.draw(rng))
                if i == 1_000:  # what is set up once is set up
                    descriptors, resident = target.descriptors(), target.resident_bytes()
                if i % 1_000 == 999:
                    target.probe()
            for size in (33 * 2**20, 100_000_000):
                assert send_much(target, size) == b"413"
        target.probe()
        deadline = time.monotonic() + 20
        while target.descriptors() > descriptors + 2:
            assert time.monotonic() < deadline, "connections stay open"
            time.sleep(0.1)
        assert target.resident_bytes() < resident + 100 * 2**20
        assert process.poll() is None
    # uvicorn's own traceback, if a client sent several requests and hung up before the first reply
    hung_up_on = "TCPTransport closed=True"
    assert log.read_text().count("Traceback") == log.read_text().count(hung_up_on)


@pytest.mark.slow
def test_running_out_of_descriptors_and_disk(exported, tmp_path):
    base = tmp_path / "model"
    shutil.copytree(exported, base)
    with (
        open("/dev/full", "w") as full,  # every write to it fails: the disk is full
        server_process(base, "--file_system_poll_wait_seconds=0.1", stderr=full) as (
            process,
            target,
        ),
    ):
        target.probe()
        room = 20
        allowed = target.descriptors() + room
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (allowed, allowed))
        with contextlib.ExitStack() as stack:
            for _ in range(3 * room):
                with contextlib.suppress(OSError):
                    connection = socket.create_connection(target.address, timeout=5)
                    stack.enter_context(connection)
            (base / "999").mkdir()  # a version that cannot be loaded, which is logged
            time.sleep(1)
            assert process.poll() is None
        # Without descriptors it cannot look for versions either, so that comes a little later.
        deadline, states = time.monotonic() + 20, []
        while states != [("999", "END"), ("123", "AVAILABLE")]:
            assert time.monotonic() < deadline, f"the server does not recover: {states}"
            time.sleep(0.1)
            with contextlib.suppress(httpx.HTTPError):
                target.probe()
                status = httpx.get(f"{target.root}/v1/models/toy").json()["model_version_status"]
                states = [(entry["version"], entry["state"]) for entry in status]
