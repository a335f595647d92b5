"""Records of features of events and of what derives from times."""

import datetime

import numpy as np
import pyarrow as pa
import pytest

from preprocessing.encoders import fitting
from preprocessing.errors import UserError
from preprocessing.features import derived
from preprocessing.features.derived import Derived
from preprocessing.features.feature import Role
from preprocessing.schema import Schema
from tests.helpers import event_logs


def _with(*features, **options):
    return Schema.from_json(event_logs.schema(*features, **options), "s.json")


def test_a_schema_keeps_its_records():
    schema = _with(*event_logs.EVENTS, *event_logs.TIMES)
    again = Schema.from_json(schema.to_json())
    assert again == schema
    assert again.hash() == schema.hash()
    assert {f.name for f in schema.event_features} == {
        "action", "coupon", "dwell", "price", "age", "pause",
    }  # fmt: skip
    assert {"name": "age", "role": "event", "from": "gap_to_request"} in schema.to_json()[
        "features"
    ]
    assert [f.name for f in schema.item_features] == ["item_id", "category_id"]


def test_the_order_of_records_means_nothing():
    features = [*event_logs.EVENTS, *event_logs.TIMES]
    assert _with(*features).hash() == _with(*features[::-1]).hash()


def test_callers_send_times_only_if_the_model_uses_them():
    def names(*features):
        schema = _with(*features)
        return ([f.name for f in schema.request_fields][1:],
                [f.name for f in schema.event_fields][2:])  # fmt: skip

    assert names() == ([], [])
    assert names(event_logs.ACTION) == ([], ["action"])
    assert names(event_logs.HOUR) == (["timestamp"], [])
    assert names(event_logs.PAUSE) == ([], ["timestamp"])
    assert names(event_logs.AGE) == (["timestamp"], ["timestamp"])


@pytest.mark.parametrize(
    ("features", "unit", "message"),
    [
        ([event_logs.AGE], None, "expected times for 'age' (\"from\": 'gap_to_request') of a known "
         "unit, found int64 without 'unit'. Fix: say \"unit\": \"seconds\""),
        ([{**event_logs.AGE, "role": "context"}], "seconds", "expected the role 'event' for "
         "\"from\": 'gap_to_request', found 'context'"),
        ([{**event_logs.HOUR, "role": "event"}], "seconds", "expected the role 'context'"),
        ([{**event_logs.HOUR, "from": "minute"}], "seconds", "expected one of hour, weekday, "
         "gap_to_request, gap_to_previous, found 'minute'"),
        ([{**event_logs.HOUR, "dtype": "int64"}], "seconds", "unknown key 'dtype'"),
        ([], "days", "unit: expected one of seconds, milliseconds, microseconds, nanoseconds"),
        ([{**event_logs.ACTION, "unit": "seconds"}], "seconds", "expected 'unit' for the role "
         "'timestamp' and dtype int64 only"),
        ([{"name": "action", "role": "event", "dtype": "string"}], "seconds",
         "expected an 'encoder' for role 'event'"),
        ([{**event_logs.ACTION, "name": "timestamp"}], "seconds", "expected a name other than"),
    ],
)  # fmt: skip
def test_mistakes_are_one_line(features, unit, message):
    with pytest.raises(UserError) as error:
        _with(*features, unit=unit)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_gaps_need_times():
    content = event_logs.schema(event_logs.AGE)
    del content["features"][3]
    with pytest.raises(UserError, match="found no feature of role 'timestamp'"):
        Schema.from_json(content)


def test_an_event_feature_is_none_of_the_history_features():
    content = event_logs.schema(event_logs.ACTION)
    content["history"]["features"].append("action")
    with pytest.raises(UserError, match="expected names of item features"):
        Schema.from_json(content)


@pytest.mark.parametrize("ticks", [1, 1000, 10**6, 10**9])
def test_hours_and_weekdays_are_those_of_the_calendar(ticks):
    rng = np.random.default_rng(0)
    times = rng.integers(-(2**32), 2**32, 500)
    scaled = times * ticks + rng.integers(0, ticks, 500)
    epoch = datetime.datetime(1970, 1, 1)
    moments = [epoch + datetime.timedelta(seconds=int(time)) for time in times]
    hours = derived.of_request(Derived.HOUR, scaled, ticks)
    weekdays = derived.of_request(Derived.WEEKDAY, scaled, ticks)
    assert hours.tolist() == [moment.hour for moment in moments]
    assert weekdays.tolist() == [moment.weekday() for moment in moments]


def test_a_gap_has_an_id_by_its_binary_digits():
    feature = _with(event_logs.AGE)["age"]
    assert feature.role is Role.EVENT
    encoder = fitting.fit(feature, pa.array([], pa.int64()), np.zeros(0, np.int64))
    seconds = [0, 1, 2, 3, 4, 7, 8, 2**29 - 1, 2**29, 2**40]
    assert encoder.encode(seconds).tolist() == [2, 3, 4, 4, 5, 5, 6, 31, 32, 32]
    assert encoder.encode([None]).tolist() == [0]
    assert encoder.cardinality == 33
