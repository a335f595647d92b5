"""Tails: what a data set keeps of its log, so that the next day is built from that day alone.

    tails/events-00000-of-00008.arrow   the last `max_length` events of each user, oldest first
    tails/older-00000-of-00008.arrow    counts of the items of their events before these
    tails/items.arrow                   every item with its latest features, by first appearance
    tails/counts/<feature>.arrow        values that training has counted, with their counts
    tails/seen/<feature>.arrow          values with the time of their last event, if values expire

The files with events hold the users of one hash each and are in the order of users, so that their
bytes depend neither on workers nor on partitions. Events keep what histories need and nothing else:
the user, the time, the features of steps, and whether training has counted their values. Gaps
follow from the times.

Shape suffixes: E events, K items.
"""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.log import sorted_runs, tables
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
from preprocessing.features.feature import Feature, Role
from preprocessing.schema import Schema
from preprocessing.splits import TRAIN
from preprocessing.storage import files
from preprocessing.storage.files import AnyPath
from preprocessing.values.farmhash import fingerprint64

COUNTED, COUNTED_STEP = "#counted", "#counted_step"
"""Columns of an event: whether the item features that it brings to histories are among the counts,
and whether its event features are. A positive brings the former to training, but not the latter."""

EVENTS, OLDER = "events", "older"
"""The two files of a number."""

ITEMS = "items.arrow"
ITEMS_ORDER: sorted_runs.Order = [(FIRST_TIME, "ascending"), (FIRST_ROW, "ascending")]
COUNTS, SEEN = "counts", "seen"


_OPTIONS = pa.ipc.IpcWriteOptions(compression="zstd")
_BLOCK_ROWS = 1 << 20  # at once in memory


class Tail(NamedTuple):
    """What is kept of some users; None in place of a table without rows, which has no file.

    Attributes:
        events: Their last events, user by user, oldest first.
        older: Counts of their rows that are not among these: user, item, COUNT; without items, if
            negatives are not drawn.
    """

    events: pa.Table | None
    older: pa.Table | None


def file_name(kind: str, number: int, num_tails: int) -> str:
    """Name of a file of `EVENTS` or `OLDER`."""
    return f"{kind}-{number:05d}-of-{num_tails:05d}.arrow"


def counted_columns(schema: Schema) -> list[str]:
    """Those of `COUNTED` and `COUNTED_STEP` that tails of a schema have."""
    has_events = any(feature.derived is None for feature in schema.event_features)
    return [COUNTED, COUNTED_STEP] if has_events else [COUNTED]


def counted_column(feature: Feature) -> str:
    """The one of `COUNTED` and `COUNTED_STEP` that tells of the values of a feature."""
    return COUNTED_STEP if feature.role is Role.EVENT else COUNTED


def was_counted(rows: pa.Table, column: str) -> np.ndarray:
    """Whether training has counted values of each row in an earlier build, bool [E].

    Args:
        rows: Rows of a partition.
        column: One of `COUNTED` and `COUNTED_STEP`.
    """
    if column not in rows.column_names:  # There is no base.
        return np.zeros(rows.num_rows, bool)
    return rows[column].to_numpy()


def cut(
    rows: pa.Table,
    order: np.ndarray,
    counted: Mapping[str, np.ndarray],
    schema: Schema,
    names: Sequence[str],
    counted_by: Sequence[str] | None,
) -> Tail:
    """Splits the rows of whole users into the last `max_length` events of each and all others.

    Args:
        rows: The rows, user by user.
        order: Rows that are events, user by user, oldest first.
        counted: Whether training has counted values of each row, bool [E] for each of
            `counted_columns`; others are left out.
        schema: Schema that names the user and the features of steps.
        names: Further columns to keep of events.
        counted_by: Columns by which the other rows are counted beside the user; None if they are
            not counted.
    """
    user = schema.user_key.name
    starts = tables.group_starts(tables.one_array(rows[user]).take(pa.array(order)))
    from_end = np.repeat(starts[1:], np.diff(starts)) - np.arange(len(order))
    kept_rows = order[from_end <= schema.history.max_length]
    features = [feature for feature in schema.step_features if feature.derived is None]
    columns = [user, TIME, *(feature.name for feature in features)]
    columns += [defaulted_column(f.name) for f in features if f.default is not None]
    kept = rows.select(list(dict.fromkeys([*columns, *names])))
    for column in counted_columns(schema):
        kept = kept.append_column(column, pa.array(counted[column]))
    kept = kept.take(pa.array(kept_rows))
    older = None
    if counted_by is not None:
        is_other = np.ones(rows.num_rows, bool)
        is_other[kept_rows] = False
        keys = [user, *counted_by]
        older = count_older(rows.select(keys).filter(pa.array(is_other)), keys)
    return Tail(_decoded(kept) if kept.num_rows else None, older)


def count_older(rows: pa.Table, columns: Sequence[str]) -> pa.Table | None:
    """Counts of rows that are not among the last events of their users, see `Tail`.

    Args:
        rows: The rows, in any order.
        columns: Columns by which they are counted, the user first.
    """
    keys = _decoded(rows.select(columns))
    return _merged_older([keys.append_column(COUNT, pa.array(np.ones(rows.num_rows, np.int64)))])


def _merged_older(parts: Sequence[pa.Table | None]) -> pa.Table | None:
    """Counts of the same keys added up, sorted by these; None if there are none.

    Parts that are sorted, as those of a base are, make it fast.
    """
    with_rows = [part for part in parts if part is not None and part.num_rows]
    if not with_rows:
        return None
    older = pa.concat_tables(with_rows).combine_chunks()
    keys = [name for name in older.column_names if name != COUNT]
    code_E = np.zeros(older.num_rows, np.int64)
    for name in keys:
        rank_E, num_values = _ranks(older[name])
        code_E = code_E * num_values + rank_E
    order = np.argsort(code_E, kind="stable")
    starts = np.flatnonzero(np.diff(code_E[order], prepend=-1))
    counts = np.add.reduceat(older[COUNT].to_numpy()[order], starts)
    merged = older.select(keys).take(pa.array(order[starts]))
    return merged.append_column(COUNT, pa.array(counts))


def _ranks(column: pa.ChunkedArray) -> tuple[np.ndarray, int]:
    """The place of each value among the distinct ones in ascending order, and their number."""
    values, codes = tables.distinct(tables.one_array(column))
    rank = np.empty(len(values), np.int64)
    rank[pc.array_sort_indices(values).to_numpy()] = np.arange(len(values))
    return rank[codes], len(values)


def counts_by_user(older: pa.Table, users: pa.Array) -> np.ndarray:
    """Number of older rows of each of some users, int64 [U].

    Args:
        older: Counts, the first column of which has the users.
        users: [U] keys of users.
    """
    places = pc.index_in(older.column(0), value_set=users)
    is_wanted = pc.is_valid(places).to_numpy()
    counts_U = np.zeros(len(users), np.int64)
    wanted_places = places.drop_null().to_numpy()
    np.add.at(counts_U, wanted_places, older[COUNT].to_numpy()[is_wanted])
    return counts_U


def deal(tail: Tail, user_key: str, num_tails: int) -> list[tuple[int, Tail]]:
    """The users of a tail by the number of their file."""
    dealt: dict[int, list[pa.Table | None]] = {}
    for place, table in enumerate(tail):
        if table is not None:
            own = _file_numbers(table, user_key, num_tails)
            numbers = np.unique(own).tolist()
            for number in numbers:
                part = table if len(numbers) == 1 else table.filter(pa.array(own == number))
                dealt.setdefault(number, [None, None])[place] = part.combine_chunks()
    return [(number, Tail(*parts)) for number, parts in dealt.items()]


def _file_numbers(table: pa.Table, user_key: str, num_tails: int) -> np.ndarray:
    users, codes = tables.distinct(tables.one_array(table[user_key]))
    return (fingerprint64(users.cast(pa.large_string())) % np.uint64(num_tails))[codes]


def joined(parts: Sequence[Tail], user_key: str) -> Tail:
    """Tails as one, in the order of users.

    Args:
        parts: Tails: the events of a user are in one of them, older counts may be in several.
        user_key: Name of the feature by which events are grouped.
    """
    older = _merged_older([part.older for part in parts])
    with_events = [part.events for part in parts if part.events is not None]
    if not with_events:
        return Tail(None, older)
    events = pa.concat_tables(with_events).combine_chunks()
    rank_E, _ = _ranks(events[user_key])
    return Tail(events.take(pa.array(np.argsort(rank_E, kind="stable"))), older)


def without(tail: Tail, users: pa.Array, user_key: str) -> Tail:
    """A tail without the events of some users; the counts of older ones stay."""
    if tail.events is None:
        return tail
    is_other = pc.invert(pc.is_in(tail.events[user_key], value_set=users))
    return Tail(tail.events.filter(is_other), tail.older)


def items_of_file(items: pa.Table) -> pa.Table:
    """Items as `counting.merge_items` gives them, as the file keeps them: in `ITEMS_ORDER`."""
    return items.drop_columns([FILE, LINE, FIRST_USE, CANDIDATES, FIRST_ROW])


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
    with pa.ipc.new_file(sink, table.schema, options=_OPTIONS) as writer:
        writer.write_table(table.combine_chunks())
    return sink.getvalue().to_pybytes()


def write(path: AnyPath, pieces: Iterable[pa.Table]) -> None:
    """Writes the rows of tables of one schema, at least one, as they come, compressed.

    The bytes do not depend on how the rows were cut.
    """
    blocks = sorted_runs.in_blocks(pieces, _BLOCK_ROWS)
    first = next(blocks)
    with (
        files.create(path) as file,
        pa.ipc.new_file(file, first.schema, options=_OPTIONS) as writer,
    ):
        for block in itertools.chain([first], blocks):
            writer.write_table(block)


def read(path: AnyPath) -> pa.Table:
    """The table of a file."""
    with files.random_access(path) as source:
        return pa.ipc.open_file(source).read_all()


def _decoded(table: pa.Table) -> pa.Table:
    columns = {name: tables.decoded(tables.one_array(table[name])) for name in table.column_names}
    return pa.table(columns)
