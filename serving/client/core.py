"""The conversation with a model server, shared by the blocking client and the one for asyncio.

It is written once, as coroutines over a `Connection`. If the connection's methods never suspend,
such a coroutine runs to its end in a single step; the blocking client uses it this way.
"""

import base64
import dataclasses
import itertools
import json
import random
from collections.abc import Mapping
from typing import Any, Protocol

import httpx
import numpy as np
from isal import igzip

from preprocessing.errors import UserError
from preprocessing.schema import Schema
from serving.client.equal_shapes import of_equal_shapes
from serving.client.request_format import CANDIDATES, RequestFormat

SERVING_DEFAULT, EXPLAIN = "serving_default", "explain"

_RETRIED = (503, 504)
_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 5.0
_SMALLEST_COMPRESSED_BYTES = 1024  # smaller bodies fit into one packet anyway


class Connection(Protocol):
    """Sends HTTP requests and waits between them."""

    async def send(
        self, verb: str, url: str, body: bytes | None, headers: Mapping[str, str]
    ) -> httpx.Response:
        """Sends a request and returns the reply.

        Raises:
            httpx.HTTPError: There was no reply.
            httpx.InvalidURL: The URL is not valid.
        """

    async def pause(self, seconds: float) -> None:
        """Waits before a call is repeated."""

    async def close(self) -> None:
        """Closes the open connections."""


class RefusedError(UserError):
    """The server answered with an error, or with something other than a JSON object.

    Attributes:
        status: HTTP status of the reply.
    """

    def __init__(self, message: str, fix: str, status: int) -> None:
        super().__init__(message, fix)
        self.status = status


@dataclasses.dataclass(frozen=True)
class Explanation:
    """A model's explanation of the scores that the candidates of a request have.

    Attributes:
        scores_N: Probabilities, in the order of the candidates.
        confidence_NK: Weights of the interest experts.
        attention_NKL: Weights of the events of the request's history; 0 for events that were too
            old to be kept.
        unknown: Number of values of the request that the model's vocabularies do not have.
    """

    scores_N: np.ndarray
    confidence_NK: np.ndarray
    attention_NKL: np.ndarray
    unknown: int

    @classmethod
    def of(cls, outputs: Mapping[str, Any], candidates: int | None = None) -> "Explanation":
        """Reads the outputs of the signature `explain` for one request.

        Args:
            outputs: Outputs of the signature by name.
            candidates: Number of candidates in the request, as a server that batches may have
                added more; None for all.
        """
        return cls(
            scores_N=np.asarray(outputs["scores"][0][:candidates], np.float32),
            confidence_NK=np.asarray(outputs["confidence"][0][:candidates], np.float32),
            attention_NKL=np.asarray(outputs["attention"][0][:candidates], np.float32),
            unknown=int(outputs["unknown_ids"][0]),
        )


class Conversation:
    """All calls that one served model answers.

    Args:
        connection: Connection that carries the calls.
        url: Address of the model, as in `http://127.0.0.1:8501/v1/models/ctr`, with or without a
            version or label.
        schema: Schema of the model. It supplies defaults, and is compared with the model's fields
            before the first request. None takes the fields from the model, without defaults.
        retries: Largest number of times that a call answered with 503 or 504 is repeated.
        compress: Whether bodies are sent in gzip.
        equal_histories: Whether histories are cut or padded to the schema's length, and lists of
            values padded to their `max`: a server that batches (--enable_batching) merges requests
            of equal shapes only, and refuses others.

    Raises:
        UserError: `equal_histories` is set without a schema.
    """

    def __init__(
        self,
        connection: Connection,
        url: str,
        schema: Schema | None,
        retries: int,
        compress: bool,
        equal_histories: bool,
    ) -> None:
        if equal_histories and schema is None:
            raise UserError(
                "Expected the schema for histories of equal length, found none.",
                "pass the assets/schema.json of the model.",
            )
        self.url = url.rstrip("/").removesuffix(":predict")
        self._connection = connection
        self._schema = schema
        self._retries = retries
        self._compress = compress
        self._equal_histories = equal_histories
        self._format: RequestFormat | None = None
        self._explains = False

    async def close(self) -> None:
        """Closes the connection."""
        await self._connection.close()

    async def signature(self, name: str) -> dict[str, Any]:
        """The inputs and outputs of a signature, as the metadata call describes them.

        Raises:
            UserError: No server answers, or the model or the signature does not exist.
        """
        metadata = (await self._ask("GET", "/metadata"))["metadata"]
        signatures = metadata["signature_def"]["signature_def"]
        if name not in signatures:
            raise UserError(
                f"Expected the signature {name!r} at {self.url}, found "
                f"{', '.join(sorted(signatures))}.",
                "serve a model that ctr-export wrote; `explain` is there for models that can "
                "say why.",
            )
        return signatures[name]

    async def predict(
        self, inputs: Mapping[str, Any], signature_name: str = SERVING_DEFAULT
    ) -> Any:
        """Runs a signature in column form.

        Args:
            inputs: Arrays or nested lists by input name; bytes are sent as text if they are UTF-8,
                and in base64 otherwise.
            signature_name: Name of the signature.

        Returns:
            The only output, or several outputs by name, as nested lists.

        Raises:
            RefusedError: The server refuses the request; the message is the server's.
            UserError: No server answers.
        """
        body = predict_body(inputs, signature_name)
        return (await self._ask("POST", ":predict", body))["outputs"]

    async def score(self, request: Mapping[str, Any], where: str = "request") -> list[float]:
        """Scores the candidates of a request.

        Args:
            request: Request in the form that `serving.client.request_format` describes.
            where: Name of the request in error messages, such as "requests.jsonl:3".

        Returns:
            Probabilities, in the order of the candidates.

        Raises:
            RefusedError: The server refuses the request.
            UserError: No server answers, the schema has fields of other names or types than the
                model, the request lacks a field or has one of the wrong type, or a score is no
                number.
        """
        inputs = await self._inputs(request, where)
        (scores_N,) = await self.predict(inputs)
        # A server that batches may have added candidates, to make requests alike.
        scores_N = scores_N[: len(request[CANDIDATES])]
        if not np.isfinite(scores_N).all():
            raise UserError(
                f"{where}: expected probabilities from {self.url}, found {scores_N}.",
                "check the numbers of the request, then the metrics of the model's training.",
            )
        return scores_N

    async def explain(self, request: Mapping[str, Any], where: str = "request") -> Explanation:
        """Explains the scores of the candidates of a request.

        Args:
            request: Request in the form that `serving.client.request_format` describes.
            where: Name of the request in error messages, such as "requests.jsonl:3".

        Raises:
            RefusedError: The server refuses the request.
            UserError: The conditions of `score`, or the model has no signature `explain`.
        """
        inputs = await self._inputs(request, where)
        if not self._explains:
            await self.signature(EXPLAIN)  # raises if the model lacks it
            self._explains = True
        return Explanation.of(await self.predict(inputs, EXPLAIN), len(request[CANDIDATES]))

    async def _inputs(self, request: Any, where: str) -> dict[str, list[Any]]:
        inputs = (await self.request_format()).inputs(request, where)
        if self._equal_histories and self._schema is not None:
            return of_equal_shapes(inputs, self._schema, where)
        return inputs

    async def request_format(self) -> RequestFormat:
        """The format of the model's requests; the model is asked for it once.

        Raises:
            UserError: No server answers, the model is of another kind, or the schema is not the
                model's.
        """
        if self._format is None:
            served = RequestFormat.from_signature(await self.signature(SERVING_DEFAULT))
            if self._schema is not None:
                expected = RequestFormat.from_schema(self._schema)
                expected.require_equal(served, "the given schema", "the served model")
                served = expected
            self._format = served
        return self._format

    async def _ask(self, verb: str, path: str, body: bytes | None = None) -> dict[str, Any]:
        headers = {}
        if self._compress and body is not None and len(body) >= _SMALLEST_COMPRESSED_BYTES:
            headers["content-encoding"] = "gzip"
            body = igzip.compress(body)
        for attempt in itertools.count():
            try:
                reply = await self._connection.send(verb, self.url + path, body, headers)
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                raise UserError(
                    f"Expected a model server at {self.url}, found: "
                    f"{str(error) or type(error).__name__}.",
                    "start one with python -m serving.server, or check --url.",
                ) from None
            if reply.status_code not in _RETRIED or attempt == self._retries:
                return _document(reply)
            longest = min(_FIRST_PAUSE_SECONDS * 2**attempt, _LONGEST_PAUSE_SECONDS)
            # A random pause, so that clients refused at the same time do not return together.
            await self._connection.pause(random.uniform(longest / 2, longest))
        raise AssertionError("unreachable")


def predict_body(inputs: Mapping[str, Any], signature_name: str = SERVING_DEFAULT) -> bytes:
    """The body of a call of `:predict` in column form; see `Conversation.predict`."""
    columns = {name: _jsonable(value) for name, value in inputs.items()}
    document = {"signature_name": signature_name, "inputs": columns}
    # Not orjson, here and below: TensorFlow Serving reads and writes NaN.
    return json.dumps(document, separators=(",", ":")).encode()


def _document(reply: httpx.Response) -> dict[str, Any]:
    try:
        document = json.loads(reply.content)
    except (ValueError, RecursionError):
        document = None
    if reply.status_code == 200 and isinstance(document, dict):
        return document
    refusal = document.get("error") if isinstance(document, dict) else None
    raise RefusedError(
        f"Expected an answer from {reply.url}, found HTTP {reply.status_code}: "
        f"{refusal or reply.reason_phrase}.",
        "check the address" if refusal is None else "",
        reply.status_code,
    )


def _jsonable(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return _jsonable(value.tolist()) if value.dtype == object else value.tolist()
    if isinstance(value, list):
        return [_jsonable(child) for child in value]
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return {"b64": base64.b64encode(value).decode("ascii")}
    return value
