"""Base class of the adapters of published logs."""

import abc
import dataclasses
from collections.abc import Iterator, Sequence
from typing import ClassVar

import numpy as np
import pyarrow as pa

from pipeline.datasets.item_history import ItemHistory
from pipeline.log.raw_batch import InputFile, RawBatch
from pipeline.log.values import as_number
from preprocessing.features.feature import DType
from preprocessing.features.history import Behaviours
from preprocessing.schema import Schema
from preprocessing.schema_inference import infer_schema

UNKNOWN = "unknown"
"""Value of an item feature that the published files do not give: the default of that feature."""


class Adapter(abc.ABC):
    """Turns raw rows of a published log into rows of a canonical one.

    Attributes:
        raw_columns: Columns that the adapter reads.
        header: Columns of the files, in order, if the files have no header.
        columns: Canonical columns that describe users, items and time.
        optional: Canonical columns that may be missing; `UNKNOWN` is their default.
        behaviour_column: Canonical column of the kind of event, if the log has several kinds.
        behaviours: Kinds of events that count as clicks in the paper that uses the log.
        describes_items: Whether separate files (--metadata) describe the items.
        item_columns: Columns of these files that the adapter reads, if they are tables.
    """

    raw_columns: ClassVar[tuple[str, ...]]
    header: ClassVar[tuple[str, ...] | None] = None
    columns: ClassVar[tuple[str, ...]]
    optional: ClassVar[tuple[str, ...]] = ()
    behaviour_column: ClassVar[str | None] = None
    behaviours: ClassVar[tuple[str, ...]] = ()
    describes_items: ClassVar[bool] = False
    item_columns: ClassVar[tuple[str, ...]] = ()

    def __init__(self, items: ItemHistory | None = None) -> None:
        """Takes the snapshots that `item_history.collect` read from the item files, if any."""
        self._items = items

    @classmethod
    def schema(cls, behaviours: Sequence[str] = ()) -> Schema:
        """The schema of the canonical log.

        Args:
            behaviours: Kinds of events that count instead of those of the paper.
        """
        schema = infer_schema(cls.columns)
        features = tuple(
            dataclasses.replace(f, default=UNKNOWN) if f.name in cls.optional else f
            for f in schema.features
        )
        history = schema.history
        if cls.behaviour_column is not None:
            values = tuple(behaviours) or cls.behaviours
            history = dataclasses.replace(
                history, behaviours=Behaviours(column=cls.behaviour_column, values=values)
            )
        return Schema(features, history)

    @classmethod
    def read_items(cls, files: Sequence[InputFile]) -> Iterator[RawBatch]:
        """Reads the files that describe the items.

        Yields:
            Batches for `pipeline.datasets.item_history.collect`.
        """
        raise NotImplementedError(f"{cls.__name__} has no item files")

    @abc.abstractmethod
    def adapt(self, batch: RawBatch) -> RawBatch:
        """Turns raw columns into canonical ones; may filter and reject rows.

        Args:
            batch: Rows with `raw_columns`.

        Returns:
            Rows with `columns` and `behaviour_column`.
        """

    def with_item_value(self, batch: RawBatch, column: str, times: np.ndarray) -> RawBatch:
        """Adds a column from the item files, null where they have no value.

        Args:
            batch: Rows with `item_id`.
            column: Name of the new column.
            times: int64, time of each row at which the value is looked up.
        """
        if self._items is None:
            raise ValueError(f"{type(self).__name__} needs its item files")
        return batch.with_columns({column: self._items.at(batch.columns["item_id"], times)})


def integers(column: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """A raw column as int64, 0 where it holds no integer; and whether it holds none, bool."""
    numbers, _ = as_number(column, DType.INT64)
    missing = np.asarray(numbers.is_null().to_numpy(zero_copy_only=False), bool)
    return numbers.fill_null(0).to_numpy(), missing
