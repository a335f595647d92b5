"""What a data set rests on beside its own requests: the tails of its base, and those of its own.

Requests of a day show a part of each user only. The rest is in the tails of the base: what its
users did last, and which items they ever touched. When the items of a log first appeared is in the
tails of the data set itself, if its requests begin in the midst of a log.

Shape suffixes: E events that requests hold, T events of tails, R requests.
"""

import dataclasses
from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from pipeline.auditing.requests import Verdict
from pipeline.log.row_checks import TIME
from pipeline.requests import tails
from pipeline.requests.base import Base
from pipeline.requests.counting import COUNT, FIRST_TIME
from preprocessing import data_dir
from preprocessing.data_dir import DataDir
from preprocessing.errors import UserError
from preprocessing.values.farmhash import fingerprint64


@dataclasses.dataclass(frozen=True)
class Earlier:
    """The events that a base keeps.

    Attributes:
        watermark: Latest time of the base's log.
        num_late: Rows of the log that are earlier than that.
        user_T: Fingerprint of the user of each kept event, int64, in order of users.
        index_T: Place of each kept event among the events of its user.
        item_T: Id of its item.
        time_T: Its time.
        user_older: Fingerprint of the user of each pair of user and item before these, int64.
        item_older: Id of its item.
    """

    watermark: int
    num_late: int
    user_T: np.ndarray
    index_T: np.ndarray
    item_T: np.ndarray
    time_T: np.ndarray
    user_older: np.ndarray
    item_older: np.ndarray

    @classmethod
    def of(cls, data: DataDir) -> "Earlier | str | None":
        """The kept events of the base of a data set; why they cannot be read; None without one."""
        record = data.manifest.get("base")
        if record is None:
            return None
        try:
            base = Base.open(record["path"])
        except UserError as error:
            return str(error)
        if base.fingerprint != record["sha256"]:
            return f"another data set is in {record['path']} now"
        user, item = data.schema.user_key.name, data.schema.item_key.name
        encode = data.encoders[item].encode
        events, older = [], []
        for number in range(base.num_tails):
            tail = base.tail(number)
            if tail is None:
                continue
            counts = np.zeros((3, 0), np.int64)
            if tail.older is not None:
                pairs = (_fingerprints(tail.older[user]), encode(tail.older[item]))
                counts = np.stack([*pairs, tail.older[COUNT].to_numpy()])
            user_T = _fingerprints(tail.events[user])
            index_T = _places(user_T) + _sums(counts, user_T)
            events.append(
                np.stack([user_T, index_T, encode(tail.events[item]), tail.events[TIME].to_numpy()])
            )
            older.append(counts[:2])
        nothing = np.zeros((0,), np.int64)
        kept = np.hstack(events) if events else np.tile(nothing, (4, 1))
        pairs_before = np.hstack(older) if older else np.tile(nothing, (2, 1))
        return cls(base.watermark, record["late"], *kept, *pairs_before)

    def verdicts(
        self, events: np.ndarray, drawn: np.ndarray, first_item: int, num_requests: int
    ) -> Iterator[Verdict]:
        """Yields the verdicts on the requests of a data set.

        Args:
            events: Rows: user, index, item, time and first request of each event that requests
                hold, sorted by user and index.
            drawn: Rows: user, item and request of each negative.
            first_item: The lowest id that stands for one item.
            num_requests: Number of requests.
        """
        user_E, index_E, item_E, time_E, request_E = events
        is_early_E = time_E < self.watermark
        codes_E, codes_T = _codes(np.stack([user_E, item_E, time_E]), self._triples)
        extra_E = _occurrence(codes_E) >= np.bincount(codes_T, minlength=codes_E.max() + 1)[codes_E]
        extra_E &= is_early_E
        if int(extra_E.sum()) > self.num_late:
            bad_R = np.bincount(request_E[extra_E], minlength=num_requests)
            yield Verdict("base", bad_R, "its history holds an event that the base does not keep")
        bad_T = self._missing(user_E, time_E, codes_E, codes_T)
        if bad_T.any():
            is_of_bad_user_E = np.isin(user_E, self.user_T[bad_T])
            bad_R = np.bincount(request_E[is_of_bad_user_E], minlength=num_requests) > 0
            yield Verdict("base", bad_R, "its history lacks an event that the base keeps")
        if not self.num_late:
            places_E, places_T = _codes(
                np.stack([user_E, index_E]), np.stack([self.user_T, self.index_T])
            )
            value_of_place = np.full(max(places_E.max(), places_T.max(initial=-1)) + 1, -1)
            value_of_place[places_T] = codes_T
            expected_E = value_of_place[places_E]
            is_other_E = (expected_E >= 0) & (expected_E != codes_E)
            bad_R = np.bincount(request_E[is_other_E], minlength=num_requests) > 0
            yield Verdict("base", bad_R, "its index is not that of the base's events and its own")
        drawn_user, drawn_item, request = drawn
        own = np.hstack(
            [
                np.stack([self.user_T, self.item_T]),
                np.stack([self.user_older, self.item_older]),
            ]
        )
        drawn_codes, own_codes = _codes(np.stack([drawn_user, drawn_item]), own)
        is_own = np.isin(drawn_codes, own_codes) & (drawn_item >= first_item)
        bad_R = np.bincount(request[is_own], minlength=num_requests) > 0
        yield Verdict("negatives", bad_R, "a negative is an item that its user has in the base")

    @property
    def _triples(self) -> np.ndarray:
        return np.stack([self.user_T, self.item_T, self.time_T])

    def _missing(
        self, user_E: np.ndarray, time_E: np.ndarray, codes_E: np.ndarray, codes_T: np.ndarray
    ) -> np.ndarray:
        """Kept events that no request of their user holds, though one holds an earlier event."""
        users, first = np.unique(user_E, return_index=True)
        earliest_U = np.minimum.reduceat(time_E, first)
        place_T = np.minimum(np.searchsorted(users, self.user_T), len(users) - 1)
        is_wanted_T = (users[place_T] == self.user_T) & (self.time_T > earliest_U[place_T])
        num_held = np.bincount(codes_E, minlength=codes_T.max(initial=0) + 1)
        return is_wanted_T & (_occurrence(codes_T) >= num_held[codes_T])


def first_times(data: DataDir) -> np.ndarray | None:
    """Time of the first event of each item id in all logs below a data set; None without tails."""
    path = data.path / data_dir.TAILS / tails.ITEMS
    if not path.exists():
        return None
    items = tails.read(path)
    key = data.schema.item_key.name
    ids = data.encoders[key].encode(items[key])
    first = np.full(data.encoders[key].cardinality, np.iinfo(np.int64).max)
    np.minimum.at(first, ids, items[FIRST_TIME].to_numpy())
    return first


def _fingerprints(users: pa.ChunkedArray) -> np.ndarray:
    return fingerprint64(users.combine_chunks().cast(pa.large_string())).view(np.int64)


def _places(user_T: np.ndarray) -> np.ndarray:
    """Place of each event among those of its user; users are runs."""
    starts = np.flatnonzero(np.append(True, user_T[1:] != user_T[:-1]))
    return np.arange(len(user_T)) - np.repeat(starts, np.diff(starts, append=len(user_T)))


def _sums(counts: np.ndarray, user_T: np.ndarray) -> np.ndarray:
    """Sum of the counts (rows: user, item, count) of the user of each event."""
    users, number = np.unique(counts[0], return_inverse=True)
    sums = np.append(np.bincount(number, counts[2], len(users)).astype(np.int64), 0)
    place_T = np.searchsorted(users, user_T)
    is_there_T = np.append(users, 0)[place_T] == user_T
    return np.where(is_there_T & (place_T < len(users)), sums[place_T], 0)


def _codes(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A number per column of two arrays, equal for equal columns."""
    joined = np.hstack([first, second])
    order = np.lexsort(joined)
    changes = np.append(False, (np.diff(joined[:, order], axis=1) != 0).any(axis=0))
    codes = np.empty(joined.shape[1], np.int64)
    codes[order] = np.cumsum(changes)
    return codes[: first.shape[1]], codes[first.shape[1] :]


def _occurrence(codes: np.ndarray) -> np.ndarray:
    """How many equal codes stand before each."""
    order = np.argsort(codes, kind="stable")
    occurrence = np.empty(len(codes), np.int64)
    occurrence[order] = _places(codes[order]) if len(codes) else codes
    return occurrence
