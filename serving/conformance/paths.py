"""Cases of routing (U), of status and metadata (R7, R8) and of the metrics' page (M)."""

import urllib.parse

from serving.conformance.case import Case, Expected, request
from serving.conformance.models import MODEL, RESERVED, VERSIONS

_BODY = '{"instances": [1.0, 2.0, 5.0]}'
_M = f"/v1/models/{MODEL}"
_R = f"/v1/models/{urllib.parse.quote(RESERVED, safe='')}"
_JSON = {"content-type": "application/json"}
_ROWS = {123: [2.5, 3.0, 4.5], 124: [3.5, 4.0, 5.5]}
_PAGE = "/monitoring/prometheus/metrics"
_OK = {"error_code": "OK", "error_message": ""}


def _refused(name: str, verb: str, path: str, message: str, status: int = 400) -> Case:
    body = _BODY if verb in ("POST", "PUT", "PATCH") else ""
    expected = Expected(status, error=message, whole_error=True, headers=_JSON)
    return Case(name, request(verb, path, body), (expected,), (verb,))


def _malformed(name: str, verb: str, path: str) -> Case:
    return _refused(f"U4-{name}", verb, path, f"Malformed request: {verb} {path}")


def _get(name: str, path: str, expected: Expected, *, with_flags: bool = False) -> Case:
    return Case(name, request("GET", path), (expected,), ("GET",), with_flags=with_flags)


def _ask(name: str, path: str, predictions: list[float]) -> Case:
    expected = Expected(200, {"predictions": predictions}, headers=_JSON)
    return Case(name, request("POST", path, _BODY), (expected,))


def _status(*versions: int) -> Expected:
    states = [{"version": str(v), "state": "AVAILABLE", "status": _OK} for v in versions]
    return Expected(200, {"model_version_status": states}, headers=_JSON)


def _outside(name: str, verb: str, path: str) -> Case:
    headers = {"content-type": "text/html", "connection": "close"}
    return Case(name, request(verb, path), (Expected(404, headers=headers),), (verb,), closes=True)


_BEYOND = "9223372036854775808"

CASES = [
    # U1: paths outside of the API.
    _outside("U1-root", "GET", "/"),
    _outside("U1-other-version", "GET", f"/v2/models/{MODEL}"),
    _outside("U1-nothing-after-v1", "GET", "/v1"),
    _outside("U1-post", "POST", "/predict"),
    _outside("U1-prometheus-is-off", "GET", _PAGE),
    _refused("U1-query-is-part-of-the-match", "GET", "/v1/?x", "Malformed request: GET /v1/?x"),
    # U2, U3: names and labels.
    _ask("U2-latest", f"{_M}:predict", _ROWS[124]),
    *(_ask(f"U2-version-{v}", f"{_M}/versions/{v}:predict", _ROWS[v]) for v in VERSIONS),
    _ask("U2-version-leading-zeros", f"{_M}/versions/000123:predict", _ROWS[123]),
    _ask("U2-label", f"{_M}/labels/stable:predict", _ROWS[123]),
    _ask("U2-label-percent-encoded", f"{_M}/labels/can%2Fary:predict", _ROWS[124]),
    _ask("U2-name-percent-encoded", f"{_R}:predict", [1.5, 2.0, 3.5]),
    _get("U3-name-percent-encoded", _R, _status(1)),
    _get(
        "U3-name-percent-encoded-metadata",
        f"{_R}/metadata",
        Expected(200, contains=(f'"name": "{RESERVED}"',)),
    ),
    # U4: malformed.
    _malformed("trailing-slash", "POST", f"{_M}:predict/"),
    _malformed("trailing-slash-get", "GET", f"{_M}/"),
    _malformed("unknown-method", "POST", f"{_M}:fly"),
    _malformed("no-method", "POST", _M),
    _malformed("post-metadata", "POST", f"{_M}/metadata"),
    _malformed("get-predict", "GET", f"{_M}:predict"),
    _malformed("singular-version", "POST", f"{_M}/version/5:predict"),
    _malformed("singular-label", "POST", f"{_M}/label/x:predict"),
    _malformed("letters-as-version", "POST", f"{_M}/versions/abc:predict"),
    _malformed("negative-version", "GET", f"{_M}/versions/-1"),
    _malformed("version-and-label", "POST", f"{_M}/versions/1/labels/x:predict"),
    _malformed("version-and-label-get", "GET", f"{_M}/versions/1/labels/x"),
    _malformed("no-model", "POST", "/v1/models/:predict"),
    _malformed("empty-label", "POST", f"{_M}/labels/:predict"),
    _malformed("singular-models", "GET", f"/v1/model/{MODEL}"),
    *(_malformed(verb.lower(), verb, _M) for verb in ("PUT", "DELETE", "PATCH")),
    _get("U5-no-listing", "/v1/models", Expected(400, error="Missing model name in request.")),
    _get(
        "U5-no-name-before-version",
        "/v1/models/versions/5",
        Expected(400, error="Missing model name in request."),
    ),
    *(
        _refused(
            f"U6-beyond-int64-{name}",
            verb,
            f"{_M}/versions/{digits}{call}",
            f"Failed to convert version: {digits} to numeric.",
        )
        for name, verb, digits, call in (
            ("get", "GET", _BEYOND, ""),
            ("post", "POST", _BEYOND, ":predict"),
            ("very-long", "GET", "1" * 6000, ""),
        )
    ),
    _malformed("query-after-method", "POST", f"{_M}:predict?x=1"),
    _refused(
        "U7-query-belongs-to-the-name",
        "GET",
        f"{_M}?x=1",
        f"Could not find any versions of model {MODEL}?x=1",
        404,
    ),
    _ask("U8-any-case", f"/V1/Models/{MODEL}:predict", _ROWS[124]),
    _malformed("method-in-capitals", "POST", f"{_M}:PREDICT"),
    _get("U8-metadata-in-capitals-is-the-status", f"{_M}/METADATA", _status(124, 123)),
    _get("U8-metadata-in-any-case", f"{_M}/versions/123/MetaData", _status(123)),
    # R7: status.
    _get("R7-all-versions-newest-first", _M, _status(124, 123)),
    _get("R7-one-version", f"{_M}/versions/123", _status(123)),
    _get("R7-label-is-ignored", f"{_M}/labels/none", _status(124, 123)),
    _refused(
        "E3-status-unknown-model",
        "GET",
        "/v1/models/none",
        "Could not find any versions of model none",
        404,
    ),
    _refused(
        "E3-status-unknown-version",
        "GET",
        f"{_M}/versions/9",
        f"Could not find version 9 of model {MODEL}",
        404,
    ),
    # R8: metadata.
    _get(
        "R8-metadata",
        f"{_M}/metadata",
        Expected(
            200,
            headers=_JSON,
            contains=('"version": "124"', '"signature_name": ""', '"__saved_model_init_op"'),
        ),
    ),
    _get(
        "R8-shapes",
        f"{_M}/versions/123/metadata",
        Expected(
            200,
            contains=('"size": "-1"', '"unknown_rank": true', '"DT_INVALID"', '"version": "123"'),
        ),
    ),
    _get("R8-label", f"{_M}/labels/stable/metadata", Expected(200, contains=('"version": "123"',))),
    _refused(
        "E3-metadata-unknown-model",
        "GET",
        "/v1/models/none/metadata",
        "Servable not found for request: Latest(none)",
        404,
    ),
    _refused(
        "E3-metadata-unknown-version",
        "GET",
        f"{_M}/versions/9/metadata",
        f"Servable not found for request: Specific({MODEL}, 9)",
        404,
    ),
    _refused(
        "E3-metadata-unknown-label",
        "GET",
        f"{_M}/labels/x/metadata",
        "Unrecognized servable version label: x",
    ),
    # M: the metrics' page.
    _get(
        "M1-page",
        _PAGE,
        Expected(200, headers={"content-type": "text/plain"}, contains=("# TYPE ",)),
        with_flags=True,
    ),
    _get(
        "M1-query-string",
        f"{_PAGE}?x=1",
        Expected(400, contains=(f"Unexpected path: {_PAGE}?x=1",)),
        with_flags=True,
    ),
    Case(
        "M2-M3-M4-after-a-request",
        request("POST", f"{_M}/versions/123:predict", _BODY)
        + request("GET", "/v1/none")
        + request("GET", _PAGE),
        (
            Expected(200),
            Expected(400),
            Expected(
                200,
                contains=(
                    "# TYPE :tensorflow:serving:request_count counter\n",
                    f':tensorflow:serving:request_count{{model_name="{MODEL}",status="OK"}} ',
                    ':tensorflow:serving:request_count{model_name="",status="INVALID_ARGUMENT"} ',
                    "# TYPE :tensorflow:serving:request_latency histogram\n",
                    f':tensorflow:serving:request_latency_bucket{{model_name="{MODEL}",'
                    'API="predict",entrypoint="REST",le="10"} ',
                    f':tensorflow:serving:request_latency_count{{model_name="{MODEL}",'
                    'API="predict",entrypoint="REST"} ',
                    f':tensorflow:serving:runtime_latency_sum{{model_name="{MODEL}",'
                    'API="Predict",runtime="TF1"} ',
                    f':tensorflow:serving:request_example_count_total{{model="{MODEL}"}} ',
                    f':tensorflow:serving:request_example_counts_bucket{{model="{MODEL}",'
                    'le="16384"} ',
                    'le="+Inf"} ',
                    "# TYPE :tensorflow:serving:batching_session:queuing_latency histogram\n",
                    "# TYPE :tensorflow:serving:batching_session:wrapped_run_count counter\n",
                ),
            ),
        ),
        ("POST", "GET", "GET"),
        with_flags=True,
    ),
]
