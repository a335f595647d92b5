"""A model with vectors: offline, both signatures and REST give the same scores."""

import json

import httpx
import numpy as np
import pytest

from models.core import run_directory
from models.evaluation import importance
from preprocessing.errors import UserError
from serving.client import Client
from serving.explain import describe
from serving.exporting import raw_requests
from serving.exporting.sample_requests import sample_requests
from serving.exporting.signatures import SCORES, SERVING_DEFAULT
from tests.helpers import vector_logs
from tests.helpers.served_models import require_parity

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return vector_logs.write_data(tmp_path_factory.mktemp("vectors_served"))


def test_all_ways_agree(run, version):
    require_parity(run, version)


def test_the_signature_has_the_length_of_a_vector(servable):
    inputs = servable.signature_defs.signature_def[SERVING_DEFAULT].inputs
    shapes = {name: [d.size for d in tensor.tensor_shape.dim] for name, tensor in inputs.items()}
    assert shapes == {
        "user_id": [-1], "profile": [-1, 3], "search": [-1, 2], "history_item_id": [-1, -1],
        "history_text": [-1, -1, 5], "candidate_item_id": [-1, -1], "candidate_text": [-1, -1, 5],
    }  # fmt: skip


def test_plain_lists_and_arrays_have_the_scores_of_the_data_set(data, running, servable):
    requests = sample_requests(data, "test", 10)
    batch = next(raw_requests.batches(data, "test", 10))
    expected = servable.predict(SERVING_DEFAULT, batch.raw)[SCORES]
    with Client(running.url) as client, Client(running.url, schema=data.schema) as knowing:
        for row, request in enumerate(requests):
            number = len(request["candidates"])
            plain = client.score(request)
            np.testing.assert_allclose(plain, expected[row][:number], atol=1e-6)
            for candidate in request["candidates"]:
                candidate["text"] = np.array(candidate["text"], np.float32)
            np.testing.assert_allclose(knowing.score(request), plain, atol=1e-7)
            equal = Client(running.url, schema=data.schema, equal_histories=True)
            np.testing.assert_allclose(equal.score(request), plain, atol=1e-6)
            equal.close()


def test_an_empty_history_and_a_missing_vector(running, data):
    request = {
        "user_id": "u1", "search": [0.5, 1], "history": [],
        "candidates": [{"item_id": "i1", "text": [0, 0, 0, 0, 0]}, {"item_id": "i1", "text": None}],
    }  # fmt: skip
    with Client(running.url, schema=data.schema) as client:
        zeros, missing = client.score(request)
        given = client.score(request | {"profile": [0.0, 0.0, 0.0]})
    assert zeros == missing == given[0]
    assert 0 < zeros < 1


def test_vectors_of_another_length_are_refused_by_name(running):
    request = {
        "user_id": ["u1"], "profile": [[1, 2, 3]], "search": [[1, 2]],
        "history_item_id": [["i1"]], "history_text": [[[1, 2, 3, 4]]],
        "candidate_item_id": [["i1"]], "candidate_text": [[[1, 2, 3, 4]]],
    }  # fmt: skip
    with Client(running.url) as client:
        with pytest.raises(UserError, match=r"history_text \[B, L, 5\]"):
            client.predict(request)
        wrong = {"user_id": "u1", "profile": [1, 2], "search": [1, 2], "history": [],
                 "candidates": [{"item_id": "i1", "text": [1] * 5}]}  # fmt: skip
        with pytest.raises(UserError, match="expected 3 numbers as 'profile', found 2"):
            client.score(wrong)
        with pytest.raises(UserError, match="expected a number as 'profile', found 'x'"):
            client.score(wrong | {"profile": [1, 2, "x"]})


def test_explanations_and_the_page(data, running):
    (request, *_) = sample_requests(data, "test", 3)
    with Client(running.url) as client:
        why = client.explain(request)
    assert "text=5 numbers" in describe(request, why)
    with httpx.Client(base_url=running.root, timeout=30) as http:
        shown = http.get("/explore/why", params={"request": 0}).json()
    assert shown["candidates"][0]["fields"]["text"].startswith("5 numbers of norm")
    json.dumps(shown)


def test_importance(data, run):
    table = importance.measure(run_directory.load_model(run), data, "test")
    parts = set(zip(table["feature"], table["part"], strict=True))
    assert {("text", "candidate"), ("text", "history"), ("profile", "user")} <= parts
