"""Cases of Predict requests: JSON (J1, J3-J9), the families of section 12, and refusals (E3)."""

import json
import math
from typing import Any

from serving.conformance.case import Case, Expected, request
from serving.conformance.models import MODEL

_GOOD = {"predictions": [3.5]}
_ROW = "Failed to process element: {} of 'instances' list. Error: INVALID_ARGUMENT: "


def _ask(
    name: str, body: bytes | str | dict[str, Any], expected: Expected, spec: str = MODEL
) -> Case:
    data = json.dumps(body) if isinstance(body, dict) else body
    return Case(name, request("POST", f"/v1/models/{spec}:predict", data), (expected,))


def _good(name: str, body: bytes | str | dict[str, Any], reply: Any = _GOOD) -> Case:
    return _ask(name, body, Expected(200, reply))


def _bad(
    name: str,
    body: bytes | str | dict[str, Any],
    error: str,
    *,
    status: int = 400,
    spec: str = MODEL,
    part: bool = False,
) -> Case:
    return _ask(name, body, Expected(status, error=error, whole_error=not part), spec)


def _echo(name: str, kind: str, values: Any, echoed: Any) -> Case:
    """A case of values in column form that a signature returns as they are."""
    return _good(name, {"signature_name": f"echo_{kind}", "inputs": values}, {"outputs": echoed})


def _wrong_type(kind: str, type_name: str, value: Any, text: str, found_type: str) -> list[Case]:
    name = f"J8-{type_name}-not-{text.strip('[]{} ').replace(' ', '') or found_type.lower()}"[:60]
    message = f"JSON Value: {text} Type: {found_type} is not of expected type: {type_name}"
    body = {"signature_name": f"echo_{kind}"}
    return [
        _bad(f"{name}-column", body | {"inputs": [value]}, message),
        _bad(f"{name}-row", body | {"instances": [value]}, _ROW.format(0) + message),
    ]


_DESCRIBE = {"signature_name": "describe"}
_TWO_ROWS: list[dict[str, Any]] = [
    {"ids": [1, 2], "names": "a"},
    {"ids": [3, 2**40], "names": {"b64": "eHl6"}},
]
_TWO_REPLIES = [
    {"total": 3, "upper": "A", "raw_bytes": {"b64": "YQ=="}},
    {"total": 3 + 2**40, "upper": "XYZ", "raw_bytes": {"b64": "eHl6"}},
]
_TOO_BIG = "JSON Parse error: Number too big to be stored in double. at offset: "

CASES = [
    # J1: the parser.
    _echo(
        "J1-not-a-number-and-infinities",
        "float32",
        [math.nan, math.inf, -math.inf],
        [math.nan, math.inf, -math.inf],
    ),
    _good(
        "J1-short-infinities",
        '{"signature_name": "echo_float64", "inputs": [Inf, -Inf]}',
        {"outputs": [math.inf, -math.inf]},
    ),
    _good("J1-trailing-garbage-is-ignored", '{"instances": [1]}}]]] x "'),
    _good("J1-trailing-bytes-that-are-no-text", b'{"instances": [1]} \xff\xfe'),
    _good("J1-trailing-zero-byte", b'{"instances": [1]}\x00'),
    _good("J1-byte-order-mark", b'\xef\xbb\xbf{"instances": [1]}'),
    _bad("J1-too-big", '{"instances": [1e999]}', f"{_TOO_BIG}15"),
    _bad("J1-too-many-digits", f'{{"instances": [1{"0" * 400}]}}', _TOO_BIG, part=True),
    _echo("J1-utf-8", "string", ["é", "日本", "😀"], ["é", "日本", "😀"]),
    # J3, J4: keys.
    _good("J3-other-keys-are-ignored", {"context": 1, "examples": 2, "id": 3, "instances": [1]}),
    _good("J4-empty-signature-name", {"signature_name": "", "instances": [1]}),
    _good("J4-default-by-name", {"signature_name": "serving_default", "instances": [1]}),
    # J5: rows.
    _good("J5-scalars", {"instances": [1, 2, 5]}, {"predictions": [3.5, 4.0, 5.5]}),
    _good("J5-one-input-by-name", {"instances": [{"x": 1}]}),
    _good("J5-several-inputs", _DESCRIBE | {"instances": _TWO_ROWS}, {"predictions": _TWO_REPLIES}),
    _good(
        "J5-key-order-is-free",
        _DESCRIBE | {"instances": [dict(reversed(row.items())) for row in _TWO_ROWS]},
        {"predictions": _TWO_REPLIES},
    ),
    _good(
        "J5-family-1-pairs",
        {"signature_name": "echo_int32", "instances": [[1, 2], [3, 4], [5, 6]]},
        {"predictions": [[1, 2], [3, 4], [5, 6]]},
    ),
    # J6: columns.
    _good("J6-value", {"inputs": [1, 2, 5]}, {"outputs": [3.5, 4.0, 5.5]}),
    _good("J6-one-input-by-name", {"inputs": {"x": [1]}}, {"outputs": [3.5]}),
    _good("J6-further-names-are-ignored", {"inputs": {"x": [1], "z": None}}, {"outputs": [3.5]}),
    _good(
        "J6-dimension-0-may-differ",
        _DESCRIBE | {"inputs": {"ids": [[1], [2], [3]], "names": ["é"]}},
        {"outputs": {"total": [1, 2, 3], "upper": ["é"], "raw_bytes": [{"b64": "w6k="}]}},
    ),
    _echo("J6-rank-0", "string", {"b64": "aGk="}, "hi"),
    _good(
        "J6-scalar-output",
        {"signature_name": "mixed", "inputs": 3},
        {"outputs": {"scalar": 3.0, "row": [3.0]}},
    ),
    # J7: shapes.
    _echo("J7-empty-list", "float32", [], []),
    _echo("J7-empty-lists-in-a-list", "int64", [[], []], [[], []]),
    _bad(
        "E3-J7-ragged-size",
        {"signature_name": "echo_int32", "inputs": [[1, 2], [3]]},
        "Encountered list at unexpected size: 1 at level: 1 expected size: 2",
    ),
    _bad(
        "E3-J7-list-too-deep",
        {"signature_name": "echo_int32", "inputs": [1, [2]]},
        "Encountered list at unexpected level: 1 expected < 1",
    ),
    _bad(
        "E3-J7-value-too-high",
        {"signature_name": "echo_int32", "inputs": [[1], 2]},
        "found at incorrect level: 2 in the JSON DOM. Expected at level: 2",
        part=True,
    ),
    # J8: types.
    _echo("J8-integers-and-decimals-mix-float", "float32", [1, 2.5, -3], [1.0, 2.5, -3.0]),
    _echo("J8-integers-and-decimals-mix-double", "float64", [1, 2.5, -3], [1.0, 2.5, -3.0]),
    _echo("J8-nearest-float", "float32", [1435774380, 1435774380.0], [1435774336.0] * 2),
    _good(
        "J8-float-overflow-and-underflow",
        '{"signature_name": "echo_float32", "inputs": [1.7e308, -1.7e308, 4e-320, -4e-320]}',
        {"outputs": [math.inf, -math.inf, 0.0, -0.0]},
    ),
    _echo("J8-int32-range", "int32", [2**31 - 1, -(2**31)], [2**31 - 1, -(2**31)]),
    _echo("J8-int64-range", "int64", [2**63 - 1, -(2**63)], [2**63 - 1, -(2**63)]),
    _echo("J8-uint32-range", "uint32", [2**32 - 1, 0], [2**32 - 1, 0]),
    _echo("J8-uint64-range", "uint64", [2**64 - 1, 0], [2**64 - 1, 0]),
    _echo("J8-uint8-wraps", "uint8", [300], [44]),
    _echo("J8-int8-wraps", "int8", [300], [44]),
    _echo("J8-int16", "int16", [300, -5], [300, -5]),
    _echo("J8-bool", "bool", [True, False], [True, False]),
    _echo("J8-string", "string", [["a"], [""]], [["a"], [""]]),
    *_wrong_type("int32", "int32", 1.0, "1.0", "Number"),
    *_wrong_type("int32", "int32", 2**31, "2147483648", "Number"),
    *_wrong_type("uint8", "uint8", 2**31, "2147483648", "Number"),
    *_wrong_type("int64", "int64", 2**63, "9223372036854775808", "Number"),
    *_wrong_type("uint32", "uint32", -1, "-1", "Number"),
    *_wrong_type("uint64", "uint64", -1, "-1", "Number"),
    *_wrong_type("int64", "int64", True, "true", "True"),
    *_wrong_type("float32", "float", False, "false", "False"),
    *_wrong_type("float64", "double", None, "null", "Null"),
    *_wrong_type("float32", "float", "1", '"1"', "String"),
    *_wrong_type("bool", "bool", 1, "1", "Number"),
    *_wrong_type("string", "string", 1, "1", "Number"),
    _bad(
        "J8-int32-not-1e3",
        '{"signature_name": "echo_int32", "inputs": [1e3]}',
        "Type: Number is not of expected type: int32",
        part=True,
    ),
    # J9: base64.
    _echo("J9-padding-is-optional", "string", [{"b64": "aGk="}, {"b64": "aGk"}], ["hi", "hi"]),
    _good(
        "J9-lists-of-one",
        {"signature_name": "echo_string", "instances": [[{"b64": "aGk="}], ["plain"]]},
        {"predictions": [["hi"], ["plain"]]},
    ),
    _good(
        "J9-inside-a-named-object",
        {"signature_name": "echo_string", "instances": [{"x": [[{"b64": "aGk="}], ["e"]]}]},
        {"predictions": [[["hi"], ["e"]]]},
    ),
    _bad(
        "E3-J9-not-the-alphabet",
        {"signature_name": "echo_string", "inputs": [{"b64": "a?"}]},
        "Unable to base64 decode",
    ),
    _bad(
        "E3-J9-wrong-padding",
        {"signature_name": "echo_string", "inputs": [{"b64": "aGk=="}]},
        "Unable to base64 decode",
    ),
    _bad(
        "E3-J9-no-base64-object",
        {"signature_name": "echo_string", "inputs": [{"b64": 1}]},
        "not formatted correctly for base64 data",
        part=True,
    ),
    # U9: which mistake is reported first.
    _bad(
        "U9-json-before-model",
        "invalid",
        "JSON Parse error: Invalid value. at offset: 0",
        spec="none",
    ),
    _bad(
        "U9-signature-name-before-model",
        {"signature_name": 1},
        "'signature_name' key must be a string value.",
        spec="none",
        part=True,
    ),
    _bad(
        "U9-model-before-signature",
        {"signature_name": "none"},
        "Servable not found for request: Latest(none)",
        status=404,
        spec="none",
    ),
    _bad(
        "U9-signature-before-inputs",
        {"signature_name": "none"},
        'Serving signature name: "none" not found in signature def',
    ),
    # E3: refusals of Predict.
    _bad("E3-empty-body", "", "JSON Parse error: The document is empty"),
    _bad("E3-no-json", "invalid", "JSON Parse error: Invalid value. at offset: 0"),
    _bad("E3-no-object", "[]", "JSON Value: [] Is not object"),
    _bad(
        "E3-signature-name-is-no-string",
        {"signature_name": 5, "instances": [1]},
        "not formatted correctly. 'signature_name' key must be a string value.",
        part=True,
    ),
    _bad(
        "E3-unknown-model",
        {"instances": [1]},
        "Servable not found for request: Latest(none)",
        status=404,
        spec="none",
    ),
    _bad(
        "E3-unknown-version",
        {"instances": [1]},
        f"Servable not found for request: Specific({MODEL}, 99)",
        status=404,
        spec=f"{MODEL}/versions/99",
    ),
    _bad(
        "E3-unknown-label",
        {"instances": [1]},
        "Unrecognized servable version label: none",
        spec=f"{MODEL}/labels/none",
    ),
    _bad(
        "E3-label-of-an-unknown-model",
        {"instances": [1]},
        "Unrecognized servable version label: stable",
        spec="none/labels/stable",
    ),
    _bad(
        "E3-signature-without-inputs",
        {"signature_name": "__saved_model_init_op", "instances": [1]},
        "Failed to get input map for signature: __saved_model_init_op",
    ),
    _bad("E3-neither-key", "{}", "Missing 'inputs' or 'instances' key"),
    _bad(
        "E3-both-keys",
        {"inputs": 1, "instances": [1]},
        "Not formatted correctly expecting only one of 'inputs' or 'instances' keys to exist ",
        part=True,
    ),
    _bad(
        "E3-instances-is-no-list",
        {"instances": 1},
        "JSON Value: 1 Expecting 'instances' to be an list/array",
    ),
    _bad(
        "E3-instances-is-empty",
        {"instances": []},
        "JSON Value: [] No values in 'instances' array",
    ),
    _bad(
        "E3-plain-list-for-several-inputs",
        _DESCRIBE | {"instances": [1, 2]},
        "instances is a plain list, but expecting list of objects as multiple input tensors "
        "required as per tensorinfo_map",
    ),
    _bad(
        "E3-row-unknown-key",
        {"instances": [{"x": 1}, {"z": 1}]},
        "Failed to process element: 1 key: z of 'instances' list. Error: INVALID_ARGUMENT: "
        "JSON object: does not have named input: z",
    ),
    _bad(
        "E3-row-key-missing",
        _DESCRIBE | {"instances": [_TWO_ROWS[0], {"ids": [1, 2]}]},
        "keys must be equal to: ids,names",
        part=True,
    ),
    _bad(
        "E3-row-ragged-size",
        {"signature_name": "echo_int32", "instances": [[1], [2], [3, 4]]},
        _ROW.format(2) + "Expecting tensor size: 1 but got: 2",
    ),
    _bad(
        "E3-row-other-shape-of-same-count",
        {"signature_name": "echo_int32", "instances": [[1, 2], [[3, 4]]]},
        _ROW.format(1) + "Expecting shape [2] but got: [1,2]",
    ),
    _bad(
        "E3-row-scalar-then-list",
        {"signature_name": "echo_int32", "instances": [1, [2]]},
        "Expecting shape [] but got: [1]",
        part=True,
    ),
    _bad(
        "E3-row-list-among-objects",
        {"instances": [{"x": 1}, [2]]},
        "Expecting object but got list at item 1 of input list",
    ),
    _bad(
        "E3-row-object-among-lists",
        {"instances": [1, {"x": 1}]},
        "Expecting value/list but got object at item 1 of input list",
    ),
    _bad(
        "E3-column-plain-value-for-several-inputs",
        _DESCRIBE | {"inputs": [1]},
        "inputs is a plain value/list, but expecting an object as multiple input tensors "
        "required as per tensorinfo_map",
    ),
    _bad(
        "E3-column-input-missing",
        _DESCRIBE | {"inputs": {"ids": [[1]]}},
        "Missing named input: names in 'inputs' object.",
    ),
    _bad(
        "E3-input-type-without-json-column",
        {"signature_name": "half_input", "inputs": [1]},
        "Conversion of JSON Value: 1 to type: half",
        status=501,
    ),
    _bad(
        "E3-input-type-without-json-row",
        {"signature_name": "half_input", "instances": [1]},
        "Conversion of JSON Value: 1 to type: half",
        part=True,
    ),
    _bad(
        "E3-op-failure",
        {"signature_name": "gather", "instances": [99]},
        "indices[0] = 99 is not in [0, 10)",
        part=True,
    ),
]
