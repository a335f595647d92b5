"""Sorted tables as files, merged into one order without any of them in memory.

A run is a file of sorted rows in blocks. `merged` reads a block of each run at a time, and many
runs have short blocks, so that its memory does not grow with the rows.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.log import tables
from preprocessing.storage.files import AnyPath

BLOCK_ROWS = 1 << 16
"""Most rows of a run that are read at once."""

_HELD_ROWS = 1 << 22  # of all runs together

Order = Sequence[tuple[str, Literal["ascending", "descending"]]]
"""Columns without nulls by which rows are sorted, the first of which is primary; no two rows of all
runs are equal in all of them."""


def write(path: AnyPath, rows: pa.Table, num_runs: int) -> None:
    """Writes sorted rows as a run.

    Args:
        path: The file.
        rows: The rows.
        num_runs: Number of runs that will be merged; the more there are, the shorter are blocks.
    """
    block = max(1, min(BLOCK_ROWS, _HELD_ROWS // num_runs))
    starts = range(0, max(1, rows.num_rows), block)  # a file without rows has their columns
    tables.write_pieces(path, (rows.slice(start, block) for start in starts))


def merged(paths: Iterable[AnyPath], order: Order) -> Iterator[pa.Table]:
    """Yields the rows of all runs in order, in tables of any size; one without rows if none has.

    Args:
        paths: Runs of one schema, each sorted by `order`, at least one.
        order: Columns and directions.
    """
    runs = [_Run(path) for path in paths]
    is_first = True
    while True:
        # Beyond the last row that was read of a run, other rows of it may be next.
        ends = [run.rows.slice(run.rows.num_rows - 1) for run in runs if run.has_more]
        if not ends:
            break
        limit = pa.concat_tables(ends).sort_by(list(order)).slice(0, 1)
        yield _sorted([run.take_up_to(limit, order) for run in runs], order)
        is_first = False
    rest = _sorted([run.rows for run in runs], order)
    if rest.num_rows or is_first:
        yield rest


def in_blocks(pieces: Iterable[pa.Table], num_rows: int) -> Iterator[pa.Table]:
    """Yields the rows of tables as tables of `num_rows` rows, the last of which may have fewer.

    The result does not depend on how the rows were cut; it is one table if there are none.
    """
    held: list[pa.Table] = []
    num_held, is_first = 0, True
    for piece in pieces:
        held.append(piece)
        num_held += piece.num_rows
        while num_held > num_rows:
            together = pa.concat_tables(held)
            yield together.slice(0, num_rows).combine_chunks()
            is_first = False
            held, num_held = [together.slice(num_rows)], num_held - num_rows
    if held and (num_held or is_first):
        yield pa.concat_tables(held).combine_chunks()


class _Run:
    """A run that is being merged.

    Attributes:
        rows: The rows that were read and not taken; some, as long as there are more.
        has_more: Whether the file has more rows than these.
    """

    def __init__(self, path: AnyPath) -> None:
        self._pieces = tables.read_pieces(path)
        self._next = next(self._pieces, None)
        self.rows = tables.schema(path).empty_table()
        if self.has_more:
            self._advance()

    @property
    def has_more(self) -> bool:
        return self._next is not None

    def take_up_to(self, limit: pa.Table, order: Order) -> pa.Table:
        """Takes the rows that are not behind a row."""
        is_wanted = _not_behind(self.rows, limit, order)
        num_wanted = pc.sum(is_wanted).as_py() or 0
        taken, self.rows = self.rows.slice(0, num_wanted), self.rows.slice(num_wanted)
        if not self.rows.num_rows and self.has_more:
            self._advance()
        return taken

    def _advance(self) -> None:
        assert self._next is not None
        self.rows, self._next = self._next, next(self._pieces, None)


def _not_behind(rows: pa.Table, limit: pa.Table, order: Order) -> pa.ChunkedArray:
    """Whether each row comes before a row or is equal to it."""
    name, direction = order[0]
    bound = limit[name][0]
    is_before = pc.less if direction == "ascending" else pc.greater
    before, equal = is_before(rows[name], bound), pc.equal(rows[name], bound)
    if len(order) > 1:
        equal = pc.and_(equal, _not_behind(rows, limit, order[1:]))
    return pc.or_(before, equal)


def _sorted(parts: Sequence[pa.Table], order: Order) -> pa.Table:
    with_rows = [part for part in parts if part.num_rows] or parts[:1]
    rows = pa.concat_tables(with_rows)
    return rows if len(with_rows) == 1 else rows.sort_by(list(order))
