"""Wire-format encoder of many `tf.train.SequenceExample` at once, without protobuf objects.

    SequenceExample  1: context        Features      1: map<string, Feature>
                     2: feature_lists  FeatureLists  1: map<string, FeatureList>
    FeatureList      1: repeated Feature
    Feature          1: BytesList   2: FloatList (packed)   3: Int64List (packed)

Every message is a length followed by its content, and the headers of two rows differ in nothing but
the length. A feature of all rows is therefore two Arrow columns: its payloads, written
with array arithmetic, and its headers, built once per distinct payload length. One element-wise
join of all columns gives the examples. Map entries are sorted by key, so that equal examples have
equal bytes; they are the bytes of protobuf's own deterministic serialisation.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from preprocessing.storage.arrow_buffers import (
    as_large_binary,
    binary_buffers,
    copied_slices,
    from_buffers,
)

# Field numbers 1..3 with wire type 2 (length and content), in which all of the above are written.
_TAG_1, _TAG_2, _TAG_3 = b"\x0a", b"\x12", b"\x1a"
_BLOCK = 1 << 15  # values written at a time, so that intermediate arrays stay in the cache
_FLOAT_STEP = b"\x0a\x08\x12\x06\x0a\x04"


@dataclasses.dataclass(frozen=True)
class Ragged:
    """Rows of different lengths: row i holds `values[row_splits[i]:row_splits[i + 1]]`.

    Attributes:
        values: [total] int64 or float32 as NumPy array; strings or bytes as Arrow array or list.
        row_splits: [rows + 1] int64 that starts with 0, never falls and ends with `total`.
    """

    values: np.ndarray | pa.Array | Sequence[bytes] | Sequence[str]
    row_splits: np.ndarray

    def __post_init__(self) -> None:
        splits = self.row_splits
        if len(splits) == 0 or splits[0] != 0 or splits[-1] != len(self.values):
            raise ValueError(f"expected row splits from 0 to {len(self.values)}, found {splits}")
        if np.any(np.diff(splits) < 0):
            raise ValueError("expected row splits that never fall")

    def __len__(self) -> int:
        return len(self.row_splits) - 1

    @classmethod
    def single(cls, values: Any) -> "Ragged":
        """One value per row."""
        return cls(values, np.arange(len(values) + 1, dtype=np.int64))


class SerializedSteps:
    """Values as steps of a feature list, serialised once for all rows that repeat some of them.

    Args:
        values: Values [n], of a type as in `Ragged`; or n lists of int64, as `Ragged`.

    Raises:
        ValueError: The steps take 2 GiB or more.
    """

    def __init__(self, values: Any) -> None:
        self._data, self._offsets = (
            _list_steps(values) if isinstance(values, Ragged) else _steps(values)
        )
        if len(self._data) > np.iinfo(np.int32).max:
            raise ValueError(f"expected steps of less than 2 GiB, found {len(self._data)} bytes")

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def rows(self, starts_R: np.ndarray, lengths_R: np.ndarray) -> pa.LargeBinaryArray:
        """Feature lists of `encode_examples`: row i has the steps from `starts_R[i]` on.

        Args:
            starts_R: First step of each row.
            lengths_R: Number of steps of each row, which lie one after another.
        """
        starts, ends = self._offsets[starts_R], self._offsets[starts_R + lengths_R]
        return copied_slices(self._data, starts, ends - starts)


def encode_examples(
    context: Mapping[str, Ragged], feature_lists: Mapping[str, Ragged | pa.LargeBinaryArray]
) -> tuple[np.ndarray, np.ndarray]:
    """Serialises one SequenceExample per row.

    Args:
        context: Values of each feature in each row, by name. A row without values becomes an empty
            list of the feature's type.
        feature_lists: Values of the steps of each row, one value per step, or feature lists as
            `SerializedSteps.rows` returns them, by name. A row without values becomes an empty
            feature list.

    Returns:
        buffer: uint8, all examples one after another.
        offsets: [rows + 1] int64; example i is `buffer[offsets[i]:offsets[i + 1]]`.

    Raises:
        ValueError: The features differ in their number of rows, there are none, or a value is
            neither int64, float32 nor bytes.

    Example:
        >>> import tensorflow as tf
        >>> users = Ragged.single(np.array([7, 8]))
        >>> items = Ragged(np.array([1, 2, 3]), row_splits=np.array([0, 1, 3]))
        >>> buffer, offsets = encode_examples({"user_id": users}, {"history/item_id": items})
        >>> second = tf.train.SequenceExample.FromString(buffer[offsets[1] :].tobytes())
        >>> len(second.feature_lists.feature_list["history/item_id"].feature)
        2
    """
    rows = {len(ragged) for ragged in (*context.values(), *feature_lists.values())}
    if len(rows) != 1:
        raise ValueError(f"expected one number of rows for all features, found {sorted(rows)}")
    columns = _map_field(_TAG_1, context, _feature) + _map_field(_TAG_2, feature_lists, _list)
    return binary_buffers(_join(columns))


def _map_field(
    tag: bytes, features: Mapping[str, Any], encode: Callable[[bytes, Any], list[pa.Array]]
) -> list[pa.Array]:
    """Columns of a map: its header, then header and payload of each entry in key order."""
    if not features:
        return []
    by_key = sorted((name.encode(), name) for name in features)
    entries = [column for key, name in by_key for column in encode(key, features[name])]
    lengths = np.sum([np.diff(binary_buffers(column)[1]) for column in entries], axis=0)
    return [_headers(lengths, lambda length: tag + _varint(length)), *entries]


def _feature(key: bytes, ragged: Ragged) -> list[pa.Array]:
    """Header and payload column of a context feature: the payload is the content of its list."""
    values = ragged.values
    if not isinstance(values, np.ndarray):
        list_tag, packed = _TAG_1, False
        data, offsets = _bytes_stream(values, lambda length: _TAG_1 + _varint(length))
    elif values.dtype == np.float32:
        list_tag, packed = _TAG_2, True
        data = np.ascontiguousarray(values, "<f4").view(np.uint8)
        offsets = np.arange(len(values) + 1, dtype=np.int64) * 4
    else:
        list_tag, packed = _TAG_3, True
        data, offsets = _varints(values, lambda width: b"")

    def header(length: int) -> bytes:
        tail = _TAG_1 + _varint(length) if packed and length else b""
        tail = list_tag + _varint(len(tail) + length) + tail
        return _entry_header(key, tail, length)

    return _with_headers(from_buffers(data, offsets[ragged.row_splits]), header)


def _list(key: bytes, rows: Ragged | pa.LargeBinaryArray) -> list[pa.Array]:
    """Header and payload column of a feature list: the payload is one Feature field per step."""
    if isinstance(rows, Ragged):
        data, offsets = _steps(rows.values)
        rows = from_buffers(data, offsets[rows.row_splits])
    return _with_headers(rows, lambda length: _entry_header(key, b"", length))


def _steps(values: Any) -> tuple[np.ndarray, np.ndarray]:
    """Writes every value as a Feature field of a feature list: data and offsets [values + 1]."""
    if not isinstance(values, np.ndarray):
        return _bytes_stream(values, _bytes_step)
    if values.dtype == np.float32:
        steps = np.empty((len(values), len(_FLOAT_STEP) + 4), np.uint8)
        steps[:, : len(_FLOAT_STEP)] = np.frombuffer(_FLOAT_STEP, np.uint8)
        steps[:, len(_FLOAT_STEP) :] = (
            np.ascontiguousarray(values, "<f4").view(np.uint8).reshape(-1, 4)
        )
        return steps.reshape(-1), np.arange(len(values) + 1, dtype=np.int64) * steps.shape[1]
    return _varints(values, lambda w: bytes([0x0A, 4 + w, 0x1A, 2 + w, 0x0A, w]))


def _list_steps(lists: Ragged) -> tuple[np.ndarray, np.ndarray]:
    """Writes every list of int64 as a Feature field of a feature list, as `_steps` does values."""
    data, offsets = _varints(np.asarray(lists.values), lambda width: b"")
    payloads = from_buffers(data, offsets[lists.row_splits])
    return binary_buffers(_join(_with_headers(payloads, _list_step)))


@functools.lru_cache(maxsize=1 << 14)
def _list_step(length: int) -> bytes:
    """Header of a step that holds a list of integers, whose varints take `length` bytes."""
    packed = _TAG_1 + _varint(length) if length else b""
    values = _TAG_3 + _varint(len(packed) + length) + packed
    return _TAG_1 + _varint(len(values) + length) + values


@functools.lru_cache(maxsize=1 << 14)
def _entry_header(key: bytes, tail: bytes, length: int) -> bytes:
    """Header of a map entry whose value is `tail` followed by a payload of `length` bytes."""
    inner = _TAG_1 + _varint(len(key)) + key + _TAG_2 + _varint(len(tail) + length) + tail
    return _TAG_1 + _varint(len(inner) + length) + inner


def _bytes_step(length: int) -> bytes:
    """Header of a step that holds one value of `length` bytes."""
    value = _TAG_1 + _varint(length)
    feature = _TAG_1 + _varint(len(value) + length) + value
    return _TAG_1 + _varint(len(feature) + length) + feature


def _bytes_stream(values: Any, header: Callable[[int], bytes]) -> tuple[np.ndarray, np.ndarray]:
    """Writes every value behind its header: data and offsets [values + 1]."""
    column = as_large_binary(values)
    if column.null_count:
        raise ValueError(f"expected values without nulls, found {column.null_count} nulls")
    headers = _headers(np.diff(binary_buffers(column)[1]), header)
    return binary_buffers(_join([headers, column]))


def _varints(values: np.ndarray, prefix: Callable[[int], bytes]) -> tuple[np.ndarray, np.ndarray]:
    """Writes every integer as a prefix and a varint: data and offsets [values + 1].

    Ids are many and small: each one that may occur is encoded once, then taken as often as it
    occurs. Other integers, such as times, are encoded one by one.

    Args:
        values: Integers, int64.
        prefix: Function that gives the bytes before a varint of the given width.
    """
    if values.dtype != np.int64:
        raise ValueError(f"expected int64, float32 or bytes, found {values.dtype}")
    if not len(values):
        return np.zeros(0, np.uint8), np.zeros(1, np.int64)
    if values.min() < 0 or values.max() > len(values):
        return _varint_stream(values, prefix)
    by_value = from_buffers(*_varint_stream(np.arange(values.max() + 1), prefix))
    return binary_buffers(by_value.take(pa.array(values)))


def _varint_stream(
    values: np.ndarray, prefix: Callable[[int], bytes]
) -> tuple[np.ndarray, np.ndarray]:
    """Writes every integer as a prefix and a varint, one by one; see `_varints`.

    A varint holds seven bits per byte, lowest first; all bytes but the last have the high bit set.
    Negative integers are taken modulo 2**64, as protobuf does. Values of equal width are written
    together.
    """
    words = np.ascontiguousarray(values).view(np.uint64)
    widths = np.ones(len(words), np.uint8)
    lowest, highest = int(words.min()), int(words.max())
    for bits in range(7, 64, 7):
        if lowest >> bits:
            widths += np.uint8(1)
        elif highest >> bits:
            widths += words >= np.uint64(1 << bits)
    prefixes = [prefix(width) for width in range(11)]
    sizes = np.array([width + len(head) for width, head in enumerate(prefixes)], np.uint8)
    offsets = np.zeros(len(words) + 1, np.int64)
    np.cumsum(sizes[widths], out=offsets[1:])
    data = np.empty(int(offsets[-1]), np.uint8)
    for start in range(0, len(words), _BLOCK):
        block = slice(start, min(start + _BLOCK, len(words)))
        narrow, wide = int(widths[block].min()), int(widths[block].max())
        for width in range(narrow, wide + 1):
            at, chosen_words = offsets[block], words[block]
            if narrow < wide:
                rows = np.flatnonzero(widths[block] == width)
                at, chosen_words = at[rows], chosen_words[rows]
            if len(at):
                cells = _varint_cells(chosen_words, width, prefixes[width])
                # One store of a whole cell per value, at whatever byte the value starts.
                starts = (len(data) - cells.itemsize + 1,)
                target: np.ndarray = np.ndarray(starts, cells.dtype, buffer=data, strides=(1,))
                target[at] = cells
    return data, offsets


def _varint_cells(words: np.ndarray, width: int, prefix: bytes) -> np.ndarray:
    """[n] void cells that hold the prefix and the varint, for uint64 words of one varint width."""
    # The high bits of all bytes but the last.
    continuation_bits = sum(0x80 << 8 * i for i in range(width - 1))
    low = words & np.uint64(0x7F)
    for i in range(1, min(width, 8)):
        septet = words & np.uint64(0x7F << 7 * i)
        septet <<= np.uint64(i)
        low |= septet
    low |= np.uint64(continuation_bits & 0xFFFFFFFFFFFFFFFF)
    free = 8 * len(prefix)
    cells = np.empty((len(words), 2), "<u8")
    cells[:, 0] = low << np.uint64(free) | np.uint64(int.from_bytes(prefix, "little"))
    cells[:, 1] = low >> np.uint64(64 - free) if prefix else 0
    if width > 8:
        high = words >> np.uint64(56) & np.uint64(0x7F) | words >> np.uint64(63) << np.uint64(8)
        cells[:, 1] |= (high | np.uint64(continuation_bits >> 64)) << np.uint64(free)
    return np.ndarray(len(words), f"V{len(prefix) + width}", buffer=cells.data, strides=(16,))


@functools.lru_cache(maxsize=1 << 14)
def _varint(value: int) -> bytes:
    """A non-negative integer as a varint; see `_varint_stream`."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _with_headers(payloads: pa.LargeBinaryArray, header: Callable[[int], bytes]) -> list[pa.Array]:
    return [_headers(np.diff(binary_buffers(payloads)[1]), header), payloads]


def _headers(lengths: np.ndarray, header: Callable[[int], bytes]) -> pa.LargeBinaryArray:
    """The header of each payload length, built once per distinct length."""
    encoded = pa.array(lengths).dictionary_encode()
    distinct = [header(length) for length in encoded.dictionary.to_pylist()]
    return pa.array(distinct, pa.large_binary()).take(encoded.indices)


def _join(columns: Sequence[pa.Array]) -> pa.LargeBinaryArray:
    """Concatenates the columns row by row."""
    return pc.binary_join_element_wise(*columns, pa.scalar(b"", pa.large_binary()))
