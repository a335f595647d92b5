"""Arrow columns of variable-length values, seen as NumPy arrays."""

from typing import Any

import numpy as np
import pyarrow as pa


def as_large_binary(texts: Any) -> pa.LargeBinaryArray:
    """One contiguous large_binary array of texts given as an Arrow column or a sequence."""
    if isinstance(texts, pa.ChunkedArray):
        texts = texts.combine_chunks()
    if not isinstance(texts, pa.Array):
        is_text = len(texts) > 0 and isinstance(texts[0], str)
        texts = pa.array(texts, pa.large_string() if is_text else pa.large_binary())
    return texts if pa.types.is_large_binary(texts.type) else texts.cast(pa.large_binary())


def from_buffers(data: np.ndarray, offsets: np.ndarray) -> pa.LargeBinaryArray:
    """The large_binary array [n] over uint8 data and int64 offsets [n + 1], without a copy."""
    buffers = [None, pa.py_buffer(np.ascontiguousarray(offsets, np.int64)), pa.py_buffer(data)]
    return pa.LargeBinaryArray.from_buffers(pa.large_binary(), len(offsets) - 1, buffers)


def binary_buffers(column: pa.LargeBinaryArray) -> tuple[np.ndarray, np.ndarray]:
    """The uint8 data and the int64 offsets [n + 1] of a large_binary array, without a copy."""
    _, offsets, data = column.buffers()
    if len(column) == 0:
        return np.zeros(0, np.uint8), np.zeros(1, np.int64)
    window = slice(column.offset, column.offset + len(column) + 1)
    bytes_ = np.zeros(0, np.uint8) if data is None else np.frombuffer(data, np.uint8)
    return bytes_, np.frombuffer(offsets, np.int64)[window]
