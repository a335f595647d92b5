"""What test_rest_clauses cannot see in one exchange."""

import asyncio
import concurrent.futures
import json
import socket
import struct
import threading
import urllib.parse

import httpx
import pytest

from serving import embedded_server
from serving.tfserving.rest import json_parse, routes
from serving.tfserving.rest.app import RestApi
from serving.tfserving.server_options import ServerOptions
from serving.tfserving.status import Code, ServingError, http_status

MODEL = "/v1/models/toy"


def post(http, path, document):
    return http.post(path, content=json.dumps(document))


def test_reserved_characters_are_decoded_after_matching():
    found = routes.route("POST", "/v1/models/a%2Fb%3Ac/versions/0007:predict")
    assert found == routes.Route("predict", "a/b:c", 7, None)
    assert routes.route("GET", "/v1/models/m/labels/a%20b/metadata") == routes.Route(
        "metadata", "m", None, "a b"
    )


@pytest.mark.parametrize(
    ("verb", "target"),
    [("BREW", "/v1/models/m"), ("POST", "/v1/models/m/METADATA"), ("POST", "/v1/models/m:Predict")],
)
def test_route_refuses(verb, target):
    with pytest.raises(ServingError, match=f"Malformed request: {verb} {target}"):
        routes.route(verb, target)


@pytest.mark.parametrize("written", ["METADATA", "Metadata", "metadatA"])
def test_U8_metadata_by_another_name_is_the_status(written):
    assert routes.route("GET", f"/v1/models/m/{written}") == routes.route("GET", "/v1/models/m")
    found = routes.route("GET", f"/v1/models/m/versions/3/{written}")
    assert found == routes.Route("status", "m", 3, None)


def test_E4_failing_op_is_told_without_decoration(http):
    reply = post(http, f"{MODEL}:predict", {"signature_name": "gather", "instances": [99]})
    assert reply.status_code == 400
    assert reply.json()["error"].startswith("indices[0] = 99 is not in [0, 10)\n\t [[{{node ")
    assert "Op:" not in reply.json()["error"]


def test_R8_metadata(http):
    reply = http.get(f"{MODEL}/metadata").json()
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


def test_H2_replies_carry_no_other_header(http):
    reply = post(http, f"{MODEL}:predict", {"instances": [1]})
    assert set(reply.headers) == {"content-type", "content-length", "date"}


def test_many_clients_at_once(http):
    def ask(x):
        return post(http, f"{MODEL}:predict", {"instances": [x]}).json()["predictions"][0]

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert list(pool.map(ask, range(64))) == [x / 2 + 2 for x in range(64)]


@pytest.fixture
def blocked(monkeypatch):
    """Every computation waits until the event is set."""
    event = threading.Event()
    event.waiting = threading.Semaphore(0)  # counts them
    parse = json_parse.parse

    def wait_and_parse(body):
        event.waiting.release()
        event.wait(60)
        return parse(body)

    monkeypatch.setattr("serving.tfserving.rest.app.json_parse.parse", wait_and_parse)
    yield event
    event.set()


def test_E3_deadline(exported, blocked):
    with embedded_server.running(exported, "toy", rest_api_timeout_in_ms=1000) as short:
        reply = httpx.post(f"{short.url}:predict", content=b'{"instances": [1]}', timeout=30)
        assert (reply.status_code, set(reply.json())) == (504, {"error"})
        assert httpx.get(short.url).status_code == 200
        blocked.set()
        assert httpx.post(f"{short.url}:predict", content=b'{"instances": [1]}').is_success


def test_work_ends_for_a_client_that_was_told_that_it_is_too_late(exported, blocked, monkeypatch):
    asked = []
    monkeypatch.setattr(
        "serving.tfserving.models.servable.Servable.predict", lambda *args: asked.append(args)
    )
    with embedded_server.running(exported, "toy", rest_api_timeout_in_ms=200) as short:
        url = f"{short.url}:predict"
        assert httpx.post(url, content=b'{"instances": [1]}', timeout=30).status_code == 504
        blocked.set()
    assert asked == []  # The server has answered all when it stops.


def test_more_requests_than_allowed_wait_their_turn(exported, blocked):
    with (
        embedded_server.running(exported, "toy", max_concurrent_requests=2) as few,
        concurrent.futures.ThreadPoolExecutor(5) as pool,
    ):
        url, body = f"{few.url}:predict", b'{"instances": [1]}'
        asked = [pool.submit(httpx.post, url, content=body, timeout=60) for _ in range(5)]
        assert all(blocked.waiting.acquire(timeout=60) for _ in range(2))
        assert httpx.get(few.url).status_code == 200
        assert not blocked.waiting.acquire(timeout=0.3)  # no third one is computed
        blocked.set()
        assert [future.result().status_code for future in asked] == [200] * 5


def test_who_waits_too_long_is_told_to_come_back():
    options = ServerOptions(max_concurrent_requests=1, rest_api_timeout_in_ms=50)
    api = RestApi(None, None, options, None)

    async def ask_while_another_request_goes_on():
        await api._places.acquire()
        await api._in_time(None, {}, b"")

    with pytest.raises(
        ServingError, match="1 requests are in .*, and none ended within 0.05"
    ) as refused:
        asyncio.run(ask_while_another_request_goes_on())
    assert http_status(refused.value.code) == 503


@pytest.mark.parametrize("part", [b"", b'{"inst'], ids=["nothing", "part"])
def test_a_body_that_does_not_arrive_in_time(exported, part):
    with embedded_server.running(exported, "toy", rest_api_timeout_in_ms=500) as short:
        parsed = urllib.parse.urlsplit(short.url)
        with socket.create_connection((parsed.hostname, parsed.port), timeout=20) as connection:
            head = f"POST {MODEL}:predict HTTP/1.1\r\nHost: x\r\nContent-Length: 20\r\n\r\n"
            connection.sendall(head.encode() + part)
            received = b"".join(iter(lambda: connection.recv(65536), b""))
        assert received.startswith(b"HTTP/1.1 504")
        assert b"did not arrive within 0.5 s" in received
        assert httpx.get(short.url).status_code == 200


def test_another_protocol_is_not_taken_up(http):
    upgrade = {"Connection": "Upgrade", "Upgrade": "websocket"}
    assert http.get(MODEL, headers=upgrade).status_code == 200


def test_longer_bodies_than_allowed(exported):
    with (
        embedded_server.running(exported, "toy", max_request_bytes=100) as small,
        httpx.Client() as client,
    ):
        url = f"{small.url}:predict"
        long = b'{"instances": [1]}' + b" " * 100
        for content in (long, iter([long])):  # of known length, and in chunks
            reply = client.post(url, content=content)
            assert reply.status_code == 413
            assert "longer than 100 bytes" in reply.json()["error"]
            assert "connection" not in reply.headers
        assert client.post(url, content=long[:100]).json() == {"predictions": [2.5]}


def test_a_long_body_that_waits_for_leave_ends_the_connection(exported):
    with embedded_server.running(exported, "toy", max_request_bytes=100) as small:
        parsed = urllib.parse.urlsplit(small.url)
        with socket.create_connection((parsed.hostname, parsed.port), timeout=10) as connection:
            head = f"POST {MODEL}:predict HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n"
            connection.sendall(f"{head}Expect: 100-continue\r\n\r\n".encode())
            received = b""
            while chunk := connection.recv(65536):
                received += chunk
    assert received.startswith(b"HTTP/1.1 413")
    assert b"100 Continue" not in received
    assert b"connection: close" in received.lower()


def test_a_client_that_hangs_up_on_several_requests(exported, blocked):
    body = b'{"instances": [1]}'
    sent = f"POST {MODEL}:predict HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    with embedded_server.running(exported, "toy") as running:
        parsed = urllib.parse.urlsplit(running.url)
        with socket.create_connection((parsed.hostname, parsed.port), timeout=10) as connection:
            connection.sendall((sent.encode() + body) * 2)
            assert blocked.waiting.acquire(timeout=60)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        assert httpx.get(running.url, timeout=60).status_code == 200  # the reset has arrived
        blocked.set()
        assert httpx.post(f"{running.url}:predict", content=body, timeout=60).is_success


def test_a_bug_becomes_an_answer(monkeypatch, http):
    monkeypatch.setattr("serving.tfserving.rest.app.json_parse.parse", lambda body: 1 / 0)
    reply = http.post(f"{MODEL}:predict", content=b"{}")
    assert (reply.status_code, reply.json()) == (
        500,
        {"error": "ZeroDivisionError: division by zero"},
    )


@pytest.mark.parametrize(
    ("code", "status"),
    [
        (Code.OK, 200),
        (Code.INVALID_ARGUMENT, 400),
        (Code.FAILED_PRECONDITION, 400),
        (Code.OUT_OF_RANGE, 400),
        (Code.UNAUTHENTICATED, 401),
        (Code.PERMISSION_DENIED, 403),
        (Code.NOT_FOUND, 404),
        (Code.ALREADY_EXISTS, 409),
        (Code.ABORTED, 409),
        (Code.RESOURCE_EXHAUSTED, 429),
        (Code.CANCELLED, 499),
        (Code.UNKNOWN, 500),
        (Code.INTERNAL, 500),
        (Code.DATA_LOSS, 500),
        (Code.UNIMPLEMENTED, 501),
        (Code.UNAVAILABLE, 503),
        (Code.DEADLINE_EXCEEDED, 504),
    ],
)
def test_E2_http_status_of_codes(code, status):
    assert http_status(code) == status
