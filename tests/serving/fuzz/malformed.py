"""Requests that no client should send, drawn from a seed."""

import dataclasses
import gzip
import json
import random
from collections.abc import Callable

PREDICT = "/v1/models/toy:predict"
VALID = (
    '{"instances": [1.0, 2.0, 5.0]}',
    '{"signature_name": "describe", "instances": [{"ids": [1, 2], "names": "a"}]}',
    '{"signature_name": "describe", "inputs": {"ids": [[1], [2]], "names": [{"b64": "eHl6"}]}}',
    '{"signature_name": "gather", "inputs": [1, 2, 3]}',
    '{"signature_name": "classify", "examples": [{"x": 1.0, "label": "one"}]}',
    '{"signature_name": "echo_int32", "instances": [[1, 2], [3, 4]]}',
)


@dataclasses.dataclass(frozen=True)
class Attack:
    """What is sent over one connection.

    Attributes:
        name: What is wrong about it.
        sent: The bytes.
        answered: Whether the server must answer before the client says or does anything more.
        ends: What the client does then: "close", "half-close" or "reset".
    """

    name: str
    sent: bytes
    answered: bool = True
    ends: str = "close"


def draw(rng: random.Random) -> Attack:
    """One attack."""
    kind = rng.choice(_KINDS)
    return kind(rng)


def post(body: bytes, headers: str = "", target: str = PREDICT) -> bytes:
    """A well-framed request."""
    head = f"POST {target} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n{headers}\r\n"
    return head.encode("latin-1") + body


def _valid(rng: random.Random) -> bytes:
    return rng.choice(VALID).encode()


def _truncated(rng: random.Random) -> Attack:
    body = _valid(rng)
    return Attack("truncated JSON", post(body[: rng.randrange(len(body))]))


def _mutated(rng: random.Random) -> Attack:
    body = bytearray(_valid(rng))
    for _ in range(rng.randint(1, 4)):
        position = rng.randrange(len(body))
        if rng.random() < 0.5:
            body[position] = rng.randrange(256)
        else:
            body[position:position] = rng.choice(
                (b"[", b"]", b"{", b"}", b'"', b",", b"\\u", b"1e")
            )
    return Attack("mutated JSON", post(bytes(body)))


def _wrong_types(rng: random.Random) -> Attack:
    document = json.loads(_valid(rng))
    strange = (
        None,
        True,
        -1,
        2**70,
        1.5,
        "x",
        [],
        {},
        [[]],
        [None],
        {"b64": 1},
        {"b64": "!"},
        [{}],
    )
    key = rng.choice(list(document))
    value = document[key]
    if isinstance(value, list) and rng.random() < 0.7:
        value[rng.randrange(len(value))] = rng.choice(strange)
    elif isinstance(value, dict) and rng.random() < 0.7:
        value[rng.choice(list(value))] = rng.choice(strange)
    else:
        document[key] = rng.choice(strange)
    return Attack("wrong types", post(json.dumps(document).encode()))


def _nested(rng: random.Random) -> Attack:
    depth = rng.choice((33, 255, 1_100, 5_000, 20_000))
    opened, closed = rng.choice((("[", "]"), ('{"a":', "}")))
    key = rng.choice(("instances", "inputs", "signature_name", "other"))
    inner = "1" if opened != "[" else ""
    body = f'{{"{key}": {opened * depth}{inner}{closed * depth}}}'
    return Attack("deep nesting", post(body[: rng.choice((len(body), -1, depth))].encode()))


def _numbers(rng: random.Random) -> Attack:
    digits = rng.choice(("9", "1")) * rng.choice((20, 400, 5_000))
    number = rng.choice(
        (digits, f"-{digits}", f"1e{digits[:9]}", f"0.{digits}", "1e-999", "NaN", "-0")
    )
    name = rng.choice(("", "echo_int32", "echo_int64", "gather", "echo_bool"))
    return Attack(
        "huge numbers", post(f'{{"signature_name": "{name}", "inputs": [{number}]}}'.encode())
    )


def _random_body(rng: random.Random) -> Attack:
    headers = rng.choice(("", "Content-Encoding: gzip\r\n", "Content-Type: \x80\r\n"))
    return Attack("random body", post(rng.randbytes(rng.randint(0, 300)), headers))


def _bad_gzip(rng: random.Random) -> Attack:
    body = bytearray(gzip.compress(_valid(rng), mtime=0))
    body[rng.randrange(len(body))] ^= 1 << rng.randrange(8)
    return Attack("damaged gzip", post(bytes(body), "Content-Encoding: gzip\r\n"))


def _bad_target(rng: random.Random) -> Attack:
    pieces = (
        "/v1",
        "/models",
        "/toy",
        ":predict",
        "/versions/1",
        "/labels/%00",
        "//",
        "/..",
        "%",
        "?",
    )
    target = "/" + "".join(rng.choices(pieces, k=rng.randint(1, 6)))
    return Attack("odd path", post(_valid(rng), target=target))


def _random_bytes(rng: random.Random) -> Attack:
    sent = rng.randbytes(rng.randint(1, 200))
    return Attack("random bytes", sent, answered=False, ends="half-close")


def _bad_framing(rng: random.Random) -> Attack:
    lines = rng.sample(
        (
            "Content-Length: -1",
            "Content-Length: 99999999999999999999",
            "Content-Length: 3",
            "Content-Length: 5",
            "Transfer-Encoding: chunked",
            "Transfer-Encoding: gzip, chunked",
            "Transfer-Encoding: x",
            "Expect: 100-continue",
            "Connection: close, keep-alive",
            "Connection: Upgrade",
            "Upgrade: h2c",
            ": empty",
            "No colon",
            " folded: x",
            "X: " + "y" * 2000,
        ),
        k=3,
    )
    head = "\r\n".join((f"POST {PREDICT} HTTP/1.{rng.randrange(3)}", *lines)) + "\r\n\r\n"
    body = rng.choice(
        (b"{}", b"5\r\n{}   \r\n0\r\n\r\n", b"zz\r\n", b"ffffffffffffffffff\r\n", b"")
    )
    return Attack("bad framing", head.encode() + body, answered=False, ends="half-close")


def _cut(rng: random.Random) -> Attack:
    whole = post(_valid(rng))
    ends = rng.choice(("close", "half-close", "reset"))
    return Attack("cut off", whole[: rng.randrange(1, len(whole))], answered=False, ends=ends)


def _hung_up(rng: random.Random) -> Attack:
    sent = post(_valid(rng)) * rng.randint(1, 3)
    return Attack("hung up on", sent, answered=False, ends=rng.choice(("close", "reset")))


_KINDS: tuple[Callable[[random.Random], Attack], ...] = (
    _truncated,
    _mutated,
    _mutated,
    _wrong_types,
    _wrong_types,
    _nested,
    _numbers,
    _random_body,
    _bad_gzip,
    _bad_target,
    _random_bytes,
    _bad_framing,
    _cut,
    _hung_up,
)
