import math

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.tfserving.rest import json_parse
from serving.tfserving.status import Code, ServingError

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda child: st.lists(child) | st.dictionaries(st.text("abc"), child),
    max_leaves=20,
)


def refusal(body: bytes) -> str:
    with pytest.raises(ServingError) as caught:
        json_parse.parse(body)
    assert caught.value.code is Code.INVALID_ARGUMENT
    return caught.value.message


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "JSON Parse error: The document is empty"),
        (b"   ", "JSON Parse error: The document is empty. at offset: 3"),
        (b"no json", "JSON Parse error: Invalid value. at offset: 1"),
        (b"invalid", "JSON Parse error: Invalid value. at offset: 0"),
        (b'{"a": 1e999}', "JSON Parse error: Number too big to be stored in double. at offset: 6"),
        (b'{"a": ' + b"1" * 400 + b"}", "Number too big to be stored in double. at offset: 6"),
        (b"[1, 2", "JSON Parse error: Missing a comma or ']' after an array element. at offset: 5"),
        (b'{"a" 1}', "Missing a colon after a name of object member. at offset: 5"),
        (b'{"a": "\\ud800"}', "The surrogate pair in string is invalid. at offset: 7"),
        (b'{"a": "\xff"}', "JSON Parse error: Invalid encoding in string. at offset: 7"),
    ],
)
def test_syntax_errors_quote_rapidjson(body, message):
    assert message in refusal(body)


def test_not_a_number_and_infinities_are_numbers():
    parsed = json_parse.parse(b'{"a": [NaN, Inf, -Inf, Infinity, -Infinity]}')["a"]
    assert math.isnan(parsed[0])
    assert parsed[1:] == [math.inf, -math.inf, math.inf, -math.inf]


@pytest.mark.parametrize("garbage", [b" x", b"{", b"]]]", b"\x00"])
def test_what_follows_the_first_value_is_ignored(garbage):
    assert json_parse.parse(b'{"a": [1]}' + garbage) == {"a": [1]}


def test_byte_order_mark_is_skipped():
    assert json_parse.parse(b'\xef\xbb\xbf{"a": 1}') == {"a": 1}


def test_integers_beyond_64_bits_become_floats():
    for body in (b"[123456789012345678901234]", b"[123456789012345678901234, NaN]"):
        assert json_parse.parse(body)[0] == pytest.approx(123456789012345678901234.0)
        assert isinstance(json_parse.parse(body)[0], float)


def test_nesting_has_no_limit():
    depth = 200_000
    parsed = json_parse.parse(b'{"x":' + b"[" * depth + b"]" * depth + b',"a":[1, {"b": true}]} z')
    assert parsed["a"] == [1, {"b": True}]
    found, node = 0, parsed["x"]
    while node:
        found, node = found + 1, node[0]
    assert found == depth - 1


@given(JSON)
def test_iterative_parser_agrees_with_rapidjson(value):
    body = orjson.dumps([value], option=orjson.OPT_INDENT_2)
    assert json_parse._parse_iteratively(body) == json_parse._parse_leniently(body)


@given(st.text('[]{}:,"a1 \\', max_size=12).map(str.encode))
def test_iterative_parser_refuses_what_is_not_json(text):
    body = b"[" + text
    try:
        expected = json_parse._parse_leniently(body)
    except ServingError:
        with pytest.raises(ServingError):
            json_parse._parse_iteratively(body)
    else:
        assert json_parse._parse_iteratively(body) == expected
