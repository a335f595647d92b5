"""Text files of a log as bytes: unpacked if they are gzipped, and without a byte-order mark.

The first bytes of a file tell its format, not its name: programs that download or move logs pack
and unpack them without renaming them.
"""

import codecs
import contextlib
import gzip
import re
from collections.abc import Callable, Iterator
from typing import BinaryIO, cast

from preprocessing.errors import UserError
from preprocessing.storage import files

BLOCK_BYTES = 1 << 23
"""Number of bytes of a text file that are read at once."""

_GZIP = b"\x1f\x8b"
_CONTAINERS = {
    b"PK\x03\x04": "a zip archive or a workbook",
    b"PAR1": "Parquet",
    b"ORC": "ORC",
    b"Obj\x01": "Avro",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"BZh": "bzip2",
    b"\xfd7zXZ\x00": "xz",
    b"\xd0\xcf\x11\xe0": "a workbook",
}
_BINARY = re.compile(rb"[\x00-\x08\x0e-\x1f]")
_WIDE = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}
_HEAD = 512


@contextlib.contextmanager
def open_text(path: str) -> Iterator[tuple[BinaryIO, Callable[[], int]]]:
    """Opens a text file; yields its content, and a function that counts the blocks read so far.

    Raises:
        UserError: The file holds something other than text in UTF-8 or a superset of ASCII.
    """
    with files.path(path).open("rb") as stored, contextlib.ExitStack() as stack:

        def blocks_done() -> int:
            return stored.tell() // BLOCK_BYTES

        content: BinaryIO = stored
        if _is_gzipped(content):
            content = cast(BinaryIO, stack.enter_context(gzip.open(stored, "rb")))
        head = content.read(_HEAD)
        _check(head, path)
        content.seek(len(codecs.BOM_UTF8) if head.startswith(codecs.BOM_UTF8) else 0)
        yield content, blocks_done


def is_gzipped(path: str) -> bool:
    """Whether a file is a gzip archive, whatever its name."""
    with files.path(path).open("rb") as content:
        return _is_gzipped(content)


def _is_gzipped(content: BinaryIO) -> bool:
    head = content.read(len(_GZIP))
    content.seek(0)
    return head == _GZIP


def _check(head: bytes, path: str) -> None:
    """Raises `UserError` if the first bytes of a file show that it is no text that can be read."""
    for magic, name in _CONTAINERS.items():
        if head.startswith(magic) and _BINARY.search(head):
            raise UserError(
                f"--input: expected text in {path}, found {name}.",
                "export it as CSV, JSON lines or Parquet, under a name that tells the format.",
            )
    wide = next((name for mark, name in _WIDE.items() if head.startswith(mark)), None)
    if wide is None and head.count(b"\0") > len(head) // 4:  # without a byte-order mark
        wide = "UTF-16"
    if wide is not None:
        raise UserError(
            f"--input: expected UTF-8 in {path}, found {wide}.",
            f"convert it: iconv -f {wide} -t UTF-8 {path} > CONVERTED",
        )
