"""Replies in JSON: predictions, errors, status and metadata, as TensorFlow Serving writes them."""

import base64
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import orjson
from google.protobuf import json_format

from serving.tfserving.status import invalid

_BYTES_SUFFIX = "_bytes"
_FLOATS = {"float": (np.float32, 9), "double": (np.float64, 17)}
_CARRIED = {
    *_FLOATS,
    *("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("bool", "string"),
}


def predictions(
    outputs: Mapping[str, np.ndarray], types: Mapping[str, str], row_form: bool
) -> bytes:
    """The reply to a Predict request.

    Args:
        outputs: Output arrays by name; strings are objects of type bytes.
        types: Tensor type of each output, in TensorFlow's words ("float").
        row_form: Whether the request came as `instances`. The reply then has a value per row, or an
            object if there are several outputs; otherwise it has whole tensors.

    Raises:
        ServingError: INVALID_ARGUMENT if JSON cannot carry an output, or the outputs of a row-form
            reply have no common dimension 0.
    """
    names = sorted(outputs)
    for name in names:
        if types[name] not in _CARRIED:
            raise invalid(f"Failed to write JSON value for tensor type: {types[name]}")
    if row_form:
        _require_common_size(outputs, names)
    tensors = {name: _written(name, types[name], outputs[name]) for name in names}
    if len(names) == 1:
        return _dumps({"predictions" if row_form else "outputs": tensors[names[0]]})
    if not row_form:
        return _dumps({"outputs": tensors})
    columns = [_rows(tensors[name]) for name in names]
    rows = [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]
    return _dumps({"predictions": rows})


def classifications(results: Sequence[Sequence[tuple[str, np.float32]]]) -> bytes:
    """The reply to a Classify request.

    Args:
        results: Label and score of every class, by example.
    """
    dtype, digits = _FLOATS["float"]
    rows = [
        [[label, orjson.Fragment(_float_text(float(score), dtype, digits))] for label, score in row]
        for row in results
    ]
    return _dumps({"results": rows})


def regressions(values: np.ndarray) -> bytes:
    """The reply to a Regress request: float32, one per example."""
    text = _float_text(values.tolist(), *_FLOATS["float"])
    return _dumps({"results": orjson.Fragment(text)})


def error(message: str) -> bytes:
    """The body of every refusal."""
    return b'{\n    "error": ' + orjson.dumps(message) + b"\n}"


def model_status(statuses: Iterable[tuple[int, str, str, str]]) -> bytes:
    """The reply of the status call.

    Args:
        statuses: Version, state, error code and error message, newest version first.
    """
    reply = {
        "model_version_status": [
            {
                "version": str(version),
                "state": state,
                "status": {"error_code": code, "error_message": message},
            }
            for version, state, code, message in statuses
        ]
    }
    return orjson.dumps(reply, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def metadata(model: str, version: int, signatures: Any) -> bytes:
    """The reply of the metadata call.

    Args:
        model: Name of the model.
        version: Number of the described version.
        signatures: A `tensorflow.serving.SignatureDefMap` message.
    """
    options: dict[str, Any] = {"preserving_proto_field_name": True}
    # Protobuf 5.26 renamed the option that prints fields which hold their default value.
    try:
        described = json_format.MessageToDict(
            signatures, always_print_fields_with_no_presence=True, **options
        )
    except TypeError:
        described = json_format.MessageToDict(
            signatures, including_default_value_fields=True, **options
        )
    reply = {
        "model_spec": {"name": model, "signature_name": "", "version": str(version)},
        "metadata": {"signature_def": described},
    }
    return orjson.dumps(reply, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def _require_common_size(outputs: Mapping[str, np.ndarray], names: Iterable[str]) -> None:
    size = -1
    for name in names:
        if outputs[name].ndim == 0:
            raise invalid(f"Tensor name: {name} has no shape information ")
        output_size = outputs[name].shape[0]
        if size not in (-1, output_size):
            raise invalid(
                f"Tensor name: {name} has inconsistent batch size: {output_size} expecting: {size}"
            )
        size = output_size


def _written(name: str, type_name: str, array: np.ndarray) -> Any:
    """An output as a value that `_dumps` writes: a list or an array unless its rank is 0."""
    if type_name == "string":
        leaf = _base64 if name.endswith(_BYTES_SUFFIX) else _text
        return _map_leaves(array.tolist(), leaf)
    if type_name in _FLOATS and not np.isfinite(array).all():
        dtype, digits = _FLOATS[type_name]
        return _map_leaves(
            array.tolist(), lambda value: orjson.Fragment(_float_text(value, dtype, digits))
        )
    # orjson writes no arrays of rank 0. A scalar is written in an array of one element, which keeps
    # its type.
    return array if array.ndim else orjson.Fragment(_dumps(array.reshape(1))[1:-1])


def _rows(output: Any) -> Any:
    """The rows of an output as values that `_dumps` writes."""
    if isinstance(output, np.ndarray) and output.ndim == 1:
        # The whole array is written at once, as orjson cannot write its numbers one by one.
        texts = _dumps(output)[1:-1].split(b",") if len(output) else []
        return map(orjson.Fragment, texts)
    return output


def _text(data: bytes) -> str:
    return data.decode(errors="replace")


def _base64(data: bytes) -> dict[str, str]:
    return {"b64": base64.b64encode(data).decode("ascii")}


def _map_leaves(value: Any, leaf: Callable[[Any], Any]) -> Any:
    if isinstance(value, list):
        return [_map_leaves(child, leaf) for child in value]
    return leaf(value)


def _float_text(value: Any, dtype: type, digits: int) -> str:
    """JSON text of (nested lists of) floats with NaN and infinities, which orjson cannot write.

    Six significant digits if they are enough to read back the same number, else `digits`.
    """
    if isinstance(value, list):
        return f"[{','.join(_float_text(child, dtype, digits) for child in value)}]"
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else f"{'-' if value < 0 else ''}Infinity"
    text = f"{value:.6g}"
    if dtype(text) != dtype(value):
        text = f"{value:.{digits}g}"
    return text if set(text) & set(".e") else f"{text}.0"


def _dumps(value: Any) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)
