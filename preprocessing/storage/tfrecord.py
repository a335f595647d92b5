"""TFRecord shards, written in bulk and read back with every checksum checked.

A record is: length (uint64), masked CRC-32C of those 8 bytes (uint32), data, masked CRC-32C of the
data (uint32), all little endian. Shards are gzip files whose header holds neither a time nor a file
name, so that equal records give equal bytes. The compressor is ISA-L at level 1: several times as
fast as zlib at its own level 1, and with smaller files. It comes with its Python package, so that
the version of the package determines the bytes, not the zlib of the machine.
"""

import contextlib
import gzip
import hashlib
import struct
import zlib
from collections.abc import Iterable, Iterator
from typing import IO, Any

import google_crc32c
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from isal import isal_zlib

from preprocessing.errors import UserError
from preprocessing.storage import files
from preprocessing.storage.arrow_buffers import binary_buffers, from_buffers
from preprocessing.storage.files import AnyPath

_GZIP = 16 + zlib.MAX_WBITS
_LEVEL = 1
_HEADER = struct.Struct("<QI")
_CRC = struct.Struct("<I")
_FIX = "build the data anew, or copy the file again from its origin."


def write_shard(
    path: str | AnyPath, blocks: Iterable[tuple[np.ndarray, np.ndarray]]
) -> tuple[int, str]:
    """Writes records as one gzip TFRecord file, which is visible only once it is complete.

    Args:
        path: The file to write; replaced if it exists.
        blocks: Blocks of records, in order: a uint8 buffer of concatenated records, and int64
            offsets [records + 1]; record i is `buffer[offsets[i]:offsets[i + 1]]`. The bytes of the
            file may depend on where blocks end.

    Returns:
        Size of the file in bytes, and its SHA-256 as 64 hexadecimal digits.
    """
    compressor = isal_zlib.compressobj(_LEVEL, isal_zlib.DEFLATED, _GZIP)
    digest, size = hashlib.sha256(), 0

    def contents() -> Iterator[bytes]:
        for block in blocks:
            yield compressor.compress(frame(*block).data)
        yield compressor.flush()

    with files.create(files.path(path)) as file:
        for content in contents():
            file.write(content)
            digest.update(content)
            size += len(content)
    return size, digest.hexdigest()


def frame(buffer: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """The bytes of an uncompressed TFRecord file, as uint8.

    Args:
        buffer: uint8, all records concatenated.
        offsets: [records + 1] int64, start of each record in `buffer`, then the end.
    """
    column = from_buffers(np.ascontiguousarray(buffer), offsets)
    crcs = np.array(list(map(google_crc32c.value, column.to_pylist())), np.int64)
    lengths, index_of_record = np.unique(np.diff(offsets), return_inverse=True)
    sizes = [struct.pack("<Q", length) for length in lengths.tolist()]
    headers = [size + _CRC.pack(_masked_crc(size)) for size in sizes]
    framed = pc.binary_join_element_wise(
        pa.array(headers, pa.large_binary()).take(pa.array(index_of_record)),
        column,
        _fixed_width(_mask(crcs).astype(np.uint32)),
        pa.scalar(b"", pa.large_binary()),
    )
    return binary_buffers(framed)[0]


def read_records(path: str | AnyPath) -> Iterator[bytes]:
    """Yields the records of a TFRecord file, gzip if the name ends in `.gz`.

    Raises:
        UserError: The file is missing, cut short, or a checksum does not match; the message names
            the file and the record.
    """
    path = files.path(path)
    index = 0
    try:
        with contextlib.ExitStack() as stack:
            file: gzip.GzipFile | IO[bytes] = stack.enter_context(path.open("rb"))
            if path.suffix == ".gz":
                file = stack.enter_context(gzip.open(file))
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
    return _mask(google_crc32c.value(data))


def _mask(crc: Any) -> Any:
    """CRC-32C as TFRecord masks it: rotated right by 15 bits, plus a constant."""
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _fixed_width(words: np.ndarray) -> pa.LargeBinaryArray:
    """Each uint32 as a value of four bytes."""
    return from_buffers(
        np.ascontiguousarray(words, "<u4").view(np.uint8), np.arange(len(words) + 1) * 4
    )
