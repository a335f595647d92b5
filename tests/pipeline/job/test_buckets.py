"""Counts merged in buckets are those merged at once."""

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pytest
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.testing import test_pipeline
from hypothesis import given
from hypothesis import strategies as st

from pipeline.job.buckets import WriteBuckets, WriteItems, bucket_of
from pipeline.log import tables
from pipeline.requests import counting
from pipeline.requests.counting import COUNT, VALUE

FLOATS = st.floats(width=32, allow_nan=False)
VALUES = {
    pa.string(): st.text(max_size=3),
    pa.large_string(): st.text(max_size=3),
    pa.int64(): st.integers(-(2**63), 2**63 - 1),
    pa.int32(): st.integers(-9, 9),
    pa.float32(): FLOATS,
    pa.float64(): FLOATS,
    pa.bool_(): st.booleans(),
}


@given(st.data(), st.sampled_from(list(VALUES)), st.integers(1, 9))
def test_equal_values_meet_in_one_bucket(data, dtype, num_buckets):
    values = data.draw(st.lists(st.one_of(st.none(), VALUES[dtype])))
    values = pa.array(values + values[::-1], dtype)
    for column in (values, values.dictionary_encode()):
        buckets = bucket_of(column, num_buckets)
        assert buckets.tolist() == buckets[::-1].tolist()
        assert set(buckets.tolist()) <= set(range(num_buckets))
        assert buckets.tolist() == bucket_of(values, num_buckets).tolist()


@pytest.mark.parametrize("dtype", [pa.string(), pa.int64(), pa.float32()])
def test_buckets_hold_about_as_many_values_each(dtype):
    values = pa.array(np.arange(10_000) * 64).cast(dtype)
    sizes = np.bincount(bucket_of(values, 8), minlength=8)
    assert sizes.min() > 1000
    assert sizes.max() < 1500


@pytest.mark.parametrize("num_buckets", [1, 7])
@pytest.mark.parametrize("dtype", [pa.string(), pa.int64()])
def test_merged_buckets_are_what_is_merged_at_once(tmp_path, num_buckets, dtype):
    rng = np.random.default_rng(0)
    counts = [
        counting.count_values(pa.array(rng.integers(-50, 50, size)).cast(dtype))
        for size in (0, 60, 90)
    ]
    named = [("one", tables.to_bytes(table)) for table in counts]
    named += [("none", tables.to_bytes(counts[0]))]
    with test_pipeline.TestPipeline(runner=FnApiRunner()) as pipeline:
        merge = counting.merge_counts
        created = pipeline | beam.Create(named)
        _ = created | WriteBuckets(lambda name: tmp_path / name, merge, VALUE, num_buckets)
        items = pipeline | "Items" >> beam.Create([data for _, data in named])
        _ = items | WriteItems(tmp_path / "items", merge, VALUE, num_buckets)
    expected = merge(pa.concat_tables(counts))
    for name in ("one", "items"):
        assert counting.read(tmp_path / name).equals(expected)
        num_files = len(list((tmp_path / name).iterdir()))
        assert num_files == num_buckets
    nothing = counting.read(tmp_path / "none")
    assert (nothing.num_rows, nothing.column_names) == (0, [VALUE, COUNT])
