"""Clients of the REST interface, for threads and for asyncio.

    with Client("http://127.0.0.1:8501/v1/models/ctr") as client:
        scores = client.score(
            {
                "user_id": "u1",
                "history": [{"item_id": "i1", "category_id": "c1"}],
                "candidates": [{"item_id": "i2", "category_id": "c1"}],
            }
        )

    async with AsyncClient(url) as client:
        scores = await client.score(request)

The history is sent once, whatever the number of candidates. Connections are kept alive and shared
by threads or tasks; 503 and 504 are tried again after pauses that grow, nothing else is.
"""

import asyncio
import time
from collections.abc import Coroutine, Mapping
from types import TracebackType
from typing import Any, TypeVar

import httpx

from preprocessing.schema import Schema
from serving.client.core import SERVING_DEFAULT, Conversation, Explanation, RefusedError
from serving.client.request_format import RequestFormat

__all__ = ["AsyncClient", "Client", "Explanation", "RefusedError"]

_CONNECT_SECONDS = 5.0

_Answer = TypeVar("_Answer")


class AsyncClient(Conversation):
    """Talks to one model from asyncio.

    Args:
        url: Address of the model, as in `http://127.0.0.1:8501/v1/models/ctr`, with or without a
            version or label.
        schema: Schema of the model. It supplies defaults, and is compared with the model's fields
            before the first request. None takes the fields from the model, without defaults.
        timeout_seconds: Timeout of each call.
        retries: Largest number of times that a call answered with 503 or 504 is repeated.
        compress: Whether to send bodies in gzip.
        equal_histories: Whether to cut or pad histories to the schema's length, for servers that
            batch: they merge requests of equal shapes only, and refuse others. The numbers of
            candidates then have to be equal too.

    Raises:
        UserError: `equal_histories` is set without a schema.
    """

    def __init__(
        self,
        url: str,
        *,
        schema: Schema | None = None,
        timeout_seconds: float = 60.0,
        retries: int = 3,
        compress: bool = False,
        equal_histories: bool = False,
    ) -> None:
        connection = _AsyncConnection(timeout_seconds)
        super().__init__(connection, url, schema, retries, compress, equal_histories)

    async def __aenter__(self) -> "AsyncClient":
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()


class Client:
    """Talks to one model, and waits for its answers; see `AsyncClient` for the arguments.

    Example:
        >>> request = {"user_id": "u1", "history": [], "candidates": [{"item_id": "i1"}]}
        >>> with Client("http://127.0.0.1:8501/v1/models/ctr") as client:
        ...     len(client.score(request))
        1
    """

    def __init__(
        self,
        url: str,
        *,
        schema: Schema | None = None,
        timeout_seconds: float = 60.0,
        retries: int = 3,
        compress: bool = False,
        equal_histories: bool = False,
    ) -> None:
        connection = _BlockingConnection(timeout_seconds)
        self._conversation = Conversation(
            connection, url, schema, retries, compress, equal_histories
        )

    @property
    def url(self) -> str:
        """The model's address."""
        return self._conversation.url

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections."""
        _finish(self._conversation.close())

    def signature(self, name: str) -> dict[str, Any]:
        """See `Conversation.signature`."""
        return _finish(self._conversation.signature(name))

    def request_format(self) -> RequestFormat:
        """See `Conversation.request_format`."""
        return _finish(self._conversation.request_format())

    def predict(self, inputs: Mapping[str, Any], signature_name: str = SERVING_DEFAULT) -> Any:
        """See `Conversation.predict`."""
        return _finish(self._conversation.predict(inputs, signature_name))

    def score(self, request: Mapping[str, Any], where: str = "request") -> list[float]:
        """See `Conversation.score`."""
        return _finish(self._conversation.score(request, where))

    def explain(self, request: Mapping[str, Any], where: str = "request") -> Explanation:
        """See `Conversation.explain`."""
        return _finish(self._conversation.explain(request, where))


class _AsyncConnection:
    def __init__(self, timeout_seconds: float) -> None:
        self._http = httpx.AsyncClient(timeout=_timeout(timeout_seconds))

    async def send(
        self, verb: str, url: str, body: bytes | None, headers: Mapping[str, str]
    ) -> httpx.Response:
        return await self._http.request(verb, url, content=body, headers=headers)

    async def pause(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def close(self) -> None:
        await self._http.aclose()


class _BlockingConnection:
    """A connection whose methods never suspend, so that `_finish` can run their callers."""

    def __init__(self, timeout_seconds: float) -> None:
        self._http = httpx.Client(timeout=_timeout(timeout_seconds))

    async def send(
        self, verb: str, url: str, body: bytes | None, headers: Mapping[str, str]
    ) -> httpx.Response:
        return self._http.request(verb, url, content=body, headers=headers)

    async def pause(self, seconds: float) -> None:
        time.sleep(seconds)

    async def close(self) -> None:
        self._http.close()


def _timeout(seconds: float) -> httpx.Timeout:
    return httpx.Timeout(seconds, connect=min(seconds, _CONNECT_SECONDS))


def _finish(coroutine: Coroutine[None, None, _Answer]) -> _Answer:
    """Runs a coroutine that never suspends."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value
    raise AssertionError("A connection that blocks was expected not to suspend.")
