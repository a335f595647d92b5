"""Cut-offs found in bins of times are those of all distinct times, for any log and any bins."""

import random

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.log import tables
from pipeline.requests import time_bins
from pipeline.requests.counting import COUNT, VALUE
from pipeline.requests.time_bins import SCALE, Bins
from tests.reference import cutoffs, windows

EDGE = (1 << 63) - 1
TIMES = st.lists(
    st.one_of(
        st.integers(0, 20),
        st.integers(-300, 300),
        st.integers(-EDGE - 1, EDGE),
        st.sampled_from([-EDGE - 1, -1, 0, EDGE]),
    ),
    min_size=1,
    max_size=80,
)
FRACTIONS = st.floats(0.01, 0.99)


def _count(times, max_bins, num_parts, order):
    """Counts parts of some times, and merges the counts in some order and grouping."""
    parts = [times[n::num_parts] for n in range(num_parts)]
    counts = [time_bins.count(np.array(part, np.int64)) for part in parts]
    while len(counts) > 1:
        order.shuffle(counts)
        some = counts[: order.randint(2, 3)]
        # Elements of pipelines are bytes.
        merged = time_bins.merge(tables.concat(map(tables.to_bytes, some)))
        counts[: len(some)] = [merged]
    assert counts[0].num_rows <= max_bins
    return counts[0]


def _find(times, max_bins, split_fraction, validation_fraction, order):
    """The cut-offs, the number of later rows, and the number of passes it took to find them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time_bins, "MAX_BINS", max_bins)
        num_parts = order.randint(1, 5)
        bins = Bins.of(_count(times, max_bins, num_parts, order))
        num_passes = 1
        while unknown := (cuts := time_bins.cut(bins, split_fraction, validation_fraction)).unknown:
            num_passes += 1
            assert len(unknown) <= 2
            for place in unknown[::-1]:
                first, last = int(bins.first[place]), int(bins.last[place])
                inside = [time for time in times if first <= time <= last]
                assert len(inside) == bins.counts[place]
                finer = Bins.of(_count(inside, max_bins, num_parts, order))
                assert finer.first[0] >= first
                assert finer.last[-1] <= last
                bins = bins.refined(place, finer)
        assert bins.num_rows == len(times)
    return (cuts.train_end, cuts.validation_end), cuts.num_later, num_passes


@given(TIMES, st.integers(2, 40), FRACTIONS, FRACTIONS, st.randoms(use_true_random=False))
@example([-EDGE - 1, EDGE], 2, 0.5, 0.5, random.Random(0))
@example([*range(1000, 1100)] * 3 + [EDGE], 2, 0.8, 0.1, random.Random(0))
def test_cutoffs_are_those_of_all_distinct_times(times, max_bins, split, validation, order):
    found, num_later, _ = _find(times, max_bins, split, validation, order)
    values, counts = np.unique(np.array(times, np.int64), return_counts=True)
    assert found[1] == windows.cutoff(times, split) == cutoffs.time_cutoff(values, counts, split)
    assert num_later == sum(time > found[1] for time in times)
    try:
        expected = cutoffs.fit_cutoffs(values, counts, split, validation)
    except cutoffs.SharedTimesError:
        assert found[0] == found[1] or not num_later
    else:
        assert found == expected


@given(TIMES, st.integers(2, 40), st.one_of(st.just(0.0), FRACTIONS), st.randoms())
def test_a_day_ends_with_its_last_time(times, max_bins, validation, order):
    found, num_later, _ = _find(times, max_bins, 1.0, validation, order)
    values, counts = np.unique(np.array(times, np.int64), return_counts=True)
    assert (found, num_later) == (cutoffs.fit_day(values, counts, validation), 0)


def test_cutoffs_keep_rows_of_one_time_together():
    times = np.repeat([10, 20, 30, 40], [6, 1, 2, 1])
    bins = Bins.of(time_bins.count(times))
    # 8 of 10 rows are wanted: 30 is cut off after all its rows, 9 rows. 90% of those 9: up to 30,
    # which leaves nothing; 70% of them: 7 rows up to 20.
    assert time_bins.cut(bins, 0.8, 0.3) == ([], 20, 30, 1)
    assert time_bins.cut(bins, 0.8, 0.1) == ([], 30, 30, 1)


def test_bins_are_as_narrow_as_the_limit_lets_them(monkeypatch):
    monkeypatch.setattr(time_bins, "MAX_BINS", 4)
    counted = time_bins.count(np.array([0, 1, 2, 3, 8, 9, 900]))
    assert counted.to_pydict() == {VALUE: [0, 1, 4, 450], COUNT: [2, 2, 2, 1], SCALE: [1] * 4}
    merged = time_bins.merge(pa.concat_tables([counted, time_bins.count(np.array([5, 13]))]))
    assert merged.to_pydict() == {
        VALUE: [0, 1, 112],
        COUNT: [5, 3, 1],
        SCALE: [3] * 3,
    }
    assert time_bins.count(np.array([], np.int64)).num_rows == 0


def test_two_passes_find_the_cutoffs_of_millions_of_times():
    rng = np.random.default_rng(0)
    times = rng.integers(1_700_000_000_000, 1_710_000_000_000, 3_000_000).tolist()

    found, _, num_passes = _find(times, time_bins.MAX_BINS, 0.8, 0.1, random.Random(0))
    values, counts = np.unique(times, return_counts=True)
    assert (found, num_passes) == (cutoffs.fit_cutoffs(values, counts, 0.8, 0.1), 2)
