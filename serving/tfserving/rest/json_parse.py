"""Parsing of request bodies with the same results as in TensorFlow Serving.

TensorFlow Serving parses with RapidJSON: NaN and the infinities are numbers, text after the first
value is ignored, and a syntax error quotes RapidJSON's English text with a byte offset. As nearly
every body is plain JSON, orjson tries first. Only bodies that it refuses go to RapidJSON.
"""

import re
from typing import Any

import orjson
import rapidjson

from serving.tfserving.status import invalid

_BOM = b"\xef\xbb\xbf"
_RAPIDJSON_ERROR = re.compile(r"Parse error at offset (\d+): (.*?)\.?$", re.DOTALL)
_TRAILING = "The document root must not be followed by other values"
_NEVER_VALID = b"\x01"


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
    except RecursionError:
        raise invalid("JSON Parse error: Nesting too deep") from None
    except UnicodeDecodeError as error:
        # The bindings want UTF-8 after the first value too, where any byte may follow.
        return _parse_leniently(body[: error.start] + _NEVER_VALID)
    except rapidjson.JSONDecodeError as error:
        match = _RAPIDJSON_ERROR.match(str(error))
        if match is None:
            raise invalid(f"JSON Parse error: {error}") from None
        offset, text = int(match[1]), match[2]
    if text == _TRAILING:
        return _parse_leniently(body[:offset])
    raise invalid(f"JSON Parse error: {text}. at offset: {offset}")
