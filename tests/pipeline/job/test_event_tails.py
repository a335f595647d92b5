"""What tails keep of the events of a day: their features, each counted once over all days."""

import collections

import numpy as np
import pytest

from pipeline.audit import audit
from pipeline.job.keep_tails import tails
from preprocessing import data_dir
from tests.helpers import days
from tests.helpers.small_data_sets import read_examples


def _log(day, size=60):
    """Events of a day, no two of a user at the same time."""
    rng = np.random.default_rng(day)
    times = 100 * day + np.sort(rng.permutation(100)[:size])
    return [
        (f"u{rng.integers(5)}", f"i{rng.integers(12)}", int(time), "c", 1.0, "p0", "g0", 1.0)
        for time in times
    ]


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    """Three days on top of each other."""
    directory = tmp_path_factory.mktemp("chain")
    common = {"with_events": True, "protocol": "day", "max_length": 3, "validation_fraction": 0.3}
    sets = [days.build(directory, [(0, _log(0))], "day0", **common)]
    for day in (1, 2):
        base = str(sets[-1].path)
        sets.append(days.build(directory, [(day, _log(day))], f"day{day}", base=base, **common))
    return sets


def test_what_happened_is_counted_once_over_all_days(chain):
    event_of = {(event[0], 900 * event[2]): event for day in range(3) for event in _log(day)}
    seen, actions, tags = set(), collections.Counter(), collections.Counter()
    for data in chain:
        for example in read_examples(data, "train").values():
            user = example["request/user"][0].decode()
            seen |= {(user, time) for time in example["history/timestamp"]}
        for key in seen:
            action, _, tag = days.happened(event_of[key])
            actions[action] += 1
            tags.update(filter(None, tag.split("|")))
        for name, expected in (("action", actions), ("tags", tags)):
            kept = tails.read(data.path / data_dir.TAILS / f"counts/{name}.arrow")
            assert dict(zip(*(column.to_pylist() for column in kept), strict=True)) == expected
        actions.clear(), tags.clear()
    assert audit(chain[-1].path) == {}


def test_a_history_of_a_day_has_what_happened_the_day_before(chain):
    event_of = {(event[0], 900 * event[2]): event for day in range(2) for event in _log(day)}
    data, crossing = chain[1], 0
    first = data.manifest["base"]["watermark"]
    for example in read_examples(data, "train").values():
        user, times = example["request/user"][0].decode(), example["history/timestamp"]
        events = [event_of[user, time] for time in times]
        wanted = data.encoders["action"].encode([days.happened(event)[0] for event in events])
        assert example["history/action"] == wanted.tolist()
        crossing += bool(times) and times[0] <= first
    assert crossing


def test_tails_without_features_of_events_are_as_they_were(tmp_path):
    data = days.build(tmp_path, [(0, _log(0))], "data", protocol="day")
    names = {name for name in data.manifest["tails"]["files"] if name.startswith(tails.EVENTS)}
    for name in names:
        columns = tails.read(data.path / data_dir.TAILS / name).column_names
        assert tails.COUNTED in columns
        assert tails.COUNTED_STEP not in columns
