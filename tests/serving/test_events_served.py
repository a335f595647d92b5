"""A model of what happened at events: offline, both signatures and REST give the same scores."""

import httpx
import numpy as np
import pytest

from models.core import run_directory
from models.evaluation import importance, permutation
from preprocessing import dataset
from serving import loadtest
from serving.client import Client
from serving.explain import describe
from serving.exporting import raw_requests
from serving.exporting.sample_requests import sample_requests
from serving.exporting.signatures import SCORES, SERVING_DEFAULT
from serving.load.generator import Bounds, Level
from tests.helpers import event_logs
from tests.helpers.served_models import require_parity

pytestmark = pytest.mark.slow

TAGS = {"name": "tags", "role": "event", "dtype": "string", "encoder": event_logs.VOCABULARY,
        "many": {"max": 3, "separator": "|"}}  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    log = event_logs.rows()
    for number, row in enumerate(log):
        row["tags"] = "|".join(f"t{number * k % 7}" for k in range(number % 5))
    features = (*event_logs.EVENTS, TAGS, *event_logs.TIMES)
    return event_logs.write_data(tmp_path_factory.mktemp("events_served"), *features, log=log)


def test_all_ways_agree(run, version):
    require_parity(run, version)


def test_inputs_are_those_of_events_and_times(servable):
    inputs = servable.signature_defs.signature_def[SERVING_DEFAULT].inputs
    ranks = {name: len(tensor.tensor_shape.dim) for name, tensor in inputs.items()}
    assert ranks == {
        "user_id": 1, "timestamp": 1, "history_item_id": 2, "history_category_id": 2,
        "history_action": 2, "history_coupon": 2, "history_dwell": 2, "history_price": 2,
        "history_tags": 3, "history_timestamp": 2,
        "candidate_item_id": 2, "candidate_category_id": 2,
    }  # fmt: skip


def test_clients_have_the_scores_of_the_data_set(data, running, servable):
    batch = next(raw_requests.batches(data, "test", 10))
    expected = servable.predict(SERVING_DEFAULT, batch.raw)[SCORES]
    with Client(running.url) as client, Client(running.url, schema=data.schema) as knowing:
        equal = Client(running.url, schema=data.schema, equal_histories=True)
        for row, request in enumerate(sample_requests(data, "test", 10)):
            count = len(request["candidates"])
            for scores in (client.score(request), knowing.score(request), equal.score(request)):
                np.testing.assert_allclose(scores, expected[row][:count], atol=1e-6)
        equal.close()


def test_older_events_than_the_model_keeps_change_nothing(data, servable):
    """The oldest event that is kept has no event before it, whatever a caller sends."""
    batch = next(raw_requests.batches(data, "test", 24))
    is_full = (batch.raw["history_item_id"] != b"").all(axis=1)
    assert is_full.any()
    raw = {name: values[is_full] for name, values in batch.raw.items()}
    expected = servable.predict(SERVING_DEFAULT, raw)[SCORES]
    for extra in (1, 4):
        longer = {
            name: np.concatenate([values[:, :1]] * extra + [values], axis=1)
            if name.startswith("history_")
            else values
            for name, values in raw.items()
        }
        longer["history_timestamp"][:, :extra] -= 1000
        scores = servable.predict(SERVING_DEFAULT, longer)[SCORES]
        np.testing.assert_allclose(scores, expected, atol=1e-6)


def test_padding_anywhere_in_a_history_changes_nothing(data, servable):
    batch = next(raw_requests.batches(data, "test", 24))
    expected = servable.predict(SERVING_DEFAULT, batch.raw)[SCORES]
    padded = dict(batch.raw)
    for name, values in batch.raw.items():
        if name.startswith("history_"):
            pad = np.zeros_like(values[:, :1])
            pad[...] = b"" if values.dtype == object else -1 if values.dtype == np.int64 else 0
            columns = [pad, *(part for i in range(values.shape[1])
                              for part in (values[:, i : i + 1], pad))]  # fmt: skip
            padded[name] = np.concatenate(columns, axis=1)
    scores = servable.predict(SERVING_DEFAULT, padded)[SCORES]
    np.testing.assert_allclose(scores, expected, atol=1e-6)


def test_an_event_after_its_request_is_of_the_same_moment(data, running):
    (request, *_) = sample_requests(data, "test", 1)
    event, now = request["history"][-1], request["timestamp"]
    with Client(running.url) as client:
        same, late, old = (
            client.score(request | {"history": [event | {"timestamp": time}]})
            for time in (now, now + 5, now - 10**6)
        )
    np.testing.assert_allclose(late, same, atol=1e-7)
    assert np.abs(np.subtract(old, same)).max() > 1e-5


def test_an_empty_history_is_fine(running):
    request = {"user_id": "u1", "timestamp": 0, "history": [],
               "candidates": [{"item_id": "i1", "category_id": "c1"}]}  # fmt: skip
    with Client(running.url) as client:
        (score,) = client.score(request)
    assert 0 < score < 1


def test_explanations_and_the_page_show_them(data, running):
    (request, *_) = sample_requests(data, "test", 3)
    with Client(running.url) as client:
        text = describe(request, client.explain(request))
    assert "action=" in text
    assert "timestamp=" in text
    with httpx.Client(base_url=running.root, timeout=30) as http:
        shown = http.get("/explore/why", params={"request": 0}).json()
    assert {"action", "price", "tags", "timestamp"} <= shown["history"][0]["fields"].keys()
    assert shown["timestamp"]
    assert "timestamp" not in shown["user"]["fields"]  # once is enough
    assert "action" not in shown["candidates"][0]["fields"]


def test_load_is_made_up_for_them(running):
    result = loadtest.loadtest(running.url, [Level("closed", 1)], [2], [3], Bounds(0.3, 20))
    (cell,) = result["cells"]
    assert cell["requests"]
    assert not cell["failures"]


def test_importance_names_them(data, run):
    table = importance.measure(run_directory.load_model(run), data, "test")
    parts = set(zip(table["feature"], table["part"], strict=True))
    assert {("action", "history"), ("age", "history"), ("hour", "context")} <= parts
    options = {"batch_size": 8, "shuffle_seed": None, "history_buckets": (2,)}
    batches = list(dataset.read(data, "test", **options))
    (gaps,) = [one for one in permutation.inputs(data.schema) if one.feature == "age"]
    permuted = list(permutation.permuted(batches, gaps, 3))
    before, after = (
        np.sort(np.concatenate([batch["history/age"].numpy().ravel() for batch in some]))
        for some in (batches, permuted)
    )
    np.testing.assert_array_equal(before, after)
