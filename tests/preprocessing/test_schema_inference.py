"""preprocessing.schema_inference: what the names of columns say."""

import random

import pytest

from preprocessing.errors import UserError
from preprocessing.features.encoder_specs import Vocabulary
from preprocessing.features.feature import DType, Role
from preprocessing.schema import Schema
from preprocessing.schema_inference import infer_schema


def test_infers_a_canonical_log():
    schema = infer_schema(["timestamp", "user_id", "item_id", "category_id"], 20)
    assert [(f.name, f.role) for f in schema.features] == [
        ("user_id", Role.USER),
        ("item_id", Role.ITEM),
        ("category_id", Role.ITEM),
        ("timestamp", Role.TIMESTAMP),
    ]
    assert schema["item_id"].dtype is DType.STRING
    assert schema["category_id"].encoder == Vocabulary()
    assert schema.history.features == ("item_id", "category_id")
    assert schema.history.max_length == 20
    assert Schema.from_json(schema.to_json()) == schema


def test_the_order_of_columns_means_nothing_to_an_inferred_schema():
    columns = ["user_id", "item_id", "category_id", "brand", "timestamp", "shop"]
    schema = infer_schema(columns)
    assert schema.history.features == ("item_id", "category_id", "brand", "shop")
    for seed in range(5):
        random.Random(seed).shuffle(columns)
        assert infer_schema(columns) == schema


def test_position_is_the_time_of_a_log_without_times():
    schema = infer_schema(["position", "user_id", "item_id"])
    assert schema.item_features == (schema["item_id"],)
    assert (schema.timestamp.name, schema.timestamp.column) == ("timestamp", "position")
    assert schema.timestamp.dtype is DType.INT64
    assert Schema.from_json(schema.to_json()) == schema
    with pytest.raises(UserError, match="found both timestamp and position. Fix: name a schema"):
        infer_schema(["position", "user_id", "item_id", "timestamp"])


def test_infers_an_impression_log_from_its_label():
    rows = infer_schema(["user_id", "label", "item_id", "timestamp"])
    assert [f.name for f in rows.item_features] == ["item_id"]
    assert (rows["label"].role, rows["label"].dtype) == (Role.LABEL, DType.INT64)
    assert rows.is_impression_log
    assert rows.request is None
    assert Schema.from_json(rows.to_json()) == rows
    requests = infer_schema(["user_id", "label", "item_id", "timestamp", "request_id"])
    assert requests.request == requests["request_id"]
    assert Schema.from_json(requests.to_json()) == requests


def test_infers_a_log_in_row_order():
    schema = infer_schema(["user_id", "item_id"])
    assert schema.timestamp is None
    assert schema.history.max_length == 50


def test_cannot_infer_without_the_keys():
    with pytest.raises(UserError, match="user_id and item_id, found user, item_id.*--schema"):
        infer_schema(["user", "item_id"])


def test_inferred_columns_must_be_identifiers():
    with pytest.raises(UserError, match=r"identifiers, found 'price \(EUR\)'"):
        infer_schema(["user_id", "item_id", "price (EUR)"])
