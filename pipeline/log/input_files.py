"""The files that --input and --metadata name."""

import os
from collections.abc import Iterator

from pipeline.log.csv_dialect import Dialect
from pipeline.log.raw_batch import InputFile
from preprocessing.errors import UserError
from preprocessing.storage import files
from preprocessing.storage.files import AnyPath

_SUFFIXES = {
    ".csv": "csv",
    ".csv.gz": "csv",
    ".tsv": "csv",
    ".tsv.gz": "csv",
    ".jsonl": "jsonl",
    ".jsonl.gz": "jsonl",
    ".json": "jsonl",
    ".json.gz": "jsonl",
    ".parquet": "parquet",
}


def list_inputs(
    patterns: str, flag: str = "--input", dialect: Dialect | None = None
) -> list[InputFile]:
    """The files that a flag names, in order; those of a pattern or directory are sorted by name.

    Files of a directory or pattern whose names begin with `_` or `.` are left out: Spark and Hadoop
    give such names to files that are no data, such as `_SUCCESS`.

    Args:
        patterns: Paths, directories and glob patterns, separated by commas.
        flag: Name of the flag, for error messages.
        dialect: Dialect of CSV files, if not the default one.

    Raises:
        UserError: A file is missing, of unknown format or named twice; a pattern matches nothing.
    """
    paths: list[str] = []
    for pattern in filter(None, (part.strip() for part in patterns.split(","))):
        matches = list(_matches(pattern, flag))
        if not matches:
            raise UserError(
                f"{flag}: expected files that match {pattern!r}, found none.", "check the pattern."
            )
        paths += map(str, matches)
    if not paths:
        raise UserError(f"{flag}: expected at least one file, found none.", f"{flag}=log.csv")
    seen_paths: set[str] = set()
    for path in paths:
        if os.path.normpath(path) in seen_paths:
            raise UserError(f"{flag}: expected every file once, found {path} more than once.")
        seen_paths.add(os.path.normpath(path))
    return [
        _input_file(path, index, flag, dialect or Dialect()) for index, path in enumerate(paths)
    ]


def format_of(path: str) -> str | None:
    """The format that a file name implies by its ending; None if it implies none."""
    return next(
        (file_format for suffix, file_format in _SUFFIXES.items() if path.lower().endswith(suffix)),
        None,
    )


def _matches(pattern: str, flag: str) -> Iterator[AnyPath]:
    """The files of a pattern."""
    matches = files.find(pattern, flag)
    for match in matches:
        is_named = len(matches) == 1 and str(match) == str(files.path(pattern, flag))
        if match.is_dir():
            yield from _below(match, flag)
        elif is_named or not match.name.startswith(("_", ".")):
            yield match


def _below(directory: AnyPath, flag: str) -> Iterator[AnyPath]:
    """The files of a directory."""
    for child in files.children(directory):
        if child.name.startswith(("_", ".")):
            continue
        if child.is_dir():
            raise UserError(
                f"{flag}: expected files in the directory {directory}, found the directory "
                f"{child.name} in it.",
                "name the files by a pattern; names of directories (such as day=1) are not read.",
            )
        yield child


def _input_file(path: str, index: int, flag: str, dialect: Dialect) -> InputFile:
    name = files.path(path, flag)
    if not name.is_file():
        raise UserError(
            f"{flag}: expected a file at {path}, found nothing.",
            "give paths, directories or quoted glob patterns, separated by commas.",
        )
    file_format = format_of(path)
    if file_format is None:
        raise UserError(
            f"{flag}: expected a file name that ends in {', '.join(_SUFFIXES)}, found {path}.",
            "convert or rename the file.",
        )
    return InputFile(path, index, file_format, name.stat().st_size, dialect)
