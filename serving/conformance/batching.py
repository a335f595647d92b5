"""Cases of batching (B) that a single client can see, for a server that batches up to four rows."""

import json
from typing import Any

from serving.conformance.case import Case, Expected, request
from serving.conformance.models import MODEL


def _predict(name: str, body: dict[str, Any], expected: Expected) -> Case:
    request_bytes = request("POST", f"/v1/models/{MODEL}:predict", json.dumps(body))
    return Case(name, request_bytes, (expected,), with_flags=True)


def _fails(name: str, body: dict[str, Any], error: str) -> Case:
    return _predict(name, body, Expected(400, error=error, whole_error=True))


CASES = [
    _predict(
        "B2-rows-of-one-request",
        {"instances": [1.0, 2.0]},
        Expected(200, {"predictions": [3.5, 4.0]}),
    ),
    _fails(
        "B3-no-dimension",
        {"signature_name": "mixed", "inputs": 1.0},
        "Batching Run() input tensors must have at least one dimension",
    ),
    _fails(
        "B3-inputs-differ-in-dimension-0",
        {"signature_name": "describe", "inputs": {"ids": [[1], [2]], "names": ["a"]}},
        "Batching Run() input tensors must have equal 0th-dimension size",
    ),
    _fails(
        "B5-output-without-a-row-for-each",
        {"signature_name": "uneven", "instances": [1.0]},
        "Batched output tensor's 0th dimension does not equal the sum of the 0th dimension sizes "
        "of the input tensors",
    ),
    _predict(
        "B5-filled-up-rows-are-not-in-the-reply",
        {
            "signature_name": "describe",
            "inputs": {"ids": [[1], [2], [3]], "names": ["a", "b", "c"]},
        },
        Expected(
            200,
            {
                "outputs": {
                    "total": [1, 2, 3],
                    "upper": ["A", "B", "C"],
                    "raw_bytes": [{"b64": text} for text in ("YQ==", "Yg==", "Yw==")],
                }
            },
        ),
    ),
    _fails(
        "B6-more-rows-than-max_batch_size",
        {"instances": [1.0, 2.0, 3.0, 4.0, 5.0]},
        "Task size 5 is larger than maximum input batch size 4",
    ),
]
