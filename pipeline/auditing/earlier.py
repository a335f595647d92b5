"""What a data set rests on beside its own requests: the tails of its base, and those of its own.

Requests of a day show a part of each user only. The rest is in the tails of the base: what its
users did last, and which items they ever touched. When the items of a log first appeared is in the
tails of the data set itself, if its requests begin in the midst of a log.

Shape suffixes: B requests of a batch, E events that requests hold, T events of tails, R requests.
"""

import dataclasses
from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from pipeline.auditing.requests import Requests, Verdict
from pipeline.log.row_checks import TIME
from pipeline.requests import tails
from pipeline.requests.base import Base
from pipeline.requests.counting import COUNT, FIRST_TIME
from preprocessing import data_dir
from preprocessing.data_dir import DataDir
from preprocessing.errors import UserError
from preprocessing.example_keys import history_key
from preprocessing.schema import Schema
from preprocessing.values.farmhash import fingerprint64


@dataclasses.dataclass(frozen=True)
class Earlier:
    """The events that a base keeps.

    Attributes:
        schema: Schema of both data sets.
        watermark: Latest time of the base's log.
        num_late: Rows of the log that are earlier than that.
        events: int64 [4, T], rows: fingerprint of the user, time, item id and index among the
            events of its user of each kept event; sorted by user and time.
        own: int64 [2, pairs], rows: fingerprint of a user and id of an item that it has touched.
    """

    schema: Schema
    watermark: int
    num_late: int
    events: np.ndarray
    own: np.ndarray

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
        events, own = [np.zeros((4, 0), np.int64)], [np.zeros((2, 0), np.int64)]
        for number in range(base.num_tails):
            kept, older = base.tail(number)
            older_counts = np.zeros((2, 0), np.int64)
            if older is not None:
                users = _fingerprints(older[user])
                older_counts = np.stack([users, older[COUNT].to_numpy()])
                if item in older.column_names:
                    own.append(np.stack([users, encode(older[item])]))
            if kept is not None:
                user_T, item_T = _fingerprints(kept[user]), encode(kept[item])
                index_T = _occurrence(user_T) + _sums(older_counts, user_T)
                events.append(np.stack([user_T, kept[TIME].to_numpy(), item_T, index_T]))
                own.append(np.stack([user_T, item_T]))
        joined = np.hstack(events)
        joined = joined[:, np.lexsort((joined[1], joined[0]))]
        return cls(data.schema, base.watermark, record["late"], joined, np.hstack(own))

    def of_histories(self, batch: Requests) -> Iterator[Verdict]:
        """Yields whether histories hold what the base keeps, as far as they reach back.

        Events that came late are in no tail: only without any is a further event wrong.
        """
        is_click_log = not self.schema.is_impression_log
        first_B = np.where(batch.is_event_BL[:, 0], batch.history_time_BL[:, 0], 0)
        is_full_B = batch.lengths_B == self.schema.history.max_length
        # Of the time of its first step a full history may lack some events.
        from_B = np.where(is_full_B, first_B + 1, np.iinfo(np.int64).min)
        before_B = np.minimum(batch.timestamp_B, self.watermark + 1)
        if is_click_log:
            before_B = np.full(len(batch), self.watermark + 1)
        wanted_B = self._num_kept(batch.user_B, before_B) - self._num_kept(batch.user_B, from_B)

        row_E, step = np.nonzero(
            batch.is_event_BL
            & (batch.history_time_BL >= from_B[:, None])
            & (batch.history_time_BL < before_B[:, None])
        )
        time_E = batch.history_time_BL[row_E, step]
        item_E = batch.values[history_key(self.schema.item_key.name)][row_E, step]
        codes_E, codes_T = _codes(np.stack([batch.user_B[row_E], time_E, item_E]), self.events[:3])
        num_kept = np.bincount(codes_T, minlength=codes_E.max(initial=0) + 1)
        in_request_E, _ = _codes(np.stack([row_E, codes_E]), np.zeros((2, 0), np.int64))
        is_kept_E = _occurrence(in_request_E) < num_kept[codes_E]
        held_B = np.bincount(row_E[is_kept_E], minlength=len(batch))
        yield Verdict("base", held_B < wanted_B, "its history lacks an event that the base keeps")
        if not self.num_late:
            is_other_E = ~is_kept_E & (time_E < self.watermark)
            bad_B = np.bincount(row_E[is_other_E], minlength=len(batch)) > 0
            yield Verdict("base", bad_B, "its history holds an event that the base does not keep")

    def of_places(self, events: np.ndarray, num_requests: int) -> Iterator[Verdict]:
        """Yields whether events of requests go on counting where the base ended.

        Args:
            events: int64 [5, E], rows: fingerprint of the user, index, item, time and first request
                of each event that requests hold.
            num_requests: Number of requests.
        """
        if self.num_late:
            return  # they move the events after them
        user_E, index_E, item_E, _, request_E = events
        user_T, _, item_T, index_T = self.events
        codes_E, codes_T = _codes(np.stack([user_E, index_E]), np.stack([user_T, index_T]))
        item_of_code = np.full(max(codes_E.max(), codes_T.max(initial=0)) + 1, -1)
        item_of_code[codes_T] = item_T
        is_other_E = (item_of_code[codes_E] >= 0) & (item_of_code[codes_E] != item_E)
        bad_R = np.bincount(request_E[is_other_E], minlength=num_requests)
        yield Verdict("base", bad_R, "the base has another event in a place of its history")

    def of_negatives(
        self, drawn: np.ndarray, first_item: int, num_requests: int
    ) -> Iterator[Verdict]:
        """Yields whether negatives are items that the base's events of the user have.

        Args:
            drawn: int64 [3, negatives], rows: fingerprint of the user, item and request.
            first_item: The lowest id that stands for one item.
            num_requests: Number of requests.
        """
        drawn_codes, own_codes = _codes(drawn[:2], self.own)
        is_own = np.isin(drawn_codes, own_codes) & (drawn[1] >= first_item)
        bad_R = np.bincount(drawn[2][is_own], minlength=num_requests)
        yield Verdict("negatives", bad_R, "a negative is an item that its user has in the base")

    def _num_kept(self, user_B: np.ndarray, before_B: np.ndarray) -> np.ndarray:
        """Number of kept events of each user before a time, and of all users before it."""
        user_T, time_T = self.events[:2]
        low_B, high_B = (np.searchsorted(user_T, user_B, side=side) for side in ("left", "right"))
        while (is_open_B := low_B < high_B).any():
            middle_B = np.minimum((low_B + high_B) // 2, len(time_T) - 1)
            is_before_B = time_T[middle_B] < before_B
            low_B = np.where(is_open_B & is_before_B, middle_B + 1, low_B)
            high_B = np.where(is_open_B & ~is_before_B, middle_B, high_B)
        return low_B


def first_times(data: DataDir) -> np.ndarray | None:
    """Time of the first event of each item id in all logs below a data set; None without tails."""
    path = data.path / data_dir.TAILS / tails.ITEMS
    if not path.exists():
        return None
    items = tails.read(path)
    key = data.schema.item_key.name
    first = np.full(data.encoders[key].cardinality, np.iinfo(np.int64).max)
    np.minimum.at(first, data.encoders[key].encode(items[key]), items[FIRST_TIME].to_numpy())
    return first


def _fingerprints(users: pa.ChunkedArray) -> np.ndarray:
    return fingerprint64(users.combine_chunks().cast(pa.large_string())).view(np.int64)


def _sums(counts: np.ndarray, user_T: np.ndarray) -> np.ndarray:
    """Sum of the counts (rows: user, count) of the user of each event."""
    users, number = np.unique(counts[0], return_inverse=True)
    sums = np.append(np.bincount(number, counts[1], len(users)), 0).astype(np.int64)
    place_T = np.searchsorted(users, user_T)
    is_there_T = np.append(users, 0)[place_T] == user_T
    return np.where(is_there_T & (place_T < len(users)), sums[place_T], 0)


def _codes(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A number per column of two arrays, equal for equal columns."""
    joined = np.hstack([first, second])
    order = np.lexsort(joined)
    codes = np.zeros(joined.shape[1], np.int64)
    codes[order[1:]] = np.cumsum((np.diff(joined[:, order], axis=1) != 0).any(axis=0))
    return codes[: first.shape[1]], codes[first.shape[1] :]


def _occurrence(codes: np.ndarray) -> np.ndarray:
    """How many equal codes stand before each."""
    order = np.argsort(codes, kind="stable")
    in_order = codes[order]
    starts = np.flatnonzero(np.append(True, in_order[1:] != in_order[:-1])[: len(codes)])
    occurrence = np.empty(len(codes), np.int64)
    occurrence[order] = np.arange(len(codes)) - np.repeat(
        starts, np.diff(starts, append=len(codes))
    )
    return occurrence
