import asyncio
import contextlib
import socket

import pytest

from serving.load.http_client import LoadClient
from tests.helpers.scripted_server import Scripted


@pytest.fixture
def scripted():
    server = Scripted()
    server.usual = (200, b"12345")
    yield server
    server.close()


def ask(url, *bodies, at_once=False, connections=8, timeout=30.0):
    """The replies to bodies, one after the other or at once; errors in their place."""

    async def run():
        with contextlib.closing(LoadClient(url, connections, timeout)) as client:
            if at_once:
                return await asyncio.gather(*map(client.post, bodies), return_exceptions=True)
            found = []
            for body in bodies:
                try:
                    found.append(await client.post(body))
                except OSError as error:
                    found.append(error)
            return found

    return asyncio.run(run())


def test_a_connection_is_kept(scripted):
    assert ask(scripted.url, b"a", b"bc") == [(200, 5)] * 2
    assert [(verb, path, body) for verb, path, _, body in scripted.heard] == [
        ("POST", "/v1/models/m", b"a"),
        ("POST", "/v1/models/m", b"bc"),
    ]
    headers = scripted.heard[1][2]
    assert headers["Content-Length"] == "2"
    assert headers["Host"] in scripted.url
    assert len(scripted.connections) == 1


@pytest.mark.parametrize(("connections", "most"), [(8, 4), (2, 2)])
def test_requests_at_once_have_connections_of_their_own(scripted, connections, most):
    scripted.seconds = 0.05
    assert ask(scripted.url, *[b"a"] * 4, at_once=True, connections=connections) == [(200, 5)] * 4
    assert len(scripted.connections) == most


def test_a_refusal_is_a_reply(scripted):
    scripted.answers = [(503, b"{}")]
    assert ask(scripted.url, b"a", b"a") == [(503, 2), (200, 5)]


def test_a_late_reply_is_given_up_and_its_connection_too(scripted):
    scripted.answers = ["silence"]
    late, good = ask(scripted.url, b"a", b"a", timeout=0.2)
    assert isinstance(late, TimeoutError)
    assert good == (200, 5)
    assert len(scripted.connections) == 2


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ((b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n", b"abc\r\n0\r\n\r\n"), 3),
        ((b"HTTP/1.1 200 OK\r\nContent-Le", b"ngth: 4\r\n\r\nab", b"cd"), 4),
        ((b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nab",), None),
        ((b"no HTTP\r\n\r\n",), None),
        ((), None),
    ],
    ids=["chunked", "in-pieces", "cut-short", "no-http", "nothing"],
)
def test_replies_in_many_forms(parts, expected):
    async def run():
        async def serve(reader, writer):
            await reader.readuntil(b"\r\n\r\n")
            for part in parts:
                writer.write(part)
                await writer.drain()
                await asyncio.sleep(0.01)
            writer.close()

        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            client = LoadClient(f"http://127.0.0.1:{port}/m", 1, 30)
            try:
                return await client.post(b"a")
            finally:
                client.close()

    if expected is None:
        with pytest.raises(ConnectionError):
            asyncio.run(run())
    else:
        assert asyncio.run(run()) == (200, expected)


def test_nothing_listens():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/m"
    assert isinstance(ask(url, b"a")[0], ConnectionError)
