import math

import numpy as np
import pytest

from preprocessing.errors import UserError
from preprocessing.schema import Schema
from serving.client import Client
from serving.client.request_format import RequestFormat
from tests.helpers import toy_runs

FORMAT = RequestFormat.from_schema(toy_runs.SCHEMA)
EVENT = {"item_id": "a", "category_id": 1}
CANDIDATE = EVENT | {"price": 2.5}
REQUEST = {
    "user_id": "u",
    "age": 20,
    "hour": 3,
    "history": [EVENT],
    "candidates": [CANDIDATE, CANDIDATE | {"price": 3}],
}


def refusal(changes, drop=()):
    request = {key: value for key, value in (REQUEST | changes).items() if key not in drop}
    with pytest.raises(UserError) as caught:
        FORMAT.inputs(request, "file:3")
    message = str(caught.value)
    assert message.startswith("file:3: ")
    assert "\n" not in message
    return message


def test_inputs_have_a_batch_of_one():
    assert FORMAT.inputs(REQUEST, "") == {
        "user_id": ["u"],
        "age": [20],
        "hour": [3],
        "history_item_id": [["a"]],
        "history_category_id": [[1]],
        "candidate_item_id": [["a", "a"]],
        "candidate_category_id": [[1, 1]],
        "candidate_price": [[2.5, 3]],
    }


def test_empty_history_is_fine():
    assert FORMAT.inputs(REQUEST | {"history": []}, "")["history_item_id"] == [[]]


def test_events_may_carry_all_fields_of_an_item():
    inputs = FORMAT.inputs(REQUEST | {"history": [CANDIDATE]}, "")
    assert "history_price" not in inputs


def test_default_stands_in_for_a_missing_field():
    request = {key: value for key, value in REQUEST.items() if key != "age"}
    assert FORMAT.inputs(request, "")["age"] == [30.0]


def test_null_is_a_missing_number():
    assert FORMAT.inputs(REQUEST | {"age": None}, "")["age"] == [30.0]
    candidates = [CANDIDATE | {"price": None}]
    inputs = FORMAT.inputs(REQUEST | {"candidates": candidates}, "")
    assert math.isnan(inputs["candidate_price"][0][0])


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"user_id": []}, "expected a string or an exact number as 'user_id', found []"),
        ({"user_id": None}, "expected a string or an exact number as 'user_id', found None"),
        ({"user_id": math.nan}, "expected a string or an exact number as 'user_id', found nan"),
        ({"user_id": 2.0**53}, "expected a string or an exact number as 'user_id', found 90071992"),
        (
            {"user_id": "1.23457E+11"},
            "expected a string or an exact number as 'user_id', found '1.",
        ),
        ({"hour": 3.5}, "expected an integer as 'hour', found 3.5"),
        ({"hour": math.inf}, "expected an integer as 'hour', found inf"),
        ({"hour": 2.0**53}, "expected an integer as 'hour', found 9007199254740992.0"),
        ({"hour": "3"}, "expected an integer as 'hour', found '3'"),
        ({"age": "20"}, "expected a number as 'age', found '20'"),
        ({"histroy": []}, "unknown field 'histroy'; known are user_id"),
        ({"histroy": []}, "did you mean 'history'?"),
        ({"history": {}}, "expected a list as 'history', found {}"),
        ({"history": ["a"]}, "history[0]: expected an object, found 'a'"),
        ({"history": [{"item_id": "a"}]}, "history[0]: expected the field 'category_id', found it"),
        ({"candidates": [CANDIDATE, EVENT]}, "candidates[1]: expected the field 'price'"),
        (
            {"candidates": [CANDIDATE | {"item_id": {}}]},
            "candidates[0]: expected a string or an exa",
        ),
        ({"candidates": [CANDIDATE | {"colour": "x"}]}, "candidates[0]: unknown field 'colour'"),
        ({"candidates": []}, "expected at least one candidate, found none"),
    ],
)
def test_refusals(changes, expected):
    assert expected in refusal(changes)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (7, "7"),
        (7.0, "7"),
        (np.float64(7.0), "7"),
        (np.int64(7), "7"),
        ("7.0", "7"),
        (1e11, "100000000000"),
        (7.5, "7.5"),
        (True, "true"),
        ("True", "true"),
        ("007", "007"),
        (2**70, str(2**70)),
        ("NULL", ""),
    ],
)
def test_values_are_spelled_as_in_the_data_set(value, text):
    """Whatever a data frame made of an id: `test_spelling` has the same pairs."""
    assert FORMAT.inputs(REQUEST | {"user_id": value}, "")["user_id"] == [text]


@pytest.mark.parametrize(
    ("value", "number"), [(3.0, 3), (np.int32(3), 3), (True, 1), (2**60, 2**60)]
)
def test_integers_may_come_as_other_whole_numbers(value, number):
    (hour,) = FORMAT.inputs(REQUEST | {"hour": value}, "")["hour"]
    assert (hour, type(hour)) == (number, int)


@pytest.mark.parametrize("name", ["user_id", "hour", "history", "candidates"])
def test_missing_fields(name):
    assert f"expected the field {name!r}" in refusal({}, drop=[name])


def test_requests_are_objects():
    with pytest.raises(UserError, match="expected an object, found"):
        FORMAT.inputs([REQUEST], "file:1")


def test_metadata_says_the_same_as_the_schema(toy_url):
    with Client(toy_url) as client:
        served = RequestFormat.from_signature(client.signature("serving_default"))
    FORMAT.require_equal(served, "here", "there")
    assert math.isnan(served.user["age"].default)  # the model knows which number that is
    assert served.user["hour"].default is None


def test_other_schema_is_refused():
    content = toy_runs.SCHEMA.to_json()
    content["features"][2] |= {"name": "minute", "dtype": "string"}
    other = RequestFormat.from_schema(Schema.from_json(content))
    with pytest.raises(UserError) as caught:
        FORMAT.require_equal(other, "mine", "the model")
    assert "hour: int64 here, absent there; minute: absent here, string there" in str(caught.value)


def test_model_of_another_kind_is_refused(http, served):
    with Client(served.url) as client:
        signature = client.signature("serving_default")
    with pytest.raises(UserError, match="serve a model that ctr-export wrote"):
        RequestFormat.from_signature(signature)
