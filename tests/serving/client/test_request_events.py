"""Features of events and times in requests."""

import datetime

import pytest

from preprocessing.errors import UserError
from preprocessing.schema import Schema
from serving.client.equal_shapes import of_equal_shapes
from serving.client.request_format import RequestFormat
from tests.helpers import event_logs

SCHEMA = Schema.from_json(event_logs.schema(event_logs.ACTION, event_logs.PRICE, *event_logs.TIMES))
FORMAT = RequestFormat.from_schema(SCHEMA)
EVENT = {"item_id": "a", "category_id": "c", "action": "view", "price": None, "timestamp": 90}
REQUEST = {
    "user_id": "u",
    "timestamp": 100,
    "history": [EVENT],
    "candidates": [{"item_id": "b", "category_id": "c"}],
}
_INPUTS = {
    "user_id": ("DT_STRING", 1),
    "timestamp": ("DT_INT64", 1),
    "history_item_id": ("DT_STRING", 2),
    "history_category_id": ("DT_STRING", 2),
    "history_action": ("DT_STRING", 2),
    "history_price": ("DT_FLOAT", 2),
    "history_timestamp": ("DT_INT64", 2),
    "candidate_item_id": ("DT_STRING", 2),
    "candidate_category_id": ("DT_STRING", 2),
}
SIGNATURE = {
    "inputs": {
        name: {"dtype": dtype, "tensor_shape": {"dim": [{"size": "-1"}] * rank}}
        for name, (dtype, rank) in _INPUTS.items()
    }
}


def test_a_request_becomes_inputs_with_times():
    inputs = FORMAT.inputs(REQUEST, "")
    assert inputs["timestamp"] == [100]
    assert inputs["history_timestamp"] == [[90]]
    assert inputs["history_action"] == [["view"]]
    assert set(inputs) == set(_INPUTS)


def test_the_served_model_tells_the_same_format():
    served = RequestFormat.from_signature(SIGNATURE)
    served.require_equal(FORMAT, "here", "there")
    assert served.inputs(REQUEST, "")["history_timestamp"] == [[90]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"timestamp": None}, "expected an integer as 'timestamp', found None"),
        ({"timestamp": "soon"}, "expected an integer as 'timestamp', found 'soon'"),
        ({"history": [{**EVENT, "timestamp": 1.5}]}, "history[0]: expected an integer"),
        ({"history": [{"item_id": "a", "category_id": "c"}]}, "expected the field 'action'"),
        ({"candidates": [EVENT]}, "candidates[0]: unknown field 'action'"),
    ],
)
def test_mistakes_are_one_line(change, message):
    with pytest.raises(UserError) as error:
        FORMAT.inputs(REQUEST | change, "request")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_request_without_its_time_says_so():
    request = {key: value for key, value in REQUEST.items() if key != "timestamp"}
    with pytest.raises(UserError, match="expected the field 'timestamp'"):
        FORMAT.inputs(request, "")


@pytest.mark.parametrize(
    "time",
    [
        1_511_600_000_000_000,
        "2017-11-25T08:53:20",
        "2017-11-25 08:53:20Z",
        "2017-11-25T10:53:20+02:00",
        datetime.datetime(2017, 11, 25, 8, 53, 20),
    ],
)
def test_dates_may_be_texts(time):
    content = event_logs.schema(event_logs.AGE, unit=None)
    content["features"][3]["dtype"] = "datetime"
    fields = RequestFormat.from_schema(Schema.from_json(content))
    request = {
        "user_id": "u",
        "timestamp": time,
        "history": [],
        "candidates": [{"item_id": "b", "category_id": "c"}],
    }
    assert fields.inputs(request, "")["timestamp"] == [1_511_600_000_000_000]
    with pytest.raises(UserError, match="expected a time"):
        fields.inputs(request | {"timestamp": "yesterday"}, "")


def test_histories_of_equal_length_pad_times_too():
    inputs = of_equal_shapes(FORMAT.inputs(REQUEST, ""), SCHEMA, "")
    assert inputs["history_timestamp"] == [[90, -1, -1, -1, -1, -1]]
    assert inputs["history_action"] == [["view", "", "", "", "", ""]]
    assert inputs["timestamp"] == [100]
