"""The server with both interfaces, arguments of its channels, and warm-up by logged requests."""

import datetime
import json
import socket

import grpc
import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

from models.keras import tf
from preprocessing.errors import UserError
from serving import embedded_server
from serving.exporting import warmup
from serving.tfserving.grpc import credentials
from serving.tfserving.grpc import server as grpc_server
from serving.tfserving.grpc.services import ModelService, PredictionService
from serving.tfserving.metrics import Metrics
from serving.tfserving.models import model_config
from serving.tfserving.models.servable import Servable
from serving.tfserving.models.store import ModelStore
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


def predicted(channel):
    stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
    return list(stub.Predict(ask({}, x=X), timeout=30).outputs["y"].float_val)


@pytest.fixture
def start(base):
    """Starts gRPC servers for the toy model; they are stopped in the end."""
    store = ModelStore(Servable)
    store.start(model_config.single("toy", str(base)), 0)
    servers = []

    def started(**options):
        services = PredictionService(store, Metrics()), ModelService(store)
        servers.append(grpc_server.GrpcServer(*services, **options))
        return servers[-1]

    yield started
    for each in servers:
        each.stop(0)
    store.stop()


def test_reflection_tells_what_grpcurl_needs(start):
    with grpc.insecure_channel(f"127.0.0.1:{start(enable_healthcheck=True).port}") as channel:
        reflected = ProtoReflectionDescriptorDatabase(channel)
        assert sorted(reflected.get_services()) == [
            "grpc.health.v1.Health",
            "grpc.reflection.v1alpha.ServerReflection",
            "tensorflow.serving.ModelService",
            "tensorflow.serving.PredictionService",
        ]
        pool = DescriptorPool(reflected)
        method = pool.FindServiceByName("tensorflow.serving.PredictionService").FindMethodByName(
            "Predict"
        )
        assert method.input_type.full_name == "tensorflow.serving.PredictRequest"
        assert "inputs" in method.input_type.fields_by_name
        models = pool.FindServiceByName("tensorflow.serving.ModelService")
        method = models.FindMethodByName("GetModelStatus")
        assert method.output_type.full_name == "tensorflow.serving.GetModelStatusResponse"


def test_a_unix_socket_beside_or_instead_of_a_port(start, tmp_path):
    path = tmp_path / "grpc.sock"
    running = start(port=None, socket_path=str(path))
    assert running.port is None
    with grpc.insecure_channel(f"unix:{path}") as channel:
        assert predicted(channel) == [2.5, 3.0, 4.5]
    with pytest.raises(UserError, match="a socket to open at --grpc_socket_path=.*none"):
        start(port=None, socket_path=str(tmp_path / "none" / "grpc.sock"))


def test_a_server_without_a_port_listens_on_its_socket(base, tmp_path):
    path = tmp_path / "grpc.sock"
    options = ServerOptions(
        model_name="toy", model_base_path=str(base), rest_api_port=0, grpc_socket_path=str(path)
    )
    answers = []

    def ask_the_socket(running, handle):
        with grpc.insecure_channel(f"unix:{path}") as channel:
            answers.append(predicted(channel))
        handle.should_exit = True

    embedded_server.serve(options, ask_the_socket)
    assert answers == [[2.5, 3.0, 4.5]]


def pem_pair():
    """A key and a certificate for localhost that it has signed, as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    text = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return text, certificate.public_bytes(serialization.Encoding.PEM)


def ssl_config(path, **fields):
    lines = (f"{name}: {json.dumps(value)}\n" for name, value in fields.items())
    path.write_text("".join(lines))
    return path


def test_the_port_speaks_tls_as_the_config_file_says(start, tmp_path):
    (key, certificate), (client_key, client_certificate) = pem_pair(), pem_pair()
    fields = {"server_key": key.decode(), "server_cert": certificate.decode()}
    running = start(credentials=credentials.read(ssl_config(tmp_path / "ssl", **fields)))
    trusting = grpc.ssl_channel_credentials(certificate)
    with grpc.secure_channel(f"localhost:{running.port}", trusting) as channel:
        assert predicted(channel) == [2.5, 3.0, 4.5]
    with (
        grpc.insecure_channel(f"localhost:{running.port}") as channel,
        pytest.raises(grpc.RpcError, match="UNAVAILABLE"),
    ):
        predicted(channel)

    verifying = ssl_config(
        tmp_path / "verify", **fields, custom_ca=client_certificate.decode(), client_verify=True
    )
    running = start(credentials=credentials.read(verifying))
    with (
        grpc.secure_channel(f"localhost:{running.port}", trusting) as channel,
        pytest.raises(grpc.RpcError, match="UNAVAILABLE"),
    ):
        predicted(channel)
    known = grpc.ssl_channel_credentials(certificate, client_key, client_certificate)
    with grpc.secure_channel(f"localhost:{running.port}", known) as channel:
        assert predicted(channel) == [2.5, 3.0, 4.5]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"server_key": "k"}, "expected the field server_cert in .*, found none"),
        ({"server_key": "k", "server_cert": "c", "client_verify": True}, "the field custom_ca"),
        ({"server_keys": "k"}, 'SSLConfig at .*, found an error at .*no field named "server_keys"'),
    ],
)
def test_an_ssl_config_that_lacks_something_is_one_line(tmp_path, fields, message):
    with pytest.raises(UserError, match=message):
        credentials.read(ssl_config(tmp_path / "ssl", **fields))


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
