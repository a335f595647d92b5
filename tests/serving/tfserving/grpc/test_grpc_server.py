"""The server with both interfaces, arguments of its channels, and warm-up by logged requests."""

import socket

import grpc
import httpx
import pytest

from models.keras import tf
from preprocessing.errors import UserError
from serving import embedded_server
from serving.exporting import warmup
from serving.tfserving.grpc import server as grpc_server
from serving.tfserving.models.servable import Servable
from serving.tfserving.protos import prediction_log_pb2, prediction_service_pb2_grpc
from serving.tfserving.server_options import ServerOptions
from serving.tfserving.status import ServingError
from tests.helpers.grpc_requests import X, ask, example, multi_inference, write_model


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("grpc"))


def test_P2_channel_arguments():
    parsed = grpc_server.channel_arguments("grpc.max_connection_age_ms=2000,a=b,")
    assert parsed == {"grpc.max_connection_age_ms": 2000, "a": "b"}
    with pytest.raises(UserError, match="expected key=value pairs, found 'a'"):
        grpc_server.channel_arguments("a")


def test_P1_server_with_both_interfaces(base):
    """The port is taken by the first server, which the second one says in one line."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ServerOptions(model_name="toy", model_base_path=str(base), rest_api_port=0, port=port)
    answers = []

    def on_start(running, handle):
        answers.append(httpx.get(running.url).status_code)
        handle.should_exit = True

    def ask_both(running, handle):
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
            answers.append(list(stub.Predict(ask({}, x=X), timeout=30).outputs["y"].float_val))
        with pytest.raises(UserError, match=f"free port at --port={port}"):
            embedded_server.serve(options, on_start)
        handle.should_exit = True

    embedded_server.serve(options, ask_both)
    assert answers == [[2.5, 3.0, 4.5]]


def records(*logs):
    return [log.SerializeToString() for log in logs]


def test_W1_warmup_of_every_call(base, tmp_path):
    version = tmp_path / "1"
    (version / "assets.extra").mkdir(parents=True)
    for file in ("saved_model.pb", "variables", "assets", "fingerprint.pb"):
        if (base / "123" / file).exists():
            (version / file).symlink_to(base / "123" / file)
    logs = [prediction_log_pb2.PredictionLog() for _ in range(4)]
    logs[0].predict_log.request.CopyFrom(ask({"name": "other", "version": 77}, x=X))
    for log, kind in ((logs[1], "classify"), (logs[2], "regress")):
        request = getattr(log, f"{kind}_log").request
        request.model_spec.signature_name = kind
        request.input.example_list.examples.append(example(x=1.0))
    logs[3].multi_inference_log.request.CopyFrom(multi_inference(("regress", "regress")))
    with tf.io.TFRecordWriter(str(version / warmup.WARMUP_FILE)) as writer:
        for record in records(*logs):
            writer.write(record)
    assert warmup.replay(Servable(version), iterations=2) == 4
    logs[2].regress_log.request.model_spec.signature_name = "none"
    with tf.io.TFRecordWriter(str(version / warmup.WARMUP_FILE)) as writer:
        for record in records(*logs):
            writer.write(record)
    with pytest.raises(ServingError, match="No signature was found with the name: none"):
        warmup.replay(Servable(version))
