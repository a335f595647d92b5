"""Version switches, broken versions and a rollback under steady traffic over both interfaces."""

import collections
import contextlib
import pathlib
import shutil
import threading
import time

import grpc
import httpx
import pytest

from models.keras import tf
from serving import embedded_server
from serving.exporting import publishing
from serving.exporting.publishing import Publication
from serving.tfserving.grpc.server import GrpcServer
from serving.tfserving.grpc.services import ModelService, PredictionService
from serving.tfserving.metrics import Metrics
from serving.tfserving.models import model_config
from serving.tfserving.models.servable import Servable
from serving.tfserving.models.store import ModelStore
from serving.tfserving.protos import predict_pb2, prediction_service_pb2_grpc

SWITCHES = 20
WEIGHTS = 4_000_000  # 16 MB per version: a leak of all of them would be 320 MB
BATCH = 64


class Constant(tf.Module):
    """Answers with its own number, whatever it is asked; has weights to weigh something."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = tf.Variable(float(number))
        self.weights = tf.Variable(tf.fill([WEIGHTS], float(number)))

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
    def answer(self, x):
        mean = tf.reduce_mean(self.weights[:1000])
        return {"y": x * 0 + self.number, "z": x * 0 + mean}


def save(base: pathlib.Path, number: int) -> pathlib.Path:
    hidden = base / f".tmp-{number}"
    model = Constant(number)
    tf.saved_model.save(model, str(hidden), signatures=model.answer)
    return hidden


def resident_megabytes() -> float:
    text = pathlib.Path("/proc/self/status").read_text()
    return int(text.split("VmRSS:")[1].split()[0]) / 1024


def wait_for(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


class Traffic:
    """Clients that ask without pause and note every answer, or what went wrong."""

    def __init__(self) -> None:
        self.stop = threading.Event()
        self.answers: dict[str, list[float]] = collections.defaultdict(list)
        self.failures: list[str] = []

    @contextlib.contextmanager
    def running(self, **clients):
        threads = [
            threading.Thread(target=self._repeat, args=(name, ask)) for name, ask in clients.items()
        ]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self.stop.set()
            for thread in threads:
                thread.join()

    def wait_for_answer(self, value):
        """Until the latest answer of every client is this one."""
        wait_for(lambda: {answers[-1] for answers in self.answers.values()} == {value})

    def _repeat(self, name, ask):
        while not self.stop.is_set():
            try:
                values = set(ask())
                assert len(values) == 1, f"versions mixed in one answer: {values}"
                self.answers[name].append(values.pop())
            except Exception as error:
                self.failures.append(f"{name}: {error!r}")


def over_rest(url):
    client = httpx.Client(timeout=60)

    def ask():
        reply = client.post(f"{url}:predict", json={"inputs": [0.0] * BATCH})
        assert reply.status_code == 200, reply.text
        outputs = reply.json()["outputs"]
        return outputs["y"] + outputs["z"]

    return ask


def over_grpc(port):
    channel = grpc.insecure_channel(f"127.0.0.1:{port}")
    stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "m"
    request.inputs["x"].CopyFrom(tf.make_tensor_proto([0.0] * BATCH))

    def ask():
        outputs = stub.Predict(request, timeout=60).outputs
        return [*outputs["y"].float_val, *outputs["z"].float_val]

    return ask


@pytest.mark.slow
def test_V3_twenty_switches_under_traffic(tmp_path):
    save(tmp_path, 1).rename(tmp_path / "1")
    traffic = Traffic()
    memory = []
    with embedded_server.running(tmp_path, "m", file_system_poll_wait_seconds=0.02) as running:

        def newest():
            return httpx.get(running.url, timeout=60).json()["model_version_status"][0]

        with traffic.running(a=over_rest(running.url), b=over_rest(running.url)):
            for number in range(2, 2 + SWITCHES):
                save(tmp_path, number).rename(tmp_path / str(number))
                traffic.wait_for_answer(float(number))
                publishing.prune(tmp_path, keep=2)
                memory.append(resident_megabytes())
            broken = 2 + SWITCHES
            half = shutil.copytree(tmp_path / str(broken - 1), tmp_path / ".half")
            for file in (half / "variables").iterdir():
                file.unlink()
            half.rename(tmp_path / str(broken))
            wait_for(lambda: newest()["state"] == "END")
            damaged = shutil.copytree(tmp_path / str(broken - 1), tmp_path / ".damaged")
            graph = damaged / "saved_model.pb"
            graph.write_bytes(graph.read_bytes()[:-1000])
            damaged.rename(tmp_path / str(broken + 1))
            wait_for(lambda: newest()["version"] == str(broken + 1) and newest()["state"] == "END")
    assert not traffic.failures
    for answers in traffic.answers.values():
        # Each client saw the versions come in order, and never one that was broken.
        assert answers == sorted(answers)
        assert answers[-1] == broken - 1
    # From the fifth switch on, so that the allocators have grown to what they need.
    assert memory[-1] - memory[4] < 64, memory


def test_V9_rollback_under_traffic(tmp_path):
    """Over gRPC and through models.config, without a failed request.

    That it takes one look at the file is what test_publish shows.
    """
    for number in (1, 2):
        save(tmp_path, number).rename(tmp_path / str(number))
    publishing.write(tmp_path, Publication("m", str(tmp_path), stable=2, previous=1))
    store = ModelStore(Servable)
    file = tmp_path / publishing.CONFIG
    store.start(model_config.read(file), 0.05)
    store.start_polling(0.05)
    store.follow_config_file(file, 0.05)
    running = GrpcServer(PredictionService(store, Metrics()), ModelService(store))
    traffic = Traffic()
    try:
        with traffic.running(a=over_grpc(running.port)):
            wait_for(lambda: len(traffic.answers["a"]) > 10)
            publishing.rollback(tmp_path)
            traffic.wait_for_answer(1.0)
    finally:
        running.stop(1)
        store.stop()
    assert not traffic.failures
    assert traffic.answers["a"] == sorted(traffic.answers["a"], reverse=True)
