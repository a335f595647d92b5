"""Days of impressions equal one build over everything, byte for byte."""

import functools
import pathlib
import tempfile
import zlib

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from pipeline.arguments import BuildArguments
from pipeline.audit import audit
from pipeline.build_examples import build_examples
from pipeline.log.row_checks import FILE
from pipeline.requests.impressions import REQUEST_TIME, Impressions
from preprocessing.errors import UserError
from tests.helpers.impression_logs import (
    VOCABULARY,
    columns,
    rows_of_impressions,
    schema_file,
)
from tests.helpers.inline_runner import inline
from tests.helpers.small_data_sets import shard_bytes
from tests.helpers.small_logs import write_log

SETTINGS = settings(
    derandomize=True, phases=(Phase.explicit, Phase.generate), database=None, deadline=None
)


EVENT_FEATURES = (
    {"name": "place", "role": "event", "dtype": "string", "encoder": VOCABULARY, "default": "none"},
    {"name": "dwell", "role": "event", "dtype": "int64",
     "encoder": {"kind": "bucketised", "boundaries": [3, 6]}},
    {"name": "age", "role": "event", "from": "gap_to_request"},
    {"name": "pause", "role": "event", "from": "gap_to_previous"},
    {"name": "hour_of_day", "role": "context", "from": "hour"},
)  # fmt: skip


EVENTS = {"time": {"unit": "seconds"}, "more": EVENT_FEATURES}


def _columns(rows):
    """The columns, and what happened at each row."""
    numbers = [zlib.crc32(repr(row).encode()) for row in rows]
    return columns(rows) | {
        "time": [9000 * row[2] for row in rows],
        "place": [f"p{n % 4}" if n % 3 else None for n in numbers],
        "dwell": [n % 9 for n in numbers],
    }


def _build(directory, numbers, days, output, without, with_events=False, **arguments):
    of = _columns if with_events else columns
    paths = [write_log(directory / f"day{n}.jsonl", of(days[n])) for n in numbers]
    with inline():
        return build_examples(
            BuildArguments(
                input=",".join(paths),
                output=str(directory / output),
                schema=schema_file(directory, without, **EVENTS if with_events else {}),
                num_shards=2,
                **arguments,
            )
        )


def _days(seed, late):
    """Rows in three days, whole requests in one each; some requests come a day late."""
    rng = np.random.default_rng(seed)
    rows = rows_of_impressions(seed, users=12)
    start = {}
    for row in rows:
        start[row[3]] = min(row[2], start.get(row[3], row[2]))
    first, second = sorted(rng.integers(10, 55, 2).tolist())
    day_of = {
        name: min(2, (time > first) + (time > second) + (rng.random() < late))
        for name, time in start.items()
    }
    return [[row for row in rows if day_of[row[3]] == day] for day in range(3)]


def _whole(directory, days, day, data, watermark, without, **arguments):
    def is_new(rows):
        is_late = rows.table[REQUEST_TIME].to_numpy() < rows.plan.requests_from
        return (rows.table[FILE].to_numpy() == day) & ~is_late

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Impressions, "is_new", functools.cached_property(is_new))
        Impressions.is_new.__set_name__(Impressions, "is_new")
        return _build(
            directory, range(day + 1), days, f"whole{day}", without,
            train_from=str(watermark), vocabularies=str(data.path), **arguments,
        )  # fmt: skip


@settings(SETTINGS, max_examples=12)
@given(
    st.integers(0, 2**32),
    st.sampled_from([0.0, 0.1]),
    st.sampled_from([None, "request"]),
    st.sampled_from(["day", "time_split"]),
    st.integers(0, 3),
    st.booleans(),
    st.booleans(),
    st.sampled_from([0, 0, 1]),
)
def test_days_equal_one_build_over_everything(
    seed, late, without, protocol, min_history, deduplicate, with_events, expire_days
):
    days = _days(seed, late)
    # Tails keep clicks alone: another row of the base's latest time is not known again.
    arguments = {
        "min_history": min_history,
        "deduplicate": deduplicate and without is None,
        "with_events": with_events,
        "expire_days": expire_days if with_events else 0,
    }
    with tempfile.TemporaryDirectory() as directory:
        directory = pathlib.Path(directory)
        first = {**arguments, "protocol": "day", "min_history": 0}
        base = _build(directory, [0], days, "day0", without, **first)
        for day in (1, 2):
            try:
                data = _build(
                    directory, [day], days, f"day{day}", without, protocol=protocol,
                    base=str(base.path), **arguments,
                )  # fmt: skip
            except UserError as error:
                reasons = ("enough requests", "expected distinct times", "found none")
                if not any(reason in str(error) for reason in reasons):
                    raise
                return
            watermark = base.manifest["tails"]["watermark"]
            expected = _whole(
                directory, days, day, data, watermark, without, protocol=protocol, **arguments
            )
            assert shard_bytes(data.path) == shard_bytes(expected.path)
            assert data.stats["splits"] == expected.stats["splits"]
            for audited in (data, expected):
                assert audit(audited.path) == {}
            base = data


def test_a_click_that_the_base_has_is_counted_once(tmp_path):
    days = _days(3, 0.0)
    base = _build(tmp_path, [0], days, "day0", None, protocol="day")
    last = max(row[2] for row in days[0])
    again = [row for row in days[0] if row[4] and row[2] > last - 10]
    assert again
    once = _build(
        tmp_path, [1], days, "once", None, protocol="day", base=str(base.path), deduplicate=True
    )
    days[1] = [*again, *days[1]]
    twice = _build(
        tmp_path, [1], days, "twice", None, protocol="day", base=str(base.path), deduplicate=True
    )
    assert shard_bytes(once.path) == shard_bytes(twice.path)
    assert twice.manifest["base"]["duplicates"] == len(again)


def test_more_history_than_tails_keep_is_refused(tmp_path):
    days = _days(3, 0.0)
    base = _build(tmp_path, [0], days, "day0", None, protocol="day")
    with pytest.raises(UserError, match="--min_history: expected at most 4 beside --base"):
        _build(
            tmp_path, [1], days, "day1", None, protocol="day", base=str(base.path), min_history=5
        )
