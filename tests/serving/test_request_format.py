import math

import pytest
import toy_runs

from preprocessing.errors import UserError
from preprocessing.schema import Schema
from serving.client import Client
from serving.request_format import RequestFormat

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
    assert math.isnan(FORMAT.inputs(REQUEST | {"age": None}, "")["age"][0])


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"user_id": 5}, "expected a string as 'user_id', found 5"),
        ({"user_id": None}, "expected a string as 'user_id', found None"),
        ({"hour": 3.0}, "expected an integer as 'hour', found 3.0"),
        ({"hour": True}, "expected an integer as 'hour', found True"),
        ({"age": "20"}, "expected a number as 'age', found '20'"),
        ({"histroy": []}, "unknown field 'histroy'; known are user_id"),
        ({"histroy": []}, "did you mean 'history'?"),
        ({"history": {}}, "expected a list as 'history', found {}"),
        ({"history": ["a"]}, "history[0]: expected an object, found 'a'"),
        ({"history": [{"item_id": "a"}]}, "history[0]: expected the field 'category_id', found it"),
        ({"candidates": [CANDIDATE, EVENT]}, "candidates[1]: expected the field 'price'"),
        ({"candidates": [CANDIDATE | {"item_id": 7}]}, "candidates[0]: expected a string as 'item"),
        ({"candidates": [CANDIDATE | {"colour": "x"}]}, "candidates[0]: unknown field 'colour'"),
        ({"candidates": []}, "expected at least one candidate, found none"),
    ],
)
def test_refusals(changes, expected):
    assert expected in refusal(changes)


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
    assert served.user["age"].default is None


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
    with pytest.raises(UserError, match="serve a model that serving.export wrote"):
        RequestFormat.from_signature(signature)
