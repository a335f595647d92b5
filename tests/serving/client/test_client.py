import asyncio
import gzip
import json
import math
import pathlib
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from preprocessing.errors import UserError
from preprocessing.schema import Schema
from serving.client import AsyncClient, Client, RefusedError, clients, core
from tests.helpers import toy_runs
from tests.helpers.scripted_server import Scripted

ROOT = pathlib.Path(__file__).parents[3]

INPUTS = {
    "user_id": ["u"],
    "age": [1.0],
    "hour": [1],
    "history_item_id": [["a", "b"]],
    "history_category_id": [[2, 2]],
    "candidate_item_id": [["c"]],
    "candidate_category_id": [[2]],
    "candidate_price": [[1.0]],
}


def request(**changes):
    events = [{"item_id": item, "category_id": 2} for item in toy_runs.ITEMS[:4]]
    base = {
        "user_id": "user 1",
        "age": 33.0,
        "hour": 7,
        "history": events[:3],
        "candidates": [event | {"price": 2.0} for event in events],
    }
    return base | changes


def call(kind, url, method, *arguments, **options):
    """Asks one question with a client of either kind."""
    if kind is Client:
        with Client(url, **options) as client:
            return getattr(client, method)(*arguments)

    async def ask():
        async with AsyncClient(url, **options) as client:
            return await getattr(client, method)(*arguments)

    return asyncio.run(ask())


@pytest.fixture(params=[Client, AsyncClient], ids=["blocking", "asyncio"])
def kind(request):
    return request.param


@pytest.fixture
def scripted():
    server = Scripted()
    yield server
    server.close()


@pytest.fixture
def pauses(monkeypatch):
    """The pauses that clients make, which take no time."""
    made = []

    async def pause(self, seconds):
        made.append(seconds)

    monkeypatch.setattr(clients._BlockingConnection, "pause", pause)
    monkeypatch.setattr(clients._AsyncConnection, "pause", pause)
    return made


OUTPUT = (200, b'{"outputs": [[0.5]]}')


def refused(status, text="no"):
    return status, json.dumps({"error": text}).encode()


def test_scores_are_those_of_the_signature(kind, toy_url, toy_servable):
    expected = toy_servable.predict("serving_default", toy_runs.raw_inputs(4))["scores"]
    found = call(kind, toy_url, "score", request())
    np.testing.assert_array_equal(np.array(found, np.float32), expected[0])


def test_explanation_has_a_weight_per_candidate_expert_and_event(kind, toy_url):
    why = call(kind, toy_url, "explain", request(user_id="nobody"))
    known = call(kind, toy_url, "explain", request())
    assert why.confidence_NK.shape == (4, 1)
    assert why.attention_NKL.shape == (4, 1, 3)
    assert np.abs(why.attention_NKL).min() > 0
    np.testing.assert_allclose(
        known.scores_N, call(kind, toy_url, "score", request()), rtol=0, atol=1e-7
    )
    assert why.unknown == known.unknown + 1


def test_fields_and_signatures_are_asked_for_once(toy_url, monkeypatch):
    asked = []
    send = clients._BlockingConnection.send

    async def spy(self, verb, url, body, headers):
        asked.append(verb)
        return await send(self, verb, url, body, headers)

    monkeypatch.setattr(clients._BlockingConnection, "send", spy)
    with Client(toy_url) as client:
        for _ in range(3):
            client.score(request())
            client.explain(request())
    assert asked == ["GET", "POST", "GET", *["POST"] * 5]


def test_model_without_explanations_says_so(kind, scripted):
    tensor = {"dtype": "DT_STRING", "tensor_shape": {"dim": [{}, {}]}}
    user = tensor | {"tensor_shape": {"dim": [{}]}}
    inputs = {"user": user, "history_item": tensor, "candidate_item": tensor}
    signature = {"serving_default": {"inputs": inputs}}
    metadata = {"metadata": {"signature_def": {"signature_def": signature}}}
    scripted.answers = [(200, json.dumps(metadata).encode())] * 2
    asked = {"user": "u", "history": [], "candidates": [{"item": "i"}]}
    with pytest.raises(UserError, match="Expected the signature 'explain' at .* found serving_d"):
        call(kind, scripted.url, "explain", asked)


def test_schema_supplies_defaults_and_must_be_the_models(kind, toy_url):
    bare = request()
    del bare["age"]
    with_default = call(kind, toy_url, "score", bare, schema=toy_runs.SCHEMA)
    assert with_default == call(kind, toy_url, "score", request(age=30.0))
    content = toy_runs.SCHEMA.to_json()
    content["features"][2]["name"] = "minute"
    with pytest.raises(UserError, match="differ in hour: absent here, int64 there; minute"):
        call(kind, toy_url, "score", bare, schema=Schema.from_json(content))


def test_bad_request_never_reaches_the_server(kind, toy_url, monkeypatch):
    asked = []
    predict = core.Conversation.predict

    async def spy(self, *arguments):
        asked.append(arguments)
        return await predict(self, *arguments)

    monkeypatch.setattr(core.Conversation, "predict", spy)
    with pytest.raises(UserError, match="line 7: expected an integer as 'hour', found '7'"):
        call(kind, toy_url, "score", request(hour="7"), "line 7")
    assert not asked
    call(kind, toy_url, "score", request())
    assert len(asked) == 1


@pytest.mark.parametrize("status", [503, 504])
def test_overload_is_tried_again_after_growing_pauses(kind, scripted, pauses, status):
    scripted.answers = [refused(status), refused(status), refused(status), OUTPUT]
    assert call(kind, scripted.url, "predict", {"x": [1]}) == [[0.5]]
    assert len({(verb, path, body) for verb, path, _, body in scripted.heard}) == 1
    assert len(scripted.heard) == 4
    for shortest, pause, longest in zip((0.05, 0.1, 0.2), pauses, (0.1, 0.2, 0.4), strict=True):
        assert shortest <= pause <= longest


def test_last_refusal_is_reported(kind, scripted, pauses):
    scripted.answers = [refused(503), refused(503), refused(503, "too busy")]
    with pytest.raises(RefusedError, match="found HTTP 503: too busy") as caught:
        call(kind, scripted.url, "predict", {"x": [1]}, retries=2)
    assert caught.value.status == 503
    assert len(pauses) == 2


@pytest.mark.parametrize("status", [400, 404, 413, 429, 500, 501, 502])
def test_nothing_else_is_tried_again(kind, scripted, pauses, status):
    scripted.answers = [refused(status)]
    with pytest.raises(RefusedError, match=f"found HTTP {status}: no") as caught:
        call(kind, scripted.url, "predict", {"x": [1]})
    assert caught.value.status == status
    assert len(scripted.heard) == 1
    assert not pauses


def test_lost_connection_is_not_tried_again(kind, scripted):
    scripted.answers = ["silence"]
    scripted.release.set()
    with pytest.raises(UserError, match="Expected a model server at .*, found: Server disconn"):
        call(kind, scripted.url, "predict", {"x": [1]})
    assert len(scripted.heard) == 1


def test_slow_server_is_given_up(kind, scripted):
    scripted.answers = ["silence"]
    with pytest.raises(UserError, match=r"found: .*[Tt]ime"):
        call(kind, scripted.url, "predict", {"x": [1]}, timeout_seconds=0.2)


def test_absent_server(kind):
    with pytest.raises(UserError, match="Expected a model server at http://127.0.0.1:9/m, found"):
        call(kind, "http://127.0.0.1:9/m", "signature", "serving_default")
    with pytest.raises(UserError, match="check --url"):
        call(kind, "http://[", "signature", "serving_default")


def test_answer_that_is_no_document(kind, scripted):
    scripted.answers = [(200, b"<html>")]
    with pytest.raises(UserError, match=r"found HTTP 200: OK\. Fix: check the address"):
        call(kind, scripted.url, "predict", {"x": [1]})


def test_connection_is_kept(scripted):
    scripted.answers = [OUTPUT] * 5
    with Client(scripted.url) as client:
        for _ in range(5):
            client.predict({"x": [1]})
    assert len(scripted.connections) == 1


def test_tasks_share_connections(scripted):
    async def ask_twice_each():
        async with AsyncClient(scripted.url) as client:
            for _ in range(2):
                await asyncio.gather(*(client.predict({"x": [i]}) for i in range(3)))

    scripted.answers = [OUTPUT] * 6
    asyncio.run(ask_twice_each())
    assert len(scripted.heard) == 6
    assert len(scripted.connections) <= 3


def test_threads_share_a_client(scripted):
    scripted.usual = OUTPUT
    with Client(scripted.url) as client, ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda i: client.predict({"x": [i]}), range(40)))
    assert found == [[[0.5]]] * 40
    sent = [json.loads(body)["inputs"]["x"] for *_, body in scripted.heard]
    assert sorted(sent) == [[i] for i in range(40)]
    assert len(scripted.connections) <= 4


def test_long_bodies_are_compressed_on_request(kind, scripted):
    scripted.answers = [OUTPUT] * 3
    long = {"x": ["item"] * 1000}
    plain, small, packed = (
        (call(kind, scripted.url, "predict", inputs, compress=compress), scripted.heard[-1])[1]
        for inputs, compress in ((long, False), ({"x": [1]}, True), (long, True))
    )
    assert json.loads(plain[3])["inputs"] == long
    assert "content-encoding" not in {name.lower() for name in (*plain[2], *small[2])}
    assert packed[2]["content-encoding"] == "gzip"
    assert gzip.decompress(packed[3]) == plain[3]
    assert len(packed[3]) < len(plain[3]) / 20


def test_history_is_sent_once(scripted, toy_url, monkeypatch):
    bodies = []
    send = clients._BlockingConnection.send

    async def spy(self, verb, url, body, headers):
        bodies.append(body)
        return await send(self, verb, url, body, headers)

    monkeypatch.setattr(clients._BlockingConnection, "send", spy)
    candidates = request()["candidates"] * 50
    assert len(call(Client, toy_url, "score", request(candidates=candidates))) == 200
    sent = json.loads(bodies[-1])["inputs"]
    assert np.shape(sent["history_item_id"]) == (1, 3)
    assert np.shape(sent["candidate_item_id"]) == (1, 200)
    assert np.shape(sent["user_id"]) == (1,)


@pytest.mark.parametrize("length", [0, 2, toy_runs.MAX_LENGTH + 3])
def test_histories_of_equal_length_have_the_same_scores(toy_url, monkeypatch, length):
    shapes = []
    predict = core.Conversation.predict

    async def spy(self, inputs, *signature):
        shapes.append(np.shape(inputs["history_category_id"]))
        return await predict(self, inputs, *signature)

    monkeypatch.setattr(core.Conversation, "predict", spy)
    events = [{"item_id": item, "category_id": 2} for item in toy_runs.ITEMS[:length]]
    as_it_is, equal = (
        call(Client, toy_url, "score", request(history=events), schema=toy_runs.SCHEMA, **options)
        for options in ({}, {"equal_histories": True})
    )
    assert equal == pytest.approx(as_it_is, abs=1e-6)
    assert shapes == [(1, length), (1, toy_runs.MAX_LENGTH)]


def test_equal_histories_need_a_schema(kind):
    with pytest.raises(UserError, match="Expected the schema"):
        kind("http://127.0.0.1:9/m", equal_histories=True)


def test_numbers_that_are_none_cross_the_wire(kind, scripted):
    scripted.answers = [(200, b'{"outputs": [NaN, Infinity]}')]
    found = call(kind, scripted.url, "predict", {"x": np.array([math.nan, math.inf])})
    assert math.isnan(found[0])
    assert found[1] == math.inf
    assert scripted.heard[0][3].endswith(b'"inputs":{"x":[NaN,Infinity]}}')


def test_candidates_that_a_server_added_are_cut_off():
    """As one does that batches with padding."""
    outputs = {
        "scores": [[0.1, 0.2, 0.3]],
        "confidence": [[[1.0], [2.0], [3.0]]],
        "attention": [[[[1.0, 0.0]]] * 3],
        "unknown_ids": [4],
    }
    cut = core.Explanation.of(outputs, candidates=2)
    assert cut.scores_N.tolist() == np.float32([0.1, 0.2]).tolist()
    assert cut.confidence_NK.tolist() == [[1.0], [2.0]]
    assert cut.attention_NKL.shape == (2, 1, 2)
    assert core.Explanation.of(outputs).scores_N.shape == (3,)


def test_score_that_is_no_number_is_refused(kind, toy_url, monkeypatch):
    async def predict(self, inputs):
        return [[0.5, math.nan, 0.2, 0.1]]

    monkeypatch.setattr(core.Conversation, "predict", predict)
    with pytest.raises(UserError, match="line 1: expected probabilities from .* nan"):
        call(kind, toy_url, "score", request(), "line 1")


def test_client_quotes_the_server(kind, toy_url):
    with pytest.raises(RefusedError, match="found HTTP 400: Missing named input: "):
        call(kind, toy_url, "predict", {})
    with pytest.raises(RefusedError, match="found HTTP 404: Servable not found"):
        call(kind, toy_url.replace("ctr", "other"), "signature", "serving_default")
    with pytest.raises(RefusedError, match="found HTTP 404: Not Found"):
        call(kind, toy_url.replace("/v1/", "/v2/"), "signature", "serving_default")
    with pytest.raises(UserError, match="Expected the signature 'none'"):
        call(kind, toy_url, "signature", "none")


def test_bytes_that_are_not_text(kind, served):
    names = np.array([b"\xff\x00"], object)
    inputs = {"ids": np.array([[1]]), "names": names}
    outputs = call(kind, served.url + ":predict", "predict", inputs, "describe")
    assert outputs["raw_bytes"] == [{"b64": "/wA="}]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"history_category_id": [[2, 2, 2]]}, r"\[history_category_id \[B, L\]:\] \[1 3\]"),
        ({"history_category_id": [[2]]}, r"\[history_category_id \[B, L\]:\] \[1 1\]"),
        ({"candidate_category_id": [[2, 2]]}, r"\[candidate_category_id \[B, N\]:\] \[1 2\]"),
        ({"user_id": [["u"]]}, r"\[user_id \[B\]:\] \[1 1\]"),
        ({"user_id": "u"}, r"\[user_id \[B\]:\] \[\]"),
        ({"candidate_item_id": ["a"]}, r"\[candidate_item_id \[B, N\]:\] \[1\]"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(toy_url, changes, message):
    with Client(toy_url) as client:
        assert len(client.predict(INPUTS)[0]) == 1
        with pytest.raises(UserError, match=f"found HTTP 400: .*{message}"):
            client.predict(INPUTS | changes)


def test_client_needs_no_tensorflow():
    code = "import sys, serving.client; assert 'tensorflow' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
