"""The embedded server: loads models, answers over REST and gRPC, stops when it is told to."""

import concurrent.futures
import contextlib
import dataclasses
import functools
import pathlib
import socket
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import uvicorn

from preprocessing.errors import UserError
from serving.exporting import warmup
from serving.tfserving import monitoring_config
from serving.tfserving.batching import batched_model
from serving.tfserving.grpc import credentials
from serving.tfserving.grpc import server as grpc_server
from serving.tfserving.grpc.services import ModelService, PredictionService
from serving.tfserving.metrics import Metrics
from serving.tfserving.models import model_config
from serving.tfserving.models.servable import Servable
from serving.tfserving.models.store import ModelStore
from serving.tfserving.rest.app import RestApi
from serving.tfserving.rest.http_protocol import PlainHttpProtocol
from serving.tfserving.server_options import ServerOptions
from serving.tfserving.status import Code, ServingError

_KEEP_ALIVE_SECONDS = 75
_SHUTDOWN_SECONDS = 30

_Opener = Callable[[pathlib.Path], Servable]


@dataclasses.dataclass(frozen=True)
class RunningServer:
    """Address and models of a server that accepts requests.

    Attributes:
        root: Address of the server, as in `http://127.0.0.1:8501`.
        versions: Newest version of every model when the server began to accept requests.
    """

    root: str
    versions: Mapping[str, int]

    @property
    def url(self) -> str:
        """Address of the (first) model, as in `http://127.0.0.1:8501/v1/models/ctr`."""
        return self.url_of(next(iter(self.versions)))

    @property
    def version(self) -> int:
        """Newest version of the (first) model."""
        return next(iter(self.versions.values()))

    def url_of(self, model: str) -> str:
        """The address of a model."""
        return f"{self.root}/v1/models/{urllib.parse.quote(model, safe='')}"


def serve(
    options: ServerOptions, on_start: Callable[[RunningServer, uvicorn.Server], None]
) -> None:
    """Loads the models, then answers until the server is told to stop.

    The port opens when every model has an available version. A server that is told to stop first
    answers the requests that it has accepted.

    Args:
        options: Models to serve, port and further settings.
        on_start: Callback, called once when the server accepts requests, with its address and the
            handle that stops it (`should_exit = True`).

    Raises:
        UserError: An option is wrong, the port is taken, or a model cannot be loaded.
    """
    options.check()
    metrics = Metrics(options.enable_batching)
    prometheus_path = None
    if options.monitoring_config_file:
        prometheus_path = monitoring_config.prometheus_path(options.monitoring_config_file)
    with contextlib.ExitStack() as stack:
        tags = options.saved_model_tags.split(",")
        opener: _Opener = functools.partial(Servable, tags=tags)
        if options.enable_batching:
            # Entered first and therefore closed last, after the threads that wait for batches.
            opener = stack.enter_context(
                batched_model.opener(
                    options.batching_parameters_file,
                    options.enable_per_model_batching_parameters,
                    tags,
                    metrics,
                )
            )
        executor = stack.enter_context(
            concurrent.futures.ThreadPoolExecutor(options.rest_api_num_threads, "rest")
        )
        store = _open_models(options, metrics, opener, stack)
        listener = stack.enter_context(_bind(options.host, options.rest_api_port))
        app: Any = RestApi(store, executor, options, metrics, prometheus_path=prometheus_path)
        running = RunningServer(_root(listener), _newest(store, options))
        if options.port or options.grpc_socket_path:
            stack.callback(_serve_grpc(options, store, metrics).stop, _SHUTDOWN_SECONDS)
        if options.explore:
            # Imported late: the page needs the code of the models, the server does not.
            from serving import explore

            model = functools.partial(store.get, next(iter(running.versions)))
            app = explore.ExploreApp(app, explore.open_explorer(options.explore, model), executor)
        server = _Server(
            uvicorn.Config(
                app,
                http=PlainHttpProtocol,
                ws="none",
                lifespan="off",
                interface="asgi3",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_keep_alive=_KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
            ),
            lambda: on_start(running, server),
        )
        server.run(sockets=[listener])


def _open_models(
    options: ServerOptions, metrics: Metrics, opener: _Opener, stack: contextlib.ExitStack
) -> ModelStore[Servable]:
    """Loads the models; closing the stack stops polling and drops them."""
    store = ModelStore(
        functools.partial(_load, options, metrics, opener),
        max_num_load_retries=options.max_num_load_retries,
        load_retry_interval_seconds=options.load_retry_interval_micros / 1e6,
        allow_version_labels_for_unavailable_models=(
            options.allow_version_labels_for_unavailable_models
        ),
    )
    stack.callback(store.stop)
    store.start(_model_config(options), options.file_system_poll_wait_seconds)
    store.start_polling(options.file_system_poll_wait_seconds)
    if options.model_config_file and options.model_config_file_poll_wait_seconds > 0:
        store.follow_config_file(
            options.model_config_file, options.model_config_file_poll_wait_seconds
        )
    return store


def _serve_grpc(
    options: ServerOptions, store: ModelStore[Servable], metrics: Metrics
) -> grpc_server.GrpcServer:
    return grpc_server.GrpcServer(
        PredictionService(store, metrics, options.enable_signature_method_name_check),
        ModelService(store),
        host=options.host,
        port=options.port or None,
        socket_path=options.grpc_socket_path,
        credentials=credentials.read(options.ssl_config_file) if options.ssl_config_file else None,
        max_threads=options.grpc_max_threads,
        channel_arguments=grpc_server.channel_arguments(options.grpc_channel_arguments),
        enable_healthcheck=options.enable_grpc_healthcheck_service,
    )


@contextlib.contextmanager
def running(
    model_base_path: str | pathlib.Path, model_name: str, port: int = 0, **options: Any
) -> Iterator[RunningServer]:
    """Runs a server in a thread of this process while the context is open.

    Args:
        model_base_path: Directory whose numeric children are versions.
        model_name: Name of the model in URLs.
        port: Port of the REST interface; 0 picks a free one.
        **options: Further fields of `ServerOptions`.

    Raises:
        UserError: The conditions under which `serve` raises it.
    """
    all_options = ServerOptions(
        model_name=model_name,
        model_base_path=str(model_base_path),
        rest_api_port=port,
        **options,
    )
    started: concurrent.futures.Future[tuple[RunningServer, uvicorn.Server]] = (
        concurrent.futures.Future()
    )

    def run() -> None:
        try:
            serve(all_options, lambda *handles: started.set_result(handles))
        except BaseException as error:  # handed to the thread that waits
            if started.done():
                raise
            started.set_exception(error)

    thread = threading.Thread(target=run, name="serving", daemon=True)
    thread.start()
    running_server, handle = started.result()
    try:
        yield running_server
    finally:
        handle.should_exit = True
        thread.join()


class _Server(uvicorn.Server):
    """uvicorn's server, with a callback for the moment at which it listens."""

    def __init__(self, config: uvicorn.Config, on_start: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_start = on_start

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_start()


def _load(
    options: ServerOptions, metrics: Metrics, opener: _Opener, path: pathlib.Path
) -> Servable:
    servable = opener(path)
    if options.enable_model_warmup:
        start, code, records = time.perf_counter(), Code.UNKNOWN, 0
        try:
            records = warmup.replay(servable, options.num_request_iterations_for_warmup)
            code = Code.OK
        except ServingError as error:
            code = error.code
            raise
        finally:
            microseconds = (time.perf_counter() - start) * 1e6
            metrics.warmup(str(path), code, microseconds, records)
    return servable


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise UserError(
            f"Expected a free port at --rest_api_port={port} of {host}, found: {error.strerror}.",
            "stop what listens there, or choose another port.",
        ) from None
    return listener


def _model_config(options: ServerOptions) -> Any:
    """The `ModelServerConfig` message that the options describe."""
    if options.model_config_file:
        return model_config.read(options.model_config_file)
    return model_config.single(options.model_name, options.model_base_path)


def _newest(store: ModelStore[Servable], options: ServerOptions) -> dict[str, int]:
    configs = model_config.models(_model_config(options)) or {}
    return {name: store.get(name)[0] for name in configs}


def _root(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
