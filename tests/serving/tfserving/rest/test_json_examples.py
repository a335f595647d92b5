import math

import numpy as np
import pytest

from serving.tfserving.protos import example_pb2
from serving.tfserving.rest import json_examples
from serving.tfserving.rest.json_examples import serialized_examples
from serving.tfserving.status import Code, ServingError


def features(document):
    """What each example of a request holds: {feature: (kind, values)}."""
    found = []
    for serialized in serialized_examples(document):
        example = example_pb2.Example.FromString(serialized)
        found.append(
            {
                name: (kind, list(getattr(feature, kind).value)) if kind else None
                for name, feature in example.features.feature.items()
                for kind in [feature.WhichOneof("kind")]
            }
        )
    return found


def test_J10_kinds_follow_the_json():
    example = {
        "f": 1.5,
        "fs": [1.0, 2.5],
        "i": 3,
        "is": [1, True, -(2**63), 2**63 - 1],
        "s": "é",
        "ss": ["a", {"b64": "/w=="}],
        "none": [],
    }
    assert features({"examples": [example]}) == [
        {
            "f": ("float_list", [1.5]),
            "fs": ("float_list", [1.0, 2.5]),
            "i": ("int64_list", [3]),
            "is": ("int64_list", [1, 1, -(2**63), 2**63 - 1]),
            "s": ("bytes_list", ["é".encode()]),
            "ss": ("bytes_list", [b"a", b"\xff"]),
            "none": None,
        }
    ]


def test_J10_context_is_merged_into_every_example():
    document = {"context": {"a": 1, "b": [1.0, 2.0]}, "examples": [{}, {"b": 3.0}, {"c": "x"}]}
    a = ("int64_list", [1])
    assert features(document) == [
        {"a": a, "b": ("float_list", [1.0, 2.0])},
        {"a": a, "b": ("float_list", [3.0])},
        {"a": a, "b": ("float_list", [1.0, 2.0]), "c": ("bytes_list", [b"x"])},
    ]


@pytest.mark.parametrize("sign", [1, -1])
def test_numbers_beyond_float32_become_infinities(sign):
    largest = float(np.finfo(np.float32).max)
    values = [largest, 3.4028235677973362e38, 3.4028235677973366e38, 1e308, math.inf]
    (found,) = features({"examples": [{"x": [sign * value for value in values]}]})
    expected = [largest, largest, math.inf, math.inf, math.inf]
    assert found["x"][1] == [sign * value for value in expected]


def test_not_a_number_stays():
    (found,) = features({"examples": [{"x": math.nan}]})
    assert math.isnan(found["x"][1][0])


@pytest.mark.parametrize(
    ("example", "message"),
    [
        ({"x": [1, 10.0]}, "Unexpected element type in feature: x expecting type: int64"),
        ({"x": [1.0, "a"]}, "Unexpected element type in feature: x expecting type: float"),
        ({"x": ["a", 1]}, "Unexpected element type in feature: x expecting type: string"),
        ({"x": None}, "Feature: x has element with unexpected JSON type: Null"),
        ({"x": [[1]]}, "Feature: x has element with unexpected JSON type: Array"),
        ({"x": {"b64": 1}}, "Feature: x has element with unexpected JSON type: Object"),
        ({"x": 2**63}, "Feature: x has uint64_t element. Only int64_t is supported."),
        ({"x": {"b64": "?"}}, "Unable to base64 decode"),
        (1, "Example must be JSON object but got JSON Number"),
        (True, "Example must be JSON object but got JSON True"),
    ],
    ids=str,
)
def test_J10_refusals(example, message):
    for document in ({"examples": [example]}, {"context": example, "examples": [{}]}):
        with pytest.raises(ServingError) as caught:
            json_examples.serialized_examples(document)
        assert (caught.value.code, caught.value.message) == (Code.INVALID_ARGUMENT, message)


def test_conversion_ends_when_nobody_waits_any_more():
    calls = []

    def require_time():
        calls.append(len(calls))
        if len(calls) > 2:
            raise ServingError(Code.DEADLINE_EXCEEDED, "too late")

    examples = [{"x": 1.0}] * 5000
    assert len(serialized_examples({"examples": examples})) == 5000
    with pytest.raises(ServingError, match="too late"):
        serialized_examples({"examples": examples}, require_time)
    assert calls == [0, 1, 2]
