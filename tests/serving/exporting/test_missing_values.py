"""Missing values mean the same to the pipeline and to the signatures."""

import numpy as np
import pyarrow as pa
import pytest

from models.core import run_directory
from models.keras import tf
from pipeline.log.raw_batch import InputFile, RawBatch
from pipeline.log.row_checks import validate
from preprocessing.codec import Ragged, encode_examples
from preprocessing.example_keys import candidate_key, history_key
from preprocessing.schema import Schema
from preprocessing.storage.arrow_buffers import from_buffers
from serving.exporting import signatures
from serving.exporting.signatures import ServingModule
from tests.helpers import toy_runs

DEFAULTS = {"hour": 12, "category_id": 3}
EVENTS, CANDIDATES = 3, 2
ROWS = {
    "user_id": ["user 1"] * 5,
    "age": [None, None, None, None, None],
    "hour": [-1, -1, -1, -1, -1],
    "item_id": toy_runs.ITEMS[:5],
    "category_id": [2, None, -1, -1, 1],
    "price": [2.0, 2.0, 2.0, None, 20.0],
}
"""A log of three events and two candidates; `RAW` is the same as a client sends it."""

RAW = {
    "user_id": np.array([b"user 1"], object),
    "age": np.array([np.nan], np.float32),
    "hour": np.array([-1]),
    "history_item_id": np.array([[item.encode() for item in toy_runs.ITEMS[:3]]], object),
    "history_category_id": np.array([[2, -1, -1]]),
    "candidate_item_id": np.array([[item.encode() for item in toy_runs.ITEMS[3:5]]], object),
    "candidate_category_id": np.array([[-1, 1]]),
    "candidate_price": np.array([[np.nan, 20.0]], np.float32),
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    content = toy_runs.SCHEMA.to_json()
    for feature in content["features"]:
        if feature["name"] in DEFAULTS:
            feature["default"] = DEFAULTS[feature["name"]]
    return toy_runs.write_data(tmp_path_factory.mktemp("missing") / "d", Schema.from_json(content))


@pytest.fixture(scope="module")
def module(data, tmp_path_factory):
    run = toy_runs.write_run(tmp_path_factory.mktemp("missing") / "run", data, "din")
    return ServingModule(run_directory.load_model(run), data)


@pytest.fixture(scope="module")
def encoded(data):
    """Columns of the log as the pipeline encodes them."""
    batch = RawBatch(
        file=InputFile("log.csv", 0, "csv", 1),
        columns={name: pa.array(values) for name, values in ROWS.items()},
        lines=np.arange(2, 7),
        rejections=[],
    )
    events = validate(batch, data.schema).events
    assert events.num_rows == len(batch.lines)
    return {name: encoder.encode(events[name]) for name, encoder in data.encoders.items()}


@pytest.fixture(scope="module")
def example(data, encoded):
    """The log as one serialized request."""

    def all_of(values):
        return Ragged(values, np.array([0, len(values)]))

    context = {f.name: Ragged.single(encoded[f.name][:1]) for f in data.schema.user_features}
    for feature in data.schema.item_features:
        context[candidate_key(feature.name)] = all_of(encoded[feature.name][EVENTS:])
    history = {
        history_key(f.name): all_of(encoded[f.name][:EVENTS]) for f in data.schema.history_features
    }
    return np.array(from_buffers(*encode_examples(context, history)).to_pylist(), object)


def tensors(raw):
    return {name: tf.constant(value) for name, value in raw.items()}


def test_ids_are_those_of_the_pipeline(module, data, encoded):
    found = signatures.encode(data.schema, module.encoder, tensors(RAW))
    assert found["hour"].numpy() == data.encoders["hour"].encode([12])
    for feature in data.schema.user_features:
        np.testing.assert_array_equal(found[feature.name], encoded[feature.name][:1])
    for feature in data.schema.history_features:
        key = history_key(feature.name)
        np.testing.assert_array_equal(found[key][0], encoded[feature.name][:EVENTS])
    for feature in data.schema.item_features:
        key = candidate_key(feature.name)
        np.testing.assert_array_equal(found[key][0], encoded[feature.name][EVENTS:])
    assert (encoded["category_id"] > 0).all()


def test_scores_are_those_of_the_example(module, example):
    expected = module.signatures["serialized"](examples=tf.constant(example))["scores"]
    found = module.signatures["serving_default"](**tensors(RAW))["scores"]
    assert found.shape == (1, CANDIDATES)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_padding_stays_padding(module, data):
    padded = dict(RAW)
    for name in RAW:
        if name.startswith(("history_", "candidate_")):
            pad = data.schema[name.partition("_")[2]].pad_value
            pad = pad.encode() if isinstance(pad, str) else pad
            fill = np.full([1, 1], pad, RAW[name].dtype)
            padded[name] = np.concatenate([fill, RAW[name], fill], axis=1)
    features = signatures.encode(data.schema, module.encoder, tensors(padded))
    for key in (history_key("category_id"), candidate_key("category_id")):
        ids = features[key].numpy()[0]
        assert (ids[[0, -1]] == 0).all()
        assert (ids[1:-1] > 0).all()
    expected = module.signatures["serving_default"](**tensors(RAW))["scores"]
    found = module.signatures["serving_default"](**tensors(padded))["scores"]
    np.testing.assert_allclose(found[:, 1:-1], expected, atol=1e-6)


def test_missing_value_without_a_default_counts_as_unknown(module):
    before = module.signatures["explain"](**tensors(RAW))["unknown_ids"].numpy()
    anonymous = RAW | {"user_id": np.array([b""], object)}
    found = module.signatures["explain"](**tensors(anonymous))
    assert found["unknown_ids"].numpy() == before + 1
    assert np.isfinite(found["scores"]).all()
