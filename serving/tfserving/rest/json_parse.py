"""Parsing of request bodies with the same results as in TensorFlow Serving.

TensorFlow Serving parses with RapidJSON: NaN and the infinities are numbers, text after the first
value is ignored, nesting has no limit, and a syntax error quotes RapidJSON's English text with a
byte offset. As nearly every body is plain JSON, orjson tries first. Only bodies that it refuses go
to RapidJSON, and only those that RapidJSON's bindings cannot handle to the parser below: they are
nested too deeply or contain bytes that are not UTF-8.
"""

import re
from typing import Any

import orjson
import rapidjson

from serving.tfserving.status import ServingError, invalid

MAX_DEPTH = 1_000_000
"""Largest depth of nesting; in TensorFlow Serving, memory is the only limit."""
_BOM = b"\xef\xbb\xbf"
_RAPIDJSON_ERROR = re.compile(r"Parse error at offset (\d+): (.*?)\.?$", re.DOTALL)
_TRAILING = "The document root must not be followed by other values"
_OPENED = {b"[": list, b"{": dict}
_TOKEN = re.compile(rb'[ \t\n\r]*([\[\]{}:,]|"(?:[^"\\]|\\.)*"|[-+.\w]+)', re.DOTALL)


def parse(body: bytes) -> Any:
    """Parses the first JSON value of a request body.

    Numbers beyond 64 bits become floats. The last one of duplicate keys wins (TensorFlow Serving
    keeps the first).

    Raises:
        ServingError: INVALID_ARGUMENT with RapidJSON's message if the body is not JSON.
    """
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return _parse_leniently(body.removeprefix(_BOM))


def _parse_leniently(body: bytes) -> Any:
    if not body:
        raise invalid("JSON Parse error: The document is empty")
    try:
        return rapidjson.loads(body, number_mode=rapidjson.NM_NATIVE | rapidjson.NM_NAN)
    except (RecursionError, UnicodeDecodeError):
        # Bytes that are not UTF-8 may follow the first value.
        return _parse_iteratively(body)
    except rapidjson.JSONDecodeError as error:
        match = _RAPIDJSON_ERROR.match(str(error))
        if match is None:
            raise invalid(f"JSON Parse error: {error}") from None
        offset, text = int(match[1]), match[2]
    if text == _TRAILING:
        return _parse_leniently(body[:offset])
    raise _syntax_error(f"{text}.", offset)


def _parse_iteratively(body: bytes) -> Any:
    """Parses JSON of any depth without recursion, stopping after the first value."""
    root: list[Any] = []
    # Open containers, each with the key that its next value gets (None in lists).
    stack: list[tuple[Any, str | None]] = [(root, None)]
    position = 0
    expects_value = True
    while not root or len(stack) > 1:
        match = _TOKEN.match(body, position)
        if match is None:
            raise _syntax_error("Invalid value.", position)
        token, start, position = match[1], match.start(1), match.end()
        container, key = stack[-1]
        is_object = isinstance(container, dict)
        if token in (b"]", b"}"):
            # A closing bracket may follow a value or an opening bracket, but not a comma or colon.
            dangling = key is not None or (expects_value and container)
            if (token == b"}") != is_object or len(stack) == 1 or dangling:
                raise _syntax_error("Invalid value.", start)
            stack.pop()
            expects_value = False
        elif not expects_value:
            if token != b",":
                raise _syntax_error("Missing a comma after a value.", start)
            expects_value = True
        elif is_object and key is None:
            colon = _TOKEN.match(body, position)
            if not token.startswith(b'"') or colon is None or colon[1] != b":":
                raise _syntax_error("Missing a name for object member.", start)
            stack[-1] = (container, _scalar(token, start))
            position = colon.end()
        else:
            opens = token in (b"[", b"{")
            value: Any = _OPENED[token]() if opens else _scalar(token, start)
            if is_object:
                container[key] = value
                stack[-1] = (container, None)
            else:
                container.append(value)
            if opens:
                stack.append((value, None))
                if len(stack) > MAX_DEPTH:
                    raise _syntax_error("Nesting too deep.", start)
            expects_value = opens
    return root[0]


def _scalar(token: bytes, offset: int) -> Any:
    try:
        return rapidjson.loads(token, number_mode=rapidjson.NM_NATIVE | rapidjson.NM_NAN)
    except UnicodeDecodeError as error:
        raise _syntax_error("Invalid encoding in string.", offset + error.start) from None
    except rapidjson.JSONDecodeError:
        raise _syntax_error("Invalid value.", offset) from None


def _syntax_error(text: str, offset: int) -> ServingError:
    return invalid(f"JSON Parse error: {text} at offset: {offset}")
