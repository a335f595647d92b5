"""Conversion of request JSON to input tensors: the `instances` and `inputs` forms of Predict.

There are two converters. `_convert_fast` takes well-formed values in a few passes per level, nearly
all of them in C. Values that it declines go to `_convert_exactly`, which walks them in order and
reports the first mistake with TensorFlow Serving's message. Long lists are converted in blocks, so
that only the block with the mistake is walked.
"""

import base64
import dataclasses
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

import numpy as np

from serving.tfserving.status import Code, ServingError, invalid

_BLOCK = 1024
_DEBUG_TEXT_BYTES = 256
_MAX_RANK = 31  # a NumPy array has at most rank 32, and rows add one; TensorFlow allows 254


@dataclasses.dataclass(frozen=True)
class _Kind:
    """JSON form of a tensor type: Python types of its values, and the range if it is an integer."""

    array: type
    tokens: frozenset[type]
    lowest: int = 0
    highest: int = 0


_INT32 = (frozenset({int}), -(2**31), 2**31 - 1)
_KINDS = {
    "float": _Kind(np.float32, frozenset({int, float})),
    "double": _Kind(np.float64, frozenset({int, float})),
    # The narrow types are read as int32 and then cut: 300 becomes the uint8 44.
    "int8": _Kind(np.int8, *_INT32),
    "uint8": _Kind(np.uint8, *_INT32),
    "int16": _Kind(np.int16, *_INT32),
    "int32": _Kind(np.int32, *_INT32),
    "int64": _Kind(np.int64, frozenset({int}), -(2**63), 2**63 - 1),
    "uint32": _Kind(np.uint32, frozenset({int}), 0, 2**32 - 1),
    "uint64": _Kind(np.uint64, frozenset({int}), 0, 2**64 - 1),
    "bool": _Kind(np.bool_, frozenset({bool})),
    "string": _Kind(np.object_, frozenset({str, dict})),
}
_JSON_TYPES = {
    type(None): "Null",
    dict: "Object",
    list: "Array",
    str: "String",
    int: "Number",
    float: "Number",
}


def signature_name(document: Any) -> str:
    """The signature that a request asks for; "" if it names none.

    Raises:
        ServingError: INVALID_ARGUMENT if the document is not an object, or the name not a string.
    """
    if not isinstance(document, dict):
        raise invalid(f"JSON Value: {debug_text(document)} Is not object")
    name = document.get("signature_name", "")
    if not isinstance(name, str):
        raise invalid(
            f"JSON Value: {debug_text(document)} not formatted correctly. "
            "'signature_name' key must be a string value."
        )
    return name


def input_tensors(
    document: Mapping[str, Any],
    types: Mapping[str, str],
    require_time: Callable[[], None] = lambda: None,
) -> tuple[dict[str, np.ndarray], bool]:
    """Converts the inputs of a Predict request.

    Args:
        document: The parsed request; keys other than `inputs` and `instances` are ignored.
        types: Tensor type (TensorFlow's name of it, such as "float") by input of the signature.
        require_time: Function that is called before every block of rows, and raises if the
            request's deadline has passed.

    Returns:
        An array per input (strings are objects of type bytes), and whether the request is in row
        form, which is then the form of the reply too.

    Raises:
        ServingError: INVALID_ARGUMENT or UNIMPLEMENTED with the message of TensorFlow Serving.
    """
    if "instances" in document and "inputs" in document:
        raise invalid(
            f"JSON Value: {debug_text(document)} Not formatted correctly expecting only one of "
            "'inputs' or 'instances' keys to exist "
        )
    if "instances" in document:
        return _from_rows(document["instances"], types, require_time), True
    if "inputs" in document:
        return _from_columns(document["inputs"], types), False
    raise invalid("Missing 'inputs' or 'instances' key")


def debug_text(value: Any) -> str:
    """A JSON value with four spaces of indentation, cut at 256 bytes."""
    pieces: list[str] = []
    budget = _DEBUG_TEXT_BYTES

    def put(text: str) -> None:
        nonlocal budget
        pieces.append(text)
        budget -= len(text)

    def write(node: Any, depth: int) -> None:
        # Every level writes at least a bracket, so the budget limits the recursion too.
        if not isinstance(node, (list, dict)) or not node:
            put(json.dumps(node, ensure_ascii=False))
            return
        put("[" if isinstance(node, list) else "{")
        for i, key in enumerate(node):
            if budget <= 0:
                return
            put(("," if i else "") + "\n" + "    " * (depth + 1))
            if isinstance(node, dict):
                put(f'"{key}": ')
            write(node[key] if isinstance(node, dict) else key, depth + 1)
        put("\n" + "    " * depth + ("]" if isinstance(node, list) else "}"))

    write(value, 0)
    return "".join(pieces).encode()[:_DEBUG_TEXT_BYTES].decode(errors="ignore")


def type_text(value: Any) -> str:
    """RapidJSON's name for the type of a parsed value."""
    return str(value) if isinstance(value, bool) else _JSON_TYPES[type(value)]


def is_base64(value: Any) -> bool:
    """Whether a value is an object `{"b64": "..."}`, which represents bytes."""
    return isinstance(value, dict) and len(value) == 1 and isinstance(value.get("b64"), str)


def string_bytes(value: str | Mapping[str, Any]) -> bytes:
    """The bytes of a JSON string or a base64 object.

    Raises:
        ServingError: INVALID_ARGUMENT if an object is not base64 data, or cannot be decoded.
    """
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass")
    if not is_base64(value):
        raise invalid(f"JSON Value: {debug_text(value)} not formatted correctly for base64 data")
    text = value["b64"]
    padding = "" if text.endswith("=") else "=" * (-len(text) % 4)
    try:
        return base64.b64decode(text + padding, validate=True)
    except ValueError:
        raise invalid("Unable to base64 decode") from None


def _from_rows(
    instances: Any, types: Mapping[str, str], require_time: Callable[[], None]
) -> dict[str, np.ndarray]:
    if not isinstance(instances, list):
        raise invalid(
            f"JSON Value: {debug_text(instances)} Expecting 'instances' to be an list/array"
        )
    if not instances:
        raise invalid(f"JSON Value: {debug_text(instances)} No values in 'instances' array")
    named = _is_object(instances[0])
    if not named and len(types) > 1:
        raise invalid(
            "instances is a plain list, but expecting list of objects as multiple input tensors "
            "required as per tensorinfo_map"
        )
    blocks = []
    for start in range(0, len(instances), _BLOCK):
        require_time()
        rows = instances[start : start + _BLOCK]
        # Row 0 is prepended to every other block, because all rows must have its shapes.
        rows = [instances[0], *rows] if start else rows
        arrays = _rows_fast(rows, types, named)
        if arrays is None:
            arrays = _rows_exactly(rows, types, named, start - 1 if start else 0)
        blocks.append({name: array[1:] if start else array for name, array in arrays.items()})
    if len(blocks) == 1:
        return blocks[0]
    return {name: np.concatenate([block[name] for block in blocks]) for name in types}


def _rows_fast(
    rows: Sequence[Any], types: Mapping[str, str], named: bool
) -> dict[str, np.ndarray] | None:
    """Converts well-formed rows; returns None if any of them is unusual."""
    if not named:
        columns = {name: rows for name in types}
    elif all(type(row) is dict and row.keys() == types.keys() for row in rows):
        columns = {name: [row[name] for row in rows] for name in types}
    else:
        return None
    arrays = {}
    for name, values in columns.items():
        kind = _KINDS.get(types[name])
        array = _convert_fast(values, kind, _MAX_RANK + 1) if kind else None
        if array is None:
            return None
        arrays[name] = array
    return arrays


def _rows_exactly(
    rows: Sequence[Any], types: Mapping[str, str], named: bool, first: int
) -> dict[str, np.ndarray]:
    """Converts rows value by value, which is slow, with the exact message for the first mistake.

    Args:
        rows: A block of `instances`.
        types: Tensor type by input.
        named: Whether row 0 of the request is an object with a value by input.
        first: Number of the block's first row in the request.
    """
    arrays_by_input: dict[str, list[np.ndarray]] = {name: [] for name in types}
    for i, row in enumerate(rows, start=first):
        if named != _is_object(row):
            expected, actual = ("object", "list") if named else ("value/list", "object")
            raise invalid(f"Expecting {expected} but got {actual} at item {i} of input list")
        for name, value in row.items() if named else [(next(iter(types)), row)]:
            try:
                if name not in types:
                    raise invalid(f"JSON object: does not have named input: {name}")
                array = _convert_exactly(value, types[name])
                _require_alike(array, arrays_by_input[name])
            except ServingError as error:
                raise invalid(
                    f"Failed to process element: {i}{f' key: {name}' if named else ''} of "
                    f"'instances' list. Error: {error.code.name}: {error.message}"
                ) from None
            arrays_by_input[name].append(array)
        if named and row.keys() != types.keys():
            raise invalid(
                f"Failed to process element: {i} of 'instances' list. JSON object: "
                f"{debug_text(row)} keys must be equal to: {','.join(sorted(types))}"
            )
    return {name: np.stack(arrays) for name, arrays in arrays_by_input.items()}


def _require_alike(array: np.ndarray, earlier: Sequence[np.ndarray]) -> None:
    if not earlier:
        return
    first_array = earlier[0]
    if array.size != first_array.size:
        raise invalid(f"Expecting tensor size: {first_array.size} but got: {array.size}")
    if array.shape != first_array.shape:
        raise invalid(f"Expecting shape {_shape(first_array)} but got: {_shape(array)}")


def _shape(array: np.ndarray) -> str:
    return f"[{','.join(map(str, array.shape))}]"


def _from_columns(inputs: Any, types: Mapping[str, str]) -> dict[str, np.ndarray]:
    if not _is_object(inputs):
        if len(types) > 1:
            raise invalid(
                "inputs is a plain value/list, but expecting an object as multiple input tensors "
                "required as per tensorinfo_map"
            )
        inputs = {name: inputs for name in types}
    arrays = {}
    for name, kind in types.items():
        if name not in inputs:
            raise invalid(f"Missing named input: {name} in 'inputs' object.")
        array = _convert_fast(inputs[name], _KINDS[kind]) if kind in _KINDS else None
        arrays[name] = _convert_exactly(inputs[name], kind) if array is None else array
    return arrays


def _is_object(value: Any) -> bool:
    """Whether a value is a JSON object other than base64 data, which counts as a single value."""
    return isinstance(value, dict) and not is_base64(value)


def _convert_fast(value: Any, kind: _Kind, max_rank: int = _MAX_RANK) -> np.ndarray | None:
    """Converts a well-formed JSON value to a tensor; returns None if anything in it is unusual."""
    shape: list[int] = []
    level = [value]
    while level and type(level[0]) is list:
        sizes = {len(node) if type(node) is list else -1 for node in level}
        if len(sizes) != 1 or len(shape) == max_rank:
            return None
        shape.append(sizes.pop())
        level = list(itertools.chain.from_iterable(level))
    types = set(map(type, level))
    if not types <= kind.tokens:
        return None
    if kind.array is np.object_:
        try:
            return _reshape(list(map(string_bytes, level)), shape, kind)
        except ServingError:
            return None
    if kind.highest and level and (min(level) < kind.lowest or max(level) > kind.highest):
        return None
    return _reshape(level, shape, kind)


def _convert_exactly(value: Any, type_name: str) -> np.ndarray:
    """Converts a JSON value to a tensor, or raises its first mistake in reading order.

    The first elements of the lists determine the shape, and all other elements must have it.
    """
    shape: list[int] = []
    node = value
    while isinstance(node, list):
        shape.append(len(node))
        if not node:
            break
        node = node[0]
    if len(shape) > _MAX_RANK:
        raise invalid(f"Shape must have at most {_MAX_RANK} dims, found {len(shape)}")
    leaves: list[Any] = []

    def fill(node: Any, level: int) -> None:
        if not isinstance(node, list):
            if level != len(shape):
                raise invalid(
                    f"JSON Value: {debug_text(node)} found at incorrect level: {level + 1} in the "
                    f"JSON DOM. Expected at level: {len(shape)}"
                )
            leaves.append(_leaf(node, type_name))
            return
        if level >= len(shape):
            raise invalid(f"Encountered list at unexpected level: {level} expected < {len(shape)}")
        if len(node) != shape[level]:
            raise invalid(
                f"Encountered list at unexpected size: {len(node)} at level: {level} "
                f"expected size: {shape[level]}"
            )
        for start in range(0, len(node), _BLOCK):
            block = node[start : start + _BLOCK]
            if len(block) < len(node) and type_name in _KINDS:
                array = _convert_fast(block, _KINDS[type_name])
                if array is not None and [*array.shape[1:]] == shape[level + 1 :]:
                    leaves.extend(array.ravel().tolist())
                    continue
            for child in block:
                fill(child, level + 1)

    fill(value, 0)
    if type_name not in _KINDS:
        _refuse_type(value, type_name)
    return _reshape(leaves, shape, _KINDS[type_name])


def _leaf(value: Any, type_name: str) -> Any:
    if type_name not in _KINDS:
        _refuse_type(value, type_name)
    kind = _KINDS[type_name]
    if type(value) not in kind.tokens or (
        kind.highest and not kind.lowest <= value <= kind.highest
    ):
        raise invalid(
            f"JSON Value: {debug_text(value)} Type: {type_text(value)} is not of expected type: "
            f"{type_name}"
        )
    return string_bytes(value) if isinstance(value, (str, dict)) else value


def _refuse_type(value: Any, type_name: str) -> NoReturn:
    raise ServingError(
        Code.UNIMPLEMENTED, f"Conversion of JSON Value: {debug_text(value)} to type: {type_name}"
    )


def _reshape(leaves: Sequence[Any], shape: Sequence[int], kind: _Kind) -> np.ndarray:
    if kind.array is np.object_:
        array = np.empty(len(leaves), object)
        array[:] = leaves
    elif kind.array in (np.float32, np.float64):
        # By way of float64, like a JSON parser; values beyond float32's range become infinities.
        with np.errstate(over="ignore"):
            array = np.array(leaves, np.float64).astype(kind.array, copy=False)
    elif kind.array in (np.int8, np.uint8, np.int16):
        array = np.array(leaves, np.int32).astype(kind.array)
    else:
        array = np.array(leaves, kind.array)
    return array.reshape(shape)
