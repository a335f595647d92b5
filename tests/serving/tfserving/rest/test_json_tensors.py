import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.tfserving.rest import json_tensors
from serving.tfserving.rest.json_tensors import input_tensors
from serving.tfserving.status import Code, ServingError

INT32 = {"x": "int32"}
FLOAT = {"x": "float"}


def refusal(document, types, code=Code.INVALID_ARGUMENT):
    with pytest.raises(ServingError) as caught:
        input_tensors(document, types)
    assert caught.value.code is code
    return caught.value.message


def single(document, type_name):
    tensors, _ = input_tensors(document, {"x": type_name})
    return tensors["x"]


# Families 1, 7, 8, 9: what the forms mean.


def test_row_form_with_one_unnamed_input():
    tensors, row_form = input_tensors({"instances": [[1, 2], [3, 4], [5, 6]]}, INT32)
    assert row_form
    assert tensors["x"].dtype == np.int32
    np.testing.assert_array_equal(tensors["x"], [[1, 2], [3, 4], [5, 6]])


def test_row_form_with_one_named_input():
    tensors, _ = input_tensors({"instances": [{"x": 1}, {"x": 2}]}, INT32)
    np.testing.assert_array_equal(tensors["x"], [1, 2])


def test_row_form_with_four_inputs():
    types = {"a": "int32", "b": "string", "c": "float", "d": "double"}
    row = {"a": [[1, 2], [3, 4], [5, 6]], "b": ["p", "q"], "c": [1, math.nan], "d": [math.inf]}
    tensors, _ = input_tensors({"instances": [row, dict(reversed(row.items()))]}, types)
    assert {name: array.shape for name, array in tensors.items()} == {
        "a": (2, 3, 2),
        "b": (2, 2),
        "c": (2, 2),
        "d": (2, 1),
    }
    assert tensors["b"].tolist() == [[b"p", b"q"]] * 2
    assert math.isnan(tensors["c"][1, 1])
    assert tensors["d"][0, 0] == math.inf


def test_column_form_takes_tensors_as_written():
    types = {"a": "int32", "b": "string", "c": "float"}
    columns = {"a": [[1, 2]], "b": {"b64": "aGk="}, "c": [1, 2.5, 3], "further": None}
    tensors, row_form = input_tensors({"inputs": columns}, types)
    assert not row_form
    assert {name: array.shape for name, array in tensors.items()} == {
        "a": (1, 2),
        "b": (),
        "c": (3,),
    }
    assert tensors["b"].item() == b"hi"


@pytest.mark.parametrize("inputs", [[[1, 2]], {"x": [[1, 2]]}])
def test_column_form_with_one_input_may_omit_its_name(inputs):
    np.testing.assert_array_equal(single({"inputs": inputs}, "int32"), [[1, 2]])


@pytest.mark.parametrize(
    ("instances", "expected"),
    [
        ([{"b64": "aGk="}, {"b64": "aGk"}], [b"hi", b"hi"]),
        ([[{"b64": "aGk="}], ["plain"]], [[b"hi"], [b"plain"]]),
        ([{"x": [[{"b64": "aGk="}], ["é"]]}], [[[b"hi"], ["é".encode()]]]),
    ],
)
def test_base64(instances, expected):
    assert single({"instances": instances}, "string").tolist() == expected


@pytest.mark.parametrize(
    ("value", "shape"), [([], (0,)), ([[], []], (2, 0)), ([[[], []]], (1, 2, 0)), (7, ())]
)
def test_shapes_follow_first_elements(value, shape):
    array = single({"inputs": value}, "int64")
    assert array.shape == shape
    assert array.dtype == np.int64


def test_empty_rows_have_a_batch():
    assert single({"instances": [[], []]}, "float").shape == (2, 0)


# Families 3, 4, 5: numbers.


@pytest.mark.parametrize("type_name", ["float", "double"])
def test_integers_and_decimals_mix(type_name):
    np.testing.assert_array_equal(single({"instances": [1, 2.5, -3]}, type_name), [1, 2.5, -3])


def test_long_integer_is_rounded_like_the_same_decimal():
    array = single({"instances": [1435774380, 1435774380.0]}, "float")
    assert array[0] == array[1] == np.float32(1435774380)


def test_floats_overflow_to_infinity_and_underflow_to_zero():
    array = single({"instances": [1.79e308, -1.79e308, 5e-324, -5e-324]}, "float")
    np.testing.assert_array_equal(array, [np.inf, -np.inf, 0.0, -0.0])
    np.testing.assert_array_equal(np.signbit(array), [False, True, False, True])


@pytest.mark.parametrize(
    ("type_name", "value"),
    [
        ("int32", 2**31 - 1),
        ("int32", -(2**31)),
        ("int64", 2**63 - 1),
        ("int64", -(2**63)),
        ("uint32", 2**32 - 1),
        ("uint64", 2**64 - 1),
        ("bool", True),
    ],
)
def test_extreme_values_are_exact(type_name, value):
    assert single({"instances": [value]}, type_name).tolist() == [value]


@pytest.mark.parametrize(("type_name", "wrapped"), [("uint8", 44), ("int8", 44), ("int16", 300)])
def test_narrow_integers_wrap(type_name, wrapped):
    assert single({"instances": [300]}, type_name).tolist() == [wrapped]


@pytest.mark.parametrize(
    ("type_name", "value", "kind"),
    [
        ("int32", 1.0, "Number"),
        ("int32", 2**31, "Number"),
        ("uint8", 2**31, "Number"),
        ("int64", 2**63, "Number"),
        ("uint32", -1, "Number"),
        ("uint64", -1, "Number"),
        ("int64", True, "True"),
        ("float", False, "False"),
        ("float", "1", "String"),
        ("float", None, "Null"),
        ("float", {"b64": "aGk="}, "Object"),
        ("string", 1, "Number"),
        ("bool", 1, "Number"),
    ],
)
def test_wrong_types(type_name, value, kind):
    message = refusal({"inputs": {"x": [value]}}, {"x": type_name})
    assert message.endswith(f"Type: {kind} is not of expected type: {type_name}")
    row_message = refusal({"instances": [value]}, {"x": type_name})
    assert row_message == (
        f"Failed to process element: 0 of 'instances' list. Error: INVALID_ARGUMENT: {message}"
    )


# Families 10, 11: the words of refusals.


@pytest.mark.parametrize(
    ("document", "types", "expected"),
    [
        ({}, INT32, "Missing 'inputs' or 'instances' key"),
        (
            {"inputs": 1, "instances": [1]},
            INT32,
            "expecting only one of 'inputs' or 'instances' keys to exist ",
        ),
        ({"instances": {"x": 1}}, INT32, "Expecting 'instances' to be an list/array"),
        ({"instances": []}, INT32, "No values in 'instances' array"),
        (
            {"instances": [1, 2]},
            {"x": "int32", "y": "int32"},
            "instances is a plain list, but expecting list of objects as multiple input tensors "
            "required as per tensorinfo_map",
        ),
        (
            {"instances": [{"x": 1}, {"z": 1}]},
            INT32,
            "Failed to process element: 1 key: z of 'instances' list. Error: INVALID_ARGUMENT: "
            "JSON object: does not have named input: z",
        ),
        (
            {"instances": [{"b": 1, "a": 1, "c": 1}, {"b": 1}]},
            {"b": "int32", "a": "int32", "c": "int32"},
            "keys must be equal to: a,b,c",
        ),
        ({"instances": [[1], [2], [3, 4]]}, INT32, "Expecting tensor size: 1 but got: 2"),
        ({"instances": [[1, 2], [[3, 4]]]}, INT32, "Expecting shape [2] but got: [1,2]"),
        ({"instances": [1, [2]]}, INT32, "Expecting shape [] but got: [1]"),
        (
            {"instances": [{"x": 1}, [2]]},
            INT32,
            "Expecting object but got list at item 1 of input list",
        ),
        (
            {"instances": [1, {"x": 1}]},
            INT32,
            "Expecting value/list but got object at item 1 of input list",
        ),
        (
            {"inputs": [[1, 2], [3]]},
            INT32,
            "Encountered list at unexpected size: 1 at level: 1 expected size: 2",
        ),
        (
            {"inputs": [1, [2]]},
            INT32,
            "Encountered list at unexpected level: 1 expected < 1",
        ),
        (
            {"inputs": [[1], 2]},
            INT32,
            "JSON Value: 2 found at incorrect level: 2 in the JSON DOM. Expected at level: 2",
        ),
        ({"inputs": {"b64": "a?"}}, {"x": "string"}, "Unable to base64 decode"),
        ({"inputs": {"b64": "aGk=="}}, {"x": "string"}, "Unable to base64 decode"),
        (
            {"inputs": [{"b64": 1}]},
            {"x": "string"},
            "not formatted correctly for base64 data",
        ),
        (
            {"inputs": [1]},
            {"x": "int32", "y": "int32"},
            "inputs is a plain value/list, but expecting an object as multiple input tensors "
            "required as per tensorinfo_map",
        ),
        (
            {"inputs": {"x": 1}},
            {"x": "int32", "y": "int32"},
            "Missing named input: y in 'inputs' object.",
        ),
    ],
)
def test_refusals(document, types, expected):
    assert expected in refusal(document, types)


def test_types_that_json_cannot_carry():
    message = "Conversion of JSON Value: 1 to type: half"
    assert message in refusal({"inputs": [1]}, {"x": "half"}, Code.UNIMPLEMENTED)
    assert message in refusal({"instances": [1]}, {"x": "half"})


@pytest.mark.parametrize("depth", [32, 33, 50])
def test_more_dimensions_than_an_array_has(depth):
    value = 1
    for _ in range(depth):
        value = [value]
    assert "Shape must have at most 31 dims" in refusal({"inputs": value}, INT32)
    assert "Shape must have at most 31 dims" in refusal({"instances": [value]}, INT32)


def test_as_many_dimensions_as_an_array_has():
    value = 1
    for _ in range(31):
        value = [value]
    assert single({"inputs": value}, "int32").ndim == 31
    assert single({"instances": [value, value]}, "int32").ndim == 32


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ([1], "JSON Value: [\n    1\n] Is not object"),
        (1, "JSON Value: 1 Is not object"),
        ({"signature_name": 5}, "'signature_name' key must be a string value."),
        ({"signature_name": None}, "'signature_name' key must be a string value."),
    ],
)
def test_signature_name_refusals(document, expected):
    with pytest.raises(ServingError) as caught:
        json_tensors.signature_name(document)
    assert expected in caught.value.message


def test_signature_name():
    assert json_tensors.signature_name({"signature_name": "explain"}) == "explain"
    assert json_tensors.signature_name({}) == ""


def test_debug_text_is_pretty_and_bounded():
    assert json_tensors.debug_text({"a": [1, None, {}], "b": True}) == (
        '{\n    "a": [\n        1,\n        null,\n        {}\n    ],\n    "b": true\n}'
    )
    deep = []
    for _ in range(100_000):
        deep = [deep]
    assert len(json_tensors.debug_text(deep)) == 256
    assert len(json_tensors.debug_text([["é" * 1000] * 1000]).encode()) <= 256


# The fast converter against the exact one.

LEAVES = {
    "float": st.integers(-(2**40), 2**40) | st.floats(width=64) | st.just("1"),
    "int32": st.integers(-(2**33), 2**33) | st.just(1.0) | st.booleans(),
    "int64": st.integers(-(2**64), 2**64) | st.none(),
    "string": st.text(max_size=3) | st.just({"b64": "aGk="}) | st.just({}) | st.just(1),
    "bool": st.booleans() | st.integers(0, 1),
}


@pytest.mark.parametrize("type_name", sorted(LEAVES))
@given(data=st.data())
def test_fast_conversion_equals_the_exact_one(type_name, data):
    tree = st.recursive(LEAVES[type_name], lambda child: st.lists(child, max_size=3), max_leaves=8)
    value = data.draw(tree)
    fast = json_tensors._convert_fast(value, json_tensors._KINDS[type_name])
    if fast is not None:
        exact = json_tensors._convert_exactly(value, type_name)
        assert (fast.dtype, fast.shape) == (exact.dtype, exact.shape)
        np.testing.assert_array_equal(fast, exact)


@pytest.mark.parametrize(
    ("type_name", "value"),
    [("float", [[1, 2.5]]), ("int64", [[1], [2]]), ("string", ["a"]), ("bool", [True])],
)
def test_well_formed_values_take_the_fast_path(type_name, value):
    assert json_tensors._convert_fast(value, json_tensors._KINDS[type_name]) is not None


# Long requests: rows are converted in blocks.

ROWS = 2500
TYPES = {"name": "string", "ids": "int64", "price": "float"}


def rows(changes=None, at=ROWS - 1):
    made = [{"name": f"n{i}", "ids": [i, -i], "price": i + 0.5} for i in range(ROWS)]
    made[at] |= changes or {}
    return {"instances": made}


def test_rows_of_all_blocks_come_in_their_order():
    tensors, _ = input_tensors(rows({"name": {"b64": "/w=="}}, at=1500), TYPES)
    names = [b"\xff" if i == 1500 else f"n{i}".encode() for i in range(ROWS)]
    assert tensors["name"].tolist() == names
    assert tensors["ids"].tolist() == [[i, -i] for i in range(ROWS)]
    np.testing.assert_array_equal(tensors["price"], np.arange(ROWS, dtype=np.float32) + 0.5)


@pytest.mark.parametrize("at", [0, 1, 1023, 1024, 1025, ROWS - 1])
@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"ids": ["1", 2]}, 'key: ids of .* JSON Value: "1" Type: String is not of expected type'),
        ({"price": [1.0]}, r"key: price of .*: Expecting shape \[\] but got: \[1\]"),
        ({"name": {"b64": "/w*="}}, "key: name of .* Unable to base64 decode"),
        ({"else": 1}, "key: else of .* does not have named input: else"),
    ],
)
def test_a_mistake_in_a_long_request_is_told_with_the_row(at, changes, expected):
    message = refusal(rows(changes, at), TYPES)
    if at == 0 and "price" in changes:  # then all others are to blame
        at, expected = 1, r"key: price of .*: Expecting shape \[1\] but got: \[\]"
    assert re.search(f"Failed to process element: {at} {expected}", message)


def test_a_mistake_at_the_end_does_not_make_every_row_slow(monkeypatch):
    """Walking value by value is for the block with the mistake."""
    walked = []
    exactly = json_tensors._convert_exactly
    monkeypatch.setattr(
        json_tensors, "_convert_exactly", lambda *args: walked.append(args) or exactly(*args)
    )
    refusal({"instances": [{"ids": [1, 2]}] * 50_000 + [{"ids": [1, "x"]}]}, {"ids": "int64"})
    assert 0 < len(walked) <= 1025
    leaves = []
    leaf = json_tensors._leaf
    monkeypatch.setattr(json_tensors, "_leaf", lambda *args: leaves.append(args) or leaf(*args))
    refusal({"inputs": [[1] * 50_000, [1] * 49_999 + [None]]}, INT32)
    assert 0 < len(leaves) <= 1025


@pytest.mark.parametrize(
    "instances", [[{"b64": "aGk="}] * 5000, ["\ud800"] * 5000, [[{"b64": "aGk="}, "x"]] * 5000]
)
def test_strings_of_every_spelling_are_converted_without_a_walk(instances, monkeypatch):
    monkeypatch.setattr(json_tensors, "_convert_exactly", None)
    found = single({"instances": instances}, "string")
    first = instances[0] if isinstance(instances[0], list) else [instances[0]]
    assert found[-1:].ravel().tolist() == [json_tensors.string_bytes(value) for value in first]


def test_conversion_ends_when_nobody_waits_any_more():
    calls = []

    def require_time():
        calls.append(len(calls))
        if len(calls) > 2:
            raise ServingError(Code.DEADLINE_EXCEEDED, "too late")

    with pytest.raises(ServingError, match="too late"):
        input_tensors(rows({"ids": None}), TYPES, require_time)
    assert calls == [0, 1, 2]
