"""The REST interface of TensorFlow Serving as an ASGI application."""

import asyncio
import concurrent.futures
import contextlib
import functools
import logging
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, MutableMapping
from typing import Any

from serving.tfserving import inference
from serving.tfserving.metrics import Metrics
from serving.tfserving.models.servable import Servable
from serving.tfserving.models.store import ModelStore
from serving.tfserving.rest import (
    http_bodies,
    json_examples,
    json_parse,
    json_replies,
    json_tensors,
)
from serving.tfserving.rest.http_replies import Reply, html_page, json_error, json_reply
from serving.tfserving.rest.routes import Route, in_api, route
from serving.tfserving.server_options import ServerOptions
from serving.tfserving.status import Code, ServingError, http_status, invalid

_LOG = logging.getLogger(__name__)

_Message = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[_Message]]
_Send = Callable[[_Message], Awaitable[None]]

_METHODS = frozenset({"GET", "POST", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH"})
_CORS = [
    (b"access-control-allow-origin", b"*"),
    (b"access-control-allow-methods", b"POST, GET"),
    (b"access-control-allow-headers", b"Content-Type"),
]


class RestApi:
    """ASGI application that answers for all models.

    Args:
        store: Store of the loaded versions.
        executor: Executor that computes answers off the event loop.
        options: Server options, of which those about REST are used.
        metrics: Metrics that count the requests.
        prometheus_path: URL path of the metrics' page; None for no page.
    """

    def __init__(
        self,
        store: ModelStore[Servable],
        executor: concurrent.futures.Executor,
        options: ServerOptions,
        metrics: Metrics,
        prometheus_path: str | None = None,
    ) -> None:
        self._store = store
        self._executor = executor
        self._options = options
        self._metrics = metrics
        self._prometheus_path = prometheus_path
        self._places = asyncio.Semaphore(options.max_concurrent_requests)

    async def __call__(self, scope: _Message, receive: _Receive, send: _Send) -> None:
        """Answers one HTTP request, valid or not."""
        target = scope["raw_path"].decode("latin-1")
        if scope["query_string"]:
            target += "?" + scope["query_string"].decode("latin-1")
        headers = dict(scope["headers"])
        reply = await self._reply(scope["method"], target, headers, receive)
        reply_headers = reply.headers()
        if self._options.rest_api_enable_cors_support and in_api(target):
            reply_headers += _CORS
        await send(
            {"type": "http.response.start", "status": reply.status, "headers": reply_headers}
        )
        await send({"type": "http.response.body", "body": reply.body})

    async def _reply(
        self, verb: str, target: str, headers: Mapping[bytes, bytes], receive: _Receive
    ) -> Reply:
        if verb not in _METHODS:
            return html_page(501)
        if headers.get(b"expect", b"100-continue").lower() != b"100-continue":
            return html_page(417)
        try:
            body = await http_bodies.read(
                headers,
                receive,
                self._options.max_request_bytes,
                self._options.rest_api_timeout_in_ms / 1000,
            )
        except http_bodies.BodyTooLargeError as error:
            # A client that waits for status 100 will not send the body now, so its next request
            # would be read as the body.
            return json_error(413, error.message, close=b"expect" in headers)
        except ServingError as error:
            return json_error(http_status(error.code), error.message, close=True)
        if self._is_prometheus(target):
            return self._prometheus(verb, target)
        if not in_api(target):
            return html_page(404)
        if verb == "OPTIONS":
            origin = headers.get(b"origin", b"")
            is_web_origin = b"http://" in origin or b"https://" in origin
            return Reply(200 if is_web_origin else 400, None, b"")
        return await self._answer(verb, target, headers, body)

    def _is_prometheus(self, target: str) -> bool:
        return self._prometheus_path is not None and target.split("?")[0] == self._prometheus_path

    def _prometheus(self, verb: str, target: str) -> Reply:
        if target != self._prometheus_path or verb != "GET":
            return json_error(400, f"Unexpected path: {target}. Should be {self._prometheus_path}")
        return Reply(200, b"text/plain", self._metrics.page().encode())

    async def _answer(
        self, verb: str, target: str, headers: Mapping[bytes, bytes], body: bytes
    ) -> Reply:
        start = time.perf_counter()
        model, code = "", Code.OK
        try:
            target_route = route(verb, target)
            model = target_route.model
            if target_route.method == "status":
                return json_reply(200, self._status(target_route))
            if target_route.method == "metadata":
                return json_reply(200, self._metadata(target_route))
            answer = await self._in_time(target_route, headers, body)
            microseconds = (time.perf_counter() - start) * 1e6
            self._metrics.observe_latency(model, target_route.method, "REST", microseconds)
            return json_reply(200, answer)
        except ServingError as error:
            code = error.code
            return json_error(http_status(code), error.message)
        except Exception as error:  # the server outlives every request
            code = Code.INTERNAL
            _LOG.exception("Request %s %s failed", verb, target)
            return json_error(500, f"{type(error).__name__}: {error}")
        finally:
            self._metrics.count_request(model, code)

    async def _in_time(
        self, target_route: Route, headers: Mapping[bytes, bytes], body: bytes
    ) -> bytes:
        """Waits for a place among the requests in progress, then computes an answer."""
        seconds = self._options.rest_api_timeout_in_ms / 1000
        deadline = time.monotonic() + seconds
        if self._places.locked():
            try:
                await asyncio.wait_for(self._places.acquire(), seconds)
            except asyncio.TimeoutError:
                raise ServingError(
                    Code.UNAVAILABLE,
                    f"{self._options.max_concurrent_requests} requests are in progress "
                    f"(max_concurrent_requests), and none ended within {seconds:g} s",
                ) from None
        else:
            await self._places.acquire()  # at once
        try:
            return await self._within(deadline, target_route, headers, body)
        finally:
            self._places.release()

    async def _within(
        self, deadline: float, target_route: Route, headers: Mapping[bytes, bytes], body: bytes
    ) -> bytes:
        """Computes an answer on a thread; a deadline that passes first is an error."""
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[bool] = loop.create_future()

        def end(in_time: bool) -> None:
            if not ended.done():
                ended.set_result(in_time)

        # Does the same as run_in_executor and wait_for with half of their callbacks, whose code has
        # left the processor's caches by the time a model has run.
        timer = loop.call_later(deadline - time.monotonic(), end, False)
        require_time = functools.partial(_require_time, deadline)
        job = self._executor.submit(self._compute, target_route, headers, body, require_time)
        job.add_done_callback(lambda _: loop.call_soon_threadsafe(end, True))
        try:
            if not await ended:
                raise _too_late()
            return job.result()
        finally:
            timer.cancel()
            job.cancel()

    def _compute(
        self,
        target_route: Route,
        headers: Mapping[bytes, bytes],
        body: bytes,
        require_time: Callable[[], None],
    ) -> bytes:
        require_time()
        document = json_parse.parse(http_bodies.inflate(headers, body))
        signature_name = json_tensors.signature_name(document)
        if target_route.method == "predict":
            return self._predict(target_route, document, signature_name, require_time)
        examples = json_examples.serialized_examples(document, require_time)
        require_time()
        _, servable = self._store.get(target_route.model, target_route.version, target_route.label)
        self._metrics.count_examples(target_route.model, len(examples))
        check_method = self._options.enable_signature_method_name_check
        with self._timed(target_route):
            if target_route.method == "classify":
                classes = inference.classify(servable, signature_name, examples, check_method)
            else:
                values = inference.regress(servable, signature_name, examples, check_method)
        if target_route.method == "classify":
            return json_replies.classifications(classes)
        return json_replies.regressions(values)

    def _predict(
        self,
        target_route: Route,
        document: Any,
        signature_name: str,
        require_time: Callable[[], None],
    ) -> bytes:
        _, servable = self._store.get(target_route.model, target_route.version, target_route.label)
        input_types = servable.input_types(signature_name)
        inputs, row_form = json_tensors.input_tensors(document, input_types, require_time)
        require_time()
        first_input = next(iter(inputs.values()))
        self._metrics.count_examples(
            target_route.model, len(first_input) if first_input.ndim else 1
        )
        with self._timed(target_route):
            outputs = servable.predict(signature_name, inputs)
        require_time()
        return json_replies.predictions(outputs, servable.output_types(signature_name), row_form)

    @contextlib.contextmanager
    def _timed(self, target_route: Route) -> Iterator[None]:
        start = time.perf_counter()
        yield
        microseconds = (time.perf_counter() - start) * 1e6
        self._metrics.observe_runtime(
            target_route.model, target_route.method.capitalize(), microseconds
        )

    def _status(self, target_route: Route) -> bytes:
        if not target_route.model:
            raise invalid("Missing model name in request.")
        return json_replies.model_status(
            self._store.statuses(target_route.model, target_route.version)
        )

    def _metadata(self, target_route: Route) -> bytes:
        if not target_route.model:
            raise invalid("Missing model name in request.")
        version, servable = self._store.get(
            target_route.model, target_route.version, target_route.label
        )
        return json_replies.metadata(target_route.model, version, servable.signature_defs)


def _require_time(deadline: float) -> None:
    """Raises the timeout error if the deadline has passed, as the client has its answer then."""
    if time.monotonic() > deadline:
        raise _too_late()


def _too_late() -> ServingError:
    return ServingError(Code.DEADLINE_EXCEEDED, "Timed out waiting for notification")
