"""Records of vectors in a schema: what they may say, and of which features."""

import pytest

from preprocessing.errors import UserError
from preprocessing.features.encoder_specs import Vector
from preprocessing.schema import Schema
from tests.helpers import many_logs, vector_logs
from tests.helpers.vector_logs import PROFILE, SEARCH, TEXT


def _with(name, **changes):
    """The schema with changes of a feature's record; None takes a key out."""
    content = vector_logs.schema()
    record = next(feature for feature in content["features"] if feature["name"] == name)
    record.update(changes)
    for key in [key for key, value in record.items() if value is None]:
        del record[key]
    return content


def test_a_schema_keeps_them_and_its_hash_depends_on_them():
    schema = Schema.from_json(vector_logs.schema())
    assert Schema.from_json(schema.to_json()) == schema
    feature = schema[SEARCH]
    assert (feature.shape, feature.axes, feature.value_shape) == ((2,), 1, (2,))
    assert (feature.is_vector, feature.is_categorical) == (True, False)
    assert feature.encoder == Vector(storage="float16")
    others = [
        _with(SEARCH, shape=[3]),
        _with(SEARCH, encoder={"kind": "vector"}),
        _with(PROFILE, default=None),
    ]
    assert len({Schema.from_json(one).hash() for one in (vector_logs.schema(), *others)}) == 4


def test_other_schemas_say_nothing_of_shapes():
    assert "shape" not in str(Schema.from_json(many_logs.schema()).to_json())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (_with(TEXT, shape=None), "a 'shape' with the encoder 'vector', found no 'shape'"),
        (_with(TEXT, dtype="int64"), "expected dtype float32 and a 'shape' .* found dtype int64"),
        (_with(TEXT, shape=[0]), "shape: expected an integer of at least 1, found 0"),
        (_with(TEXT, shape=[2, 3]), r"one number, the length, as 'shape', found \[2, 3\]"),
        (_with(TEXT, shape=5), "shape: expected an array, found 5"),
        (_with(TEXT, default=1), "expected 0, for a vector of zeros, as 'default' .* found 1"),
        (_with(TEXT, encoder={"kind": "numeric"}), "'shape' with the encoder 'vector' only"),
        (_with(TEXT, encoder={"kind": "vector", "storage": "int8"}),
         "storage: expected one of float32, float16, found 'int8'"),
        (_with(TEXT, encoder={"kind": "vector", "separator": " "}), "unknown key 'separator'"),
        (_with(TEXT, many={"max": 3}), "found it for the encoder 'vector'"),
        (_with("timestamp", shape=[2]), "expected 'shape' with the encoder 'vector' only"),
        (_with("item_id", dtype="float32", shape=[2], encoder={"kind": "vector"}),
         "categorical encoder for the key 'item_id', found vector"),
        (_with(TEXT, column=PROFILE), "one use of the column 'profile', which has vectors"),
    ],
)  # fmt: skip
def test_what_a_record_may_not_say(content, message):
    with pytest.raises(UserError, match=message):
        Schema.from_json(content, "a.json")
