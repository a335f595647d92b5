"""Checks of the auditor for impression logs, whose request ids do not tell the order of events.

A history holds the last clicks before its request, up to `max_length`. All histories together tell
the clicks of a user: if one of them is incomplete, another shows the click that it lacks. Users who
are out of vocabulary share an id and are left out where it matters.

Shape suffixes: B requests of a batch, R all requests, L history length, C clicks.
"""

from collections.abc import Iterator

import numpy as np

from pipeline.auditing.earlier import Earlier
from pipeline.auditing.log_checks import LogChecks, first_known, train_prefixes
from pipeline.auditing.requests import Requests, Verdict
from preprocessing import splits
from preprocessing.data_dir import DataDir
from preprocessing.example_keys import history_key
from preprocessing.schema import Schema

_COMPACT_EVERY = 64


class ImpressionChecks(LogChecks):
    """Checks of requests whose candidates were shown.

    Args:
        schema: Schema of the data set.
        first_user: The lowest user id that stands for one user.
        train_prefixes: Flag of the build, if it was for `leave_last_out`, else None.
        earlier: What the base keeps, why that is unknown, or None without a base.
    """

    identifies_events = False

    def __init__(
        self,
        schema: Schema,
        first_user: int,
        train_prefixes: str | None,
        earlier: Earlier | str | None = None,
    ) -> None:
        self._schema = schema
        self._earlier = earlier
        self._first_user = first_user
        self._train_prefixes = train_prefixes
        # rows: user, time, time of the first step, steps, steps later than that, split, has a click
        self._requests: list[np.ndarray] = []
        self._clicks: list[np.ndarray] = []  # rows: user, time, item, number among equal clicks

    @classmethod
    def of(cls, data: DataDir) -> "ImpressionChecks":
        """The checks of a data set of impressions."""
        first_user = first_known(data.encoders[data.schema.user_key.name])
        return cls(data.schema, first_user, train_prefixes(data), Earlier.of(data))

    def is_sampled(self, key: str) -> bool:
        """False: all candidates were shown."""
        return False

    def alone(self, batch: Requests) -> Iterator[Verdict]:
        """Yields the verdicts that need one request only."""
        is_label_BN = np.isin(batch.label_BN, [0, 1])
        bad_B = (batch.is_candidate_BN & ~is_label_BN).any(axis=1)
        bad_B |= ~batch.is_candidate_BN.any(axis=1)
        yield Verdict("candidates", bad_B, "it has no candidates, or other labels than 0 and 1")
        late_BL = batch.history_time_BL >= batch.timestamp_B[:, None]
        bad_B = (late_BL & batch.is_event_BL).any(axis=1)
        yield Verdict("order", bad_B, "its history holds an event that is not before it")
        sinks_BL = batch.history_time_BL[:, 1:] < batch.history_time_BL[:, :-1]
        bad_B = (sinks_BL & batch.is_event_BL[:, 1:]).any(axis=1)
        yield Verdict("order", bad_B, "its history is not in the order of time")
        bad_B = batch.lengths_B > self._schema.history.max_length
        yield Verdict("complete", bad_B, "its history is longer than max_length")
        if isinstance(self._earlier, Earlier):
            yield from self._earlier.of_histories(batch)

    def keep(self, batch: Requests, split: int) -> None:
        """Keeps what the verdicts of `together` need."""
        user_B = batch.values[self._schema.user_key.name]
        first_B = batch.history_time_BL[:, :1].sum(axis=1)  # 0 without any step
        has_click_B = (batch.label_BN == 1).any(axis=1)
        later_B = ((batch.history_time_BL > first_B[:, None]) & batch.is_event_BL).sum(axis=1)
        columns = (user_B, batch.timestamp_B, first_B, batch.lengths_B, later_B)
        self._requests.append(np.stack([*columns, np.full(len(batch), split), has_click_B]))

        row, step = np.nonzero(batch.is_event_BL)
        time = batch.history_time_BL[row, step]
        item = batch.values[history_key(self._schema.item_key.name)][row, step]
        order = np.lexsort((-step, item, time, row))  # equal clicks are counted from the latest
        changes = np.diff(np.stack([row, time, item])[:, order], axis=1).any(axis=0)
        starts = np.flatnonzero(np.append(True, changes)[: len(order)])
        occurrence = np.arange(len(order)) - np.repeat(starts, np.diff(starts, append=len(order)))
        self._clicks.append(np.vstack([np.stack([user_B[row], time, item])[:, order], occurrence]))
        if len(self._clicks) >= _COMPACT_EVERY:
            self._clicks = [np.unique(np.hstack(self._clicks), axis=1)]

    def together(self) -> Iterator[Verdict]:
        """Yields the verdicts that need several requests."""
        user_R, time_R, first_R, steps_R, later_R, split_R, click_R = np.hstack(self._requests)
        user_C, time_C, _, _ = np.unique(np.hstack(self._clicks), axis=1)
        times = np.unique(time_C)
        key_C = user_C * (len(times) + 1) + np.searchsorted(times, time_C)

        def clicks_before(time_R: np.ndarray) -> np.ndarray:
            """Clicks of the user of each request before a time."""
            first_key_R = user_R * (len(times) + 1)
            keys = first_key_R + np.searchsorted(times, time_R)
            return np.searchsorted(key_C, keys) - np.searchsorted(key_C, first_key_R)

        # A full history may lack other clicks at the time of its first step.
        is_full_R = steps_R == self._schema.history.max_length
        after_first_R = clicks_before(time_R) - clicks_before(first_R + 1)
        bad_R = np.where(is_full_R, after_first_R != later_R, clicks_before(time_R) != steps_R)
        is_known_R = user_R >= self._first_user
        yield Verdict("complete", bad_R & is_known_R, "its history lacks a click before it")
        if self._train_prefixes is not None:
            bad_R = self._not_leave_last_out(user_R, time_R, split_R, click_R > 0)
            yield Verdict("protocol", bad_R & is_known_R, "is in the wrong split")

    def remarks(self) -> list[str]:
        """What a base keeps, if it cannot be read; all else that holds is proved."""
        if isinstance(self._earlier, str):
            return [f"base         not compared: {self._earlier}"]
        return []

    def _not_leave_last_out(
        self, user_R: np.ndarray, time_R: np.ndarray, split_R: np.ndarray, click_R: np.ndarray
    ) -> np.ndarray:
        """Requests of users whose splits are not those of leave_last_out, bool [R]."""
        _, number_R = np.unique(user_R, return_inverse=True)
        counts = np.zeros((len(splits.SPLITS), number_R.max() + 1), np.int64)
        np.add.at(counts, (split_R, number_R), 1)
        first = np.full(counts.shape, np.iinfo(np.int64).max)
        last = np.full(counts.shape, np.iinfo(np.int64).min)
        np.minimum.at(first, (split_R, number_R), time_R)
        np.maximum.at(last, (split_R, number_R), time_R)
        bad = (counts[splits.VALIDATION] != 1) | (counts[splits.TEST] != 1)
        bad |= counts[splits.TRAIN] < 1
        bad |= (last[:-1] > first[1:]).any(axis=0)
        is_target_R = split_R != splits.TRAIN
        if self._train_prefixes == "last":
            bad |= counts[splits.TRAIN] != 1
            is_target_R[:] = True
        # Without request ids every row is a request, and the protocol may choose any of them.
        if self._schema.request is None:
            return bad[number_R]
        return bad[number_R] | (is_target_R & ~click_R)
