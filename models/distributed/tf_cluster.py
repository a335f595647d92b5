"""The cluster of processes of a training: its members, their reachability, and server processes.

TensorFlow reads the cluster from the environment variable TF_CONFIG: JSON with the address of every
process and the task of this process:

    {"cluster": {"worker": ["host1:2222", "host2:2222"]}, "task": {"type": "worker", "index": 0}}
"""

import contextlib
import dataclasses
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

from models.keras import tf
from preprocessing.errors import UserError

TF_CONFIG = "TF_CONFIG"
_CHIEF, _WORKER, _SERVER = "chief", "worker", "ps"
_FIX = "see docs/distributed_training.md for examples."
_RETRY_SECONDS = 0.2
_CONNECT_SECONDS = 2.0
_GONE_SECONDS = 10.0
_SERVER_THREADS = 8
"""Threads of a server: requests of workers wait for each other, so one thread would deadlock."""


@dataclasses.dataclass(frozen=True)
class Cluster:
    """The cluster that TF_CONFIG describes.

    Attributes:
        addresses: Address host:port of every process by kind: chief, worker, ps.
        kind: Kind of this process.
        index: Index of this process among those of its kind.
    """

    addresses: Mapping[str, tuple[str, ...]]
    kind: str
    index: int

    @property
    def address(self) -> str:
        """Address host:port of this process."""
        return self.addresses[self.kind][self.index]

    @property
    def is_server(self) -> bool:
        """Whether this process runs the operations of a coordinator."""
        return _SERVER in self.addresses and self.kind != _CHIEF

    @property
    def peers(self) -> dict[str, str]:
        """Address host:port of the other processes by name, such as worker 1."""
        return {
            f"{kind} {index}": address
            for kind, addresses in self.addresses.items()
            for index, address in enumerate(addresses)
            if (kind, index) != (self.kind, self.index)
        }


def multi_worker() -> Cluster:
    """The cluster of synchronous workers that TF_CONFIG describes.

    Raises:
        UserError: TF_CONFIG is missing, malformed or describes another kind of cluster.
    """
    cluster = _read("multi_worker")
    unknown = set(cluster.addresses) - {_CHIEF, _WORKER}
    if unknown:
        raise UserError(
            f"Expected workers, and a chief at most, in {TF_CONFIG} with --distribute=multi_worker,"
            f" found {', '.join(sorted(unknown))}.",
            _FIX,
        )
    if len(cluster.peers) < 1:
        raise UserError(
            f"Expected two workers or more in {TF_CONFIG} with --distribute=multi_worker, found "
            "one.",
            "one machine trains with --distribute=auto.",
        )
    return cluster


def parameter_server() -> Cluster:
    """The cluster of a coordinator, workers and parameter servers that TF_CONFIG describes.

    Raises:
        UserError: TF_CONFIG is missing, malformed or describes another kind of cluster.
    """
    cluster = _read("parameter_server")
    counts = {kind: len(cluster.addresses.get(kind, ())) for kind in (_CHIEF, _WORKER, _SERVER)}
    if counts[_CHIEF] != 1 or not counts[_WORKER] or not counts[_SERVER]:
        counts_text = ", ".join(f"{count} {kind}" for kind, count in counts.items())
        raise UserError(
            f"Expected 1 chief and at least 1 worker and 1 ps in {TF_CONFIG} with "
            f"--distribute=parameter_server, found {counts_text}.",
            _FIX,
        )
    return cluster


def await_peers(cluster: Cluster, seconds: float) -> None:
    """Waits until every other process of the cluster can be reached.

    TensorFlow itself waits for ever and ignores signals. The port of this process is open
    meanwhile, so that workers that wait for each other can connect.

    Args:
        cluster: Cluster of this process.
        seconds: Maximum time to wait.

    Raises:
        UserError: Some processes cannot be reached in time, or this process cannot open its port.
    """
    deadline = time.monotonic() + seconds
    missing = dict(cluster.peers)
    with _open_port(cluster):
        while missing:
            missing = {name: peer for name, peer in missing.items() if not _reachable(peer)}
            if missing and time.monotonic() > deadline:
                raise UserError(
                    "Expected to reach every process of the cluster, found no answer from "
                    f"{', '.join(f'{name} ({peer})' for name, peer in missing.items())} within "
                    f"{seconds:g} s.",
                    f"start them with the same {TF_CONFIG} but for the task, or wait longer with "
                    "--set=train.peer_timeout=SECONDS.",
                )
            if missing:
                time.sleep(_RETRY_SECONDS)


def keep_sigterm() -> None:
    """Restores Python's handler of SIGTERM, which TensorFlow has replaced by its own."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM))


def serve(cluster: Cluster, seconds: float) -> None:
    """Runs this process as a worker or a parameter server until the coordinator ends.

    Args:
        cluster: Cluster of this process.
        seconds: Maximum time to wait for the coordinator to appear.

    Raises:
        UserError: The coordinator does not appear in time.
    """
    options = tf.compat.v1.ConfigProto(inter_op_parallelism_threads=_SERVER_THREADS)
    server = tf.distribute.Server(
        {kind: list(addresses) for kind, addresses in cluster.addresses.items()},
        job_name=cluster.kind,
        task_index=cluster.index,
        protocol="grpc",
        config=options,
    )
    (coordinator,) = cluster.addresses[_CHIEF]
    deadline = time.monotonic() + seconds
    while not _reachable(coordinator):
        if time.monotonic() > deadline:
            raise UserError(
                f"Expected to reach the coordinator ({coordinator}), found no answer within "
                f"{seconds:g} s.",
                f"start the process whose {TF_CONFIG} has the task chief.",
            )
        time.sleep(_RETRY_SECONDS)
    last_seen = time.monotonic()
    while time.monotonic() - last_seen < _GONE_SECONDS:
        time.sleep(_CONNECT_SECONDS)
        if _reachable(coordinator):
            last_seen = time.monotonic()
    del server  # The server runs as long as the object exists.


@contextlib.contextmanager
def explained_losses(cluster: Cluster | None) -> Iterator[None]:
    """Turns the errors of TensorFlow about lost processes into a `UserError`.

    Args:
        cluster: Cluster of this process; None if there is none, so that errors stay as they are.
    """
    lost = (
        tf.errors.UnavailableError,
        tf.errors.AbortedError,
        tf.errors.DeadlineExceededError,
        tf.errors.CancelledError,
    )
    try:
        yield
    except lost as error:
        if cluster is None:
            raise
        lost_peers = [
            f"{name} ({peer})" for name, peer in cluster.peers.items() if not _reachable(peer)
        ]
        reason = [line for line in error.message.splitlines() if line.strip()][-1]
        raise UserError(
            "Expected every process of the cluster to stay, lost "
            f"{', '.join(lost_peers) or f'the connection to one: {reason[:200]}'}.",
            "start all of them again with --resume.",
        ) from error


def _read(strategy: str) -> Cluster:
    """Reads TF_CONFIG for the named strategy."""
    text = os.environ.get(TF_CONFIG)
    if not text:
        raise UserError(
            f"Expected the environment variable {TF_CONFIG} with --distribute={strategy}, found "
            "none.",
            _FIX,
        )
    try:
        content: Any = json.loads(text)
        cluster = Cluster(
            {kind: tuple(addresses) for kind, addresses in content["cluster"].items()},
            content["task"]["type"],
            int(content["task"]["index"]),
        )
        for address in (cluster.address, *cluster.peers.values()):
            _host_and_port(address)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise UserError(
            f'Expected {TF_CONFIG} to be JSON with "cluster" (host:port of every process by kind) '
            f'and "task" (type and index of this one), found {text!r} '
            f"({type(error).__name__}: {error}).",
            _FIX,
        ) from None
    return cluster


def _host_and_port(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    if not host:
        raise ValueError(f"{address!r} is not host:port")
    return host.strip("[]"), int(port)


@contextlib.contextmanager
def _open_port(cluster: Cluster) -> Iterator[None]:
    """Keeps the port of this process open, so that peers can reach it."""
    if cluster.kind == _CHIEF and _SERVER in cluster.addresses:
        yield  # Servers start before the coordinator and wait for it themselves.
        return
    _, port = _host_and_port(cluster.address)
    try:
        with socket.create_server(("", port), backlog=128):
            yield
    except OSError as error:
        raise UserError(
            f"Expected port {port} of {TF_CONFIG} to be free on this machine, found: {error}.",
            "end the process that uses it, or choose another port.",
        ) from None


def _reachable(address: str) -> bool:
    """Whether something listens at host:port."""
    try:
        with socket.create_connection(_host_and_port(address), _CONNECT_SECONDS):
            return True
    except OSError:
        return False
