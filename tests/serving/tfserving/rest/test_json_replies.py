import json

import numpy as np
import pytest

from serving.tfserving.rest import json_replies
from serving.tfserving.status import ServingError


def write(outputs, types, row_form):
    return json.loads(json_replies.predictions(outputs, types, row_form))


def encoded(*texts):
    array = np.empty(len(texts), object)
    array[:] = [text.encode() for text in texts]
    return array


def test_one_output_in_both_forms():
    value = np.arange(12, dtype=np.int32).reshape(2, 3, 2)
    outputs, types = {"y": value}, {"y": "int32"}
    assert write(outputs, types, True) == {"predictions": value.tolist()}
    assert write(outputs, types, False) == {"outputs": value.tolist()}


def test_several_outputs_in_both_forms():
    outputs = {
        "i": np.array([1, 2], np.int64),
        "f": np.array([[0.5], [1.5]], np.float32),
        "d": np.array([0.1, 0.2]),
        "s": encoded("a", "é"),
        "raw_bytes": encoded("hi", ""),
        "b": np.array([True, False]),
    }
    types = {
        "i": "int64",
        "f": "float",
        "d": "double",
        "s": "string",
        "raw_bytes": "string",
        "b": "bool",
    }
    first = {"i": 1, "f": [0.5], "d": 0.1, "s": "a", "raw_bytes": {"b64": "aGk="}, "b": True}
    second = {"i": 2, "f": [1.5], "d": 0.2, "s": "é", "raw_bytes": {"b64": ""}, "b": False}
    assert write(outputs, types, True) == {"predictions": [first, second]}
    assert write(outputs, types, False) == {
        "outputs": {name: [first[name], second[name]] for name in outputs}
    }


def test_float32_is_read_back_exactly():
    value = np.random.default_rng(1).normal(size=1000).astype(np.float32) ** 9
    written = write({"y": value}, {"y": "float"}, True)["predictions"]
    np.testing.assert_array_equal(np.array(written, np.float32), value)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (9000000, "9e+06"),
        (999999, "999999.0"),
        (0.00003, "3e-05"),
        (555557.5, "555557.5"),
        (1 / 3, "0.333333343"),
        (0.2, "0.2"),
        (np.nan, "NaN"),
        (np.inf, "Infinity"),
        (-np.inf, "-Infinity"),
    ],
)
def test_text_of_floats_beside_not_a_number(value, text):
    array = np.array([[value, np.nan]], np.float32)
    body = json_replies.predictions({"y": array}, {"y": "float"}, True)
    assert body == f'{{"predictions":[[{text},NaN]]}}'.encode()


def test_not_a_number_in_one_of_several_outputs():
    outputs = {"a": np.array([np.nan, 1], np.float64), "b": np.array([1, 2], np.int32)}
    body = json_replies.predictions(outputs, {"a": "double", "b": "int32"}, True)
    assert body == b'{"predictions":[{"a":NaN,"b":1},{"a":1.0,"b":2}]}'


@pytest.mark.parametrize("names", ["a", "ab"])
def test_empty_batch(names):
    outputs = {name: np.zeros([0, 3], np.float32) for name in names}
    assert write(outputs, dict.fromkeys(names, "float"), True) == {"predictions": []}


def test_scalar_output():
    outputs, types = {"y": np.array(1 / 3, np.float32)}, {"y": "float"}
    assert json_replies.predictions(outputs, types, False) == b'{"outputs":0.33333334}'
    with pytest.raises(ServingError, match="Tensor name: y has no shape information "):
        json_replies.predictions(outputs, types, True)


def test_outputs_without_a_common_batch_size():
    outputs = {"a": np.zeros(2, np.float32), "b": np.zeros(3, np.float32)}
    types = {"a": "float", "b": "float"}
    with pytest.raises(ServingError, match="Tensor name: b has inconsistent batch size: 3 expect"):
        json_replies.predictions(outputs, types, True)
    assert write(outputs, types, False)["outputs"] == {"a": [0, 0], "b": [0, 0, 0]}


@pytest.mark.parametrize("type_name", ["half", "complex64", "bfloat16"])
def test_output_that_json_cannot_carry(type_name):
    with pytest.raises(ServingError, match=f"JSON value for tensor type: {type_name}"):
        json_replies.predictions({"y": np.zeros(1)}, {"y": type_name}, True)


def test_error_body_escapes_quotes():
    assert json.loads(json_replies.error('say "x"\n')) == {"error": 'say "x"\n'}
