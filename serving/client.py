"""A client of the REST interface: asks a model for scores over one kept-alive connection."""

import base64
import json
from collections.abc import Mapping
from types import TracebackType
from typing import Any

import httpx
import numpy as np

from preprocessing.errors import UserError

_TIMEOUT_SECONDS = 60.0


class Client:
    """Talks to one model.

    Args:
        url: The model's address, as in `http://127.0.0.1:8501/v1/models/ctr`, with or without a
            version.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/").removesuffix(":predict")
        self._http = httpx.Client(timeout=_TIMEOUT_SECONDS)

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._http.close()

    def signature(self, name: str) -> dict[str, Any]:
        """The inputs and outputs of a signature, as the metadata call describes them.

        Raises:
            UserError: No server, no such model, or no such signature.
        """
        metadata = self._ask("GET", "/metadata")["metadata"]
        signatures = metadata["signature_def"]["signature_def"]
        if name not in signatures:
            raise UserError(
                f"Expected the signature {name!r} at {self.url}, found "
                f"{', '.join(sorted(signatures))}.",
                "export the model with serving.export.",
            )
        return signatures[name]

    def predict(self, inputs: Mapping[str, Any], signature_name: str = "serving_default") -> Any:
        """Runs a signature in column form.

        Args:
            inputs: Arrays or nested lists by input; bytes go as they are if they are text, and in
                base64 otherwise.
            signature_name: Name of the signature.

        Returns:
            The one output, or outputs by name, as nested lists.

        Raises:
            UserError: No server, or it refuses the request; the message is the server's.
        """
        columns = {name: _jsonable(value) for name, value in inputs.items()}
        document = {"signature_name": signature_name, "inputs": columns}
        # Not orjson, here and below: TensorFlow Serving reads and writes NaN.
        return self._ask("POST", ":predict", json.dumps(document).encode())["outputs"]

    def _ask(self, verb: str, path: str, body: bytes | None = None) -> Any:
        try:
            reply = self._http.request(verb, self.url + path, content=body)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise UserError(
                f"Expected a model server at {self.url}, found: {error or type(error).__name__}.",
                "start one with python -m serving.server, or check --url.",
            ) from None
        try:
            document = json.loads(reply.content)
        except ValueError:
            document = None
        if reply.status_code == 200 and isinstance(document, dict):
            return document
        refusal = document.get("error") if isinstance(document, dict) else None
        raise UserError(
            f"Expected an answer from {self.url}{path}, found HTTP {reply.status_code}: "
            f"{refusal or reply.reason_phrase}.",
            "check the address" if refusal is None else "",
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
