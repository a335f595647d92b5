"""FarmHash Fingerprint64 for whole columns of texts.

It is the function of `tf.strings.to_hash_bucket_fast` before its modulo, so that a pipeline without
TensorFlow and a serving graph put a value into the same bucket. The algorithm is
`farmhashna::Hash64` of the public FarmHash library; it is frozen: fingerprints never change between
versions. Texts are processed in groups of one length class, with array arithmetic modulo 2**64.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from preprocessing.storage.arrow_buffers import as_large_binary, binary_buffers

_K0 = np.uint64(0xC3A5C85C97CB3127)
_K1 = np.uint64(0xB492B66FBE98F273)
_K2 = np.uint64(0x9AE16A3B2F90404F)

_U64 = np.ndarray


def fingerprint64(texts: pa.Array | pa.ChunkedArray | Sequence[str] | Sequence[bytes]) -> _U64:
    """The fingerprint of each text.

    Args:
        texts: [n] strings (hashed as UTF-8) or bytes, without nulls.

    Returns:
        [n] uint64.

    Raises:
        ValueError: A text is null.
    """
    column = as_large_binary(texts)
    if column.null_count:
        raise ValueError(f"expected texts without nulls, found {column.null_count} nulls")
    data, offsets = binary_buffers(column)
    starts = offsets[:-1]
    lengths = np.diff(offsets)
    result = np.full(len(column), _K2, np.uint64)  # the fingerprint of the empty text
    for lowest, highest, function in _LENGTH_CLASSES:
        rows = np.flatnonzero((lengths >= lowest) & (lengths <= highest))
        if len(rows):
            result[rows] = function(data, starts[rows], lengths[rows])
    return result


def _fetch(data: np.ndarray, at: np.ndarray, dtype: str = "<u8") -> _U64:
    """Little-endian words that start at arbitrary bytes, as uint64."""
    size = np.dtype(dtype).itemsize
    words: np.ndarray = np.ndarray((len(data) - size + 1,), dtype, buffer=data, strides=(1,))
    return words[at].astype(np.uint64)


def _rotate(x: _U64, right: int) -> _U64:
    return (x >> np.uint64(right)) | (x << np.uint64(64 - right))


def _mix(x: _U64) -> _U64:
    return x ^ (x >> np.uint64(47))


def _hash_pair(u: _U64, v: _U64, mul: _U64) -> _U64:
    """Hashes 128 bits to 64 ("HashLen16")."""
    a = _mix((u ^ v) * mul)
    return _mix((v ^ a) * mul) * mul


def _multiplier(length: np.ndarray) -> _U64:
    return _K2 + length.astype(np.uint64) * np.uint64(2)


def _up_to_3(data: np.ndarray, start: np.ndarray, length: np.ndarray) -> _U64:
    first = data[start].astype(np.uint64)
    middle = data[start + (length >> 1)].astype(np.uint64)
    last = data[start + length - 1].astype(np.uint64)
    y = first + (middle << np.uint64(8))
    z = length.astype(np.uint64) + (last << np.uint64(2))
    return _mix(y * _K2 ^ z * _K0) * _K2


def _up_to_7(data: np.ndarray, start: np.ndarray, length: np.ndarray) -> _U64:
    head = _fetch(data, start, "<u4")
    tail = _fetch(data, start + length - 4, "<u4")
    u = length.astype(np.uint64) + (head << np.uint64(3))
    return _hash_pair(u, tail, _multiplier(length))


def _up_to_16(data: np.ndarray, start: np.ndarray, length: np.ndarray) -> _U64:
    mul = _multiplier(length)
    a = _fetch(data, start) + _K2
    b = _fetch(data, start + length - 8)
    return _hash_pair(_rotate(b, 37) * mul + a, (_rotate(a, 25) + b) * mul, mul)


def _up_to_32(data: np.ndarray, start: np.ndarray, length: np.ndarray) -> _U64:
    mul = _multiplier(length)
    a = _fetch(data, start) * _K1
    b = _fetch(data, start + 8)
    c = _fetch(data, start + length - 8) * mul
    d = _fetch(data, start + length - 16) * _K2
    u = _rotate(a + b, 43) + _rotate(c, 30) + d
    return _hash_pair(u, a + _rotate(b + _K2, 18) + c, mul)


def _up_to_64(data: np.ndarray, start: np.ndarray, length: np.ndarray) -> _U64:
    mul = _multiplier(length)
    end = start + length
    a = _fetch(data, start) * _K2
    b = _fetch(data, start + 8)
    c = _fetch(data, end - 8) * mul
    d = _fetch(data, end - 16) * _K2
    y = _rotate(a + b, 43) + _rotate(c, 30) + d
    z = _hash_pair(y, a + _rotate(b + _K2, 18) + c, mul)
    e = _fetch(data, start + 16) * mul
    f = _fetch(data, start + 24)
    g = (y + _fetch(data, end - 32)) * mul
    h = (z + _fetch(data, end - 24)) * mul
    return _hash_pair(_rotate(e + f, 43) + _rotate(g, 30) + h, e + _rotate(f + a, 18) + g, mul)


def _weak_hash_32(data: np.ndarray, at: np.ndarray, a: _U64, b: _U64) -> tuple[_U64, _U64]:
    """Hashes 32 bytes and two seeds to 128 bits."""
    w, x, y, z = (_fetch(data, at + 8 * i) for i in range(4))
    a = a + w
    total = a + x + y
    return total + z, _rotate(b + a + z, 21) + _rotate(total, 44) + a


def _round(data: np.ndarray, at: np.ndarray, state: tuple[_U64, ...], mul: Any, last: bool) -> Any:
    """Mixes 64 bytes into the state; the last round weighs two of its terms by nine."""
    x, y, z, v0, v1, w0, w1 = state
    weight = np.uint64(9 if last else 1)
    x = _rotate(x + y + v0 + _fetch(data, at + 8), 37) * mul
    y = _rotate(y + v1 + _fetch(data, at + 48), 42) * mul
    x = x ^ (w1 * weight)
    y = y + v0 * weight + _fetch(data, at + 40)
    z = _rotate(z + w0, 33) * mul
    v0, v1 = _weak_hash_32(data, at, v1 * mul, x + w0)
    w0, w1 = _weak_hash_32(data, at + 32, z + w1, y + _fetch(data, at + 16))
    return z, y, x, v0, v1, w0, w1


def _longer(data: np.ndarray, start: np.ndarray, length: np.ndarray) -> _U64:
    rounds = (length - 1) // 64
    zero = np.zeros(len(start), np.uint64)
    seed = zero + np.uint64(81)
    y = seed * _K1 + np.uint64(113)
    z = _mix(y * _K2 + np.uint64(113)) * _K2
    x = seed * _K2 + _fetch(data, start)
    state = np.stack([x, y, z, zero, zero, zero, zero])
    for i in range(int(rounds.max())):
        rows = np.flatnonzero(rounds > i)
        state[:, rows] = _round(data, start[rows] + 64 * i, tuple(state[:, rows]), _K1, last=False)
    x, y, z, v0, v1, w0, w1 = state
    mul = _K1 + ((z & np.uint64(0xFF)) << np.uint64(1))
    w0 = w0 + ((length - 1) & 63).astype(np.uint64)
    v0 = v0 + w0
    w0 = w0 + v0
    # The last round reads the last 64 bytes, even if part of them was read before.
    x, y, z, v0, v1, w0, w1 = _round(
        data, start + length - 64, (x, y, z, v0, v1, w0, w1), mul, last=True
    )
    return _hash_pair(
        _hash_pair(v0, w0, mul) + _mix(y) * _K0 + z,
        _hash_pair(v1, w1, mul) + x,
        mul,
    )


_LENGTH_CLASSES = (
    (1, 3, _up_to_3),
    (4, 7, _up_to_7),
    (8, 16, _up_to_16),
    (17, 32, _up_to_32),
    (33, 64, _up_to_64),
    (65, np.iinfo(np.int64).max, _longer),
)
