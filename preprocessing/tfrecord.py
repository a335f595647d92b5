"""TFRecord shards, written in bulk and read back with every checksum checked.

A record is: length (uint64), masked CRC-32C of those 8 bytes (uint32), data, masked CRC-32C of the
data (uint32), all little endian. Shards are gzip files whose header holds neither a time nor a file
name, so that equal records give equal bytes.
"""

import gzip
import hashlib
import os
import pathlib
import struct
import zlib
from collections.abc import Iterator
from typing import IO

import google_crc32c
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from preprocessing.columns import binary_buffers, from_buffers
from preprocessing.errors import UserError

_GZIP = 16 + zlib.MAX_WBITS
_HEADER = struct.Struct("<QI")
_CRC = struct.Struct("<I")
_FIX = "build the data anew, or copy the file again from its origin."


def write_shard(
    path: str | pathlib.Path, buffer: np.ndarray, offsets: np.ndarray, compress_level: int = 1
) -> tuple[int, str]:
    """Writes records as one gzip TFRecord file: under a temporary name, then renamed.

    Args:
        path: The file to write; replaced if it exists.
        buffer: uint8, all records one after another.
        offsets: [records + 1] int64; record i is `buffer[offsets[i]:offsets[i + 1]]`.
        compress_level: 1 (fast) to 9 (small).

    Returns:
        Size of the file in bytes, and its SHA-256 as 64 hexadecimal digits.
    """
    path = pathlib.Path(path)
    compressor = zlib.compressobj(compress_level, zlib.DEFLATED, _GZIP)
    content = compressor.compress(frame(buffer, offsets).data) + compressor.flush()
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_bytes(content)
    os.replace(temporary, path)
    return len(content), hashlib.sha256(content).hexdigest()


def frame(buffer: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """The bytes of an uncompressed TFRecord file, as uint8.

    Args:
        buffer: uint8, all records one after another.
        offsets: [records + 1] int64.
    """
    column = from_buffers(np.ascontiguousarray(buffer), offsets)
    crcs = [_masked_crc(record) for record in column.to_pylist()]
    lengths, which = np.unique(np.diff(offsets), return_inverse=True)
    sizes = [struct.pack("<Q", length) for length in lengths.tolist()]
    headers = [size + _CRC.pack(_masked_crc(size)) for size in sizes]
    framed = pc.binary_join_element_wise(
        pa.array(headers, pa.large_binary()).take(pa.array(which)),
        column,
        _fixed_width(np.array(crcs, np.uint32)),
        pa.scalar(b"", pa.large_binary()),
    )
    return binary_buffers(framed)[0]


def read_records(path: str | pathlib.Path) -> Iterator[bytes]:
    """Yields the records of a TFRecord file, gzip if the name ends in `.gz`.

    Raises:
        UserError: The file is missing, cut short, or a checksum does not match; names the file and
            the record.
    """
    path = pathlib.Path(path)
    index = 0
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            while (record := _read_record(file)) is not None:
                yield record
                index += 1
    except FileNotFoundError:
        raise UserError(f"Expected a TFRecord file, found none at {path}.", _FIX) from None
    except (ValueError, EOFError, OSError, zlib.error) as error:
        raise UserError(
            f"Expected TFRecords in {path}, found record {index} broken: {error}.", _FIX
        ) from error


def _read_record(file: gzip.GzipFile | IO[bytes]) -> bytes | None:
    """The next record, or None at the end of the file; `ValueError` if it is broken."""
    header = file.read(_HEADER.size)
    if not header:
        return None
    if len(header) < _HEADER.size:
        raise ValueError("the file ends within its header")
    length, length_crc = _HEADER.unpack(header)
    if _masked_crc(header[:8]) != length_crc:
        raise ValueError("the checksum of its length does not match")
    data = file.read(length)
    footer = file.read(_CRC.size)
    if len(data) < length or len(footer) < _CRC.size:
        raise ValueError("the file ends within its data")
    if _masked_crc(data) != _CRC.unpack(footer)[0]:
        raise ValueError("the checksum of its data does not match")
    return data


def _masked_crc(data: bytes) -> int:
    """CRC-32C in the masking of TFRecord: rotated right by 15 bits, plus a constant."""
    crc = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _fixed_width(words: np.ndarray) -> pa.LargeBinaryArray:
    """Each uint32 as a value of four bytes."""
    return from_buffers(
        np.ascontiguousarray(words, "<u4").view(np.uint8), np.arange(len(words) + 1) * 4
    )
