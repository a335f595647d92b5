import concurrent.futures
import gzip
import json
import socket
import urllib.parse

import httpx
import pytest

from serving import rest, server
from serving.status import Code, ServingError, http_status

MODEL = "/v1/models/toy"


def post(http, path, document):
    return http.post(path, content=json.dumps(document))


def raw(served, request: bytes) -> bytes:
    """Sends bytes and reads until the server closes the connection."""
    parsed = urllib.parse.urlsplit(served.url)
    with socket.create_connection((parsed.hostname, parsed.port), timeout=10) as connection:
        connection.sendall(request)
        received = b""
        while chunk := connection.recv(65536):
            received += chunk
    return received


# Routing.


@pytest.mark.parametrize(
    ("verb", "path"),
    [
        ("POST", f"{MODEL}:predict/"),
        ("POST", f"{MODEL}:PREDICT"),
        ("POST", f"{MODEL}:fly"),
        ("POST", f"{MODEL}/metadata"),
        ("POST", MODEL),
        ("POST", f"{MODEL}:predict?x=1"),
        ("POST", f"{MODEL}/version/5:predict"),
        ("POST", f"{MODEL}/label/x:predict"),
        ("POST", f"{MODEL}/versions/abc:predict"),
        ("POST", f"{MODEL}/versions/1/labels/x:predict"),
        ("GET", f"{MODEL}:predict"),
        ("GET", f"{MODEL}/"),
        ("GET", f"{MODEL}/versions/1/labels/x"),
        ("GET", "/v1/model/toy"),
        ("PUT", MODEL),
        ("DELETE", MODEL),
        ("PATCH", MODEL),
    ],
)
def test_malformed_requests(http, verb, path):
    reply = http.request(verb, path)
    assert reply.status_code == 400
    assert reply.json() == {"error": f"Malformed request: {verb} {path}"}
    assert reply.headers["content-type"] == "application/json"


def test_head_is_refused_without_a_body(http):
    reply = http.head(MODEL)
    assert (reply.status_code, reply.content) == (400, b"")


@pytest.mark.parametrize("path", ["/", "/v2/models/toy", "/v1", "/monitoring/prometheus/metrics"])
def test_paths_outside_the_api(http, path):
    reply = http.get(path)
    assert reply.status_code == 404
    assert reply.headers["content-type"] == "text/html"
    assert reply.headers["connection"] == "close"


def test_path_is_case_insensitive(http):
    assert post(http, "/V1/Models/toy:predict", {"instances": [1]}).status_code == 200


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/versions/5"])
def test_missing_model_name(http, path):
    reply = http.get(path)
    assert reply.status_code == 400
    assert reply.json() == {"error": "Missing model name in request."}


@pytest.mark.parametrize("digits", ["9223372036854775808", "1" * 6000])
def test_version_beyond_int64(http, digits):
    reply = http.get(f"{MODEL}/versions/{digits}")
    assert reply.status_code == 400
    assert reply.json() == {"error": f"Failed to convert version: {digits} to numeric."}


def test_query_string_belongs_to_the_name(http):
    reply = http.get(f"{MODEL}?x=1")
    assert reply.status_code == 404
    assert reply.json() == {"error": "Could not find any versions of model toy?x=1"}


def test_reserved_characters_are_decoded_after_matching():
    found = rest.route("POST", "/v1/models/a%2Fb%3Ac/versions/0007:predict")
    assert found == rest.Route("predict", "a/b:c", 7, None)
    assert rest.route("GET", "/v1/models/m/labels/a%20b/metadata") == rest.Route(
        "metadata", "m", None, "a b"
    )


# Predict.


@pytest.mark.parametrize(
    ("document", "reply"),
    [
        ({"instances": [1.0, 2.0, 5.0]}, {"predictions": [2.5, 3.0, 4.5]}),
        ({"instances": [{"x": 1}]}, {"predictions": [2.5]}),
        ({"inputs": [1, 2, 5]}, {"outputs": [2.5, 3.0, 4.5]}),
        ({"inputs": {"x": []}}, {"outputs": []}),
        ({"signature_name": "", "instances": [1], "more": {}}, {"predictions": [2.5]}),
        (
            {
                "signature_name": "describe",
                "instances": [
                    {"ids": [1, 2], "names": "abc"},
                    {"ids": [3, 2**40], "names": {"b64": "eHl6"}},
                ],
            },
            {
                "predictions": [
                    {"total": 3, "upper": "ABC", "raw_bytes": {"b64": "YWJj"}},
                    {"total": 3 + 2**40, "upper": "XYZ", "raw_bytes": {"b64": "eHl6"}},
                ]
            },
        ),
        (
            {"signature_name": "describe", "inputs": {"ids": [[1], [2], [3]], "names": ["é"]}},
            {"outputs": {"total": [1, 2, 3], "upper": ["é"], "raw_bytes": [{"b64": "w6k="}]}},
        ),
        (
            {"signature_name": "mixed", "inputs": 3},
            {"outputs": {"scalar": 3.0, "row": [3.0]}},
        ),
    ],
)
@pytest.mark.parametrize("spec", ["", "/versions/123"])
def test_predict(http, spec, document, reply):
    answer = post(http, f"{MODEL}{spec}:predict", document)
    assert (answer.status_code, answer.json()) == (200, reply)
    assert answer.headers["content-type"] == "application/json"
    assert set(answer.headers) == {"content-type", "content-length", "date"}


@pytest.mark.parametrize(
    ("path", "body", "status", "message"),
    [
        ("toy:predict", "", 400, "JSON Parse error: The document is empty"),
        ("toy:predict", "invalid", 400, "JSON Parse error: Invalid value. at offset: 0"),
        ("toy:predict", "[]", 400, "JSON Value: [] Is not object"),
        ("toy:predict", "{}", 400, "Missing 'inputs' or 'instances' key"),
        ("none:predict", "invalid", 400, "JSON Parse error: Invalid value. at offset: 0"),
        ("none:predict", "{}", 404, "Servable not found for request: Latest(none)"),
        (
            "none:predict",
            '{"signature_name": 1}',
            400,
            "not formatted correctly. 'signature_name' key must be a string value.",
        ),
        (
            "toy/versions/99:predict",
            "{}",
            404,
            "Servable not found for request: Specific(toy, 99)",
        ),
        ("toy/labels/x:predict", "{}", 400, "Unrecognized servable version label: x"),
        (
            "toy:predict",
            '{"signature_name": "none"}',
            400,
            'Serving signature name: "none" not found in signature def',
        ),
        (
            "toy:predict",
            '{"signature_name": "__saved_model_init_op", "instances": [1]}',
            400,
            "Failed to get input map for signature: __saved_model_init_op",
        ),
        (
            "toy:predict",
            '{"instances": [1, null]}',
            400,
            "Failed to process element: 1 of 'instances' list. Error: INVALID_ARGUMENT: "
            "JSON Value: null Type: Null is not of expected type: float",
        ),
        (
            "toy:predict",
            '{"signature_name": "mixed", "instances": [1, 2]}',
            400,
            "Tensor name: scalar has no shape information ",
        ),
        (
            "toy:predict",
            '{"signature_name": "half_precision", "instances": [1]}',
            400,
            "Failed to write JSON value for tensor type: half",
        ),
        ("toy:classify", '{"examples": [{}]}', 501, "This server offers predict, not classify."),
    ],
)
def test_predict_refusals(http, path, body, status, message):
    reply = http.post(f"/v1/models/{path}", content=body)
    assert reply.status_code == status
    assert message in reply.json()["error"]


def test_failing_op_is_told_without_decoration(http):
    reply = post(http, f"{MODEL}:predict", {"signature_name": "gather", "instances": [99]})
    assert reply.status_code == 400
    assert reply.json()["error"].startswith("indices[0] = 99 is not in [0, 10)\n\t [[{{node ")
    assert "Op:" not in reply.json()["error"]


def test_not_a_number_goes_in_and_out(http):
    reply = http.post(f"{MODEL}:predict", content=b'{"instances": [NaN, -Inf, 1e39, 1]} trailing')
    assert reply.content == b'{"predictions":[NaN,-Infinity,Infinity,2.5]}'


def test_deep_nesting_under_an_ignored_key(http):
    body = b'{"x":' + b"[" * 50_000 + b"]" * 50_000 + b',"instances":[1]}'
    assert http.post(f"{MODEL}:predict", content=body).json() == {"predictions": [2.5]}


def test_deep_nesting_as_signature_name(http):
    body = b'{"signature_name":' + b"[" * 50_000 + b"]" * 50_000 + b"}"
    reply = http.post(f"{MODEL}:predict", content=body)
    assert reply.status_code == 400
    assert "'signature_name' key must be a string value." in reply.json()["error"]


@pytest.mark.parametrize("encoding", ["gzip", "my_gzip"])
def test_gzip_body(http, encoding):
    body = gzip.compress(b'{"instances": [1]}', mtime=0)
    reply = http.post(f"{MODEL}:predict", content=body, headers={"Content-Encoding": encoding})
    assert reply.json() == {"predictions": [2.5]}
    assert "content-encoding" not in reply.headers


@pytest.mark.parametrize(
    "body",
    [b'{"instances": [1]}', gzip.compress(b"{}", mtime=0)[:-9]],
    ids=["plain", "cut"],
)
def test_body_that_does_not_inflate_is_empty(http, body):
    reply = http.post(f"{MODEL}:predict", content=body, headers={"Content-Encoding": "gzip"})
    assert reply.json() == {"error": "JSON Parse error: The document is empty"}


def test_inflated_bodies_are_bounded(monkeypatch):
    monkeypatch.setattr(rest, "_MAX_INFLATED_BYTES", 10)
    headers = [(b"content-encoding", b"gzip")]
    assert rest._inflate(headers, gzip.compress(b"x" * 10, mtime=0)) == b"x" * 10
    assert rest._inflate(headers, gzip.compress(b"x" * 11, mtime=0)) == b""


def test_chunked_body_and_content_type_are_accepted(http):
    reply = http.post(
        f"{MODEL}:predict",
        content=iter([b'{"inst', b'ances": [1]}']),
        headers={"Content-Type": "image/png", "Accept": "text/html"},
    )
    assert reply.json() == {"predictions": [2.5]}


def test_many_clients_at_once(http):
    def ask(x):
        return post(http, f"{MODEL}:predict", {"instances": [x]}).json()["predictions"][0]

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert list(pool.map(ask, range(64))) == [x / 2 + 2 for x in range(64)]


def test_deadline(exported):
    with server.running(exported, "toy", rest_api_timeout_in_ms=1) as short:
        document = {"signature_name": "slow", "instances": [1]}
        reply = httpx.post(f"{short.url}:predict", json=document, timeout=30)
        assert reply.status_code == 504
        assert httpx.get(short.url).status_code == 200


# Status and metadata.


@pytest.mark.parametrize("spec", ["", "/versions/123", "/labels/any"])
def test_status(http, spec):
    reply = http.get(f"{MODEL}{spec}")
    assert reply.status_code == 200
    assert reply.json() == {
        "model_version_status": [
            {
                "version": "123",
                "state": "AVAILABLE",
                "status": {"error_code": "OK", "error_message": ""},
            }
        ]
    }


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/v1/models/none", "Could not find any versions of model none"),
        (f"{MODEL}/versions/9", "Could not find version 9 of model toy"),
        ("/v1/models/none/metadata", "Servable not found for request: Latest(none)"),
        (f"{MODEL}/versions/9/metadata", "Servable not found for request: Specific(toy, 9)"),
    ],
)
def test_unknown_models_and_versions(http, path, message):
    reply = http.get(path)
    assert (reply.status_code, reply.json()) == (404, {"error": message})


@pytest.mark.parametrize("spec", ["", "/versions/123"])
def test_metadata(http, spec):
    reply = http.get(f"{MODEL}{spec}/metadata").json()
    assert reply["model_spec"] == {"name": "toy", "signature_name": "", "version": "123"}
    signatures = reply["metadata"]["signature_def"]["signature_def"]
    assert set(signatures) >= {"serving_default", "describe", "__saved_model_init_op"}
    described = signatures["describe"]
    assert described["method_name"] == "tensorflow/serving/predict"
    assert described["inputs"]["ids"] == {
        "dtype": "DT_INT64",
        "tensor_shape": {
            "dim": [{"size": "-1", "name": ""}, {"size": "-1", "name": ""}],
            "unknown_rank": False,
        },
        "name": "describe_ids:0",
    }
    unknown_rank = signatures["mixed"]["inputs"]["x"]["tensor_shape"]
    assert unknown_rank == {"dim": [], "unknown_rank": True}
    init = signatures["__saved_model_init_op"]["outputs"]["__saved_model_init_op"]
    assert init["dtype"] == "DT_INVALID"


def test_metadata_of_a_label(http):
    reply = http.get(f"{MODEL}/labels/x/metadata")
    assert reply.json() == {"error": "Unrecognized servable version label: x"}


# HTTP.


def test_http_1_0_closes_unless_asked_to_stay(served):
    reply = raw(served, f"GET {MODEL} HTTP/1.0\r\n\r\n".encode())
    assert reply.startswith(b"HTTP/1.1 200")
    twice = f"GET {MODEL} HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET {MODEL} HTTP/1.0\r\n\r\n"
    reply = raw(served, twice.encode())
    assert reply.count(b"HTTP/1.1 200") == 2
    assert reply.lower().count(b"connection: keep-alive") == 1


def test_connection_close_is_honoured_and_echoed(served):
    reply = raw(served, f"GET {MODEL} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    assert b"connection: close" in reply.lower()


def test_pipelined_requests_are_answered_in_order(served):
    bodies = [json.dumps({"instances": [x]}) for x in (0, 2, 4)]
    requests = "".join(
        f"POST {MODEL}:predict HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n{body}"
        for body in bodies
    )
    last = f"GET {MODEL} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    reply = raw(served, (requests + last).encode())
    positions = [reply.index(f"[{y}]".encode()) for y in (2.0, 3.0, 4.0)]
    assert positions == sorted(positions)


@pytest.mark.parametrize("garbage", [b"\x00\x01\r\n\r\n", b"GET \xff HTTP/1.1\r\n\r\n", b"GET\r\n"])
def test_server_outlives_bytes_that_are_not_http(served, http, garbage):
    assert raw(served, garbage).startswith(b"HTTP/1.1 400")
    assert http.get(MODEL).status_code == 200


def test_server_outlives_clients_that_hang_up(served, http):
    parsed = urllib.parse.urlsplit(served.url)
    for _ in range(3):
        with socket.create_connection((parsed.hostname, parsed.port)) as connection:
            head = f"POST {MODEL}:predict HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n{{"
            connection.sendall(head.encode())
    assert http.get(MODEL).status_code == 200


def test_a_bug_becomes_an_answer(monkeypatch, http):
    monkeypatch.setattr(rest.json_parse, "parse", lambda body: 1 / 0)
    reply = http.post(f"{MODEL}:predict", content=b"{}")
    assert (reply.status_code, reply.json()) == (
        500,
        {"error": "ZeroDivisionError: division by zero"},
    )


@pytest.mark.parametrize(
    ("code", "status"),
    [
        (Code.INVALID_ARGUMENT, 400),
        (Code.UNAUTHENTICATED, 401),
        (Code.PERMISSION_DENIED, 403),
        (Code.NOT_FOUND, 404),
        (Code.ABORTED, 409),
        (Code.RESOURCE_EXHAUSTED, 429),
        (Code.CANCELLED, 499),
        (Code.DATA_LOSS, 500),
        (Code.UNKNOWN, 500),
        (Code.UNIMPLEMENTED, 501),
        (Code.UNAVAILABLE, 503),
        (Code.DEADLINE_EXCEEDED, 504),
    ],
)
def test_http_status_of_codes(code, status):
    assert http_status(code) == status


def test_route_refuses_other_verbs():
    with pytest.raises(ServingError, match="Malformed request: BREW /v1/models/m"):
        rest.route("BREW", "/v1/models/m")
