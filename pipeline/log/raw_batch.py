"""Rows as files have them: readers make them, adapters change them, `row_checks` judges them."""

import collections
import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from pipeline.log.csv_dialect import Dialect
from pipeline.log.topics.topic import Messages
from preprocessing.errors import shown

_PATH = 4096
_VALUE = 200


class Rejection(NamedTuple):
    """A bad row: `line` is its line, `excerpt` the beginning of its raw content."""

    file: str
    line: int
    reason: str
    excerpt: str

    @classmethod
    def of(cls, file: str, line: int, reason: str, raw: object) -> "Rejection":
        """A rejection with the raw content cut short, all of it printable."""
        return cls(shown(file, _PATH), line, shown(reason), shown(raw))


@dataclasses.dataclass(frozen=True)
class InputFile:
    """One file of the log, or what is read of one partition of a topic.

    Attributes:
        path: Path of the file; URL of the partition.
        index: Place of the file among those of the log, in the order of rows.
        format: `csv`, `jsonl` or `parquet`.
        size: Size in bytes, as stored; of messages an estimate.
        dialect: Dialect of the file, if it is CSV.
        messages: What is read of the partition; None for a file. The first of its offsets is line
            1, and each offset a line, whether or not it has a message.
    """

    path: str
    index: int
    format: str
    size: int
    dialect: Dialect = Dialect()
    messages: Messages | None = None

    @property
    def identity(self) -> dict[str, str | int]:
        """What the manifest tells of it: path and size, or partition and offsets."""
        if self.messages is None:
            return {"path": self.path, "bytes": self.size}
        return {"path": self.path, "begin": self.messages.begin, "end": self.messages.end}

    def record(self, rejection: Rejection) -> dict[str, Any]:
        """What is kept of a bad row of it: where it stands, why it is bad, and how it begins."""
        record = rejection._asdict()
        if self.messages is None:
            return record
        del record["file"], record["line"]
        return {
            "topic": self.messages.topic.name,
            "partition": self.messages.partition,
            "offset": self.messages.begin + rejection.line - 1,
            **record,
        }


@dataclasses.dataclass(frozen=True)
class RawBatch:
    """Rows as the file has them.

    Attributes:
        file: File that the rows come from.
        columns: Arrow array per column, all of one length.
        lines: int64, line with which each row begins, from 1. Parquet: number of the row.
        rejections: Rejected lines between the rows, such as those that are no records.
        continued: Number of lines that rows take beyond their first (line breaks in quoted values).
        blocks_done: Number of blocks of the range that are read by now, see `readers.num_blocks`.
        filtered: Number of rows taken out of the batch, by rule.
    """

    file: InputFile
    columns: dict[str, pa.Array]
    lines: np.ndarray
    rejections: list[Rejection]
    continued: int = 0
    blocks_done: int = 1
    filtered: Mapping[str, int] = dataclasses.field(default_factory=dict)

    def without(self, rows: np.ndarray, rule: str) -> "RawBatch":
        """The batch without some rows, which are counted as filtered.

        Args:
            rows: Rows to take out, bool per row.
            rule: Rule that takes them out.
        """
        if not rows.any():
            return self
        filtered = collections.Counter(self.filtered)
        filtered[rule] += int(rows.sum())
        return dataclasses.replace(self._keep(~rows), filtered=filtered)

    def rejecting(self, rows: np.ndarray, reason: str) -> "RawBatch":
        """The batch without some rows, which are bad.

        Args:
            rows: Rows to take out, bool per row.
            reason: Reason why they are bad.
        """
        if not rows.any():
            return self
        bad = [self.rejection(row, reason) for row in np.flatnonzero(rows).tolist()]
        return dataclasses.replace(self._keep(~rows), rejections=self.rejections + bad)

    def rejection(self, row: int, reason: str) -> Rejection:
        """The rejection of a bad row."""
        raw = {name: _begin(_shown(column[row : row + 1])) for name, column in self.columns.items()}
        return Rejection.of(self.file.path, int(self.lines[row]), reason, raw)

    def renamed(self, names: Mapping[str, str]) -> "RawBatch":
        """The batch with other names for some columns."""
        columns = {names.get(name, name): column for name, column in self.columns.items()}
        return dataclasses.replace(self, columns=columns)

    def with_columns(self, columns: Mapping[str, pa.Array]) -> "RawBatch":
        """The batch with more columns, or other ones of the same name."""
        return dataclasses.replace(self, columns={**self.columns, **columns})

    def _keep(self, rows: np.ndarray) -> "RawBatch":
        mask = pa.array(rows)
        columns = {name: column.filter(mask) for name, column in self.columns.items()}
        return dataclasses.replace(self, columns=columns, lines=self.lines[rows])


def _shown(value: pa.Array) -> object:
    """The value of a column of one row; times as texts, as not all of them fit Python's types."""
    return (value.cast(pa.string()) if pa.types.is_temporal(value.type) else value)[0].as_py()


def _begin(value: object) -> object:
    """A value; a long text is cut short."""
    return value[:_VALUE] if isinstance(value, str | bytes) else value
