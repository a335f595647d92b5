"""Request bodies: read within a limit, inflated within another."""

import zlib
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

from serving.tfserving.status import Code, ServingError

MAX_INFLATED_BYTES = 100 * 2**20


class BodyTooLargeError(ServingError):
    """A body beyond the limit: HTTP 413, for which no status code stands."""

    def __init__(self, limit: int) -> None:
        super().__init__(
            Code.INVALID_ARGUMENT, f"Request body is longer than {limit} bytes (max_request_bytes)"
        )


async def read(
    headers: Mapping[bytes, bytes],
    receive: Callable[[], Awaitable[MutableMapping[str, Any]]],
    limit: int,
) -> bytes:
    """The body of a request, still as it was sent.

    Args:
        headers: Of the request.
        receive: ASGI's source of messages.
        limit: Bytes that a body may have.

    Raises:
        BodyTooLargeError: As soon as it is known.
        ServingError: CANCELLED if the client went away.
    """
    announced = headers.get(b"content-length", b"0")
    if announced.isdigit() and int(announced[:20]) > limit:
        raise BodyTooLargeError(limit)
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
    """Undoes gzip; a body that does not inflate, or not within 100 MiB, counts as empty."""
    if b"gzip" not in headers.get(b"content-encoding", b""):
        return body
    inflater = zlib.decompressobj(16 + zlib.MAX_WBITS)
    try:
        inflated = inflater.decompress(body, MAX_INFLATED_BYTES)
    except zlib.error:
        return b""
    return inflated if inflater.eof else b""
