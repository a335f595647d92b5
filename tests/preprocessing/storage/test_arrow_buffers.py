"""preprocessing.storage.arrow_buffers: slices of bytes as Arrow arrays."""

import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
from hypothesis import given

from preprocessing.storage.arrow_buffers import binary_buffers, copied_slices, from_buffers


@given(st.binary(max_size=60), st.data())
def test_slices_may_overlap_and_come_in_any_order(data, draw):
    place = st.integers(0, len(data))
    spans = [sorted(pair) for pair in draw.draw(st.lists(st.tuples(place, place), max_size=8))]
    starts, ends = np.array(spans, np.int64).reshape(-1, 2).T
    column = copied_slices(np.frombuffer(data, np.uint8), starts, ends - starts)
    column.validate(full=True)
    assert column.type == pa.large_binary()
    assert column.to_pylist() == [data[start:end] for start, end in spans]


def test_buffers_of_a_part_of_a_column():
    column = pa.array([b"ab", b"", b"cde", b"f"], pa.large_binary()).slice(1, 2)
    data, offsets = binary_buffers(column)
    assert from_buffers(data, offsets).to_pylist() == [b"", b"cde"]
    assert [data[a:b].tobytes() for a, b in zip(offsets[:-1], offsets[1:], strict=True)] == [
        b"",
        b"cde",
    ]
