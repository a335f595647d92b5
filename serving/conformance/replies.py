"""Cases of replies (R1-R6) and of Classify and Regress (J10)."""

import json
import math
from typing import Any

from serving.conformance.case import Case, Expected, request
from serving.conformance.models import MODEL

_DESCRIBED = {"total": 3, "upper": "A", "raw_bytes": {"b64": "YQ=="}}


def _ask(
    name: str, call: str, body: str | dict[str, Any], expected: Expected, spec: str = MODEL
) -> Case:
    data = json.dumps(body) if isinstance(body, dict) else body
    return Case(name, request("POST", f"/v1/models/{spec}:{call}", data), (expected,))


def _predict(name: str, signature: str, body: dict[str, Any], reply: Any) -> Case:
    return _ask(name, "predict", {"signature_name": signature} | body, Expected(200, reply))


def _predict_fails(name: str, signature: str, body: dict[str, Any], error: str) -> Case:
    expected = Expected(400, error=error, whole_error=True)
    return _ask(name, "predict", {"signature_name": signature} | body, expected)


def _both(name: str, body: dict[str, Any], classes: list[list[Any]]) -> list[Case]:
    """A Classify and a Regress case with the same examples; the value is the first class' score."""
    values = [example[0][1] for example in classes]
    return [
        _ask(
            f"{name}-{call}",
            call,
            {"signature_name": call} | body,
            Expected(200, {"results": reply}, headers={"content-type": "application/json"}),
        )
        for call, reply in (("classify", classes), ("regress", values))
    ]


def _both_fail(name: str, body: str | dict[str, Any], error: str, part: bool = False) -> list[Case]:
    expected = Expected(400, error=error, whole_error=not part)
    return [
        _ask(
            f"{name}-{call}",
            call,
            body if isinstance(body, str) else {"signature_name": call} | body,
            expected,
        )
        for call in ("classify", "regress")
    ]


def _class(label: str, x: float) -> list[list[Any]]:
    return [[label, x / 2 + 3], ["other", float(x)]]


def _float(name: str, written: str, text: str) -> Case:
    """A case of a float32 and its text in section 5; another text of the same float32 passes."""
    body = f'{{"signature_name": "echo_float32", "inputs": [{written}]}}'
    return _ask(f"R3-{name}", "predict", body, Expected(200, {"outputs": [json.loads(text)]}))


CASES = [
    # R1, R2, R4: the forms.
    _predict(
        "R1-row-one-output",
        "echo_int32",
        {"instances": [[[1, 2], [3, 4], [5, 6]]] * 2},
        {"predictions": [[[1, 2], [3, 4], [5, 6]]] * 2},
    ),
    _predict(
        "R1-column-one-output",
        "echo_int32",
        {"inputs": [[1, 2], [3, 4]]},
        {"outputs": [[1, 2], [3, 4]]},
    ),
    _predict(
        "R1-R2-row-several-outputs",
        "describe",
        {"instances": [{"ids": [1, 2], "names": "a"}]},
        {"predictions": [_DESCRIBED]},
    ),
    _predict(
        "R1-R2-column-several-outputs",
        "describe",
        {"inputs": {"ids": [[1, 2]], "names": ["a"]}},
        {"outputs": {name: [value] for name, value in _DESCRIBED.items()}},
    ),
    _predict("R1-zero-batch-column", "serving_default", {"inputs": {"x": []}}, {"outputs": []}),
    _predict(
        "R1-zero-batch-several-outputs",
        "describe",
        {"inputs": {"ids": [[]], "names": []}},
        {"outputs": {"total": [0], "upper": [], "raw_bytes": []}},
    ),
    _predict(
        "R4-int64-is-not-quoted",
        "echo_int64",
        {"instances": [2**53 + 1]},
        {"predictions": [2**53 + 1]},
    ),
    _predict("R4-bool", "echo_bool", {"instances": [True, False]}, {"predictions": [True, False]}),
    _predict(
        "R4-bytes-only-by-name",
        "echo_string",
        {"instances": [{"b64": "YQ=="}]},
        {"predictions": ["a"]},
    ),
    # R3: numbers.
    _float("large", "9000000", "9e+06"),
    _float("six-digits", "999999", "999999.0"),
    _float("small", "0.00003", "3e-05"),
    _float("seven-digits", "555557.5", "555557.5"),
    _float("third", "0.333333333333", "0.333333343"),
    _float("fifth", "0.2", "0.2"),
    _float("integer", "1", "1.0"),
    _predict(
        "R3-double", "echo_float64", {"instances": [0.1, 1 / 3]}, {"predictions": [0.1, 1 / 3]}
    ),
    _predict(
        "R3-not-a-number-and-infinities",
        "echo_float32",
        {"instances": [math.nan, math.inf, -math.inf, 1.5]},
        {"predictions": [math.nan, math.inf, -math.inf, 1.5]},
    ),
    # E3: replies that cannot be written.
    _predict_fails(
        "E3-row-reply-of-rank-0",
        "mixed",
        {"instances": [1, 2]},
        "Tensor name: scalar has no shape information ",
    ),
    _predict_fails(
        "E3-row-reply-unequal-dimension-0",
        "uneven",
        {"instances": [1, 2]},
        "Tensor name: short has inconsistent batch size: 2 expecting: 4",
    ),
    _predict_fails(
        "E3-output-type-without-json",
        "half_precision",
        {"instances": [1]},
        "Failed to write JSON value for tensor type: half",
    ),
    _predict_fails(
        "E3-output-type-without-json-column",
        "half_precision",
        {"inputs": [1]},
        "Failed to write JSON value for tensor type: half",
    ),
    # J10, R6: classify and regress.
    *_both(
        "J10-R6-scalars",
        {"examples": [{"x": 1.0, "label": "one"}, {"x": 2.0}]},
        [_class("one", 1), _class("none", 2)],
    ),
    *_both(
        "J10-lists",
        {"examples": [{"x": [5.0], "label": ["five"]}]},
        [_class("five", 5)],
    ),
    *_both(
        "J10-context-in-every-example",
        {"context": {"label": "all", "x": 4.0}, "examples": [{}, {"x": 2.0}]},
        [_class("all", 4), _class("all", 2)],
    ),
    *_both(
        "J10-key-order-is-free",
        {"examples": [{"label": "one", "x": 1.0}], "context": {}},
        [_class("one", 1)],
    ),
    *_both(
        "J10-base64",
        {"examples": [{"x": 1.0, "label": {"b64": "b25l"}}]},
        [_class("one", 1)],
    ),
    *_both(
        "J10-infinities",
        {"examples": [{"x": math.inf, "label": "a"}, {"x": -math.inf}]},
        [_class("a", math.inf), _class("none", -math.inf)],
    ),
    *_both("J10-not-a-number", {"examples": [{"x": math.nan}]}, [_class("none", math.nan)]),
    *_both(
        "J10-features-nobody-asked-for",
        {"examples": [{"x": 1.0, "ids": [1, True, -2], "words": ["a", {"b64": "Yg=="}]}]},
        [_class("none", 1)],
    ),
    *_both("J10-empty-list-is-no-value", {"examples": [{"x": []}]}, [_class("none", 0)]),
    _ask(
        "R6-missing-labels-are-empty",
        "classify",
        {"signature_name": "scores_only", "examples": [{"x": 1.0}]},
        Expected(200, {"results": [[["", 3.5]]]}),
    ),
    _ask(
        "J10-version",
        "regress",
        {"signature_name": "regress", "examples": [{"x": 1.0}]},
        Expected(200, {"results": [2.5]}),
        f"{MODEL}/versions/123",
    ),
    _ask(
        "J10-label",
        "classify",
        {"signature_name": "scores_only", "examples": [{"x": 1.0}]},
        Expected(200, {"results": [[["", 2.5]]]}),
        f"{MODEL}/labels/stable",
    ),
    *_both_fail(
        "J10-no-examples",
        {},
        "When method is classify, key 'examples' is expected and was not found",
        part=True,
    ),
    *_both_fail(
        "J10-examples-is-no-list",
        {"examples": {"x": 1}},
        "Expecting 'examples' value to be an list/array",
        part=True,
    ),
    *_both_fail(
        "J10-examples-is-empty", {"examples": []}, "'examples' value is an empty array", part=True
    ),
    *_both_fail(
        "J10-example-is-a-list",
        {"examples": [[1.0]]},
        "Example must be JSON object but got JSON Array",
        part=True,
    ),
    *_both_fail(
        "J10-context-is-a-list",
        {"context": [1], "examples": [{"x": 1.0}]},
        "Example must be JSON object but got JSON Array",
        part=True,
    ),
    *_both_fail(
        "J10-null",
        {"examples": [{"x": None}]},
        "Feature: x has element with unexpected JSON type: Null",
        part=True,
    ),
    *_both_fail(
        "J10-nested-list",
        {"examples": [{"x": [[1.0]]}]},
        "Feature: x has element with unexpected JSON type: Array",
        part=True,
    ),
    *_both_fail(
        "J10-object-that-is-no-base64",
        {"examples": [{"x": {"y": 1}}]},
        "Feature: x has element with unexpected JSON type: Object",
        part=True,
    ),
    *_both_fail(
        "J10-integer-then-decimal",
        {"examples": [{"x": [1, 10.0]}]},
        "Unexpected element type in feature: x expecting type: int64",
        part=True,
    ),
    *_both_fail(
        "J10-integer-above-int64",
        {"examples": [{"x": 2**63}]},
        "Feature: x has uint64_t element. Only int64_t is supported.",
        part=True,
    ),
    *_both_fail(
        "J10-signature-name-is-a-list",
        '{"signature_name": [], "examples": [{"x": 1.0}]}',
        "'signature_name' key must be a string value.",
        part=True,
    ),
    *_both_fail(
        "E3-unknown-signature",
        '{"signature_name": "none", "examples": [{"x": 1.0}]}',
        "No signature was found with the name: none",
    ),
    *_both_fail("E3-empty-body-of-examples", "", "JSON Parse error: The document is empty"),
    _ask(
        "E3-unknown-model-of-classify",
        "classify",
        {"examples": [{"x": 1.0}]},
        Expected(404, error="Servable not found for request: Latest(none)", whole_error=True),
        "none",
    ),
    _ask(
        "E3-unknown-label-of-regress",
        "regress",
        {"examples": [{"x": 1.0}]},
        Expected(400, error="Unrecognized servable version label: none", whole_error=True),
        f"{MODEL}/labels/none",
    ),
    _ask(
        "J10-signature-of-another-form",
        "classify",
        {"examples": [{"x": 1.0}]},
        Expected(400),
    ),
]
