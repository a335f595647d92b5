"""TensorProto messages in gRPC calls: both forms are read, replies have a field of values."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from models.keras import tf
from serving.tfserving.protos import types_pb2
from serving.tfserving.status import Code, ServingError, invalid

MAX_BYTES = 2**31 - 1
"""Largest size of a message, and of the unpacked inputs of a request."""

# The fields in which TensorFlow Serving puts the values of a reply; half types go as their bits.
_FIELDS = {
    tf.float32: "float_val",
    tf.float64: "double_val",
    tf.int8: "int_val",
    tf.int16: "int_val",
    tf.int32: "int_val",
    tf.uint8: "int_val",
    tf.uint16: "int_val",
    tf.int64: "int64_val",
    tf.uint32: "uint32_val",
    tf.uint64: "uint64_val",
    tf.bool: "bool_val",
    tf.string: "string_val",
    tf.float16: "half_val",
    tf.bfloat16: "half_val",
}


def inputs(tensors: Mapping[str, Any], signature: Any) -> dict[str, np.ndarray]:
    """The inputs of a Predict request by alias; strings are objects of type bytes.

    Args:
        tensors: TensorProto messages by alias.
        signature: SignatureDef of the signature that is run.

    Raises:
        ServingError: INVALID_ARGUMENT, with the name of the input: it is missing and has no
            default, is unknown, of another type than the signature's or larger than a message can
            be, or its values do not fill its shape.
    """
    _require_aliases(set(tensors), signature)
    tensors = {**signature.defaults, **tensors}
    remaining_bytes = MAX_BYTES
    arrays = {}
    for alias, proto in sorted(tensors.items()):
        expected = signature.inputs[alias].dtype
        if proto.dtype != expected:
            raise invalid(
                f"input {alias}: expected a tensor of type {_type(expected)}, found "
                f"{_type(proto.dtype)}"
            )
        remaining_bytes -= _bytes_needed(alias, proto)
        if remaining_bytes < 0:
            raise invalid(
                f"tensor parsing error: {alias}: shape {_sizes(proto)} of {_type(proto.dtype)} "
                f"needs more memory than the {MAX_BYTES} bytes of the longest request"
            )
        try:
            arrays[alias] = tf.make_ndarray(proto)
        except (TypeError, ValueError, KeyError) as error:
            raise invalid(f"tensor parsing error: {alias}: {error}") from None
    return arrays


def fill(proto: Any, array: np.ndarray) -> None:
    """Writes an array into a TensorProto, into the `*_val` field of its type.

    Raises:
        ServingError: UNIMPLEMENTED for a type without such a field.
    """
    dtype = tf.as_dtype(array.dtype) if array.dtype != object else tf.string
    if dtype not in _FIELDS:
        raise ServingError(Code.UNIMPLEMENTED, f"No replies with tensors of type {dtype.name}")
    proto.dtype = dtype.as_datatype_enum
    for size in array.shape:
        proto.tensor_shape.dim.add(size=size)
    flat = np.ravel(array)
    values = flat.view(np.uint16) if _FIELDS[dtype] == "half_val" else flat
    getattr(proto, _FIELDS[dtype]).extend(values.tolist())


def _require_aliases(sent: set[str], signature: Any) -> None:
    """Raises what TensorFlow Serving says; of several missing inputs it names the first here."""
    expected, defaults = set(signature.inputs), set(signature.defaults)
    if len(sent) > len(expected) or (len(sent) < len(expected) and not defaults):
        raise invalid(
            f"input size does not match signature: {len(sent)}!={len(expected)} "
            f"len({braces(sent)}) != len({braces(expected)}). "
            f"Sent extra: {braces(sent - expected)}. "
            f"Missing but required: {braces(expected - sent)}."
        )
    for alias in sorted(expected - sent - defaults):
        raise invalid(
            f"Signature input alias: {alias}(feed name: {signature.inputs[alias].name}) not found "
            "in request and no default value provided. Inputs expected to be in the request "
            f"{braces(sent)}, or default input alias set: {','.join(sorted(defaults))}"
        )
    if sent - expected:
        raise invalid(
            "Inputs contains invalid name. Used request inputs: "
            f"{','.join(sorted(sent & expected))}, request input: {','.join(sorted(sent))}"
        )


def braces(names: set[str]) -> str:
    """A set of names in the notation of TensorFlow Serving."""
    return f"{{{','.join(sorted(names))}}}"


def _bytes_needed(alias: str, proto: Any) -> int:
    """Size of the unpacked array: a few values, or one, may stand for a shape of any size."""
    shape = proto.tensor_shape
    if shape.unknown_rank or any(dim.size < 0 for dim in shape.dim):
        raise invalid(f"tensor parsing error: {alias}: unknown sizes in shape {_sizes(proto)}")
    try:
        dtype = np.dtype(tf.as_dtype(proto.dtype).as_numpy_dtype)
    except (TypeError, KeyError):
        raise invalid(
            f"tensor parsing error: {alias}: no tensors of type {_type(proto.dtype)} here"
        ) from None
    return math.prod(dim.size for dim in shape.dim) * dtype.itemsize


def _sizes(proto: Any) -> str:
    if proto.tensor_shape.unknown_rank:
        return "<unknown>"
    return f"[{','.join(str(dim.size) for dim in proto.tensor_shape.dim)}]"


def _type(number: int) -> str:
    """TensorFlow's name of a type, such as "float"."""
    try:
        return types_pb2.DataType.Name(number).removeprefix("DT_").lower()
    except ValueError:
        return str(number)
