"""Connections that misbehave, byte by byte."""

import contextlib
import socket
import time
import urllib.parse

import httpx
import pytest
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from serving import server

MODEL = "/v1/models/toy"
GET = f"GET {MODEL} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
BODY = b'{"instances": [1]}'
HEAD = f"POST {MODEL}:predict HTTP/1.1\r\nHost: x\r\nContent-Length: {len(BODY)}\r\n\r\n".encode()


@pytest.fixture(scope="module")
def impatient(exported):
    """Requests must arrive within half a second; silent connections may stay for one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(server, "_KEEP_ALIVE_SECONDS", 1)
        patch.setattr(server, "_MAX_HEADER_BYTES", 20_000)
        with server.running(exported, "toy", rest_api_timeout_in_ms=500) as running:
            yield running.url


@contextlib.contextmanager
def connected(url):
    parsed = urllib.parse.urlsplit(url)
    with socket.create_connection((parsed.hostname, parsed.port), timeout=20) as connection:
        yield connection


def read_all(connection):
    """What comes until the server closes the connection."""
    received = b""
    while chunk := connection.recv(65536):
        received += chunk
    return received


def statuses(received):
    return [part[1:4].decode() for part in received.split(b"HTTP/1.1")[1:]]


def exchange(url, *parts, half_close=False):
    with connected(url) as connection:
        for part in parts:
            connection.sendall(part)
        if half_close:
            connection.shutdown(socket.SHUT_WR)
        return read_all(connection)


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"\x00\x01\r\n\r\n", "501"),  # the first word is taken for a method
        (b"GET \xff HTTP/1.1\r\n\r\n", "400"),
        (b"GET\r\n", "501"),  # and so is this
        (b"GET / HTTP/9.9\r\n\r\n", "400"),
        (GET[:-2] + b"Content-Length: x\r\n\r\n", "400"),
        (GET[:-2] + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", "400"),
        (b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n", "501"),
    ],
    ids=["binary", "path", "line", "version", "length", "both-lengths", "connect"],
)
def test_bytes_that_are_not_http(impatient, sent, status):
    received = exchange(impatient, sent)
    assert statuses(received) == [status]
    assert b"connection: close" in received
    assert b"text/html" in received
    assert httpx.get(impatient).status_code == 200


def test_garbage_after_requests_is_refused_after_they_are_answered(impatient):
    received = exchange(impatient, HEAD + BODY + GET + b"garbage\r\n\r\n" + GET)
    assert statuses(received) == ["200", "200", "501"]
    assert received.index(b"[2.5]") < received.index(b"model_version_status")


def test_a_chunk_without_length_is_refused_in_the_place_of_its_request(impatient):
    head = HEAD.replace(f"Content-Length: {len(BODY)}".encode(), b"Transfer-Encoding: chunked")
    assert statuses(exchange(impatient, head, b"zz\r\n")) == ["400"]
    assert statuses(exchange(impatient, GET + head + b"zz\r\n")) == ["200", "400"]


@pytest.mark.parametrize("extension", [b";", b"; ", b";;", b";a;"])
def test_an_empty_chunk_extension_is_refused_with_the_reason(impatient, extension):
    """By TensorFlow Serving as well; the connection does not wait for the rest."""
    head = HEAD.replace(f"Content-Length: {len(BODY)}".encode(), b"Transfer-Encoding: chunked")
    received = exchange(impatient, head, b"%x%b\r\n%b\r\n0\r\n\r\n" % (len(BODY), extension, BODY))
    assert statuses(received) == ["400"]
    assert b"<p>Invalid character in chunk extensions</p>" in received


@pytest.mark.parametrize("spaces", [b" ", b"    "])
def test_the_size_of_a_chunk_may_be_padded(impatient, spaces):
    head = HEAD.replace(f"Content-Length: {len(BODY)}".encode(), b"Transfer-Encoding: chunked")
    chunks = b"%x%b\r\n%b\r\n0%b\r\n\r\n" % (len(BODY), spaces, BODY, spaces)
    received = exchange(impatient, head + chunks + GET)
    assert statuses(received) == ["200", "200"]
    assert b"[2.5]" in received


@pytest.mark.parametrize(
    "sent", [GET[:10], HEAD + BODY[:5], HEAD[:-4]], ids=["line", "body", "headers"]
)
def test_a_request_that_does_not_arrive_in_time(impatient, sent):
    start = time.monotonic()
    received = exchange(impatient, sent)
    assert statuses(received) == ["504"]
    assert b"did not arrive within 0.5 s" in received
    assert time.monotonic() - start > 0.4


def test_a_request_that_does_not_arrive_after_one_that_did(impatient):
    received = exchange(impatient, HEAD + BODY + GET[:10])
    assert statuses(received) == ["200", "504"]


@pytest.mark.parametrize("sent", [b"", GET, b"\r\n"], ids=["nothing", "request", "empty-line"])
def test_a_silent_connection_is_closed(impatient, sent):
    assert statuses(exchange(impatient, sent)) == (["200"] if sent == GET else [])


def test_headers_have_a_limit(impatient):
    received = exchange(impatient, GET[:-2] + b"X: " + b"x" * 30_000)
    assert statuses(received) == ["413"]


def test_a_client_that_sends_no_more_is_answered(impatient):
    assert statuses(exchange(impatient, HEAD + BODY + GET, half_close=True)) == ["200", "200"]
    for cut in (GET[:10], HEAD + BODY[:5], b""):
        assert exchange(impatient, cut, half_close=True) == b""


def test_clients_that_hang_up(impatient):
    for sent in (HEAD + BODY, HEAD, GET * 3, HEAD[:9]):
        for _ in range(3):
            with connected(impatient) as connection:
                connection.sendall(sent)
    assert httpx.get(impatient).status_code == 200


def test_another_protocol_is_not_taken_up(impatient):
    upgrade = b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    assert b"HTTP/1.1 200" in exchange(impatient, GET[:-2] + upgrade, half_close=True)


def test_H7_phrases_without_a_name():
    assert STATUS_LINE[429] == b"HTTP/1.1 429 Client Error\r\n"
    assert STATUS_LINE[499] == b"HTTP/1.1 499 Client Error\r\n"
