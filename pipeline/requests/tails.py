"""Tails: what a data set keeps of its log, so that the next day is built from that day alone.

    tails/events-00000-of-00008.arrow   the last `max_length` events of each user, oldest first
    tails/older-00000-of-00008.arrow    counts of the items of their events before these
    tails/items.arrow                   every item with its latest features, by first appearance
    tails/counts/<feature>.arrow        values that training has counted, with their counts

The files with events hold the users of one hash each and are in the order of users, so that their
bytes depend neither on workers nor on partitions. Events keep what histories need and nothing else:
the user, the time, the features of histories, and whether training has counted their values.

Shape suffixes: E events, K items.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.log import tables
from pipeline.log.row_checks import FILE, LINE, TIME, defaulted_column
from pipeline.requests.counting import (
    CANDIDATES,
    COUNT,
    FIRST_ROW,
    FIRST_TIME,
    FIRST_USE,
    merge_items,
)
from pipeline.requests.event_order import EARLIER
from preprocessing.schema import Schema
from preprocessing.splits import TRAIN
from preprocessing.storage import files
from preprocessing.storage.files import AnyPath
from preprocessing.values.farmhash import fingerprint64

COUNTED = "#counted"
"""Column of an event: whether the values that it brings to histories are among the counts."""

EVENTS, OLDER = "events", "older"
"""The two files of a number."""

ITEMS = "items.arrow"
COUNTS = "counts"


class Tail(NamedTuple):
    """What is kept of some users.

    Attributes:
        events: Their last events, user by user, oldest first.
        older: Counts of the items of the events before these: user, item, COUNT. None if there are
            no such events; neither is there a file of them then.
    """

    events: pa.Table
    older: pa.Table | None


def file_name(kind: str, number: int, num_tails: int) -> str:
    """Name of a file of `EVENTS` or `OLDER`."""
    return f"{kind}-{number:05d}-of-{num_tails:05d}.arrow"


def cut(table: pa.Table, starts: np.ndarray, counted_E: np.ndarray, schema: Schema) -> Tail:
    """Splits the events of whole users into the last `max_length` of each and those before.

    Args:
        table: Events in order, user by user.
        starts: int64 [U + 1], first row of each user, then E.
        counted_E: Whether training has counted the values of each event, bool.
        schema: Schema that names keys and the features of histories.
    """
    from_end_E = np.repeat(starts[1:], np.diff(starts)) - np.arange(table.num_rows)
    is_kept = pa.array(from_end_E <= schema.history.max_length)
    user, item = schema.user_key.name, schema.item_key.name
    names = list(dict.fromkeys([user, TIME, *(f.name for f in schema.history_features)]))
    names += [defaulted_column(f.name) for f in schema.history_features if f.default is not None]
    kept = table.select(names).append_column(COUNTED, pa.array(counted_E)).filter(is_kept)
    dropped = _decoded(table.select([user, item]).filter(pc.invert(is_kept)))
    ones = pa.array(np.ones(dropped.num_rows, np.int64))
    return Tail(_decoded(kept), _merged_older([dropped.append_column(COUNT, ones)]))


def _merged_older(parts: Sequence[pa.Table | None]) -> pa.Table | None:
    """Counts of the same user and item added up, sorted by both; None if there are none."""
    tables_with_rows = [part for part in parts if part is not None and part.num_rows]
    if not tables_with_rows:
        return None
    older = pa.concat_tables(tables_with_rows)
    keys = [name for name in older.column_names if name != COUNT]
    merged = older.group_by(keys).aggregate([(COUNT, "sum")])
    merged = merged.select([*keys, f"{COUNT}_sum"]).rename_columns([*keys, COUNT])
    return merged.sort_by([(key, "ascending") for key in keys])


def deal(tail: Tail, user_key: str, num_tails: int) -> list[tuple[int, Tail]]:
    """The users of a tail by the number of their file."""
    number_E = _file_numbers(tail.events, user_key, num_tails)
    numbers = np.unique(number_E).tolist()
    if len(numbers) == 1:
        return [(numbers[0], tail)]
    events = [tail.events.filter(pa.array(number_E == number)) for number in numbers]
    if tail.older is None:
        return [(number, Tail(own, None)) for number, own in zip(numbers, events, strict=True)]
    of_older = _file_numbers(tail.older, user_key, num_tails)
    older = [_merged_older([tail.older.filter(pa.array(of_older == n))]) for n in numbers]
    return list(zip(numbers, map(Tail, events, older), strict=True))


def _file_numbers(table: pa.Table, user_key: str, num_tails: int) -> np.ndarray:
    users, codes = tables.distinct(tables.one_array(table[user_key]))
    return (fingerprint64(users.cast(pa.large_string())) % np.uint64(num_tails))[codes]


def joined(parts: Sequence[Tail], user_key: str) -> Tail:
    """Tails of different users as one, in the order of users.

    Args:
        parts: At least one tail; counts of older events may name users of several.
        user_key: Name of the feature by which events are grouped.
    """
    events = pa.concat_tables([part.events for part in parts]).combine_chunks()
    users, codes_E = tables.distinct(tables.one_array(events[user_key]))
    rank = np.empty(len(users), np.int64)
    rank[pc.array_sort_indices(users).to_numpy()] = np.arange(len(users))
    order = np.argsort(rank[codes_E], kind="stable")  # the events of a user are in one part
    return Tail(events.take(pa.array(order)), _merged_older([part.older for part in parts]))


def others(tail: Tail, users: pa.Array, user_key: str) -> Tail:
    """A tail whose events are those of all other users; the counts of older events stay."""
    is_other = pc.invert(pc.is_in(tail.events[user_key], value_set=users))
    return Tail(tail.events.filter(is_other), tail.older)


def items_of_file(items: pa.Table) -> pa.Table:
    """Items as `counting.merge_items` gives them, as the file keeps them: by first appearance."""
    in_order = items.sort_by([(FIRST_TIME, "ascending"), (FIRST_ROW, "ascending")])
    return in_order.drop_columns([FILE, LINE, FIRST_USE, CANDIDATES, FIRST_ROW])


def items_of_base(kept: pa.Table, like: pa.Table) -> pa.Table:
    """Items of the file as rows of `counting.count_items`, earlier than every row of a log.

    Args:
        kept: Content of the file.
        like: Items of a log, whose columns are wanted.
    """
    num_items = kept.num_rows
    columns = {name: kept[name] for name in kept.column_names}
    columns[FILE] = pa.array(np.full(num_items, EARLIER))
    columns[LINE] = pa.array(np.zeros(num_items, np.int64))
    columns[FIRST_USE] = pa.array(np.full(num_items, TRAIN))
    columns[CANDIDATES] = pa.array(np.zeros(num_items, np.int64))
    columns[FIRST_ROW] = pa.array(np.arange(num_items) - num_items)
    return pa.table({name: columns[name] for name in like.column_names}).cast(like.schema)


def with_items_of_base(kept: pa.Table, items: pa.Table, key: str) -> pa.Table:
    """The items of a base and those of a log: one row for each item and first use."""
    return merge_items(pa.concat_tables([items_of_base(kept, items), items]), key)


def to_bytes(table: pa.Table) -> bytes:
    """A table as the content of a file, compressed."""
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with pa.ipc.new_file(sink, table.schema, options=options) as writer:
        writer.write_table(table.combine_chunks())
    return sink.getvalue().to_pybytes()


def read(path: AnyPath) -> pa.Table:
    """The table of a file."""
    with files.random_access(path) as source:
        return pa.ipc.open_file(source).read_all()


def _decoded(table: pa.Table) -> pa.Table:
    columns = {name: tables.decoded(tables.one_array(table[name])) for name in table.column_names}
    return pa.table(columns)
