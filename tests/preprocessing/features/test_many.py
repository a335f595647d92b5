"""The record "many" of a feature: what it may say, and of which features."""

import copy
import json

import pytest

from preprocessing.errors import UserError
from preprocessing.features import many
from preprocessing.features.many import Many
from preprocessing.schema import Schema
from tests.helpers import many_logs

WHERE = "a.json: features[1] (x): many"


def _with(name, **changes):
    """The schema with changes of a feature's record; None takes a key out."""
    content = copy.deepcopy(many_logs.schema())
    record = next(feature for feature in content["features"] if feature["name"] == name)
    record.update(changes)
    for key in [key for key, value in record.items() if value is None]:
        del record[key]
    return content


def test_defaults_and_json():
    assert many.parse({"max": 3}, WHERE) == Many(max=3, separator=None, combiner="mean")
    full = {"max": 8, "separator": ", ", "combiner": "sqrtn"}
    assert many.parse(full, WHERE).to_json() == full
    assert many.parse({"max": 3}, WHERE).to_json() == {"max": 3, "combiner": "mean"}


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({}, "expected the key 'max'"),
        ({"max": 0}, "max: expected an integer of at least 1, found 0"),
        ({"max": 2, "separator": ""}, "separator: expected a string, found ''"),
        ({"max": 2, "combiner": "max"}, "combiner: expected one of mean, sum, sqrtn, found 'max'"),
        ({"max": 2, "seperator": "|"}, "unknown key 'seperator'. Fix: did you mean 'separator'"),
        ([2], "expected an object, found list"),
    ],
)
def test_what_a_record_may_not_say(record, message):
    with pytest.raises(UserError) as error:
        many.parse(record, WHERE)
    assert str(error.value).startswith(f"{WHERE}")
    assert message in str(error.value)


def test_a_schema_keeps_it_and_its_hash_depends_on_it():
    schema = Schema.from_json(many_logs.schema())
    assert Schema.from_json(schema.to_json()) == schema
    assert schema["genres"].many == Many(max=3, separator="|")
    assert (schema["genres"].axes, schema["genres"].value_shape) == (1, (3,))
    assert (schema["item_id"].axes, schema["item_id"].value_shape) == (0, ())
    hashes = {
        Schema.from_json(many_logs.schema(genres={"max": 3, "combiner": c})).hash()
        for c in many.COMBINERS
    }
    assert len(hashes) == len(many.COMBINERS)
    assert "many" not in json.dumps(Schema.from_json(many_logs.plain(schema.to_json())).to_json())


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("genres", {"encoder": {"kind": "numeric"}, "dtype": "float32", "default": None},
         "expected 'many' for user, context, item and event features with the encoder "
         "'vocabulary' or 'hash' only, found it for the encoder 'numeric'"),
        ("genres", {"encoder": {"kind": "bucketised", "quantiles": 3}, "dtype": "float32",
                    "default": None}, "found it for the encoder 'bucketised'"),
        ("timestamp", {"many": {"max": 2}}, "found it for role 'timestamp'"),
        ("user_id", {"many": {"max": 2}}, "expected one value per row of the key 'user_id'"),
        ("item_id", {"many": {"max": 2}}, "expected one value per row of the key 'item_id'"),
        ("tags", {"column": "genres"}, "expected one use of the column 'genres', which has many"),
    ],
)  # fmt: skip
def test_features_that_cannot_have_many_values(name, changes, message):
    with pytest.raises(UserError) as error:
        Schema.from_json(_with(name, **changes), "a.json")
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert "Fix: " in str(error.value)


def test_labels_and_weights_have_one_value():
    for role in ("label", "weight", "request"):
        content = many_logs.schema()
        content["features"].append(
            {"name": "x", "role": role, "dtype": "int64", "many": {"max": 2}}
        )
        with pytest.raises(UserError, match=f"found it for role '{role}'"):
            Schema.from_json(content)


def test_a_column_of_behaviours_has_one_value():
    content = many_logs.schema()
    content["history"]["behaviours"] = {"column": "tags", "values": ["t1"]}
    with pytest.raises(UserError, match="one use of the column 'tags'"):
        Schema.from_json(content)
