"""Paths of object stores (s3://, gs://) that are used like `pathlib.Path`.

Access goes through pyarrow.fs, which readers and workers load anyway. Credentials come from the
same places as for the tools of AWS and Google Cloud; AWS_ENDPOINT_URL names another server that
speaks S3.
"""

import contextlib
import fnmatch
import functools
import io
import os
import pathlib
import shutil
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

import pyarrow as pa
from pyarrow import fs

from preprocessing.errors import UserError

SCHEMES = ("s3", "gs")
_READ_BYTES = 1 << 22
_COPY_BYTES = 1 << 24


class FileStat(NamedTuple):
    """Result of `RemotePath.stat`."""

    st_size: int
    st_mtime_ns: int


@functools.total_ordering
class RemotePath:
    """An object of an object store, or a prefix of objects; see `pathlib.Path` for its methods.

    Object stores have no directories: a directory exists while there are objects whose names begin
    with its name, and `mkdir` has nothing to do.

    Args:
        url: `scheme://bucket/key`.

    Attributes:
        scheme: Scheme of the URL.
        parts: The bucket, then the names in the key.

    Raises:
        UserError: The object store refuses or does not answer; every method may raise it.
    """

    def __init__(self, url: str) -> None:
        scheme, _, key = url.partition("://")
        self.scheme = scheme
        self.parts = tuple(part for part in key.split("/") if part)
        if self.scheme not in SCHEMES or not self.parts:
            raise ValueError(f"expected scheme://bucket/key, found {url!r}")

    def __str__(self) -> str:
        return f"{self.scheme}://{self._key}"

    def __repr__(self) -> str:
        return f"RemotePath({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RemotePath) and str(self) == str(other)

    def __lt__(self, other: "RemotePath") -> bool:
        return str(self) < str(other)

    def __hash__(self) -> int:
        return hash(str(self))

    def __truediv__(self, name: "str | pathlib.PurePath") -> "RemotePath":
        return RemotePath(f"{self}/{name}")

    @property
    def bucket(self) -> "RemotePath":
        """The bucket that holds this."""
        return RemotePath(f"{self.scheme}://{self.parts[0]}")

    @property
    def name(self) -> str:
        """The part behind the last slash."""
        return self.parts[-1]

    @property
    def stem(self) -> str:
        """The name without its ending."""
        return pathlib.PurePosixPath(self.name).stem

    @property
    def suffix(self) -> str:
        """The ending of the name, such as `.gz`."""
        return pathlib.PurePosixPath(self.name).suffix

    @property
    def parent(self) -> "RemotePath":
        """The prefix that holds this; the parent of a bucket is the bucket itself."""
        return RemotePath(f"{self.scheme}://{'/'.join(self.parts[:-1] or self.parts)}")

    def with_name(self, name: str) -> "RemotePath":
        """The path of the same parent with another name."""
        return self.parent / name

    def with_suffix(self, suffix: str) -> "RemotePath":
        """The path of the same parent and stem with another ending."""
        return self.with_name(pathlib.PurePosixPath(self.name).with_suffix(suffix).name)

    def exists(self) -> bool:
        """Whether there is an object or a prefix of this name."""
        return self._info().type is not fs.FileType.NotFound

    def is_file(self) -> bool:
        """Whether there is an object of this name."""
        return self._info().type is fs.FileType.File

    def is_dir(self) -> bool:
        """Whether objects begin with this name and a slash."""
        return self._info().type is fs.FileType.Directory

    def stat(self) -> FileStat:
        """Size of the object, and when it was written."""
        info = self._info()
        if info.type is not fs.FileType.File:
            raise FileNotFoundError(f"no object {self}")
        return FileStat(info.size, info.mtime_ns)

    def iterdir(self) -> Iterator["RemotePath"]:
        """Entries of this prefix, sorted by name."""
        with _explained(self) as remote:
            infos = remote.get_file_info(fs.FileSelector(self._key, allow_not_found=True))
        yield from sorted(self / info.base_name for info in infos)

    def glob(self, pattern: str) -> Iterator["RemotePath"]:
        """Entries of this prefix whose names match a pattern without slashes."""
        return (path for path in self.iterdir() if fnmatch.fnmatchcase(path.name, pattern))

    def mkdir(self, parents: bool = False, exist_ok: bool = False) -> None:
        """Does nothing."""

    def touch(self) -> None:
        """Creates an empty object."""
        self.write_bytes(b"")

    def unlink(self, missing_ok: bool = False) -> None:
        """Removes the object."""
        with contextlib.suppress(*[FileNotFoundError] * missing_ok), _explained(self) as remote:
            remote.delete_file(self._key)

    def open(self, mode: str = "rb") -> BinaryIO:
        """Opens the content: seekable, read in large pieces."""
        if mode != "rb":
            raise ValueError(f"{self}: only reading is possible; write with `create`")
        return io.BufferedReader(self.random_access(), _READ_BYTES)

    def random_access(self) -> pa.NativeFile:
        """Opens the content for Arrow."""
        with _explained(self) as remote:
            return remote.open_input_file(self._key)

    def read_bytes(self) -> bytes:
        """The whole content."""
        with self.random_access() as file, _explained(self):
            return file.read()

    def read_text(self, encoding: str = "utf-8") -> str:
        """The whole content as text."""
        return self.read_bytes().decode(encoding)

    def write_bytes(self, content: bytes) -> None:
        """Creates or replaces the object."""
        with _explained(self) as remote, self._new_object(remote) as file:
            file.write(content)

    def write_text(self, content: str, encoding: str = "utf-8") -> None:
        """Creates or replaces the object, with a text as its content."""
        self.write_bytes(content.encode(encoding))

    def upload(self, source: pathlib.Path) -> None:
        """Creates or replaces the object, with the content of a file."""
        # A stream becomes an object when it is closed, even by an exception: nothing but the object
        # store may fail while it is open.
        with (
            source.open("rb") as content,
            _explained(self) as remote,
            self._new_object(remote) as file,
        ):
            shutil.copyfileobj(content, file, _COPY_BYTES)

    def remove_tree(self) -> None:
        """Removes all objects below this prefix."""
        with contextlib.suppress(FileNotFoundError), _explained(self) as remote:
            remote.delete_dir(self._key)

    @property
    def region(self) -> str | None:
        """Region of an S3 bucket; None for other object stores."""
        with _explained(self) as remote:
            return getattr(remote, "region", None)

    @property
    def _key(self) -> str:
        return "/".join(self.parts)

    def _new_object(self, remote: fs.FileSystem) -> pa.NativeFile:
        # By default pyarrow would compress files named .gz once more.
        return remote.open_output_stream(self._key, compression=None)

    def _info(self) -> fs.FileInfo:
        with _explained(self) as remote:
            return remote.get_file_info(self._key)


@functools.cache
def _file_system(bucket: str) -> fs.FileSystem:
    endpoint = os.environ.get("AWS_ENDPOINT_URL")
    if endpoint and "://" not in endpoint:
        raise UserError(
            f"AWS_ENDPOINT_URL: expected an address with its scheme, found {endpoint}.",
            f"write http://{endpoint} or https://{endpoint}.",
        )
    return fs.FileSystem.from_uri(bucket)[0]


@contextlib.contextmanager
def _explained(remote: RemotePath) -> Iterator[Any]:
    """Yields the file system of a path; turns its failures into a `UserError`.

    `FileNotFoundError`, which does not mean a failure of the object store, is passed on.
    """
    try:
        yield _file_system(str(remote.bucket))
    except FileNotFoundError:
        raise
    except OSError as error:
        raise UserError(
            f"Expected access to {remote}, found: {error}.",
            "check the address, the credentials and, for servers other than Amazon's, "
            "AWS_ENDPOINT_URL.",
        ) from error
