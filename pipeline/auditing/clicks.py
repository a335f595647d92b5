"""Checks of the auditor for logs of positive events, whose negatives were sampled.

A request holds the index of its positive among the events of its user. Step k of a history of L
steps before index i is therefore event i - L + k, and all requests must agree on the item and the
time of event j of a user: that proves the order even in logs whose unit of time is a day.

Shape suffixes: B requests of a batch, R all requests, L history length, N candidates.
"""

from collections.abc import Iterator

import numpy as np

from pipeline.arguments import AVAILABLE
from pipeline.auditing.earlier import Earlier, first_times
from pipeline.auditing.log_checks import (
    LogChecks,
    argument,
    first_known,
    is_part,
    train_prefixes,
)
from pipeline.auditing.requests import Requests, Verdict
from preprocessing import splits
from preprocessing.data_dir import DataDir
from preprocessing.example_keys import candidate_key, history_key
from preprocessing.schema import Schema

_COMPACT_EVERY = 64


class ClickChecks(LogChecks):
    """Checks of requests that are events of their user, beside negatives.

    Args:
        schema: Schema of the data set.
        num_items: Rows of the embedding table of the item key.
        first_item: The lowest item id that stands for one item.
        num_negatives: Number of negatives of each request.
        train_prefixes: Flag of the build, if it was for `leave_last_out`, else None.
        draws_available: Whether every negative must have appeared by the time of its request. A
            log without times does not say when that was.
        earlier: What the base keeps, why that is unknown, or None without a base.
        first_times: Time of the first event of each item id, if requests begin in the midst of a
            log; else the requests tell.
    """

    identifies_events = True

    def __init__(
        self,
        schema: Schema,
        num_items: int,
        first_item: int,
        num_negatives: int,
        train_prefixes: str | None,
        draws_available: bool,
        earlier: Earlier | str | None = None,
        first_times: np.ndarray | None = None,
    ) -> None:
        self._item_key = schema.item_key.name
        self._max_length = schema.history.max_length
        self._num_items = num_items
        self._first_item = first_item
        self._num_negatives = num_negatives
        self._train_prefixes = train_prefixes
        self._draws_available = draws_available
        self._has_times = schema.timestamp is not None
        self._num_requests = 0
        self._positives: list[np.ndarray] = []  # rows: user, index, split, time
        self._events: list[np.ndarray] = []  # rows: user, index, item, time, request
        self._negatives: list[np.ndarray] = []  # rows: user, item, request
        # Time of the earliest event of each id that requests of each split hold.
        self._first_time = np.full([len(splits.SPLITS), num_items], np.iinfo(np.int64).max)
        self._earlier = earlier
        if first_times is not None:
            self._first_time[:] = first_times

    @classmethod
    def of(cls, data: DataDir) -> "ClickChecks":
        """The checks of a data set of clicks."""
        items = data.encoders[data.schema.item_key.name]
        return cls(
            data.schema,
            num_items=items.cardinality,
            first_item=first_known(items),
            num_negatives=argument(data, "negatives"),
            train_prefixes=train_prefixes(data),
            draws_available=argument(data, "negative_sampling") in AVAILABLE,
            earlier=Earlier.of(data),
            first_times=first_times(data) if is_part(data) else None,
        )

    def is_sampled(self, key: str) -> bool:
        """Whether the key is one of candidates."""
        return key.startswith(candidate_key(""))

    def alone(self, batch: Requests) -> Iterator[Verdict]:
        """Yields the verdicts that need one request only."""
        item_BN = np.sort(batch.values[candidate_key(self._item_key)], axis=1)
        repeated_BN = (np.diff(item_BN, axis=1) == 0) & (item_BN[:, 1:] >= self._first_item)
        bad_B = batch.is_candidate_BN.sum(axis=1) != 1 + self._num_negatives
        bad_B |= (batch.label_BN == 1).sum(axis=1) != 1
        bad_B |= repeated_BN.any(axis=1)
        yield Verdict("candidates", bad_B, "candidates are miscounted or repeated")
        if batch.weight_BN is not None:
            is_negative_BN = batch.is_candidate_BN & (batch.label_BN == 0)
            bad_B = (is_negative_BN & (batch.weight_BN != 1)).any(axis=1)
            yield Verdict("candidates", bad_B, "a sampled negative does not weigh 1")

        late_BL = batch.history_time_BL > batch.timestamp_B[:, None]
        bad_B = (late_BL & batch.is_event_BL).any(axis=1)
        yield Verdict("order", bad_B, "its history holds a later event")
        bad_B = batch.lengths_B != np.minimum(batch.index_B, self._max_length)
        yield Verdict("complete", bad_B, "its history is not that of its index")
        if isinstance(self._earlier, Earlier):
            yield from self._earlier.of_histories(batch)

    def keep(self, batch: Requests, split: int) -> None:
        """Keeps what the verdicts of `together` need."""
        user_B, index_B = batch.user_B, batch.index_B
        request_B = self._num_requests + np.arange(len(batch))
        self._num_requests += len(batch)
        split_B = np.full(len(batch), split)
        self._positives.append(np.stack([user_B, index_B, split_B, batch.timestamp_B]))

        candidate_BN = batch.values[candidate_key(self._item_key)]
        positive_B = candidate_BN[np.arange(len(batch)), batch.label_BN.argmax(axis=1)]
        row, step = np.nonzero(batch.is_event_BL)
        step_index = (index_B - batch.lengths_B)[row] + step
        step_item = batch.values[history_key(self._item_key)][row, step]
        step_time = batch.history_time_BL[row, step]
        self._events += [
            np.stack([user_B, index_B, positive_B, batch.timestamp_B, request_B]),
            np.stack([user_B[row], step_index, step_item, step_time, request_B[row]]),
        ]
        self._keep_first(split, positive_B, batch.timestamp_B)
        self._keep_first(split, step_item, step_time)
        if len(self._events) >= _COMPACT_EVERY:
            self._events = [_distinct(self._events)]
        row, position = np.nonzero(batch.is_candidate_BN & (batch.label_BN == 0))
        self._negatives.append(np.stack([user_B[row], candidate_BN[row, position], request_B[row]]))

    def _keep_first(self, split: int, items: np.ndarray, times: np.ndarray) -> None:
        is_id = (items >= 0) & (items < self._num_items)  # another check reports the others
        np.minimum.at(self._first_time[split], items[is_id], times[is_id])

    def together(self) -> Iterator[Verdict]:
        """Yields the verdicts that need several requests."""
        events, drawn = _distinct(self._events), np.hstack(self._negatives)
        user, index, item, time, request = events
        same_user = user[1:] == user[:-1]
        later = np.maximum(request[1:], request[:-1])
        for bad, why in (
            (index[1:] == index[:-1], "another request of its user has another event in a place"),
            (time[1:] < time[:-1], "an event of its user is earlier than the one before"),
        ):
            faults_R = np.bincount(later[same_user & bad], minlength=self._num_requests)
            yield Verdict("order", faults_R, why)

        users, number = np.unique(user, return_inverse=True)
        own_pairs = np.unique(number * self._num_items + item)
        drawn_user, drawn_item, request = drawn
        drawn_pairs = np.searchsorted(users, drawn_user) * self._num_items + drawn_item
        bad_R = np.zeros(self._num_requests, bool)
        bad_R[request[np.isin(drawn_pairs, own_pairs) & (drawn_item >= self._first_item)]] = True
        yield Verdict("negatives", bad_R, "a negative is an item of its user")
        if isinstance(self._earlier, Earlier):
            yield from self._earlier.of_places(events, self._num_requests)
            yield from self._earlier.of_negatives(drawn, self._first_item, self._num_requests)

        user_R, index_R, split_R, time_R = np.hstack(self._positives)
        if self._draws_available and self._has_times:
            # A shared id, such as one out of vocabulary, appears with the first of its items.
            first_time = np.minimum.accumulate(self._first_time)
            item = np.clip(drawn_item, 0, self._num_items - 1)
            is_late = first_time[split_R[request], item] > time_R[request]
            bad_R = np.bincount(request[is_late], minlength=self._num_requests)
            yield Verdict("available", bad_R, "a negative had not appeared by then")
        if self._train_prefixes is not None:
            bad_R = self._not_leave_last_out(np.searchsorted(users, user_R), index_R, split_R)
            yield Verdict("protocol", bad_R, "is in the wrong split")

    def remarks(self) -> list[str]:
        """Says so if it cannot be proved that negatives had appeared, or what a base keeps."""
        lines = []
        if self._draws_available and not self._has_times:
            lines.append("available    not proved: the log has no times")
        if isinstance(self._earlier, str):
            lines.append(f"base         not compared: {self._earlier}")
        return lines

    def _not_leave_last_out(
        self, user_R: np.ndarray, index_R: np.ndarray, split_R: np.ndarray
    ) -> np.ndarray:
        """Requests that leave_last_out would not put into their split."""
        last_U = np.zeros(user_R.max() + 1, np.int64)
        np.maximum.at(last_U, user_R, index_R)
        from_end_R = last_U[user_R] - index_R
        bad_R = from_end_R != splits.TEST - split_R
        if self._train_prefixes == "all":
            bad_R &= (split_R != splits.TRAIN) | (from_end_R < splits.TEST)
        return bad_R


def _distinct(events: list[np.ndarray]) -> np.ndarray:
    """The distinct events in order, each with the first request that holds it."""
    joined = np.hstack(events)
    _, first = np.unique(joined[:-1], axis=1, return_index=True)
    return joined[:, first]
