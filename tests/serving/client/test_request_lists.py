"""Fields of many values in requests: lists of any length, and inputs of one width."""

import copy

import numpy as np
import pytest

from preprocessing.errors import UserError
from preprocessing.schema import Schema
from serving.client.equal_shapes import of_equal_shapes
from serving.client.request_format import Field, RequestFormat
from tests.helpers import many_logs

SCHEMA = Schema.from_json(many_logs.schema())
FORMAT = RequestFormat.from_schema(SCHEMA)
REQUEST = {
    "user_id": "u",
    "languages": [3, 1],
    "tags": [],
    "history": [{"item_id": "a", "genres": ["x"]}, {"item_id": "b", "genres": []}],
    "candidates": [
        {"item_id": "c", "genres": ["x", "y", "x"]},
        {"item_id": "d", "genres": ["z"]},
    ],
}
_DTYPES = {"string": "DT_STRING", "int64": "DT_INT64", "float32": "DT_FLOAT"}


def _metadata(ranks):
    """A signature's description with inputs of these types and ranks."""
    return {
        "inputs": {
            name: {"dtype": _DTYPES[dtype], "tensor_shape": {"dim": [{"size": "-1"}] * rank}}
            for name, (dtype, rank) in ranks.items()
        }
    }


SIGNATURE = _metadata(
    {
        "user_id": ("string", 1),
        "languages": ("int64", 2),
        "tags": ("string", 2),
        "history_item_id": ("string", 2),
        "history_genres": ("string", 3),
        "candidate_item_id": ("string", 2),
        "candidate_genres": ("string", 3),
    }
)


def test_lists_become_tensors_of_one_width():
    assert FORMAT.inputs(REQUEST, "") == {
        "user_id": ["u"],
        "languages": [[3, 1]],
        "tags": [[""]],
        "history_item_id": [["a", "b"]],
        "history_genres": [[["x"], [""]]],
        "candidate_item_id": [["c", "d"]],
        "candidate_genres": [[["x", "y", "x"], ["z", "", ""]]],
    }


def test_the_metadata_tells_which_fields_have_many_values():
    served = RequestFormat.from_signature(SIGNATURE)
    assert served.user["languages"] == Field(FORMAT.user["languages"].dtype, None, True)
    assert served.inputs(REQUEST, "") == FORMAT.inputs(REQUEST, "")
    FORMAT.require_equal(served, "here", "there")


def test_one_value_here_and_many_there_is_another_schema():
    plain = RequestFormat.from_schema(Schema.from_json(many_logs.plain(many_logs.schema())))
    with pytest.raises(UserError) as error:
        plain.require_equal(FORMAT, "here", "there")
    assert "candidate_genres: string here, list of string there" in str(error.value)


@pytest.mark.parametrize("rank", [0, 4])
def test_tensors_of_other_ranks_belong_to_no_model_of_ours(rank):
    signature = copy.deepcopy(SIGNATURE)
    signature["inputs"]["history_genres"]["tensor_shape"]["dim"] = [{"size": "-1"}] * rank
    with pytest.raises(UserError, match="Expected a model with user, history_ and candidate_"):
        RequestFormat.from_signature(signature)


def test_an_empty_history_has_a_step_of_padding():
    inputs = FORMAT.inputs(REQUEST | {"history": []}, "")
    assert inputs["history_item_id"] == [[""]]
    assert inputs["history_genres"] == [[[""]]]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, [[""]]),
        (("b", "a"), [["b", "a"]]),
        (np.array(["b"]), [["b"]]),
        ([7.0, True, "NULL", "8.0"], [["7", "true", "", "8"]]),
    ],
)
def test_lists_of_any_kind(value, expected):
    assert FORMAT.inputs(REQUEST | {"tags": value}, "")["tags"] == expected


def test_a_default_stands_in_for_a_missing_field():
    request = copy.deepcopy(REQUEST)
    del request["candidates"][0]["genres"]
    assert FORMAT.inputs(request, "")["candidate_genres"] == [[["none"], ["z"]]]
    del request["languages"]
    with pytest.raises(UserError, match="expected the field 'languages'"):
        FORMAT.inputs(request, "")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tags": "a|b"}, "r: expected a list of values as 'tags', found 'a|b'. Fix: for example"),
        ({"languages": 3}, "r: expected a list of values as 'languages', found 3."),
        ({"languages": [3, "x"]}, "r: expected an integer as 'languages', found 'x'."),
        ({"tags": [["a"]]}, "r: expected a string or an exact number as 'tags', found ['a']."),
    ],
)
def test_what_is_no_list(changes, message):
    with pytest.raises(UserError) as error:
        FORMAT.inputs(REQUEST | changes, "r")
    assert str(error.value).startswith(message)


def test_equal_shapes_for_servers_that_batch():
    inputs = of_equal_shapes(FORMAT.inputs(REQUEST, ""), SCHEMA, "")
    assert inputs["languages"] == [[3, 1]]
    assert inputs["tags"] == [["", "", "", ""]]
    assert inputs["history_item_id"] == [["a", "b", "", "", "", ""]]
    assert inputs["history_genres"] == [[["x", "", ""], *[["", "", ""]] * 5]]
    assert inputs["candidate_genres"] == [[["x", "y", "x"], ["z", "", ""]]]
    empty = of_equal_shapes(FORMAT.inputs(REQUEST | {"history": []}, ""), SCHEMA, "")
    assert np.shape(empty["history_genres"]) == (1, 6, 3)


def test_more_values_than_the_model_keeps_have_no_equal_shape():
    inputs = FORMAT.inputs(REQUEST | {"languages": [1, 2, 3]}, "")
    with pytest.raises(UserError, match="expected at most 2 values in 'languages'"):
        of_equal_shapes(inputs, SCHEMA, "r")
