"""The data set that a build stands on: its tails, its vocabularies, and what they are worth."""

import dataclasses
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.log.row_checks import FILE, LINE
from pipeline.requests import tails
from pipeline.requests.event_order import EARLIER
from pipeline.requests.tails import Tail
from preprocessing import data_dir
from preprocessing.data_dir import DataDir, sha256_file
from preprocessing.encoders import encoder_files
from preprocessing.encoders.fitted import FittedEncoder
from preprocessing.errors import UserError
from preprocessing.schema import Schema
from preprocessing.storage import files
from preprocessing.storage.files import AnyPath

_FIX = "build the base anew from its whole log, without --base."


@dataclasses.dataclass(frozen=True)
class Base:
    """A complete data set with tails, opened.

    Attributes:
        location: The directory.
        fingerprint: SHA-256 of its manifest.
        watermark: Latest time of its log; what is earlier than that is late.
        num_tails: Number of files with the events of users.
        names: Names of the files of its tails; there is none without rows.
        generation: How often the vocabularies were ranked anew since the first data set.
        numbers: Numbers that encoders learnt beside vocabularies, by feature.
        topics: Where builds so far have ended in the topics that they have read, by topic.
    """

    location: str
    fingerprint: str
    watermark: int
    num_tails: int
    names: frozenset[str]
    generation: int
    numbers: dict[str, dict[str, Any]]
    topics: dict[str, Any]

    @classmethod
    def open(cls, location: str) -> "Base":
        """Opens a data set and checks its tails.

        Raises:
            UserError: It is no complete data set, it keeps no tails, or they were changed.
        """
        data = DataDir.open(location, verify=False)
        kept = data.manifest.get("tails")
        if not kept or kept.get("none"):
            why = kept["none"] if kept else "an earlier version of this program built it"
            raise UserError(
                f"--base: expected a data set that keeps tails, found none in {location}: {why}.",
                _FIX,
            )
        verify(data)
        return cls(
            location,
            data.fingerprint,
            kept["watermark"],
            kept["num_files"],
            frozenset(kept["files"]),
            data.manifest.get("base", {}).get("generation", 0),
            data.stats["encoders"],
            data.manifest.get("topics", {}),
        )

    @property
    def path(self) -> AnyPath:
        """The directory."""
        return files.path(self.location, "--base")

    def file(self, name: str) -> AnyPath:
        """A file of its tails."""
        return self.path / data_dir.TAILS / name

    def tail(self, number: int) -> Tail:
        """The users of one number."""
        return Tail(self._table(tails.EVENTS, number), self._table(tails.OLDER, number))

    def events_of(self, number: int, users: pa.Array, like: pa.Schema) -> pa.Table | None:
        """The last events of some users as rows that come before every file of a log.

        Args:
            number: Number of their tail.
            users: Keys of users.
            like: Columns of the rows of the log, all others of which are left out.
        """
        events = self._table(tails.EVENTS, number)
        if events is None:
            return None
        events = events.filter(pc.is_in(events[events.column_names[0]], value_set=users))
        for name, places in (
            (FILE, np.full(events.num_rows, EARLIER)),
            (LINE, np.arange(events.num_rows)),
        ):
            events = events.append_column(name, pa.array(places).cast(like.field(name).type))
        return events

    def older_of(self, number: int, users: pa.Array) -> pa.Table | None:
        """Counts of the items of earlier events of some users, see `tails.Tail`."""
        older = self._table(tails.OLDER, number)
        if older is None:
            return None
        older = older.filter(pc.is_in(older[older.column_names[0]], value_set=users))
        return older if older.num_rows else None

    def _table(self, kind: str, number: int) -> pa.Table | None:
        name = tails.file_name(kind, number, self.num_tails)
        return tails.read(self.file(name)) if name in self.names else None

    def items(self) -> pa.Table:
        """Every item, see `tails.items_of_file`."""
        return tails.read(self.file(tails.ITEMS))

    def counts(self, name: str) -> pa.Table:
        """Values of a feature that training has counted, VALUE and COUNT."""
        return tails.read(self.file(f"{tails.COUNTS}/{name}.arrow"))

    def seen(self, name: str) -> pa.Table | None:
        """When each value of a feature was last seen, VALUE and TIME; None if it kept no times."""
        file = f"{tails.SEEN}/{name}.arrow"
        return tails.read(self.file(file)) if file in self.names else None

    def encoders(self, schema: Schema) -> dict[str, FittedEncoder]:
        """Its encoders by feature."""
        return {
            feature.name: encoder_files.load(
                feature, self.path / data_dir.VOCABULARIES, self.numbers.get(feature.name, {})
            )
            for feature in schema.encoded_features
        }


def verify(data: DataDir) -> None:
    """Compares the tails of a data set with the manifest.

    Raises:
        UserError: A file is missing or differs; the message names the first one.
    """
    for name, sha256 in data.manifest["tails"]["files"].items():
        path = data.path / data_dir.TAILS / name
        actual = sha256_file(path) if path.exists() else "no such file"
        if actual != sha256:
            raise UserError(
                f"Expected {path} with SHA-256 {sha256[:12]}, found {actual[:12]}: the tails are "
                "damaged or were changed.",
                _FIX,
            )
