"""HTTP replies: JSON of the API, and HTML pages of the HTTP layer."""

import dataclasses
import http

from serving.tfserving.rest import json_replies

_HTML = b"text/html"


@dataclasses.dataclass(frozen=True)
class Reply:
    """An HTTP reply.

    Attributes:
        status: HTTP status.
        content_type: Value of the Content-Type header; None to leave it out.
        body: Bytes of the body.
        close: Whether the connection is closed after the reply.
    """

    status: int
    content_type: bytes | None
    body: bytes
    close: bool = False

    def headers(self) -> list[tuple[bytes, bytes]]:
        """The headers that describe the body and the connection."""
        fields = [(b"content-length", str(len(self.body)).encode("ascii"))]
        if self.content_type is not None:
            fields.append((b"content-type", self.content_type))
        if self.close:
            fields.append((b"connection", b"close"))
        return fields


def json_reply(status: int, body: bytes, close: bool = False) -> Reply:
    """A reply of the API."""
    return Reply(status, b"application/json", body, close)


def json_error(status: int, message: str, close: bool = False) -> Reply:
    """A refusal by the API."""
    return json_reply(status, json_replies.error(message), close)


def html_page(status: int) -> Reply:
    """A refusal by the HTTP layer, which never reaches the API and ends the connection."""
    title = f"{status} {http.HTTPStatus(status).phrase}"
    page = f"<html><head><title>{title}</title></head><body><h1>{title}</h1></body></html>\n"
    return Reply(status, _HTML, page.encode("ascii"), close=True)
