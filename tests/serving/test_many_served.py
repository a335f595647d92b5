"""A model of many values per feature: offline, both signatures and REST give the same scores."""

import json

import httpx
import numpy as np
import pytest

from models.core import run_directory
from models.evaluation import importance, permutation, slices
from models.evaluation.scoring import Scorer
from preprocessing import dataset
from preprocessing.errors import UserError
from serving.client import Client
from serving.explain import describe
from serving.exporting import raw_requests
from serving.exporting.sample_requests import sample_requests
from serving.exporting.signatures import SCORES, SERVING_DEFAULT
from tests.helpers import many_logs
from tests.helpers.served_models import require_parity

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return many_logs.write_data(tmp_path_factory.mktemp("many_served"))


def test_all_ways_agree(run, version):
    require_parity(run, version)


def test_the_signature_has_one_more_axis(servable):
    inputs = servable.signature_defs.signature_def[SERVING_DEFAULT].inputs
    ranks = {name: len(tensor.tensor_shape.dim) for name, tensor in inputs.items()}
    assert ranks == {
        "user_id": 1, "languages": 2, "tags": 2, "history_item_id": 2, "history_genres": 3,
        "candidate_item_id": 2, "candidate_genres": 3,
    }  # fmt: skip


def test_lists_in_any_order_and_length_have_the_scores_of_the_data_set(data, running, servable):
    requests = sample_requests(data, "test", 10)
    batch = next(raw_requests.batches(data, "test", 10))
    expected = servable.predict(SERVING_DEFAULT, batch.raw)[SCORES]
    rng = np.random.default_rng(0)

    def mixed(values):
        again = list(values) + list(values[:1])
        return [again[i] for i in rng.permutation(len(again))]

    with Client(running.url) as client, Client(running.url, schema=data.schema) as knowing:
        for row, request in enumerate(requests):
            number = len(request["candidates"])
            plain = client.score(request)
            for record in (request, *request["history"], *request["candidates"]):
                for name in {"genres", "languages", "tags"} & record.keys():
                    record[name] = mixed(record[name])
            shuffled = knowing.score(request)
            np.testing.assert_allclose(plain, expected[row][:number], atol=1e-6)
            np.testing.assert_allclose(shuffled, expected[row][:number], atol=1e-6)


def test_an_empty_history_and_more_values_than_the_model_keeps(running):
    with Client(running.url) as client:
        request = {
            "user_id": "u1", "languages": [], "tags": [f"t{i}" for i in range(40)], "history": [],
            "candidates": [{"item_id": "i1", "genres": []},
                           {"item_id": "i1", "genres": ["none"]}],
        }  # fmt: skip
        nothing, default = client.score(request)
        assert nothing == default
        assert 0 < nothing < 1


def test_shapes_that_disagree_are_refused_by_name(running):
    with Client(running.url) as client:
        request = {
            "user_id": ["u1"], "languages": [[1]], "tags": [["t"]],
            "history_item_id": [["i1", "i2"]], "history_genres": [[["g1"]]],
            "candidate_item_id": [["i1"]], "candidate_genres": [[["g1", "g2"]]],
        }  # fmt: skip
        with pytest.raises(UserError, match=r"history_genres \[B, L, M\]"):
            client.predict(request)


def test_explanations_and_the_page(data, running):
    (request, *_) = sample_requests(data, "test", 3)
    with Client(running.url) as client:
        why = client.explain(request)
    assert len(why.scores_N) == len(request["candidates"])
    assert "genres=" in describe(request, why)
    with httpx.Client(base_url=running.root, timeout=30) as http:
        shown = http.get("/explore/why", params={"request": 0}).json()
    genres = shown["candidates"][0]["fields"]["genres"]
    assert isinstance(genres, list)
    assert all(isinstance(one, str) for one in genres)
    assert "genres" not in shown["candidates"][0]["unknown"]
    json.dumps(shown)


def test_importance_and_slices(data, run):
    model = run_directory.load_model(run)
    table = importance.measure(model, data, "test")
    parts = set(zip(table["feature"], table["part"], strict=True))
    assert {("genres", "candidate"), ("genres", "history"), ("languages", "user")} <= parts
    scores = Scorer(model, data).score("test")
    cut = slices.measure(scores, data)
    genres = cut[cut["dimension"] == "genres, most frequent value"]
    assert genres["candidates"].sum() == len(scores.label)


def test_permuted_sets_stay_sets(data):
    options = {"batch_size": 8, "shuffle_seed": None, "history_buckets": (2,)}
    batches = list(dataset.read(data, "test", **options))
    for one in permutation.inputs(data.schema):
        key = one.keys[-1]
        permuted = list(permutation.permuted(batches, one, 3))
        before, after = (_sets([batch[key].numpy() for batch in b]) for b in (batches, permuted))
        assert before == after


def _sets(parts):
    """The values under a key of all batches, sorted; padding aside."""
    rows = [part.reshape(-1, part.shape[-1] if part.ndim == 3 else 1) for part in parts]
    return sorted(row for row in map(tuple, np.concatenate(rows)) if any(row))
