"""Servers in Java for tests: their jars from Maven, kept in build/, and processes that end."""

import contextlib
import ctypes
import hashlib
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence

ROOT = pathlib.Path(__file__).parents[2]
_MAVEN_OPTIONS = [
    "-Dmaven.artifact.threads=8",
    # By default Maven waits half an hour for a server that has stopped sending.
    "-Dmaven.wagon.rto=20000",
    "-Dmaven.wagon.http.retryHandler.count=5",
    "-Daether.connector.requestTimeout=20000",
]


def missing() -> str:
    """Why no server can be started here; empty if one can."""
    absent = [tool for tool in ("java", "mvn") if shutil.which(tool) is None]
    return f"{' and '.join(absent)} not found on PATH" if absent else ""


def jars(name: str) -> pathlib.Path:
    """The directory of the jars of scripts/NAME/pom.xml, which Maven fills unless it is there."""
    pom = ROOT / "scripts" / name / "pom.xml"
    version = hashlib.sha256(pom.read_bytes()).hexdigest()[:16]
    directory = ROOT / "build" / name / version
    if not directory.exists():
        partial = directory.with_name(f"{version}.{os.getpid()}")
        plugin = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies"
        command = ["mvn", "-B", "-q", "-ntp", "-f", pom, *_MAVEN_OPTIONS, plugin]
        command += ["-DincludeScope=runtime", f"-DoutputDirectory={partial}"]
        subprocess.run(list(map(str, command)), check=True)
        partial.rename(directory)
    return directory


@contextlib.contextmanager
def process(
    command: Sequence[str], log: pathlib.Path, is_up: Callable[[], bool], patience: float
) -> Iterator[subprocess.Popen]:
    """Runs a process until the block ends, or the test process however that ends.

    Args:
        command: Program and arguments.
        log: File for what it prints.
        is_up: Function that says whether it answers.
        patience: Seconds to wait for that.
    """
    libc = ctypes.CDLL(None)

    def die_with_parent() -> None:
        libc.prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG

    with log.open("wb") as output:
        started = subprocess.Popen(
            command, cwd=ROOT, stdout=output, stderr=output, preexec_fn=die_with_parent
        )
    try:
        deadline = time.monotonic() + patience
        while not is_up():
            if started.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{command[0]} does not start: {log.read_text()[-2000:]}")
            time.sleep(0.1)
        yield started
    finally:
        started.terminate()
        try:
            started.wait(20)
        except subprocess.TimeoutExpired:
            started.kill()
            started.wait()


def free_ports(count: int) -> list[int]:
    """Ports of this machine that nobody listens at."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def listens(port: int) -> bool:
    """Whether somebody listens at a port of this machine."""
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0
