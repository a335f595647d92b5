"""Impression logs: rows that share a request id are one request with several labelled candidates.

The time of a request is the earliest of its rows. Its history is what its user clicked (rows with
label 1) strictly before that time. Nothing is sampled: the candidates are those that were shown.
A request without a click is a request like any other, except that `leave_last_out` chooses among
requests with a click.

In a log without request ids every row is a request of its own, whatever its label. Among these
`leave_last_out` chooses regardless of clicks, or there would be no negatives.

Shape suffixes: E rows, R requests, P clicks, U users.
"""

import collections
import dataclasses
import functools
from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.log import tables
from pipeline.log.row_checks import FILE, LABEL, LINE, REQUEST, TIME, WEIGHT
from pipeline.requests import tails
from pipeline.requests.event_times import with_request_features
from pipeline.requests.events import Plan, event_ids, in_log
from preprocessing import splits
from preprocessing.schema import Schema
from preprocessing.sequences import Windows, history_windows, positions, window_counts

REQUEST_TIME = "#request_time"
"""Column of an impression: the time of its request."""

SAID = "#said"
"""Column of an impression: the request that it names in the log."""

_OF_BASE = "\0base:"


def disagreements(rows: pa.Table, schema: Schema) -> list[tuple[str, np.ndarray]]:
    """Rows whose user or context differs from that of the first row of their request.

    Args:
        rows: Whole requests, sorted by (request, file, line).
        schema: Schema that names the features that must agree.

    Returns:
        Pairs of a reason and the rows that it applies to, bool [E], less those of earlier reasons.
    """
    starts = tables.group_starts(tables.one_array(rows[REQUEST]))
    first_E = np.repeat(starts[:-1], np.diff(starts))
    good_E = np.ones(rows.num_rows, bool)
    reasons = []
    for feature in schema.user_features:
        if feature.derived is not None:
            continue  # from the time of the request, which its rows share
        codes = tables.one_array(rows[feature.name]).dictionary_encode().indices
        code_E = codes.fill_null(-1).to_numpy()
        bad_E = good_E & (code_E != code_E[first_E])
        good_E &= ~bad_E
        reasons.append((f"column {feature.column!r}: another value than its request", bad_E))
    return reasons


def requests_sorted(parts: Iterable[tables.Reference]) -> pa.Table:
    """Rows of whole requests, sorted by (request, file, line).

    Args:
        parts: References to the rows, in any order.
    """
    rows = pa.concat_tables(map(tables.read_part, parts)).combine_chunks()
    file, line = rows[FILE].to_numpy(), rows[LINE].to_numpy()
    return rows.take(pa.array(np.lexsort((line, file, tables.codes(rows[REQUEST])))))


def with_request_times(rows: pa.Table) -> pa.Table:
    """Adds REQUEST_TIME to rows as `requests_sorted` gives them."""
    starts = tables.group_starts(tables.one_array(rows[REQUEST]))
    time_R = np.minimum.reduceat(rows[TIME].to_numpy(), starts[:-1])
    return rows.append_column(REQUEST_TIME, pa.array(np.repeat(time_R, np.diff(starts))))


def sort_impressions(rows: pa.Table, user_key: str) -> pa.Table:
    """The rows of one partition, sorted by (user, time of request, request, row order).

    If two requests have the same time, the one that appears first in the log comes first.

    Args:
        rows: The rows, in any order.
        user_key: Name of the feature by which rows are grouped.
    """
    rows = tables.with_dictionaries(_of_base_apart(rows))
    file, line = rows[FILE].to_numpy(), rows[LINE].to_numpy()
    request_E = tables.codes(rows[REQUEST])
    _, appearance_R = np.unique(request_E[np.lexsort((line, file))], return_index=True)
    keys = (line, file, appearance_R[request_E], rows[REQUEST_TIME].to_numpy())
    return rows.take(pa.array(np.lexsort((*keys, tables.codes(rows[user_key])))))


def _of_base_apart(rows: pa.Table) -> pa.Table:
    """Rows in which each click that the base keeps is of a request that no row of the log names.

    Adds SAID if there are such clicks.
    """
    is_of_base = ~in_log(rows)
    if not is_of_base.any():
        return rows
    said = tables.one_array(rows[REQUEST])
    apart = pc.binary_join_element_wise(pa.scalar(_OF_BASE), said, "")
    columns = {
        REQUEST: pc.if_else(pa.array(is_of_base), apart, said),
        REQUEST_TIME: pc.coalesce(rows[REQUEST_TIME], rows[TIME]),
    }
    for name, column in columns.items():
        rows = rows.set_column(rows.column_names.index(name), name, column)
    return rows.append_column(SAID, said)


def said_column(rows: pa.Table) -> str:
    """Column with the request that each row names in the log."""
    return SAID if SAID in rows.column_names else REQUEST


def as_said(rows: pa.Table) -> pa.Table:
    """Rows whose REQUEST is the one that they name in the log."""
    said = rows[said_column(rows)]
    return rows.set_column(rows.column_names.index(REQUEST), REQUEST, said)


def as_clicks(rows: pa.Table) -> pa.Table:
    """Rows in which those that the base keeps have a label: they are clicks."""
    label = pc.fill_null(rows[LABEL], 1)
    return rows.set_column(rows.column_names.index(LABEL), LABEL, label)


def as_requests(rows: pa.Table, user_key: str, older: pa.Table | None) -> pa.Table:
    """Labelled rows, each a request of its own: with a request id and the request's time.

    Args:
        rows: Rows of whole users, sorted by (user, time, row order).
        user_key: Name of the feature by which rows are grouped.
        older: Counts of the rows of these users that are older than all of them, if any.
    """
    users = tables.one_array(rows[user_key])
    starts = tables.group_starts(users)
    index_E = positions(starts)
    if older is not None:
        keys = tables.decoded(users.take(pa.array(starts[:-1])))
        index_E += np.repeat(tails.counts_by_user(older, keys), np.diff(starts))
    ids = event_ids(users, index_E)
    return rows.append_column(REQUEST, ids).append_column(REQUEST_TIME, rows[TIME])


@dataclasses.dataclass(frozen=True)
class Impressions:
    """Requests of whole users, sorted by (user, time of request).

    Attributes:
        plan: Arguments, schema and cut-offs.
        table: The rows that survive the filters, each column one chunk, by request.
        starts: int64 [R + 1], first row of each request, then E.
        user_starts: int64 [U + 1], first request of each user, then R.
        filtered: Rows taken out, by rule.
    """

    plan: Plan
    table: pa.Table
    starts: np.ndarray
    user_starts: np.ndarray
    filtered: collections.Counter[str]

    @classmethod
    def load(cls, plan: Plan, partition: int) -> "Impressions":
        """Reads a partition; filters users with few clicks and the oldest requests of the others.

        `min_user_events` counts clicks (1 filters nobody), `max_user_events` requests.
        """
        every = cls.whole(plan, partition)
        kept_E, filtered = every.recent()
        return cls._of(plan, every.table.filter(pa.array(kept_E)), filtered)

    @classmethod
    def whole(cls, plan: Plan, partition: int) -> "Impressions":
        """Reads a partition and filters nothing."""
        rows = tables.read(plan.partition(partition))
        rows = with_request_features(rows, plan.schema, rows[REQUEST_TIME].to_numpy())
        return cls._of(plan, rows, collections.Counter())

    def recent(self) -> tuple[np.ndarray, collections.Counter[str]]:
        """Rows that the filters keep, bool [E]; number of rows of the log filtered, by rule."""
        arguments = self.plan.arguments
        clicks_U = np.add.reduceat(self.is_click, self.starts[self.user_starts[:-1]])
        enough_U = (clicks_U >= arguments.min_user_events) | (arguments.min_user_events == 1)
        enough_R = enough_U[self.users]
        excess_U = np.diff(self.user_starts) - arguments.max_user_events
        place_R = np.arange(len(self.users)) - self.user_starts[self.users]
        recent_R = place_R >= excess_U[self.users]
        sizes_R = np.add.reduceat(self.in_log.astype(np.int64), self.starts[:-1])
        filtered = collections.Counter(
            min_user_events=int(sizes_R[~enough_R].sum()),
            max_user_events=int(sizes_R[enough_R & ~recent_R].sum()),
        )
        return np.repeat(enough_R & recent_R, np.diff(self.starts)), +filtered

    @classmethod
    def _of(cls, plan: Plan, table: pa.Table, filtered: collections.Counter[str]) -> "Impressions":
        table = table.combine_chunks()
        starts = tables.group_starts(tables.one_array(table[REQUEST]))
        first = pa.array(starts[:-1])
        users = tables.one_array(table[plan.schema.user_key.name]).take(first)
        return cls(plan, table, starts, tables.group_starts(users), filtered)

    def column(self, name: str) -> pa.Array:
        """One column as one array, of texts a dictionary array."""
        return tables.one_array(self.table[name])

    @functools.cached_property
    def is_new(self) -> np.ndarray:
        """Whether the request of each row can be one of the data set, bool [E]."""
        if self.plan.requests_from is None:
            return self.in_log
        return self.in_log & (self.table[REQUEST_TIME].to_numpy() >= self.plan.requests_from)

    @functools.cached_property
    def in_log(self) -> np.ndarray:
        """Whether each row is one of the log, rather than a click that the base keeps: bool [E]."""
        return in_log(self.table)

    @functools.cached_property
    def in_training_history(self) -> np.ndarray:
        """Whether each row is in the history of a training request, bool [E]."""
        return self.history_counts[splits.TRAIN] > 0

    @functools.cached_property
    def in_training(self) -> np.ndarray:
        """Whether a training request holds each row, bool [E]."""
        return (self.split == splits.TRAIN)[self.requests] | self.in_training_history

    @functools.cached_property
    def catalogue_use(self) -> np.ndarray:
        """First split that knows each row's item, int8 [E], or NONE; see `Events`."""
        if self.plan.requests_from is None:
            return self.first_use
        assert self.plan.cutoffs is not None
        use_E = splits.split_of(self.table[REQUEST_TIME].to_numpy(), self.plan.cutoffs)
        return np.where(self.in_log, use_E, np.int8(splits.NONE))

    @functools.cached_property
    def is_click(self) -> np.ndarray:
        """Whether the label is 1, int64 [E]."""
        return self.table[LABEL].to_numpy().astype(np.int64)

    @functools.cached_property
    def weights(self) -> np.ndarray:
        """Weight of each row as a sample, float32 [E]; only if the schema has weights."""
        return self.table[WEIGHT].to_numpy()

    @functools.cached_property
    def requests(self) -> np.ndarray:
        """Request of each row, int64 [E]."""
        return np.repeat(np.arange(len(self.starts) - 1), np.diff(self.starts))

    @functools.cached_property
    def users(self) -> np.ndarray:
        """User of each request, int64 [R]."""
        return np.repeat(np.arange(len(self.user_starts) - 1), np.diff(self.user_starts))

    @functools.cached_property
    def timestamps(self) -> np.ndarray:
        """Time of each request, int64 [R]."""
        return self.table[REQUEST_TIME].to_numpy()[self.starts[:-1]]

    @property
    def event_times(self) -> np.ndarray:
        """Time of each row, int64 [E]."""
        return self.table[TIME].to_numpy()

    @functools.cached_property
    def clicks(self) -> np.ndarray:
        """Rows with label 1 in the order of (user, time, row), int64 [P]."""
        rows = np.flatnonzero(self.is_click)
        time, file, line = (self.table[name].to_numpy()[rows] for name in (TIME, FILE, LINE))
        return rows[np.lexsort((line, file, time, self.users[self.requests[rows]]))]

    @functools.cached_property
    def history_ends(self) -> np.ndarray:
        """Place in `clicks` of the end (exclusive) of each request's history, int64 [R]."""
        times = np.unique(self.table[TIME].to_numpy())
        width = len(times) + 1
        user_P = self.users[self.requests[self.clicks]]
        rank_P = np.searchsorted(times, self.table[TIME].to_numpy()[self.clicks])
        earlier_R = np.searchsorted(times, self.timestamps)
        return np.searchsorted(user_P * width + rank_P, self.users * width + earlier_R)

    @functools.cached_property
    def history_sizes(self) -> np.ndarray:
        """Clicks before each request, int64 [R]; histories hold the most recent of them."""
        user_P = self.users[self.requests[self.clicks]]
        return self.history_ends - np.searchsorted(user_P, self.users)

    def windows(self, requests: np.ndarray) -> Windows:
        """The histories of some requests, as rows of the table."""
        max_length = self.plan.schema.history.max_length
        click_windows = history_windows(
            self.history_ends[requests], self.history_sizes[requests], max_length
        )
        return Windows(self.clicks[click_windows.rows], click_windows.row_splits)

    @functools.cached_property
    def split(self) -> np.ndarray:
        """Split of each request, int8 [R], or NONE."""
        arguments = self.plan.arguments
        if arguments.protocol in splits.BY_TIME:
            if self.plan.cutoffs is None:
                raise ValueError("protocols by time need cut-offs")
            split_R = splits.split_of(self.timestamps, self.plan.cutoffs)
            split_R[~self.is_new[self.starts[:-1]]] = splits.NONE
            split_R[self.history_sizes < arguments.min_history] = splits.NONE
            return split_R
        return self._leave_last_out()

    def _leave_last_out(self) -> np.ndarray:
        """Test, validation and train: the last requests with a click (without request ids, any)."""
        arguments = self.plan.arguments
        is_eligible_R = np.add.reduceat(self.is_click, self.starts[:-1]) > 0
        if self.plan.schema.request is None:
            is_eligible_R[:] = True
        seen_R = np.cumsum(is_eligible_R)
        after_R = seen_R[self.user_starts[1:] - 1][self.users] - seen_R
        enough_R = self.history_sizes >= arguments.min_history
        target_R = is_eligible_R & (after_R == 2) & enough_R
        has_target_R = np.bincount(self.users[target_R], minlength=len(self.user_starts) - 1) > 0
        split_R = np.full(len(self.users), splits.NONE, np.int8)
        is_train_R = target_R
        if arguments.train_prefixes == "all":
            is_train_R = (after_R >= 2) & enough_R
        split_R[is_train_R] = splits.TRAIN
        split_R[is_eligible_R & (after_R == 1)] = splits.VALIDATION
        split_R[is_eligible_R & (after_R == 0)] = splits.TEST
        split_R[~has_target_R[self.users]] = splits.NONE
        return split_R

    @functools.cached_property
    def history_counts(self) -> np.ndarray:
        """Number of histories of each split that hold each row, int64 [3, E]."""
        max_length = self.plan.schema.history.max_length
        counts = np.zeros((len(splits.SPLITS), self.table.num_rows), np.int64)
        for split in range(len(splits.SPLITS)):
            rows = np.flatnonzero(self.split == split)
            ends, sizes = self.history_ends[rows], self.history_sizes[rows]
            counts[split, self.clicks] = window_counts(ends, sizes, max_length, len(self.clicks))
        return counts

    @functools.cached_property
    def first_use(self) -> np.ndarray:
        """First split whose requests hold each row, int8 [E], or NONE."""
        first_E = self.split[self.requests].copy()
        for split in range(len(splits.SPLITS))[::-1]:
            held_E = self.history_counts[split] > 0
            first_E[held_E] = np.minimum(first_E[held_E], split)
        return first_E

    def unused(self) -> collections.Counter[str]:
        """Rows that no request holds, by rule.

        `too_few_events`: too few clicks precede their request, or their user has too few requests
        with a click for the protocol. `protocol`: the protocol leaves their request out.
        """
        short_R = self.history_sizes < self.plan.arguments.min_history
        if self.plan.arguments.protocol == "leave_last_out":
            num_requests_U = np.bincount(
                self.users[self.split != splits.NONE], minlength=len(self.user_starts) - 1
            )
            short_R = num_requests_U[self.users] == 0
        unused_E = self.in_log & (self.first_use == splits.NONE)
        short_E = short_R[self.requests]
        return +collections.Counter(
            too_few_events=int((unused_E & short_E).sum()),
            protocol=int((unused_E & ~short_E).sum()),
        )
