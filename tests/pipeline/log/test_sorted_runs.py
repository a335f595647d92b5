"""Runs that are merged block by block are what sorting all of their rows gives."""

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.log import sorted_runs

ORDERS = [
    [("count", "descending"), ("text", "ascending")],
    [("text", "ascending"), ("count", "ascending")],
    [("count", "ascending"), ("text", "descending")],
]
ROWS = st.tuples(st.integers(-3, 3), st.text(st.sampled_from("aé\U0001f600"), max_size=3))


def _table_of(rows):
    counts, texts = [row[0] for row in rows], [row[1] for row in rows]
    schema = pa.schema({"count": pa.int64(), "text": pa.large_string()})
    return pa.table({"count": counts, "text": texts}, schema)


@given(
    st.lists(ROWS, unique=True, max_size=60),
    st.integers(1, 5),
    st.integers(1, 7),
    st.sampled_from(ORDERS),
)
def test_merged_runs_are_sorted_rows(tmp_path_factory, rows, num_runs, block, order):
    directory = tmp_path_factory.mktemp("runs")
    paths = [directory / f"{number}.arrow" for number in range(num_runs)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sorted_runs, "BLOCK_ROWS", 5)
        patch.setattr(sorted_runs, "_HELD_ROWS", num_runs * block)
        for number, path in enumerate(paths):
            sorted_runs.write(path, _table_of(rows[number::num_runs]).sort_by(order), num_runs)
        pieces = list(sorted_runs.merged(paths, order))
    assert all(piece.num_rows <= 2 * num_runs * block for piece in pieces)
    assert pa.concat_tables(pieces).equals(_table_of(rows).sort_by(order))


@given(st.lists(st.integers(0, 5), max_size=6), st.integers(1, 4))
def test_blocks_do_not_depend_on_how_rows_came(sizes, num_rows):
    total = sum(sizes)
    whole = pa.table({"row": pa.array(range(total), pa.int64())})
    starts = [sum(sizes[:number]) for number in range(len(sizes))]
    pieces = [whole.slice(start, size) for start, size in zip(starts, sizes, strict=True)]
    blocks = list(sorted_runs.in_blocks(pieces, num_rows))
    expected = [min(num_rows, total - start) for start in range(0, total, num_rows)]
    assert [block.num_rows for block in blocks] == (expected or [0] * bool(sizes))
    if blocks:
        assert pa.concat_tables(blocks).combine_chunks().equals(whole)
