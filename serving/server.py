"""Serves an exported model over the REST interface of TensorFlow Serving.

    python -m serving.server --model_name=ctr --model_base_path=WORKDIR/model

The flags are those of tensorflow_model_server; --host is ours. The newest version under
--model_base_path is served, and newer ones take over as they appear. For development and tests: it
answers like the tensorflow/serving image, from one Python process.

    curl -d '{"inputs": ...}' http://127.0.0.1:8501/v1/models/ctr:predict
    curl http://127.0.0.1:8501/v1/models/ctr
    curl http://127.0.0.1:8501/v1/models/ctr/metadata
"""

import concurrent.futures
import contextlib
import dataclasses
import os
import pathlib
import socket
import sys
import threading
import urllib.parse
from collections.abc import Callable, Iterator

import uvicorn
from absl import flags
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from preprocessing import cli
from preprocessing.errors import UserError
from serving import warmup
from serving.model_store import ModelStore
from serving.rest import RestApi
from serving.servable import Servable

_KEEP_ALIVE_SECONDS = 75
_SHUTDOWN_SECONDS = 30


@dataclasses.dataclass(frozen=True, kw_only=True)
class ServerOptions:
    """What the flags of the same names say.

    Attributes:
        model_name: Name of the model in URLs.
        model_base_path: The directory whose numeric children are versions.
        rest_api_port: 0 picks a free port.
        host: Interface to bind.
        rest_api_timeout_in_ms: Deadline of a prediction.
        file_system_poll_wait_seconds: Time between two looks at the base path; 0 looks once.
        enable_model_warmup: Whether warm-up requests are replayed before a version is served.
        max_num_load_retries: How often a failed load is tried again.
        load_retry_interval_micros: Time between two attempts.
    """

    model_name: str
    model_base_path: str | pathlib.Path
    rest_api_port: int = 8501
    host: str = "127.0.0.1"
    rest_api_timeout_in_ms: int = 30_000
    file_system_poll_wait_seconds: float = 1.0
    enable_model_warmup: bool = True
    max_num_load_retries: int = 5
    load_retry_interval_micros: int = 60_000_000


@dataclasses.dataclass(frozen=True)
class RunningServer:
    """A server that answers.

    Attributes:
        url: The model's address, as in `http://127.0.0.1:8501/v1/models/ctr`.
        version: The version that was available first.
    """

    url: str
    version: int


class _Protocol(HttpToolsProtocol):
    """uvicorn's HTTP protocol, except that an HTTP/1.0 client may keep its connection."""

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        self.cycle.keep_alive = self.parser.should_keep_alive()


def serve(
    options: ServerOptions, on_start: Callable[[RunningServer, uvicorn.Server], None]
) -> None:
    """Loads the model, then answers until the server is told to stop.

    The port opens when the first version is available. A stopping server answers what it has
    accepted first.

    Args:
        options: What to serve, and where.
        on_start: Called once, when requests are answered, with the server's address and the handle
            that stops it (`should_exit = True`).

    Raises:
        UserError: The port is taken, or the first version cannot be loaded.
    """
    store = ModelStore(
        options.model_name,
        options.model_base_path,
        _load_warm if options.enable_model_warmup else Servable,
        max_num_load_retries=options.max_num_load_retries,
        load_retry_interval_seconds=options.load_retry_interval_micros / 1e6,
    )
    threads = max(4, os.cpu_count() or 1)
    with contextlib.ExitStack() as stack:
        executor = stack.enter_context(concurrent.futures.ThreadPoolExecutor(threads, "predict"))
        stack.callback(store.stop)
        version = store.wait_until_available(options.file_system_poll_wait_seconds)
        listener = stack.enter_context(_bind(options.host, options.rest_api_port))
        if options.file_system_poll_wait_seconds > 0:
            store.start_polling(options.file_system_poll_wait_seconds)
        url = _url(listener, options.model_name)
        app = RestApi(store, executor, options.rest_api_timeout_in_ms / 1000)
        server = _Server(
            uvicorn.Config(
                app,
                http=_Protocol,
                ws="none",
                lifespan="off",
                interface="asgi3",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_keep_alive=_KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
            ),
            lambda: on_start(RunningServer(url, version), server),
        )
        server.run(sockets=[listener])


@contextlib.contextmanager
def running(
    model_base_path: str | pathlib.Path, model_name: str, port: int = 0, **options: object
) -> Iterator[RunningServer]:
    """Runs a server in a thread of this process while the context is open.

    Args:
        model_base_path: The directory whose numeric children are versions.
        model_name: Name of the model in URLs.
        port: 0 picks a free one.
        **options: Further fields of `ServerOptions`.

    Raises:
        UserError: As `serve`.
    """
    all_options = ServerOptions(
        model_name=model_name,
        model_base_path=model_base_path,
        rest_api_port=port,
        **options,  # type: ignore[arg-type]
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
    """uvicorn's server, telling when it listens."""

    def __init__(self, config: uvicorn.Config, on_start: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_start = on_start

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_start()


def _load_warm(path: pathlib.Path) -> Servable:
    servable = Servable(path)
    warmup.replay(servable)
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


def _url(listener: socket.socket, model_name: str) -> str:
    host, port = listener.getsockname()[:2]
    bracketed = f"[{host}]" if ":" in host else host
    return f"http://{bracketed}:{port}/v1/models/{urllib.parse.quote(model_name, safe='')}"


def define_flags() -> None:
    """Defines the command's flags."""
    flags.DEFINE_string("model_name", "default", "Name of the model in URLs.")
    flags.DEFINE_string("model_base_path", None, "Directory whose numeric children are versions.")
    flags.DEFINE_integer("rest_api_port", 8501, "Port of the REST interface; 0 picks a free one.")
    flags.DEFINE_string("host", "127.0.0.1", "Interface to bind.")
    flags.DEFINE_integer("rest_api_timeout_in_ms", 30_000, "Deadline of a prediction.")
    flags.DEFINE_float(
        "file_system_poll_wait_seconds", 1.0, "Time between two looks for versions; 0 looks once."
    )
    flags.DEFINE_bool("enable_model_warmup", True, "Replay a version's warm-up requests first.")
    flags.DEFINE_integer("max_num_load_retries", 5, "How often a failed load is tried again.")
    flags.DEFINE_integer("load_retry_interval_micros", 60_000_000, "Time between two attempts.")
    flags.mark_flag_as_required("model_base_path")


def main() -> int:
    """Serves until interrupted."""
    values = flags.FLAGS
    given = {field.name: values[field.name].value for field in dataclasses.fields(ServerOptions)}
    options = ServerOptions(**given)  # type: ignore[arg-type]

    def announce(server: RunningServer, _: uvicorn.Server) -> None:
        sys.stdout.write(f"Serving version {server.version} at {server.url}\n")
        sys.stdout.flush()

    try:
        serve(options, announce)
    except KeyboardInterrupt:
        return 130
    return 0


def console_main() -> None:
    """Entry point."""
    define_flags()
    cli.run(main, __doc__)


if __name__ == "__main__":
    console_main()
