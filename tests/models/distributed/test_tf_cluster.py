"""What TF_CONFIG may say, and how processes find each other."""

import json
import socket
import threading
import time

import pytest

from models.distributed import tf_cluster
from models.distributed.tf_cluster import Cluster
from models.keras import tf
from preprocessing.errors import UserError


def _free_ports(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [taken.getsockname()[1] for taken in sockets]
    for taken in sockets:
        taken.close()
    return ports


def _config(monkeypatch, cluster, kind, index=0):
    content = {"cluster": cluster, "task": {"type": kind, "index": index}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(content))


def test_reads_a_cluster_of_workers(monkeypatch):
    _config(monkeypatch, {"worker": ["a:1", "b:2"]}, "worker", 1)
    cluster = tf_cluster.multi_worker()
    assert cluster.address == "b:2"
    assert cluster.peers == {"worker 0": "a:1"}
    assert not cluster.is_server


def test_reads_a_cluster_with_servers(monkeypatch):
    content = {"chief": ["a:1"], "worker": ["b:2", "c:3"], "ps": ["d:4"]}
    _config(monkeypatch, content, "worker", 1)
    cluster = tf_cluster.parameter_server()
    assert cluster.is_server
    assert cluster.peers == {"chief 0": "a:1", "worker 0": "b:2", "ps 0": "d:4"}
    _config(monkeypatch, content, "chief")
    assert not tf_cluster.parameter_server().is_server


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "environment variable TF_CONFIG with --distribute=multi_worker, found none"),
        ("{", "JSON with"),
        ('{"cluster": {"worker": ["a:1", "b:1"]}}', "KeyError"),
        (
            '{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 2}}',
            "IndexError",
        ),
        (
            '{"cluster": {"worker": ["a", "b:1"]}, "task": {"type": "worker", "index": 0}}',
            "'a' is not host:port",
        ),
        (
            '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 0}}',
            "two workers or more",
        ),
        (
            '{"cluster": {"worker": ["a:1"], "ps": ["b:1"]}, "task": {"type": "ps", "index": 0}}',
            "found ps",
        ),
    ],
    ids=["none", "syntax", "no-task", "no-such-task", "no-port", "alone", "servers"],
)
def test_what_workers_cannot_use_is_refused(monkeypatch, text, message):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    if text is not None:
        monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(UserError, match=message):
        tf_cluster.multi_worker()


def test_parameter_servers_need_each_kind(monkeypatch):
    _config(monkeypatch, {"chief": ["a:1"], "worker": ["b:1"]}, "chief")
    with pytest.raises(UserError, match="found 1 chief, 1 worker, 0 ps"):
        tf_cluster.parameter_server()


def test_workers_that_wait_for_each_other_find_each_other():
    addresses = {"worker": tuple(f"127.0.0.1:{port}" for port in _free_ports(3))}
    errors = []
    all_found = threading.Barrier(3)

    def wait(index):
        try:
            # Not all start at once.
            time.sleep(0.2 * index)
            tf_cluster.await_peers(Cluster(addresses, "worker", index), 60.0)
            # TensorFlow's own server takes the port over from here, and stays.
            host, port = addresses["worker"][index].split(":")
            with socket.create_server((host, int(port))):
                all_found.wait(60.0)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=wait, args=(index,)) for index in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors


def test_a_missing_peer_is_named_in_time():
    here, missing = _free_ports(2)
    cluster = Cluster({"worker": (f"127.0.0.1:{here}", f"127.0.0.1:{missing}")}, "worker", 0)
    started = time.monotonic()
    message = rf"no answer from worker 1 \(127.0.0.1:{missing}\) within 0.5 s"
    with pytest.raises(UserError, match=message):
        tf_cluster.await_peers(cluster, 0.5)
    assert time.monotonic() - started < 10


def test_a_port_in_use_is_named():
    with socket.create_server(("", 0)) as taken:
        port = taken.getsockname()[1]
        cluster = Cluster({"worker": (f"127.0.0.1:{port}", "127.0.0.1:1")}, "worker", 0)
        with pytest.raises(UserError, match=f"port {port} of TF_CONFIG to be free"):
            tf_cluster.await_peers(cluster, 0.5)


def test_lost_peers_are_named():
    (gone,) = _free_ports(1)
    cluster = Cluster({"worker": ("127.0.0.1:1", f"127.0.0.1:{gone}")}, "worker", 0)
    error = tf.errors.UnavailableError(None, None, "Socket closed\nAdditional GRPC details")
    with (
        pytest.raises(UserError, match=rf"lost worker 1 \(127.0.0.1:{gone}\)\. Fix"),
        tf_cluster.explained_losses(cluster),
    ):
        raise error
    with pytest.raises(tf.errors.UnavailableError), tf_cluster.explained_losses(None):
        raise error
