"""Counts the lines of the log once more, by other means than the readers of the build.

Python's csv module counts the lines of CSV; JSON has a row per line that is not blank; the metadata
of Parquet has the count. A file that is gone or has changed since the build is reported as not
counted. So is a topic; it cannot have given more rows than it has offsets.
"""

import csv
import io
import sys
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import pyarrow.parquet

from pipeline.datasets import ADAPTERS
from pipeline.log import file_accounts
from pipeline.log.csv_dialect import Dialect
from pipeline.log.input_files import format_of
from pipeline.log.text_files import open_text
from preprocessing.errors import UserError, shown
from preprocessing.storage import files


class FileCount(NamedTuple):
    """Result of an independent count of a file.

    Attributes:
        what: Description for people.
        is_bad: Whether the count contradicts the manifest.
    """

    what: str
    is_bad: bool = False


class _Lines(NamedTuple):
    """Numbers of lines of a file that hold rows or parts of them, its header, or nothing."""

    rows: int
    header: int
    blank: int


def count_files(manifest: Mapping[str, Any]) -> Iterator[FileCount]:
    """Compares each file of the log with its account in the manifest.

    Args:
        manifest: Manifest of the data set.
    """
    arguments = manifest["arguments"]
    dialect = Dialect.from_flags(arguments["csv_delimiter"], arguments["csv_escape"])
    dataset = arguments["dataset"]
    has_header = dataset is None or ADAPTERS[dataset].header is None
    for account in manifest["inputs"]:
        name = file_accounts.title(account)
        if "begin" in account:
            yield _count_offsets(name, account)
            continue
        path = files.path(account["path"])
        if not path.is_file():
            yield FileCount(f"{name}: {account['read']:,} rows read, not counted: it is gone")
            continue
        size = path.stat().st_size
        if size != account["bytes"]:
            yield FileCount(
                f"{name}: {account['read']:,} rows read, not counted: it has changed since "
                f"({account['bytes']:,} bytes then, {size:,} now)"
            )
            continue
        try:
            lines = _count(account["path"], dialect, has_header)
        except (UserError, csv.Error, OSError, EOFError, pyarrow.ArrowInvalid) as error:
            yield FileCount(f"{name}: not counted: {shown(error)}", is_bad=account["read"] > 0)
            continue
        read, continued = account["read"], account["continued"]
        yield FileCount(
            f"{name}: {lines.rows:,} lines of rows counted, {read:,} rows and {continued:,} lines "
            f"that continue a value read (beside {lines.header} of a header, {lines.blank:,} "
            "blank)",
            is_bad=lines.rows != read + continued,
        )


def _count_offsets(name: str, account: Mapping[str, Any]) -> FileCount:
    """Compares rows with offsets: an offset has one message, or none."""
    num_offsets = account["end"] - account["begin"]
    return FileCount(
        f"{name}: {account['read']:,} rows read of {num_offsets:,} offsets, not counted: it is a "
        "topic",
        is_bad=account["read"] > num_offsets,
    )


def _count(path: str, dialect: Dialect, has_header: bool) -> _Lines:
    file_format = format_of(path)
    if file_format == "parquet":
        size = files.path(path).stat().st_size
        with files.random_access(files.path(path)) as file:
            rows = pyarrow.parquet.read_metadata(file).num_rows if size else 0
        return _Lines(rows, 0, 0)
    with open_text(path) as (content, _):
        if file_format == "jsonl":
            total = blank = 0
            for line in content:
                total, blank = total + 1, blank + (not line.strip())
            return _Lines(total - blank, 0, blank)
        return _count_csv(io.TextIOWrapper(content, "latin-1", newline=""), dialect, has_header)


def _count_csv(text: io.TextIOWrapper, dialect: Dialect, has_header: bool) -> _Lines:
    limit = csv.field_size_limit(sys.maxsize)
    header = blank = 0
    try:
        reader = csv.reader(text, delimiter=dialect.delimiter, escapechar=dialect.escape)
        for record in reader:
            if not record:
                blank += 1
            elif has_header and not header:
                header = reader.line_num - blank
        return _Lines(reader.line_num - header - blank, header, blank)
    finally:
        csv.field_size_limit(limit)
        text.detach()
