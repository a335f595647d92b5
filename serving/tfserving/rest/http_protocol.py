"""HTTP/1.1 of the embedded server, which like TensorFlow Serving's speaks nothing else."""

from array import array
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


class PlainHttpProtocol(HttpToolsProtocol):
    """A connection that ignores offers to go on in another protocol.

    Java's HttpClient offers HTTP/2 (`Upgrade: h2c`) with its requests. The parser takes the body of
    such a request for bytes of the other protocol, and would report a request without a body.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.parser = _Parser(self)
        # As in uvicorn: requests that follow one with "Connection: close" do not undo its answer.
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)

    def on_headers_complete(self) -> None:
        """Called by the parser."""
        if not self.has_offer():
            super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Called by the parser."""
        if not self.has_offer():
            super().on_message_complete()

    def has_offer(self) -> bool:
        """Whether the request offers another protocol; CONNECT, which is refused, asks for one."""
        return self.parser.should_upgrade() and self.parser.get_method() != b"CONNECT"

    def head_without_offer(self) -> bytes:
        """The request line and the headers that were parsed last, without the offer."""
        lines = [b"%b %b HTTP/1.1" % (self.parser.get_method(), self.url)]
        lines += [b"%b: %b" % header for header in self.headers if header[0] != b"upgrade"]
        return b"\r\n".join([*lines, b"", b""])


class _Parser(httptools.HttpRequestParser):
    """A parser that parses a request with an offer once more, without it."""

    def __init__(self, protocol: PlainHttpProtocol) -> None:
        super().__init__(protocol)
        self._protocol = protocol

    def feed_data(self, data: "bytes | bytearray | memoryview | array[int]") -> None:
        while True:
            try:
                super().feed_data(data)
            except httptools.HttpParserUpgrade as offer:
                if not self._protocol.has_offer():
                    raise
                data = self._protocol.head_without_offer() + bytes(data)[offer.args[0] :]
            else:
                return
