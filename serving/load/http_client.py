"""An HTTP client for load tests, which takes a tenth of httpx's processor time per request.

The load generator usually runs on the same cores as the server that it measures.
"""

import asyncio
import ssl
import urllib.parse

import httptools


class LoadClient:
    """A pool of connections to one address, which are kept open and opened when none is free.

    Args:
        url: Address to which bodies are posted.
        connections: Largest number of connections; further requests wait for one.
        timeout_seconds: Time after which a request without reply is given up.
    """

    def __init__(self, url: str, connections: int, timeout_seconds: float) -> None:
        parts = urllib.parse.urlsplit(url)
        self._secure = ssl.create_default_context() if parts.scheme == "https" else None
        self._host = parts.hostname or ""
        self._port = parts.port or (443 if self._secure else 80)
        path = parts.path + (f"?{parts.query}" if parts.query else "")
        self._head = (
            f"POST {path} HTTP/1.1\r\nHost: {parts.netloc.rpartition('@')[2]}\r\n"
            "Content-Type: application/json\r\nContent-Length: "
        ).encode("ascii")
        self._timeout = timeout_seconds
        self._places = asyncio.Semaphore(connections)
        self._free: list[_Connection] = []

    async def post(self, body: bytes) -> tuple[int, int]:
        """Sends a body, and returns the status and the number of bytes of the reply.

        Raises:
            OSError: There is no reply; a `TimeoutError` if there is no reply in time.
        """
        async with self._places:
            try:
                return await asyncio.wait_for(self._post(body), self._timeout)
            except asyncio.TimeoutError:
                raise TimeoutError(f"no reply within {self._timeout:g} s") from None

    def close(self) -> None:
        """Closes the connections."""
        for connection in self._free:
            connection.close()

    async def _post(self, body: bytes) -> tuple[int, int]:
        connection = self._free.pop() if self._free else await self._connect()
        try:
            reply = await connection.ask(b"%b%d\r\n\r\n%b" % (self._head, len(body), body))
        except BaseException:
            connection.close()  # a late reply must not meet the next request
            raise
        if connection.reusable:
            self._free.append(connection)
        else:
            connection.close()
        return reply

    async def _connect(self) -> "_Connection":
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(
            _Connection, self._host, self._port, ssl=self._secure
        )
        return connection


class _Connection(asyncio.Protocol):
    """A connection that carries one request at a time."""

    def __init__(self) -> None:
        self.reusable = True
        self._reply: asyncio.Future[tuple[int, int]] | None = None
        self._size = 0

    def ask(self, request: bytes) -> "asyncio.Future[tuple[int, int]]":
        self._reply = asyncio.get_running_loop().create_future()
        self._size = 0
        self._parser = httptools.HttpResponseParser(self)
        if self._transport.is_closing():
            self._fail()
        self._transport.write(request)
        return self._reply

    def close(self) -> None:
        self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._fail()

    def connection_lost(self, exc: Exception | None) -> None:
        self.reusable = False
        self._fail()

    def on_body(self, body: bytes) -> None:
        self._size += len(body)

    def on_message_complete(self) -> None:
        self.reusable = self._parser.should_keep_alive()
        if self._reply is not None and not self._reply.done():
            self._reply.set_result((self._parser.get_status_code(), self._size))

    def _fail(self) -> None:
        if self._reply is not None and not self._reply.done():
            self._reply.set_exception(ConnectionError("the server closed the connection"))
