"""Cases of HTTP itself (H, E1) and of how bodies travel (J2)."""

import gzip

from serving.conformance.case import Case, Expected, request
from serving.conformance.models import MODEL

_M = f"/v1/models/{MODEL}"
_PREDICT = f"{_M}:predict"
_BODY = '{"instances": [1.0]}'
_GOOD = Expected(200, {"predictions": [3.5]})
_EMPTY = Expected(400, error="JSON Parse error: The document is empty", whole_error=True)
_ORIGIN = {"Origin": "https://page.example"}
_CORS = {
    "access-control-allow-origin": "*",
    "access-control-allow-methods": "POST, GET",
    "access-control-allow-headers": "Content-Type",
}
_NO_CORS = dict.fromkeys(_CORS)
_UPGRADE = {"Connection": "Upgrade, HTTP2-Settings", "HTTP2-Settings": "AAEAAEAAAAIAAAAA"}


def _post(
    name: str,
    expected: Expected,
    body: bytes | str = _BODY,
    headers: dict[str, str] | None = None,
    *,
    with_flags: bool = False,
) -> Case:
    request_bytes = request("POST", _PREDICT, body, headers)
    return Case(name, request_bytes, (expected,), with_flags=with_flags)


def _options(name: str, origin: dict[str, str], status: int, with_flags: bool) -> Case:
    cors = _CORS if with_flags else _NO_CORS
    expected = Expected(status, b"", headers=cors)
    request_bytes = request("OPTIONS", _PREDICT, "", origin)
    return Case(name, request_bytes, (expected,), ("OPTIONS",), with_flags=with_flags)


def _chunked(*chunks: bytes, headers: dict[str, str] | None = None) -> bytes:
    parts = [b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in (*chunks, b"")]
    framing = {"Content-Length": "", "Transfer-Encoding": "chunked"}
    head = request("POST", _PREDICT, "", framing | (headers or {}))
    return head + b"".join(parts)


CASES = [
    Case(
        "H1-keep-alive-by-default",
        request("GET", _M) * 2,
        (Expected(200, headers={"connection": None}),) * 2,
        ("GET", "GET"),
    ),
    Case(
        "H1-connection-close",
        request("GET", _M, "", {"Connection": "close"}),
        (Expected(200, headers={"connection": "close"}),),
        ("GET",),
        closes=True,
    ),
    Case(
        "H1-pipelining",
        b"".join(request("POST", _PREDICT, f'{{"instances": [{x}]}}') for x in (0, 2, 4))
        + request("GET", "/v1/none"),
        (
            *(Expected(200, {"predictions": [y]}) for y in (3.0, 4.0, 5.0)),
            Expected(400, error="Malformed request: GET /v1/none"),
        ),
        ("POST", "POST", "POST", "GET"),
    ),
    *(
        _post(f"H1-offer-of-{name}-is-ignored", _GOOD, headers={**_UPGRADE, "Upgrade": name})
        for name in ("h2c", "websocket")
    ),
    Case(
        "H1-offer-with-a-chunked-body",
        _chunked(b'{"inst', b'ances": ', b"[1.0]}", headers={**_UPGRADE, "Upgrade": "h2c"}) * 2,
        (_GOOD,) * 2,
        ("POST", "POST"),
    ),
    _post(
        "H2-headers",
        Expected(
            200,
            headers={
                "content-type": "application/json",
                "server": None,
                "transfer-encoding": None,
                "content-encoding": None,
                "etag": None,
                "cache-control": None,
            },
        ),
    ),
    _post("H3-expect-continue", _GOOD, headers={"Expect": "100-continue"}),
    Case(
        "H3-expect-something-else",
        request("POST", _PREDICT, _BODY, {"Expect": "200-ok"}),
        (Expected(417),),
        closes=True,
    ),
    Case("H4-head", request("HEAD", _M), (Expected(400, b""),), ("HEAD",)),
    _post("H5-large-body", _GOOD, " " * 2**20 + _BODY),
    _options("H6-options-known-origin", _ORIGIN, 200, False),
    _options("H6-options-http-origin", {"Origin": "http://page.example"}, 200, False),
    _options("H6-options-no-origin", {}, 400, False),
    _options("H6-options-other-origin", {"Origin": "file://x"}, 400, False),
    _options("H6-cors-options-known-origin", _ORIGIN, 200, True),
    _options("H6-cors-options-no-origin", {}, 400, True),
    _post("H6-no-cors-headers", Expected(200, headers=_NO_CORS), headers=_ORIGIN),
    _post("H6-cors-headers", Expected(200, headers=_CORS), with_flags=True),
    _post("H6-cors-headers-of-errors", Expected(400, headers=_CORS), "no", with_flags=True),
    *(
        Case(
            f"H7-{verb.lower()}",
            request(verb, path),
            (Expected(501, headers={"content-type": "text/html"}),),
            (verb,),
            closes=True,
        )
        for verb, path in (("TRACE", _M), ("PROPFIND", _M))
    ),
    _post("J2-gzip", _GOOD, gzip.compress(_BODY.encode(), mtime=0), {"Content-Encoding": "gzip"}),
    _post(
        "J2-gzip-as-part-of-a-word",
        Expected(200, {"predictions": [3.5]}, headers={"content-encoding": None}),
        gzip.compress(_BODY.encode(), mtime=0),
        {"Content-Encoding": "my_gzip"},
    ),
    _post("J2-gzip-that-is-none", _EMPTY, headers={"Content-Encoding": "gzip"}),
    _post(
        "J2-gzip-cut-short",
        _EMPTY,
        gzip.compress(_BODY.encode(), mtime=0)[:-9],
        {"Content-Encoding": "gzip"},
    ),
    _post(
        "J2-gzip-beyond-100-MiB",
        _EMPTY,
        gzip.compress(b" " * (100 * 2**20 + 1), 9, mtime=0),
        {"Content-Encoding": "gzip"},
    ),
    Case("J2-chunked", _chunked(b'{"inst', b'ances": ', b"[1.0]}"), (_GOOD,)),
    _post(
        "J2-content-type-and-accept-are-ignored",
        _GOOD,
        headers={"Content-Type": "image/png", "Accept": "text/html", "Accept-Encoding": "gzip"},
    ),
    _post(
        "E1-error-is-json",
        Expected(
            400,
            headers={"content-type": "application/json"},
            contains=('{\n    "error": "JSON Value: []',),
        ),
        "[]",
    ),
    _post(
        "E1-error-has-quotes-escaped",
        Expected(
            400,
            error='Serving signature name: "say "x"" not found in signature def',
            whole_error=True,
        ),
        '{"signature_name": "say \\"x\\"", "instances": [1]}',
    ),
]
