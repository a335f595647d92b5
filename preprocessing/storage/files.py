"""Files of this machine and of object stores behind one interface.

`path` turns a location that a user wrote into a `pathlib.Path` or a `RemotePath`, which has the
part of its interface that logs and data sets need; code that takes an `AnyPath` works with both.

Everything is written through `create`: a new file appears complete or not at all. On this machine
it gets a temporary name and is renamed; an object store makes an object visible when its upload
ends, so there is nothing to rename.
"""

import contextlib
import glob
import os
import pathlib
import re
import shutil
import tempfile
import uuid
from collections.abc import Iterator

import pyarrow as pa

from preprocessing.errors import UserError
from preprocessing.storage.remote_path import SCHEMES, RemotePath

AnyPath = pathlib.Path | RemotePath

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")


def path(location: str | AnyPath, flag: str = "path") -> AnyPath:
    """The path at a location that a user wrote.

    Args:
        location: A path of this machine, s3://bucket/key or gs://bucket/key.
        flag: Flag by which the user gave it, for error messages.

    Raises:
        UserError: A URL of another kind.
    """
    if isinstance(location, RemotePath):
        return location
    if _SCHEME.match(str(location)) is None:
        return pathlib.Path(location)
    return _remote_path(str(location), flag)


def _remote_path(url: str, flag: str) -> RemotePath:
    if re.match(rf"({'|'.join(SCHEMES)})://[^/]", url) is None:
        raise UserError(
            f"{flag}: expected a path, s3://bucket/key or gs://bucket/key, found {url}.",
            "mount other file systems, or copy the files.",
        )
    return RemotePath(url)


def require_local(location: str | AnyPath, flag: str) -> None:
    """Raises `UserError` on a URL such as s3://bucket/run.

    Args:
        location: Location that the user gave.
        flag: Flag by which the user gave it, for error messages.
    """
    if _SCHEME.match(str(location)):
        raise UserError(
            f"{flag}: expected a path of this machine, found {location}.",
            "choose a local one, or mount it; only logs and data sets may be on object stores.",
        )


def require_file(path: str, flag: str) -> None:
    """Raises `UserError` unless there is a file of this machine at the path that a flag names."""
    if not pathlib.Path(path).is_file():
        raise UserError(f"{flag}: expected a file, found none at {path}.", "check the path.")


def find(pattern: str, flag: str) -> list[AnyPath]:
    """The paths that match a glob pattern, sorted; `*` and `?` match within one name.

    Args:
        pattern: A path or URL, perhaps with `*`, `?` or `[...]`. Without them it is returned
            unchanged, whether or not it exists; with them, only if a file has that very name.
        flag: Flag by which the user gave it, for error messages.

    Raises:
        UserError: The pattern is a URL of another kind, or it is the name of one file and matches
            others.
    """
    whole = path(pattern, flag)
    if not glob.has_magic(pattern):
        return [whole]
    matches = _matches(whole)
    if not whole.exists():
        return matches
    if other_matches := [match for match in matches if match != whole]:
        raise UserError(
            f"{flag}: expected a name or a pattern, found {pattern!r} to be both: there is a file "
            f"of that name, and {other_matches[0]} matches it.",
            "put what shall stand for itself into brackets: [[], [*], [?].",
        )
    return [whole]


def _matches(whole: AnyPath) -> list[AnyPath]:
    if isinstance(whole, pathlib.Path):
        return [pathlib.Path(name) for name in sorted(glob.glob(str(whole)))]
    paths = [whole.bucket]
    for part in whole.parts[1:]:
        if glob.has_magic(part):
            below = (child for prefix in paths for child in prefix.glob(part))
            paths = [child for child in below if not child.name.startswith(".")]
        else:
            paths = [prefix / part for prefix in paths]
    return [match for match in paths if match.exists()]


def children(directory: AnyPath, pattern: str = "*") -> list[AnyPath]:
    """Entries of a directory whose names match a pattern, sorted by name."""
    return sorted(directory.glob(pattern), key=lambda child: child.name)


def absolute(location: str, base: pathlib.Path) -> str:
    """A path relative to a directory as an absolute one; a URL is returned unchanged."""
    return location if _SCHEME.match(location) else str((base / location).resolve())


def relative(location: str, base: pathlib.Path) -> str:
    """A path relative to a directory; a URL is returned unchanged."""
    return location if _SCHEME.match(location) else os.path.relpath(location, base)


@contextlib.contextmanager
def create(target: AnyPath) -> Iterator[pa.NativeFile]:
    """Opens a new file, visible under its name only once it is complete; replaces an older one.

    Args:
        target: Path of the file; its directory is created if needed.

    Yields:
        A binary file that is open for writing, for Arrow and for `write(bytes)`.
    """
    name = f".{target.name}.{uuid.uuid4().hex}.tmp"
    if isinstance(target, RemotePath):
        temporary = pathlib.Path(tempfile.gettempdir(), name)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(name)
    try:
        with pa.OSFile(str(temporary), "wb") as file:
            yield file
        if isinstance(target, RemotePath):
            target.upload(temporary)
        else:
            os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(target: AnyPath, content: bytes) -> None:
    """Writes a file that is complete whenever it is visible; see `create`."""
    if isinstance(target, RemotePath):
        target.write_bytes(content)
    else:
        with create(target) as file:
            file.write(content)


def random_access(source: AnyPath) -> pa.NativeFile:
    """Opens a file to read with Arrow: memory-mapped, or in ranges from an object store."""
    if isinstance(source, RemotePath):
        return source.random_access()
    return pa.memory_map(str(source))


def remove_tree(directory: AnyPath) -> None:
    """Removes a directory with its content, if it exists."""
    if isinstance(directory, RemotePath):
        directory.remove_tree()
    else:
        shutil.rmtree(directory, ignore_errors=True)
