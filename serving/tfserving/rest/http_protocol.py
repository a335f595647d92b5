"""HTTP/1.x on uvicorn, changed where the HTTP layer of TensorFlow Serving behaves differently.

The module adds HTTP/1.0 connections that stay open, answers to clients that have closed their side,
refusals that keep their place in a pipeline of requests, a page for unknown methods, a deadline for
the arrival of a request, a bound on its headers, and chunks whose size is followed by spaces.
"""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import httptools
from uvicorn.protocols.http import httptools_impl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from serving.tfserving.rest.http_replies import Reply, html_page, json_error

_Message = MutableMapping[str, Any]
_Application = Callable[..., Awaitable[None]]

METHODS = frozenset({"GET", "POST", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH"})
"""Other methods are answered with 501."""

# TensorFlow Serving's HTTP library has no phrases for these, and sends that of the class 4xx.
for _status in (429, 499):
    httptools_impl.STATUS_LINE[_status] = f"HTTP/1.1 {_status} Client Error\r\n".encode("ascii")


class Protocol(HttpToolsProtocol):
    """Protocol of one connection.

    A message is "arriving" from its first byte to its last. Requests that have arrived wait in
    uvicorn's `pipeline` until those before them are answered; `cycle` is the newest request.
    """

    def __init__(
        self, *args: Any, arrival_seconds: float, max_header_bytes: int, **kwargs: Any
    ) -> None:
        """Creates the protocol of a new connection.

        Args:
            *args: Positional arguments of uvicorn's protocol.
            arrival_seconds: Longest time for a message to arrive; later ones are answered with 504.
            max_header_bytes: Largest size of the headers; longer ones are answered with 413.
            **kwargs: Keyword arguments of uvicorn's protocol.
        """
        super().__init__(*args, **kwargs)
        # TensorFlow Serving allows it too, because clients pad the sizes of chunks with spaces.
        self.parser.set_dangerous_leniencies(lenient_spaces_after_chunk_size=True)
        self._arrival_seconds = arrival_seconds
        self._max_header_bytes = max_header_bytes
        self._deadline: asyncio.TimerHandle | None = None  # set while a message is arriving
        self._header_bytes = 0
        self._in_headers = False
        self._refused = False
        self._running: RequestResponseCycle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Also limits how long a new connection may stay silent."""
        super().connection_made(transport)
        self.timeout_keep_alive_task = self.loop.call_later(
            self.timeout_keep_alive, self.timeout_keep_alive_handler
        )

    def connection_lost(self, exc: Exception | None) -> None:
        """Stops the timers, and tells the request in progress (uvicorn tells only the newest)."""
        self._unset_keepalive_if_required()
        self._stop_deadline()
        if self._running is not None:
            self._running.disconnected = True
            self._running.message_event.set()
        super().connection_lost(exc)

    def eof_received(self) -> bool:  # type: ignore[override]
        """Keeps a connection whose client has closed only its sending side, if answers are due."""
        due = self.cycle is not None and not self.cycle.response_complete
        if not due or self._arriving_body():
            return False
        self._stop_deadline()
        self.cycle.keep_alive = False
        return True

    def data_received(self, data: bytes) -> None:
        """Parses received data; the parser calls the callbacks below."""
        if self._refused:
            return
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass  # answered as if the request had not asked for another protocol
        except httptools.HttpParserInvalidMethodError:
            self._refuse(html_page(501))
        except httptools.HttpParserError as error:
            connect = self._in_headers and self.parser.get_method() == b"CONNECT"
            # The text is a constant of the parser, as in "Invalid character in chunk extensions".
            self._refuse(html_page(501) if connect else html_page(400, str(error)))
        if self._in_headers and not self._refused:
            self._header_bytes += len(data)
            if self._header_bytes > self._max_header_bytes:
                self._refuse(json_error(413, "Request headers too long", close=True))

    def on_message_begin(self) -> None:
        """Called at the first byte of a request; starts its deadline."""
        super().on_message_begin()
        self._unset_keepalive_if_required()
        self._header_bytes = 0
        self._in_headers = True
        self._deadline = self.loop.call_later(self._arrival_seconds, self._late)

    def on_headers_complete(self) -> None:
        """Keeps HTTP/1.0 connections open if the client asked for it."""
        super().on_headers_complete()
        self._in_headers = False
        self.cycle.keep_alive = self.parser.should_keep_alive()

    def on_message_complete(self) -> None:
        """Called at the last byte of a request; stops its deadline."""
        self._stop_deadline()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Stops the keep-alive timer if a request is arriving, which has a deadline of its own."""
        super().on_response_complete()
        if self._deadline is not None:
            self._unset_keepalive_if_required()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def _late(self) -> None:
        seconds = f"{self._arrival_seconds:g}"
        self._refuse(json_error(504, f"The request did not arrive within {seconds} s", close=True))

    def _arriving_body(self) -> bool:
        return self._deadline is not None and not self._in_headers

    def _stop_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _refuse(self, reply: Reply) -> None:
        """Answers the arriving message after those before it, and closes the connection."""
        replaces = self._arriving_body()
        self._stop_deadline()
        self._refused = True
        if self.transport.is_closing():
            return
        waits = bool(self.pipeline) and self.pipeline[0][0] is self.cycle
        in_progress = self.cycle is not None and not self.cycle.response_complete
        if replaces and not in_progress:
            self.transport.close()  # answered already; only the rest of its body was awaited
        elif in_progress and (waits or not replaces):
            if replaces:
                self.pipeline.popleft()
            self.pipeline.appendleft((self._new_cycle(), _refusing(reply)))
        else:
            self.transport.write(_bytes(reply, self.server_state.default_headers))
            self.transport.close()

    def _new_cycle(self) -> RequestResponseCycle:
        self.cycle = RequestResponseCycle(
            scope={"type": "http", "method": "GET"},  # type: ignore[typeddict-item]
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=False,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=False,
            keep_alive=False,
            on_response=self.on_response_complete,
        )
        return self.cycle


def _refusing(reply: Reply) -> _Application:
    async def application(
        scope: _Message, receive: object, send: Callable[[_Message], Awaitable[None]]
    ) -> None:
        await send(
            {"type": "http.response.start", "status": reply.status, "headers": reply.headers()}
        )
        await send({"type": "http.response.body", "body": reply.body})

    return application


def _bytes(reply: Reply, default_headers: list[tuple[bytes, bytes]]) -> bytes:
    headers = [name + b": " + value for name, value in (*default_headers, *reply.headers())]
    line = httptools_impl.STATUS_LINE[reply.status]
    return line + b"\r\n".join(headers) + b"\r\n\r\n" + reply.body
