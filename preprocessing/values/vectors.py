"""Vectors as bytes: how the numbers of a row travel through tables of a log, and in examples.

A vector is one value of fixed size, its numbers as little-endian floats one after another. So
sorting, counting and dealing out rows need no further type of column, and equal vectors are equal
bytes. A missing vector is null.

Shapes: n rows, D numbers of a vector.
"""

import numpy as np
import pyarrow as pa

_RAW = np.dtype("<f4")


def column_type(size: int) -> pa.DataType:
    """The type of a column of vectors of `size` numbers, as float32."""
    return pa.binary(size * _RAW.itemsize)


def pack(numbers_nD: np.ndarray, is_missing_n: np.ndarray | None = None) -> pa.Array:
    r"""A column of vectors.

    Args:
        numbers_nD: [n, D] numbers, finite where they are not missing.
        is_missing_n: [n] bool; None if no vector is missing.

    Returns:
        [n] column of `column_type(D)`.

    Example:
        >>> pack(np.array([[1.0, -0.0], [2.0, 3.0]]), np.array([False, True])).to_pylist()
        [b'\x00\x00\x80?\x00\x00\x00\x00', None]
    """
    rows, size = numbers_nD.shape
    numbers = np.ascontiguousarray(numbers_nD, _RAW) + np.float32(0.0)  # no -0
    valid = None
    if is_missing_n is not None and is_missing_n.any():
        valid = pa.py_buffer(np.packbits(~is_missing_n, bitorder="little"))
    return pa.Array.from_buffers(column_type(size), rows, [valid, pa.py_buffer(numbers)])


def unpack(column: pa.Array) -> np.ndarray:
    """The numbers of a column of vectors: float32 [n, D], 0 where a vector is missing."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    size = column.type.byte_width // _RAW.itemsize
    data = column.buffers()[1]
    numbers = np.frombuffer(data, _RAW) if data else np.zeros(0, np.float32)
    first = column.offset * size
    numbers_nD = numbers[first : first + len(column) * size].reshape(len(column), size)
    if not column.null_count:
        return numbers_nD
    return np.where(column.is_null().to_numpy(zero_copy_only=False)[:, None], 0.0, numbers_nD)


def norms(column: pa.Array) -> pa.Array:
    """The Euclidean norm of each vector, which stands for it in counts: float32 [n].

    Counts then take as much memory as those of a number, whatever the length of a vector.
    """
    numbers_nD = unpack(column).astype(np.float64)
    norms_n = np.sqrt(np.einsum("nd,nd->n", numbers_nD, numbers_nD))
    norms_n = np.minimum(norms_n, np.finfo(np.float32).max).astype(np.float32)
    return pa.array(norms_n, mask=column.is_null().to_numpy(zero_copy_only=False))


def as_bytes(numbers_nD: np.ndarray) -> pa.Array:
    """Vectors as examples hold them: large_binary [n], the numbers of one type as they are."""
    numbers = np.ascontiguousarray(numbers_nD, numbers_nD.dtype.newbyteorder("<"))
    width = numbers.shape[1] * numbers.itemsize
    column = pa.Array.from_buffers(pa.binary(width), len(numbers), [None, pa.py_buffer(numbers)])
    return column.cast(pa.large_binary())
