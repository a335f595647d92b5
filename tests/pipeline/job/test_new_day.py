"""Days built on a base equal one build over everything, byte for byte."""

import functools
import pathlib
import tempfile

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from pipeline.audit import audit
from pipeline.log.row_checks import FILE, TIME
from pipeline.requests.events import Events
from preprocessing.errors import UserError
from tests.helpers.days import build
from tests.helpers.small_data_sets import shard_bytes

SETTINGS = settings(
    derandomize=True, phases=(Phase.explicit, Phase.generate), database=None, deadline=None
)


@st.composite
def histories(draw):
    """Three days of events (user, item, time, category, price, platform) with ties across them."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    size = draw(st.integers(60, 140))
    users, items = draw(st.sampled_from([(4, 12), (9, 30)]))
    times = np.sort(rng.integers(0, draw(st.sampled_from([15, 400])), size))
    late = draw(st.sampled_from([0.0, 0.15]))
    events = [
        (
            f"u{user}",
            f"i{item}",
            int(time),
            f"c{item % 3 + (time > 9)}",
            float(item % 7),
            "p0|p1" if item % 2 else f"p{user % 2}",
            "|".join(f"g{n}" for n in range(item % 4)),
            float(time % 5),
        )
        for user, item, time in zip(
            np.minimum(rng.geometric(0.25, size), users),
            np.minimum(rng.geometric(0.1, size), items + times // 8),
            times,
            strict=True,
        )
    ]
    first, second = sorted(draw(st.tuples(*[st.integers(size // 3, size)] * 2)))
    days = [events[:first], events[first:second], events[second:]]
    for day in (1, 2):
        for event in list(days[day - 1]):
            if rng.random() < late:  # a repetition that comes a day late, perhaps as another item
                item = event[1] if rng.random() < 0.5 else f"i{rng.integers(0, items)}"
                days[day].insert(
                    int(rng.integers(0, len(days[day]) + 1)), (event[0], item, *event[2:])
                )
    return days


def whole(directory, days, day, **arguments):
    """One build over all days up to `day` whose requests are those of that day."""

    def is_new(events):
        first_time = events.plan.requests_from
        is_of_day = events.table[FILE].to_numpy() == day.number
        return is_of_day & (events.table[TIME].to_numpy() >= first_time)

    with pytest.MonkeyPatch.context() as patch:
        # A time cannot say which of two events of one time came with which day.
        patch.setattr(Events, "is_new", functools.cached_property(is_new))
        Events.is_new.__set_name__(Events, "is_new")
        return build(
            directory,
            list(enumerate(days))[: day.number + 1],
            f"whole{day.number}",
            train_from=str(day.watermark),
            vocabularies=str(day.data.path),
            **arguments,
        )


def built_if_possible(*args, **arguments):
    """The data set, or None of a day without requests, or with too few times to split."""
    try:
        return build(*args, **arguments)
    except UserError as error:
        reasons = ("enough events", "expected distinct times", "found none")
        if not any(reason in str(error) for reason in reasons):
            raise
        return None


class Day:
    """A data set of a chain of days."""

    def __init__(self, number, data, watermark):
        self.number = number
        self.data = data
        self.watermark = watermark


def shards(data):
    return {name: content for name, content in shard_bytes(data.path).items() if "tfrecord" in name}


ARGUMENTS = st.fixed_dictionaries(
    {
        "protocol": st.sampled_from(["day", "day", "time_split"]),
        "validation_fraction": st.sampled_from([0.1, 0.4]),
        "min_history": st.integers(0, 2),
        "negatives": st.integers(0, 4),
        "negative_sampling": st.sampled_from(["uniform", "popularity", "available"]),
        "deduplicate": st.booleans(),
        "with_events": st.booleans(),
        "expire_days": st.sampled_from([0, 0, 1]),
    }
)


@settings(SETTINGS, max_examples=20)
@given(histories(), ARGUMENTS, st.sampled_from([2, 5]), st.integers(1, 3), st.integers(0, 9))
def test_days_equal_one_build_over_everything(days, arguments, max_length, min_count, order):
    if arguments["deduplicate"]:
        max_length = 200  # a repetition of what is older than the tail is not seen
    common = {"max_length": max_length, "min_count": min_count, **arguments}
    with tempfile.TemporaryDirectory() as directory:
        directory = pathlib.Path(directory)
        first = {"protocol": "leave_last_out", "train_prefixes": "all", "negatives": 0}
        base = built_if_possible(directory, [(0, days[0])], "day0", order, **{**common, **first})
        for number in (1, 2):
            if base is None:
                return
            watermark = base.manifest["tails"]["watermark"]
            more = {"num_partitions": 1 + order % 3}
            data = built_if_possible(
                directory, [(number, days[number])], f"day{number}", order,
                base=str(base.path), **common,
            )  # fmt: skip
            if data is None:
                return
            day = Day(number, data, watermark)
            expected = whole(directory, days, day, **common, **more)
            assert shards(data) == shards(expected)
            assert data.stats["splits"] == expected.stats["splits"]
            for audited in (data, expected):
                assert audit(audited.path) == {}
            for name, described in data.stats["vocabularies"].items():
                described.pop("given"), expected.stats["vocabularies"][name].pop("given")
                assert described == expected.stats["vocabularies"][name]
            for name, encoder in base.encoders.items():
                if hasattr(encoder, "vocabulary"):
                    known = encoder.vocabulary.to_pylist()
                    assert data.encoders[name].vocabulary.to_pylist()[: len(known)] == known
                else:
                    assert data.encoders[name].numbers() == encoder.numbers()
            base = data
