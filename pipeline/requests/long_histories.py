"""Users with more events than requests can need: the oldest are set aside before the sort.

A partition is sorted as a whole, so a user with a hundred million events would be sorted by one
worker, only to be cut to `max_user_events` afterwards. Here they are cut piece by piece as they are
read: memory holds a piece and the events that are kept. What is set aside still counts in the
account of the log and in the tails of the data set (the items of users, the latest features of
items), and gets a file of its own for that.

Shapes: E events, L events of users who have too many.
"""

from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa

from pipeline.log import tables
from pipeline.log.row_checks import FILE, LINE, TIME
from preprocessing.sequences import event_order

PIECE_ROWS = 1 << 22
"""Rows that are gathered before users are cut; partitions of ordinary users have fewer."""


class Gathered:
    """The rows of a partition, of each user only the most recent events.

    Partitions of at most `PIECE_ROWS` rows are left as they are.

    Attributes:
        rows: The rows that are kept, in any order, once all of `excess` has been taken.

    Args:
        user_key: Name of the feature by which events are grouped.
        most: Number of events to keep of each user.
    """

    rows: pa.Table

    def __init__(self, user_key: str, most: int) -> None:
        self._user_key = user_key
        self._most = most

    def excess(self, parts: Iterable[pa.Table]) -> Iterator[pa.Table]:
        """Gathers rows, and yields those that are not kept.

        Together these do not depend on the order of the parts.

        Args:
            parts: At least one table of events, in any order.
        """
        held: list[pa.Table] = []
        num_rows, limit, is_cut = 0, PIECE_ROWS, False
        for part in parts:
            held.append(part)
            num_rows += part.num_rows
            if num_rows > limit:
                yield from self._cut(held)
                num_rows = sum(table.num_rows for table in held)
                limit, is_cut = max(PIECE_ROWS, 2 * num_rows), True
        if is_cut:
            yield from self._cut(held)
        self.rows = pa.concat_tables(held)

    def _cut(self, held: list[pa.Table]) -> Iterator[pa.Table]:
        """Leaves the most recent events of each user in `held`, and yields all others, if any."""
        events = pa.concat_tables(held)
        users_E = tables.codes(events[self._user_key])
        counts_U = np.bincount(users_E)
        rows_L = np.flatnonzero((counts_U > self._most)[users_E])
        if not len(rows_L):
            return
        own = events.select([TIME, FILE, LINE]).take(pa.array(rows_L))
        time, file, line = (own[name].to_numpy() for name in (TIME, FILE, LINE))
        order_L = event_order(users_E[rows_L], time, file, line)
        lengths = counts_U[counts_U > self._most]
        from_end_L = np.repeat(np.cumsum(lengths), lengths) - np.arange(len(rows_L))
        is_kept_E = np.ones(events.num_rows, bool)
        is_kept_E[rows_L[order_L[from_end_L > self._most]]] = False
        held[:] = [events.filter(pa.array(is_kept_E))]
        yield events.filter(pa.array(~is_kept_E))
