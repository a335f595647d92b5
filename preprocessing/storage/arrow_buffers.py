"""Arrow columns of variable-length values, seen as NumPy arrays."""

from typing import Any

import numpy as np
import pyarrow as pa

_INLINE = 12  # longest slice, in bytes, that a view holds itself


def as_large_binary(texts: Any) -> pa.LargeBinaryArray:
    """Turns texts, given as an Arrow column or a sequence, into one large_binary array."""
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


def copied_slices(data: np.ndarray, starts: np.ndarray, lengths: np.ndarray) -> pa.LargeBinaryArray:
    """The large_binary array [n] of copied slices of uint8 data, which may overlap.

    Arrow copies them when it casts an array of views, which is the fastest way by far. A view is
    four words: the length; the first four bytes; the number of the buffer; the start of the slice
    in it. The last three words of a slice of at most twelve bytes hold the slice itself.

    Args:
        data: Bytes to slice, less than 2 GiB.
        starts: First byte of each slice, int64 [n].
        lengths: Number of bytes of each slice, int64 [n].
    """
    views = np.zeros((len(starts), 4), "<i4")
    views[:, 0] = lengths
    long = np.flatnonzero(lengths > _INLINE)
    if len(long):
        words: np.ndarray = np.ndarray(len(data) - 3, "<i4", buffer=data, strides=(1,))
        views[long, 1] = words[starts[long]]
        views[long, 3] = starts[long]
    short = np.flatnonzero((lengths > 0) & (lengths <= _INLINE))
    if len(short):
        byte = np.arange(_INLINE)
        cells = data[np.minimum(starts[short, None] + byte, len(data) - 1)]
        cells[byte >= lengths[short, None]] = 0
        views[short, 1:] = cells.view("<i4")
    buffers = [None, pa.py_buffer(views), pa.py_buffer(np.ascontiguousarray(data))]
    array = pa.Array.from_buffers(pa.binary_view(), len(starts), buffers)
    return array.cast(pa.large_binary())


def binary_buffers(column: pa.LargeBinaryArray) -> tuple[np.ndarray, np.ndarray]:
    """The uint8 data and the int64 offsets [n + 1] of a large_binary array, without a copy."""
    _, offsets, data = column.buffers()
    if len(column) == 0:
        return np.zeros(0, np.uint8), np.zeros(1, np.int64)
    window = slice(column.offset, column.offset + len(column) + 1)
    bytes_ = np.zeros(0, np.uint8) if data is None else np.frombuffer(data, np.uint8)
    return bytes_, np.frombuffer(offsets, np.int64)[window]
