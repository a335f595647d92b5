"""Request bodies: reading and decompression, each with a limit of the size."""

import asyncio
import zlib
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

from serving.tfserving.status import Code, ServingError

_Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]

MAX_INFLATED_BYTES = 100 * 2**20


class BodyTooLargeError(ServingError):
    """A body beyond the limit: HTTP 413, which no status code of TensorFlow Serving becomes."""

    def __init__(self, limit: int) -> None:
        super().__init__(
            Code.INVALID_ARGUMENT, f"Request body is longer than {limit} bytes (max_request_bytes)"
        )


async def read(
    headers: Mapping[bytes, bytes], receive: _Receive, limit: int, seconds: float
) -> bytes:
    """Reads the body of a request without decompressing it.

    Args:
        headers: Headers of the request.
        receive: ASGI function that returns the next message.
        limit: Largest number of bytes in a body.
        seconds: Longest time for the body to arrive.

    Raises:
        BodyTooLargeError: The announced or received size of the body exceeds the limit.
        ServingError: CANCELLED if the client closed the connection, DEADLINE_EXCEEDED if the body
            does not arrive in time.
    """
    announced = headers.get(b"content-length", b"0")
    if announced.isdigit() and int(announced[:20]) > limit:
        raise BodyTooLargeError(limit)
    try:
        return await asyncio.wait_for(_receive_all(receive, limit), seconds)
    except asyncio.TimeoutError:
        raise ServingError(
            Code.DEADLINE_EXCEEDED, f"The request did not arrive within {seconds:g} s"
        ) from None


async def _receive_all(receive: _Receive, limit: int) -> bytes:
    chunks = []
    size = 0
    more = True
    while more:
        event = await receive()
        if event["type"] == "http.disconnect":
            raise ServingError(Code.CANCELLED, "The client went away")
        chunk = event.get("body", b"")
        chunks.append(chunk)
        size += len(chunk)
        if size > limit:
            raise BodyTooLargeError(limit)
        more = event.get("more_body", False)
    return b"".join(chunks)


def inflate(headers: Mapping[bytes, bytes], body: bytes) -> bytes:
    """Decompresses a gzip body; one that is damaged or exceeds 100 MiB counts as empty."""
    if b"gzip" not in headers.get(b"content-encoding", b""):
        return body
    inflater = zlib.decompressobj(16 + zlib.MAX_WBITS)
    try:
        inflated = inflater.decompress(body, MAX_INFLATED_BYTES)
    except zlib.error:
        return b""
    return inflated if inflater.eof else b""
