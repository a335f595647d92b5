"""What the audit asks of a log's kind: promises whose proof depends on what the rows are."""

import abc
from collections.abc import Iterator
from typing import Any

from pipeline.auditing.requests import Requests, Verdict
from preprocessing.data_dir import DataDir
from preprocessing.encoders.fitted import FittedEncoder


class LogChecks(abc.ABC):
    """Checks one batch after the other, then all requests together.

    Attributes:
        identifies_events: Whether requests tell which event of its user each of their events is,
            so that every event can be counted once.
    """

    identifies_events: bool

    @classmethod
    @abc.abstractmethod
    def of(cls, data: DataDir) -> "LogChecks":
        """The checks of a data set of this kind."""

    @abc.abstractmethod
    def is_sampled(self, key: str) -> bool:
        """Whether the values under a key of the examples are drawn, except for the positive's."""

    @abc.abstractmethod
    def alone(self, batch: Requests) -> Iterator[Verdict]:
        """Yields the verdicts that need one request only."""

    @abc.abstractmethod
    def keep(self, batch: Requests, split: int) -> None:
        """Keeps what the verdicts of `together` need."""

    @abc.abstractmethod
    def together(self) -> Iterator[Verdict]:
        """Yields the verdicts that need several requests."""

    @abc.abstractmethod
    def remarks(self) -> list[str]:
        """What cannot be proved of the data set, one line each."""


def argument(data: DataDir, name: str) -> Any:
    """An argument of the build."""
    return data.manifest["arguments"][name]


def is_part(data: DataDir) -> bool:
    """Whether its requests are those of a part of a log: of a day, or from a time on."""
    return "base" in data.manifest or "train_from" in data.manifest["arguments"]


def has_given_encoders(data: DataDir) -> bool:
    """Whether its encoders learnt from more than its training requests."""
    return "base" in data.manifest or "vocabularies" in data.manifest["arguments"]


def train_prefixes(data: DataDir) -> str | None:
    """The argument `train_prefixes` of a build for `leave_last_out`, else None."""
    is_last_out = argument(data, "protocol") == "leave_last_out"
    return argument(data, "train_prefixes") if is_last_out else None


def first_known(encoder: FittedEncoder) -> int:
    """The lowest id that stands for a single value; lower ids may be shared by values."""
    return encoder.num_oov + 1 if encoder.num_oov else encoder.cardinality
