"""Accounts of each file of the log: the outcome of its rows, and its lines that are no rows."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pipeline.log.raw_batch import InputFile, RawBatch
from pipeline.log.row_checks import Validated
from preprocessing.errors import shown

_SHOWN_FILES = 3


def counter(index: int, what: str) -> str:
    """Name of a counter of a file."""
    return f"file/{index}/{what}"


def of_batch(batch: RawBatch, result: Validated) -> dict[str, int]:
    """Counters of a batch that was read.

    Args:
        batch: The rows as the file has them.
        result: Outcome of the checks of these rows.
    """
    index = batch.file.index
    return {
        counter(index, "read"): result.read,
        counter(index, "filtered"): sum(result.filtered.values()),
        counter(index, "rejected"): len(result.rejections),
        counter(index, "continued"): batch.continued,
    }


def by_file(what: str, files: np.ndarray) -> dict[str, int]:
    """Counters of rows.

    Args:
        what: Outcome that is counted, such as `used`.
        files: Index of the file of each row, int [rows]; below 0 if no file of the log has it.
    """
    counts = np.bincount(files[files >= 0])
    return {counter(index, what): int(counts[index]) for index in np.flatnonzero(counts).tolist()}


def accounts(log: Sequence[InputFile], counters: Mapping[str, int]) -> list[dict[str, Any]]:
    """The account of each file, in order: rows read are used, filtered or rejected.

    `dealt` rows have reached the partitions by user; rows that no request uses there are filtered.

    Args:
        log: The files.
        counters: Counters of all stages.

    Raises:
        AssertionError: The rows of a file do not add up, which is a bug.
    """
    result = []
    for file in log:
        account = {
            outcome: counters.get(counter(file.index, outcome), 0)
            for outcome in ("read", "used", "filtered", "rejected", "continued", "dealt")
        }
        if account["read"] != account["dealt"] + account["filtered"] + account["rejected"]:
            raise AssertionError(f"rows of {file.path} are not conserved: {account}")
        account["filtered"] += account.pop("dealt") - account["used"]
        result.append({**file.identity, **account})
    return result


def remarks(inputs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Remarks on the files for people, one line each.

    Args:
        inputs: Accounts as returned by `accounts`.
    """
    empty = [file for file in inputs if not file["read"]]
    continued = [file for file in inputs if file["continued"]]
    lines = []
    if empty:
        lines.append(f"{len(empty)} of {len(inputs)} files have no rows: {_named(empty)}")
    if continued:
        total = sum(file["continued"] for file in continued)
        lines.append(
            f"{total:,} lines are no rows but continue a quoted value: {_named(continued)} (if "
            "they should be rows, a quotation mark is not closed, or needs --csv_escape)"
        )
    return lines


def title(file: Mapping[str, Any]) -> str:
    """The name of a file for people; of a partition with the offsets that were read.

    Args:
        file: Its account, as returned by `accounts`.
    """
    name = shown(file["path"])
    return f"{name}, offsets {file['begin']} to {file['end']}" if "begin" in file else name


def _named(files: Sequence[Mapping[str, Any]]) -> str:
    names = ", ".join(shown(file["path"]) for file in files[:_SHOWN_FILES])
    return f"{names}{', ...' if len(files) > _SHOWN_FILES else ''}"
