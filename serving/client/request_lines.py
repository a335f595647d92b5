"""Files of requests: one JSON document per line, empty lines allowed."""

import json
import pathlib
from collections.abc import Iterator
from typing import IO, Any

from preprocessing.errors import UserError


def read_requests(path: str | pathlib.Path) -> Iterator[tuple[int, str, Any]]:
    """Yields the line number, name in error messages and parsed JSON of each request.

    Raises:
        UserError: The file does not exist, or a line is not JSON.
    """
    with _open(path) as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            where = f"{path}:{number}"
            try:
                request = json.loads(line)  # not orjson: a missing number may be NaN
            except (ValueError, RecursionError) as error:
                raise UserError(f"{where}: expected JSON, found a syntax error: {error}.") from None
            yield number, where, request


def count_requests(path: str | pathlib.Path) -> int:
    """The number of lines that are not empty.

    Raises:
        UserError: The file does not exist.
    """
    with _open(path) as lines:
        return sum(bool(line.strip()) for line in lines)


def _open(path: str | pathlib.Path) -> IO[bytes]:
    try:
        return pathlib.Path(path).open("rb")
    except OSError as error:
        raise UserError(
            f"Expected a file of requests, found none at {path}: {error.strerror}.",
            "check --requests.",
        ) from None
