"""Conversion of request JSON to tf.train.Example messages for the Classify and Regress calls."""

import math
from collections.abc import Callable, Mapping
from typing import Any

from serving.tfserving.protos import example_pb2, feature_pb2
from serving.tfserving.rest import json_tensors
from serving.tfserving.status import invalid

_BLOCK = 1024
_MAX_INT64 = 2**63 - 1
_INTEGERS = "int64"
_FLOATS = "float"
_BYTES = "string"


def serialized_examples(
    document: Mapping[str, Any], require_time: Callable[[], None] = lambda: None
) -> list[bytes]:
    """The serialized examples of a request, each preceded by the `context` that all of them share.

    Concatenated serialized messages merge when they are parsed, so a feature of an example replaces
    that of the context.

    Args:
        document: The parsed request; keys other than `examples` and `context` are ignored.
        require_time: Function that is called now and then, and raises if the request's deadline has
            passed.

    Raises:
        ServingError: INVALID_ARGUMENT with the message of TensorFlow Serving.
    """
    context = _serialize(document["context"]) if "context" in document else b""
    if "examples" not in document:
        # TensorFlow Serving sends the same message for the regress call.
        raise invalid("When method is classify, key 'examples' is expected and was not found")
    examples = document["examples"]
    if not isinstance(examples, list):
        raise invalid("Expecting 'examples' value to be an list/array")
    if not examples:
        raise invalid("'examples' value is an empty array")
    serialized = []
    for start in range(0, len(examples), _BLOCK):
        require_time()
        block = examples[start : start + _BLOCK]
        serialized += [context + _serialize(example) for example in block]
    return serialized


def _serialize(features: Any) -> bytes:
    if not isinstance(features, dict):
        raise invalid(
            f"Example must be JSON object but got JSON {json_tensors.type_text(features)}"
        )
    example = example_pb2.Example()
    for name, value in features.items():
        _fill(example.features.feature[name], name, value)
    return example.SerializeToString(deterministic=True)


def _fill(feature: feature_pb2.Feature, name: str, value: Any) -> None:
    elements = value if isinstance(value, list) else [value]
    kinds = [_kind(name, element) for element in elements]
    for kind in kinds[1:]:
        if kind != kinds[0]:
            raise invalid(f"Unexpected element type in feature: {name} expecting type: {kinds[0]}")
    if not kinds:
        return
    if kinds[0] == _INTEGERS:
        feature.int64_list.value.extend(elements)
    elif kinds[0] == _FLOATS:
        feature.float_list.value.extend(map(_float32, elements))
    else:
        feature.bytes_list.value.extend(map(json_tensors.string_bytes, elements))


def _kind(name: str, element: Any) -> str:
    if isinstance(element, int):  # true and false count as integers
        if element > _MAX_INT64:
            raise invalid(f"Feature: {name} has uint64_t element. Only int64_t is supported.")
        return _INTEGERS
    if isinstance(element, float):
        return _FLOATS
    if isinstance(element, str) or json_tensors.is_base64(element):
        return _BYTES
    raise invalid(
        f"Feature: {name} has element with unexpected JSON type: {json_tensors.type_text(element)}"
    )


def _float32(value: float) -> float:
    """A number for a protobuf float: values beyond the range of float32 become infinities."""
    largest = 3.4028235677973366e38  # halfway between the largest float32 and the next power of 2
    return math.copysign(math.inf, value) if abs(value) >= largest else value
