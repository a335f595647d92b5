"""What the rows of a log are, and all that the stages of a build ask of that.

There are two kinds: rows that are positive events (`click_log`), and rows that are labelled
candidates (`impression_log`). A build chooses its kind once, from the schema.
"""

import abc
import collections
from collections.abc import Iterator, Mapping
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import numpy as np
import pyarrow as pa

from pipeline.arguments import BuildArguments
from pipeline.requests.by_bucket import Bucket
from pipeline.requests.encoding import ShardPiece
from pipeline.requests.event_order import Sorted
from pipeline.requests.events import Plan
from pipeline.requests.tails import Tail
from preprocessing.encoders.fitted import FittedEncoder
from preprocessing.errors import UserError
from preprocessing.features.feature import Feature
from preprocessing.schema import Schema

RowsT = TypeVar("RowsT", bound="Rows")
_RowsT_contra = TypeVar("_RowsT_contra", contravariant=True)


class Rows(Protocol):
    """The rows of one partition of users, filtered, with the splits of the requests among them."""

    @property
    def timestamps(self) -> np.ndarray:
        """Time of everything that can be a request, int64."""

    @property
    def split(self) -> np.ndarray:
        """Split of everything that can be a request, int8, or NONE."""

    @property
    def is_new(self) -> np.ndarray:
        """Whether each row may be or belong to a request, bool; others join histories only."""

    def column(self, name: str) -> pa.Array:
        """One column of the rows as one array."""


class Encoder(Protocol[_RowsT_contra]):
    """Encoder of requests with what all partitions share: vocabularies, perhaps catalogues."""

    def encode(
        self, rows: _RowsT_contra, counters: collections.Counter[str], /
    ) -> Iterator[list[ShardPiece]]:
        """Yields the requests of a partition in blocks, and counts them."""


class Counts(Protocol):
    """Counts of what the requests of one partition hold."""

    def values(self) -> Iterator[tuple[str, pa.Table]]:
        """Yields what `partition_counts.count_keys` does."""

    def periods(self) -> pa.Table:
        """Rows by period and first use; see `partition_counts.merge_periods`."""


class TrainingCounts(NamedTuple):
    """Counts over the training data of a partition.

    Attributes:
        values: Counts of values by feature, each row of the log once.
        items: Rows of `counting.count_items`.
        counters: Rows used and filtered, users, requests, and the most events of a user who needs
            negatives (`longest/<events>`).
    """

    values: dict[str, pa.Table]
    items: pa.Table
    counters: dict[str, int]


class LogKind(abc.ABC, Generic[RowsT]):
    """One kind of log: its order, its rows, and what becomes of them.

    Attributes:
        time_column: Column of the rows with the times at which protocols by time cut.

    Args:
        schema: Schema of the log.
    """

    time_column: str

    def __init__(self, schema: Schema) -> None:
        self._schema = schema

    @property
    @abc.abstractmethod
    def deal_key(self) -> str:
        """Column by which rows are dealt out as they are read.

        If it is not the user key, rows that share a value are checked together, and then dealt out
        by user.
        """

    @abc.abstractmethod
    def settled(self, arguments: BuildArguments) -> BuildArguments:
        """The arguments as they hold for such a log.

        Raises:
            UserError: Such a log cannot have them.
        """

    @abc.abstractmethod
    def most_events(self, plan: Plan) -> int | None:
        """Number of most recent rows of a user beyond which no request can depend on older ones.

        None if all are needed to tell: older rows are then part of what is sorted.
        """

    @abc.abstractmethod
    def sort(self, rows: pa.Table, deduplicate: bool, older: pa.Table | None = None) -> Sorted:
        """The rows of one partition of users in order.

        Args:
            rows: The rows, in any order, beside the last events of their users in a base.
            deduplicate: Whether rows that say the same of the same moment are one.
            older: Counts of the rows of these users that are older than all of them, if any.
        """

    @abc.abstractmethod
    def load(self, plan: Plan, partition: int) -> RowsT:
        """Reads a partition, filters it and assigns it to splits."""

    @abc.abstractmethod
    def count_training(self, plan: Plan, partition: int) -> TrainingCounts:
        """Counts values and items of the training data of a partition."""

    @abc.abstractmethod
    def training_values(self, plan: Plan, feature: Feature, bucket: Bucket = None) -> pa.Table:
        """Values that training requests hold and how often, counting each row of the log once.

        Args:
            plan: Plan of a build that has merged what `count_training` counts.
            feature: A feature with an encoder. The values of a hash encoder are not counted.
            bucket: Number of the bucket whose values are wanted; None for all values.
        """

    @abc.abstractmethod
    def new_values(self, plan: Plan, feature: Feature) -> pa.Table:
        """Those of `training_values` that the base has not counted, if there is a base."""

    @abc.abstractmethod
    def tail(self, plan: Plan, partition: int) -> Tail:
        """What is kept of the users of a partition for a later build."""

    @abc.abstractmethod
    def nothing_to_train_on(
        self, arguments: BuildArguments, counters: Mapping[str, int], filtered: str
    ) -> UserError:
        """The error of a build without any training request.

        Args:
            arguments: Arguments of the build.
            counters: Merged counters of `count_training`.
            filtered: The rows filtered, for people.
        """

    @abc.abstractmethod
    def encoder(self, plan: Plan, encoders: Mapping[str, FittedEncoder]) -> Encoder[RowsT]:
        """The encoder of requests.

        Args:
            plan: Plan of a build that has written its catalogues.
            encoders: Encoder of each feature.
        """

    @abc.abstractmethod
    def counts(self, rows: RowsT) -> Counts:
        """The counts for statistics of the requests among some rows."""

    @abc.abstractmethod
    def derived_counts(self, plan: Plan, bucket: Bucket) -> Iterator[tuple[str, pa.Table]]:
        """Yields names and counts of what follows from other counts, see `counted_columns`.

        Args:
            plan: Plan of a build that has merged the values of `counts`.
            bucket: Number of a bucket of items from which they follow; None for all items.
        """


AnyLog = LogKind[Any]
"""A kind of log to code that only hands its rows on."""
