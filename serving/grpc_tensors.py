"""TensorProto messages as gRPC carries them: read from either form, written value by value."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from models.keras import tf
from serving.status import Code, ServingError, invalid

# Where TensorFlow Serving puts the values of a reply; those of half types travel as their bits.
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


def arrays(tensors: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The inputs of a request by alias; strings are objects of type bytes.

    Raises:
        ServingError: INVALID_ARGUMENT if the values do not fill the shape.
    """
    found = {}
    for alias, proto in tensors.items():
        try:
            found[alias] = tf.make_ndarray(proto)
        except (TypeError, ValueError) as error:
            raise invalid(f"tensor parsing error: {alias}: {error}") from None
    return found


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
