"""The REST interface of TensorFlow Serving as an ASGI application: predict, status, metadata."""

import asyncio
import concurrent.futures
import dataclasses
import logging
import re
import urllib.parse
import zlib
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

from serving import json_parse, json_replies, json_tensors
from serving.model_store import ModelStore
from serving.servable import Servable
from serving.status import Code, ServingError, http_status, invalid

_LOG = logging.getLogger(__name__)

_Message = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[_Message]]
_Send = Callable[[_Message], Awaitable[None]]

_JSON = b"application/json"
_MAX_INFLATED_BYTES = 100 * 2**20
_MAX_INT64 = 2**63 - 1
_NOT_FOUND_PAGE = b"<html><head><title>404 Not Found</title></head><body>Not Found</body></html>\n"

_SPEC = r"(?:/versions/(?P<version>[0-9]+)|/labels/(?P<label>[^/:]+))?"
_API = re.compile(r"/v1/.*", re.IGNORECASE | re.DOTALL)
_POST = re.compile(
    rf"/v1/models/(?P<model>[^/:]+){_SPEC}:(?P<method>classify|regress|predict)", re.IGNORECASE
)
_GET = re.compile(rf"/v1/models(?:/(?P<model>[^/:]+))?{_SPEC}(?P<method>/metadata)?", re.IGNORECASE)


@dataclasses.dataclass(frozen=True)
class Route:
    """What a request line asks for.

    Attributes:
        method: "predict", "classify", "regress", "status" or "metadata".
        model: Name of the model; "" if the path has none.
        version: Number of the version, or None for the latest.
        label: Label of the version, or None.
    """

    method: str
    model: str
    version: int | None
    label: str | None


def route(verb: str, target: str) -> Route:
    """Reads a request line.

    Args:
        verb: HTTP method.
        target: Path and query string as sent, still percent-encoded. A query string is part of
            what must match, as in TensorFlow Serving.

    Raises:
        ServingError: INVALID_ARGUMENT if nothing is served there.
    """
    match = {"POST": _POST, "GET": _GET}.get(verb, re.compile(r"(?!)")).fullmatch(target)
    if match is None:
        raise invalid(f"Malformed request: {verb} {target}")
    method = (match["method"] or "/status").removeprefix("/")
    if verb == "POST" and method not in ("predict", "classify", "regress"):
        raise invalid(f"Malformed request: {verb} {target}")
    version = None
    if match["version"]:
        # The length goes first: int() refuses thousands of digits with an error of its own.
        if len(match["version"].lstrip("0")) > 19 or int(match["version"]) > _MAX_INT64:
            raise invalid(f"Failed to convert version: {match['version']} to numeric.")
        version = int(match["version"])
    return Route(
        method=method,
        model=urllib.parse.unquote(match["model"] or ""),
        version=version,
        label=None if match["label"] is None else urllib.parse.unquote(match["label"]),
    )


class RestApi:
    """ASGI application that answers for one model.

    Args:
        store: Where the versions are.
        executor: Runs predictions, off the event loop.
        timeout_seconds: After this long a prediction is answered with DEADLINE_EXCEEDED.
    """

    def __init__(
        self,
        store: ModelStore[Servable],
        executor: concurrent.futures.Executor,
        timeout_seconds: float = 30.0,
    ) -> None:
        self._store = store
        self._executor = executor
        self._timeout = timeout_seconds

    async def __call__(self, scope: _Message, receive: _Receive, send: _Send) -> None:
        """Answers one HTTP request, whatever it holds."""
        target = scope["raw_path"].decode("latin-1")
        if scope["query_string"]:
            target += "?" + scope["query_string"].decode("latin-1")
        headers = list(_connection_headers(scope))
        if _API.fullmatch(target) is None:
            status, content_type, body = 404, b"text/html", _NOT_FOUND_PAGE
            headers = [(b"connection", b"close")]
        else:
            status, body = await self._answer(scope, target, receive)
            content_type = _JSON
        headers += [
            (b"content-type", content_type),
            (b"content-length", str(len(body)).encode("ascii")),
        ]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _answer(self, scope: _Message, target: str, receive: _Receive) -> tuple[int, bytes]:
        try:
            asked = route(scope["method"], target)
            if asked.method == "status":
                return 200, self._status(asked)
            if asked.method == "metadata":
                return 200, self._metadata(asked)
            body = _inflate(scope["headers"], await _read_body(receive))
            return 200, await self._in_time(asked, body)
        except ServingError as error:
            return http_status(error.code), json_replies.error(error.message)
        except Exception as error:  # the server outlives every request
            _LOG.exception("Request %s %s failed", scope["method"], target)
            return 500, json_replies.error(f"{type(error).__name__}: {error}")

    async def _in_time(self, asked: Route, body: bytes) -> bytes:
        loop = asyncio.get_running_loop()
        running = loop.run_in_executor(self._executor, self._predict, asked, body)
        try:
            return await asyncio.wait_for(running, self._timeout)
        except asyncio.TimeoutError:
            raise ServingError(
                Code.DEADLINE_EXCEEDED, "Timed out waiting for notification"
            ) from None

    def _predict(self, asked: Route, body: bytes) -> bytes:
        document = json_parse.parse(body)
        signature_name = json_tensors.signature_name(document)
        if asked.label is not None:
            raise invalid(f"Unrecognized servable version label: {asked.label}")
        _, servable = self._store.get(asked.model, asked.version)
        if asked.method != "predict":
            raise ServingError(
                Code.UNIMPLEMENTED, f"This server offers predict, not {asked.method}."
            )
        input_types = servable.input_types(signature_name)
        inputs, row_form = json_tensors.input_tensors(document, input_types)
        outputs = servable.predict(signature_name, inputs)
        return json_replies.predictions(outputs, servable.output_types(signature_name), row_form)

    def _status(self, asked: Route) -> bytes:
        if not asked.model:
            raise invalid("Missing model name in request.")
        return json_replies.model_status(self._store.statuses(asked.model, asked.version))

    def _metadata(self, asked: Route) -> bytes:
        if not asked.model:
            raise invalid("Missing model name in request.")
        if asked.label is not None:
            raise invalid(f"Unrecognized servable version label: {asked.label}")
        version, servable = self._store.get(asked.model, asked.version)
        return json_replies.metadata(asked.model, version, servable.signature_defs)


def _connection_headers(scope: _Message) -> Iterable[tuple[bytes, bytes]]:
    """Tells an HTTP/1.0 client which asked for it that its connection stays open."""
    if scope["http_version"] == "1.0":
        for name, value in scope["headers"]:
            if name == b"connection" and value.lower() == b"keep-alive":
                yield b"connection", b"keep-alive"


async def _read_body(receive: _Receive) -> bytes:
    chunks = []
    more = True
    while more:
        event = await receive()
        if event["type"] == "http.disconnect":
            raise ServingError(Code.CANCELLED, "The client went away")
        chunks.append(event.get("body", b""))
        more = event.get("more_body", False)
    return b"".join(chunks)


def _inflate(headers: Iterable[tuple[bytes, bytes]], body: bytes) -> bytes:
    """Undoes gzip; a body that does not inflate, or not within 100 MiB, counts as empty."""
    if not any(name == b"content-encoding" and b"gzip" in value for name, value in headers):
        return body
    inflater = zlib.decompressobj(16 + zlib.MAX_WBITS)
    try:
        inflated = inflater.decompress(body, _MAX_INFLATED_BYTES)
    except zlib.error:
        return b""
    return inflated if inflater.eof else b""
