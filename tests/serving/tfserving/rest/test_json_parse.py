import math

import pytest

from serving.tfserving.rest import json_parse
from serving.tfserving.status import Code, ServingError


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
        (b"[1, \xff]", "JSON Parse error: Invalid value. at offset: 4"),
        (b'{x "\xff"}', "JSON Parse error: Missing a name for object member. at offset: 1"),
    ],
)
def test_syntax_errors_quote_rapidjson(body, message):
    assert message in refusal(body)


def test_not_a_number_and_infinities_are_numbers():
    parsed = json_parse.parse(b'{"a": [NaN, Inf, -Inf, Infinity, -Infinity]}')["a"]
    assert math.isnan(parsed[0])
    assert parsed[1:] == [math.inf, -math.inf, math.inf, -math.inf]


@pytest.mark.parametrize("garbage", [b" x", b"{", b"]]]", b"\x00", b" \xff\xfe"])
def test_what_follows_the_first_value_is_ignored(garbage):
    assert json_parse.parse(b'{"a": [1]}' + garbage) == {"a": [1]}


def test_byte_order_mark_is_skipped():
    assert json_parse.parse(b'\xef\xbb\xbf{"a": 1}') == {"a": 1}


def test_integers_beyond_64_bits_become_floats():
    for body in (b"[123456789012345678901234]", b"[123456789012345678901234, NaN]"):
        assert json_parse.parse(body)[0] == pytest.approx(123456789012345678901234.0)
        assert isinstance(json_parse.parse(body)[0], float)


@pytest.mark.parametrize(("opened", "closed"), [("[", "]"), ('{"a":', "}")])
def test_nesting_has_a_limit(opened, closed):
    def nested(depth):
        return f'{{"x": {opened * depth}1{closed * depth}, "a": [1]}}'.encode()

    assert json_parse.parse(nested(900))["a"] == [1]
    assert json_parse.parse(nested(900) + b" z")["a"] == [1]
    for depth in (1_100, 500_000):
        assert refusal(nested(depth)) == "JSON Parse error: Nesting too deep"
