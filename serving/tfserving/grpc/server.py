"""The gRPC server: both services of TensorFlow Serving, with reflection, and the health service."""

import concurrent.futures
from collections.abc import Mapping

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from preprocessing.errors import UserError
from serving.tfserving.grpc import reflection
from serving.tfserving.grpc.services import ModelService, PredictionService
from serving.tfserving.grpc.tensors import MAX_BYTES
from serving.tfserving.protos import model_service_pb2_grpc, prediction_service_pb2_grpc

_HEALTHY = ("", "ModelService", "PredictionService")


class GrpcServer:
    """A running gRPC server.

    Args:
        prediction: Service that answers predictions.
        models: Service that answers status and reload requests.
        host: Interface to bind.
        port: Port to bind; 0 picks a free one, None leaves the port off.
        max_threads: Number of requests that are computed at once.
        channel_arguments: Further options of gRPC by name.
        enable_healthcheck: Whether to serve grpc.health.v1.Health.
        socket_path: Path of a Unix socket to listen on as well; empty for none.
        credentials: Credentials that clients of the port must accept; None for plain text. The
            Unix socket is in plain text always.

    Attributes:
        port: Port on which the server listens; None for none.

    Raises:
        UserError: The port or the socket is taken.
    """

    def __init__(
        self,
        prediction: PredictionService,
        models: ModelService,
        *,
        host: str = "127.0.0.1",
        port: int | None = 0,
        max_threads: int = 4,
        channel_arguments: Mapping[str, int | str] | None = None,
        enable_healthcheck: bool = False,
        socket_path: str = "",
        credentials: grpc.ServerCredentials | None = None,
    ) -> None:
        options: dict[str, int | str] = {
            "grpc.max_receive_message_length": MAX_BYTES,
            "grpc.max_send_message_length": MAX_BYTES,
            "grpc.so_reuseport": 0,  # a second server must not share the port unnoticed
        }
        self._server = grpc.server(
            concurrent.futures.ThreadPoolExecutor(max_threads, "grpc"),
            options=[*(options | dict(channel_arguments or {})).items()],
        )
        prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(
            prediction, self._server
        )
        model_service_pb2_grpc.add_ModelServiceServicer_to_server(models, self._server)
        others = []
        if enable_healthcheck:
            others.append(health.SERVICE_NAME)
            servicer = health.HealthServicer()
            for service in _HEALTHY:
                servicer.set(service, health_pb2.HealthCheckResponse.SERVING)
            health_pb2_grpc.add_HealthServicer_to_server(servicer, self._server)
        reflection.add_to(self._server, others)
        bracketed = f"[{host}]" if ":" in host else host
        self.port = None
        if port is not None:
            self.port = self._listen(
                f"{bracketed}:{port}", credentials, f"a free port at --port={port} of {host}"
            )
        if socket_path:
            self._listen(
                f"unix:{socket_path}", None, f"a socket to open at --grpc_socket_path={socket_path}"
            )
        self._server.start()

    def _listen(
        self, address: str, credentials: grpc.ServerCredentials | None, expected: str
    ) -> int:
        try:
            if credentials is None:
                return self._server.add_insecure_port(address)
            return self._server.add_secure_port(address, credentials)
        except RuntimeError:
            raise UserError(
                f"Expected {expected}, found that nothing can be bound there.",
                "stop what listens there, or choose another one.",
            ) from None

    def stop(self, grace_seconds: float = 30.0) -> None:
        """Refuses new requests and answers those in progress."""
        self._server.stop(grace_seconds).wait()


def channel_arguments(text: str) -> dict[str, int | str]:
    """Parses the value of --grpc_channel_arguments: `key=value` pairs, separated by commas.

    Raises:
        UserError: A pair has another form.
    """
    arguments: dict[str, int | str] = {}
    for pair in filter(None, text.split(",")):
        key, equals, value = pair.partition("=")
        if not (key and equals):
            raise UserError(
                f"--grpc_channel_arguments: expected key=value pairs, found {pair!r}.",
                "write it as grpc.max_connection_age_ms=2000.",
            )
        arguments[key] = int(value) if value.lstrip("-").isdecimal() else value
    return arguments
