"""One case of the contract: the bytes of the requests and the expected replies."""

import contextlib
import dataclasses
import http.client
import io
import json
import socket
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

ANY = object()
"""Expected body that every body matches."""


@dataclasses.dataclass(frozen=True)
class Answer:
    """A reply of the server.

    Attributes:
        status: HTTP status.
        reason: Phrase after the status.
        headers: Values of the headers by lower-case name, without `date`, whose value changes.
        body: Bytes of the body.
    """

    status: int
    reason: str
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """The body as JSON, NaN and infinities included."""
        return json.loads(self.body)


@dataclasses.dataclass(frozen=True)
class Expected:
    """Properties that a reply must have.

    Attributes:
        status: HTTP status.
        body: JSON value, or bytes for a body that is not JSON; `ANY` allows every body.
        error: Text that the error message must contain; None if no error is expected.
        whole_error: Whether `error` must be the whole error message.
        contains: Texts that the body must contain.
        headers: Required headers by lower-case name; the value None forbids a header.
    """

    status: int
    body: Any = ANY
    error: str | None = None
    whole_error: bool = False
    contains: tuple[str, ...] = ()
    headers: Mapping[str, str | None] = dataclasses.field(default_factory=dict)

    def problems(self, answer: Answer) -> list[str]:
        """Differences between an answer and the expected one, a line each."""
        problems = []
        if answer.status != self.status:
            problems.append(
                f"status: expected {self.status}, found {answer.status} {answer.body!r}"
            )
        for name, value in self.headers.items():
            if answer.headers.get(name) != value:
                problems.append(f"header {name}: {value!r} expected, {answer.headers.get(name)!r}")
        text = answer.body.decode(errors="replace")
        problems += [f"body: expected {part!r} in it" for part in self.contains if part not in text]
        if self.error is not None:
            problems += self._problems_of_error(answer)
        elif isinstance(self.body, bytes):
            if answer.body != self.body:
                problems.append(f"body: expected {self.body!r}, found {answer.body!r}")
        elif self.body is not ANY and not same(answer.json(), self.body):
            problems.append(f"body: expected {self.body}, found {text}")
        return problems

    def _problems_of_error(self, answer: Answer) -> list[str]:
        try:
            reply = answer.json()
        except ValueError:
            return [f"body: expected JSON, found {answer.body!r}"]
        if not isinstance(reply, dict) or set(reply) != {"error"}:
            return [f"body: expected an error, found {reply}"]
        matches = reply["error"] == self.error if self.whole_error else self.error in reply["error"]
        return [] if matches else [f"error: expected {self.error!r}, found {reply['error']!r}"]


@dataclasses.dataclass(frozen=True)
class Case:
    """Requests over one connection, and the expected replies in order.

    Attributes:
        name: Clause of the contract and a description of the case, as in "U4-trailing-slash".
        sent: Bytes of the requests.
        replies: Expected replies.
        methods: Method of each request, because a reply to HEAD has no body.
        closes: Whether the server must close the connection after the last reply.
        with_flags: Whether the server runs with CORS support, a Prometheus page and batching.
    """

    name: str
    sent: bytes
    replies: tuple[Expected, ...]
    methods: tuple[str, ...] = ("POST",)
    closes: bool = False
    with_flags: bool = False

    def run(self, host: str, port: int, timeout_seconds: float = 120.0) -> list[Answer]:
        """Sends the case and returns the replies.

        Raises:
            OSError: The server does not answer in time, or not in HTTP.
        """
        with socket.create_connection((host, port), timeout=timeout_seconds) as connection:
            connection.sendall(self.sent)
            with connection.makefile("rb") as stream:
                answers = [_read(stream, method) for method in self.methods]
                # Read only if the server must close: a read from an open connection would time out.
                if self.closes and stream.read(1):
                    raise ConnectionError("The connection should have been closed")
        return answers

    def problems(self, answers: Sequence[Answer]) -> list[str]:
        """Differences between the answers and the expected replies, a line each."""
        pairs = zip(self.replies, answers, strict=True)
        return [problem for expected, answer in pairs for problem in expected.problems(answer)]


def request(
    verb: str, path: str, body: bytes | str = b"", headers: Mapping[str, str] | None = None
) -> bytes:
    """The bytes of a request; its length and host are added unless `headers` names them."""
    data = body.encode() if isinstance(body, str) else body
    fields = {"Host": "test", "Content-Length": str(len(data)), **(headers or {})}
    lines = [f"{verb} {path} HTTP/1.1", *(f"{k}: {v}" for k, v in fields.items() if v)]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + data


def same(one: Any, other: Any) -> bool:
    """Whether two JSON values are equal; floats are compared as float32, and NaN equals NaN."""
    if type(one) is not type(other):
        return False
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, float):
        with np.errstate(over="ignore"):
            return bool(np.array_equal(np.float32(one), np.float32(other), equal_nan=True))
    return bool(one == other)


class _Stream(io.BufferedIOBase):
    """A stream that outlives the responses read from it."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def makefile(self, mode: str) -> "_Stream":
        return self

    def readline(self, size: int | None = -1) -> bytes:
        return self._stream.readline(size)

    def read(self, size: int | None = -1) -> bytes:
        return self._stream.read(size)

    def close(self) -> None:
        return


def _read(stream: Any, method: str) -> Answer:
    response = http.client.HTTPResponse(_Stream(stream), method=method)  # type: ignore[arg-type]
    try:
        response.begin()
        body = response.read()
    except http.client.HTTPException as error:
        raise ConnectionError(f"No HTTP reply: {error!r}") from None
    headers = {name.lower(): value for name, value in response.getheaders()}
    with contextlib.suppress(KeyError):
        del headers["date"]
    return Answer(response.status, response.reason, headers, body)
