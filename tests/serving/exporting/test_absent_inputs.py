"""Inputs of features with a default may be left out; the toy model has one: the user's age, 30."""

import numpy as np
import pytest

from models.keras import tf
from serving.client import Client
from serving.exporting.signatures import EXPLAIN, SCORES, SERIALIZED, SERVING_DEFAULT
from serving.tfserving.grpc import tensors
from serving.tfserving.status import ServingError
from tests.helpers import toy_runs


def _sent(raw, left_out=()):
    """Inputs as a gRPC request has them."""
    return {name: tf.make_tensor_proto(raw[name]) for name in raw if name not in left_out}


@pytest.fixture
def raw():
    one = toy_runs.raw_inputs(4)
    return {name: np.concatenate([values, values]) for name, values in one.items()}


@pytest.mark.parametrize("name", [SERVING_DEFAULT, EXPLAIN])
def test_an_absent_input_is_its_default(toy_servable, raw, name):
    signature = toy_servable.signature_defs.signature_def[name]
    assert set(signature.defaults) == {"age"}
    raw["age"] = np.full(2, 30.0, np.float32)
    expected = toy_servable.predict(name, raw)
    arrays = tensors.inputs(_sent(raw, ["age"]), signature)
    assert arrays["age"].shape == (0,)
    for output, values in toy_servable.predict(name, arrays).items():
        np.testing.assert_array_equal(values, expected[output])
    raw["age"][1] = 60.0
    assert (toy_servable.predict(name, raw)[SCORES][1] != expected[SCORES][1]).any()


def test_examples_have_no_default(toy_servable):
    assert not toy_servable.signature_defs.signature_def[SERIALIZED].defaults


def test_other_inputs_are_missed_in_the_words_of_tensorflow_serving(toy_servable, raw):
    signature = toy_servable.signature_defs.signature_def[SERVING_DEFAULT]
    with pytest.raises(ServingError, match=r"alias: hour\(feed name: serving_default_hour:0\) not"):
        tensors.inputs(_sent(raw, ["hour", "age"]), signature)
    sent = _sent(raw, ["age"]) | {"ago": tf.make_tensor_proto([1.0])}
    with pytest.raises(ServingError, match="Inputs contains invalid name. Used request inputs: "):
        tensors.inputs(sent, signature)


def test_half_an_input_is_refused(toy_servable, raw):
    raw["age"] = raw["age"][:1]
    with pytest.raises(ServingError, match="Expected inputs that agree in B"):
        toy_servable.predict(SERVING_DEFAULT, raw)


def test_no_requests_give_no_scores(toy_servable, raw):
    none = {name: values[:0] for name, values in raw.items()}
    assert toy_servable.predict(SERVING_DEFAULT, none)[SCORES].shape == (0, 4)


def test_a_client_without_a_schema_learns_what_may_be_absent(toy_url):
    item = {"item_id": toy_runs.ITEMS[0], "category_id": 2, "price": 2.0}
    request = {"user_id": "user 1", "hour": 7, "history": [item], "candidates": [item]}
    with Client(toy_url) as client:
        expected = client.score(request | {"age": 30.0})
        assert client.score(request) == expected
        assert client.score(request | {"age": None}) == expected
        assert client.score(request | {"age": 60.0}) != expected
