import json
import types

import httpx
import numpy as np
import orjson
import pytest

from preprocessing.errors import UserError
from preprocessing.schema import Schema
from serving import embedded_server, explore
from serving.client import Client
from serving.explore import Explorer
from serving.exporting.sample_requests import sample_requests
from tests.helpers import toy_runs

REQUESTS = toy_runs.REQUESTS["test"]


@pytest.fixture(scope="module")
def explored(toy_version, toy_data):
    """A server with the page."""
    with embedded_server.running(toy_version.parent, "ctr", explore=str(toy_data.path)) as running:
        yield running


@pytest.fixture(scope="module")
def http(explored):
    with httpx.Client(base_url=explored.root, timeout=30) as client:
        yield client


@pytest.fixture(scope="module")
def given(toy_data):
    return sample_requests(toy_data, "test", REQUESTS)


def texts(fields):
    return {n: str(v) if isinstance(v, int) else v for n, v in fields.items()}


def test_every_request_belongs_to_its_user(http, given):
    """Also to one that training never saw: such users share an id, and are different users."""
    names = [r["user_id"] if r["user_id"] in toy_runs.USERS else None for r in given]
    names = [name or f"stranger {i}" for i, name in enumerate(names)]
    assert sum(name.startswith("stranger") for name in names) > 1
    users = http.get("/explore/users").json()
    assert users["split"] == "test"
    assert users["found"] == len(users["users"]) == len(set(names))
    for row in users["users"]:
        indices = http.get("/explore/requests", params={"user": row["user"]}).json()
        assert indices == [i for i, name in enumerate(names) if name == row["user"]]
        assert row["requests"] == len(indices)
        assert row["unknown"] == row["user"].startswith("stranger")
    known = [not row["unknown"] for row in users["users"]]
    assert known == sorted(known, reverse=True)  # strangers are apart, at the end
    assert users["unknown"] == known.count(False)


def test_users_are_found_by_a_part_of_their_key(toy_servable, toy_data):
    explorer = Explorer(toy_data, lambda: (1, toy_servable))
    explorer.users = {"xAb": [0], "Abc": [1], "c": [2], "abd": [3]}
    found = [row["user"] for row in explorer.find_users(" aB")["users"]]
    assert found == ["Abc", "abd", "xAb"]
    assert explorer.find_users("none")["found"] == 0


def test_long_lists_of_users_are_cut(toy_servable, toy_data):
    explorer = Explorer(toy_data, lambda: (1, toy_servable))
    explorer.users = {f"u{i}": [i] for i in range(200)}
    found = explorer.find_users("")
    assert (found["found"], len(found["users"])) == (200, 50)


@pytest.mark.parametrize("index", range(REQUESTS))
def test_request_is_shown_as_it_is_and_explained_as_over_rest(http, explored, given, index):
    shown = http.get("/explore/why", params={"request": index}).json()
    assert shown["version"] == "1"
    assert shown["request_id"] == f"test:{index}"
    asked = given[index]
    user = {name: asked[name] for name in ("user_id", "age", "hour")}
    assert shown["user"]["fields"] == texts(user)
    assert [event["fields"] for event in shown["history"]] == list(map(texts, asked["history"]))
    with Client(explored.url) as client:
        why = client.explain(asked)
    order = np.argsort(-why.scores_N, kind="stable")
    candidates = shown["candidates"]
    assert [c["fields"] for c in candidates] == [texts(asked["candidates"][n]) for n in order]
    for key, values in (
        ("score", why.scores_N),
        ("confidence", why.confidence_NK),
        ("attention", why.attention_NKL),
    ):
        np.testing.assert_allclose(
            np.array([c[key] for c in candidates], np.float32).ravel(),
            values[order].ravel(),
            rtol=0,
            atol=1e-6,
        )
    records = [shown["user"], *shown["history"], *candidates]
    assert sum(len(record["unknown"]) for record in records) == why.unknown


def test_integers_that_a_browser_cannot_hold_are_shown_as_they_are(
    toy_servable, tmp_path, monkeypatch
):
    """A browser reads every number as a float of 64 bits."""
    version, large = 2**60 + 1, [2**53 + 1, 2**53 + 3, 2**62 + 1]
    monkeypatch.setattr(toy_runs, "CATEGORIES", large)
    (tmp_path / "data").mkdir()
    explorer = Explorer(toy_runs.write_data(tmp_path / "data"), lambda: (version, toy_servable))
    categories = set()
    for index in range(REQUESTS):
        shown = json.loads(orjson.dumps(explorer.why(index)), parse_int=float)
        assert shown["version"] == str(version)
        assert shown["timestamp"] == "0"
        for record in [*shown["history"], *shown["candidates"]]:
            if "category_id" not in record["unknown"]:
                categories.add(record["fields"]["category_id"])
    assert categories == set(map(str, large))


def test_some_values_are_unknown_and_some_are_not(http):
    names, shown = set(), 0
    for index in range(REQUESTS):
        for event in http.get("/explore/why", params={"request": index}).json()["history"]:
            names |= set(event["unknown"])
            shown += len(event["fields"]) > len(event["unknown"])
    assert names == {"item_id", "category_id"}
    assert shown


def test_clicks_are_marked(toy_servable, toy_data, monkeypatch):
    explorer = Explorer(toy_data, lambda: (1, toy_servable))
    decode = explore.raw_requests.decode

    def decode_clicked(data, records):
        batch = decode(data, records)
        labels = np.zeros(batch.features["label"].shape, np.float32)
        labels[0, 0] = 1
        batch.features["label"] = explore.tf.constant(labels)
        return batch

    monkeypatch.setattr(explore.raw_requests, "decode", decode_clicked)
    for index in range(3):
        clicked = [c["fields"] for c in explorer.why(index)["candidates"] if c["label"]]
        first = sample_requests(toy_data, "test", 3)[index]["candidates"][0]
        assert clicked == [texts(first)]


def test_model_without_reasons_has_scores(toy_servable, toy_data):
    silent = types.SimpleNamespace(
        path=toy_servable.path,
        predict=toy_servable.predict,
        signature_defs=types.SimpleNamespace(signature_def={}),
    )
    shown = Explorer(toy_data, lambda: (1, silent)).why(1)
    full = Explorer(toy_data, lambda: (1, toy_servable)).why(1)
    assert [c["score"] for c in shown["candidates"]] == [c["score"] for c in full["candidates"]]
    assert all(c["confidence"] == c["attention"] == [] for c in shown["candidates"])


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/explore/why?request=11", "No request 11; there are 11."),
        ("/explore/why?request=-1", "Nothing is served here."),
        ("/explore/why?request=²", "Nothing is served here."),
        ("/explore/why", "Nothing is served here."),
        ("/explore/other", "Nothing is served here."),
        ("/explore/%2e%2e/server.py", "Nothing is served here."),
        ("/explore/requests?user=nobody", "No user 'nobody' among the requests of the test split."),
    ],
)
def test_absent(http, path, message):
    reply = http.get(path)
    assert reply.status_code == 404
    assert reply.json() == {"error": message}


def test_page_is_for_reading(http):
    assert http.post("/explore/users").status_code == 405


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:80", "127.0.0.1:8501", "[::1]:8501"])
def test_this_machine_is_answered(http, host):
    assert http.get("/explore/users", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "host", ["example.com", "localhost.example.com:80", "127.0.0.1.nip.io", ""]
)
def test_names_that_were_made_to_point_here_are_refused(http, host):
    reply = http.get("/explore/users", headers={"host": host})
    assert reply.status_code == 403
    assert "users" not in reply.text.replace("users'", "")


def test_page_loads_nothing_from_elsewhere(http):
    page = http.get("/explore")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.headers["content-security-policy"].startswith("default-src 'self'")
    for path, kind in (("page.js", "javascript"), ("page.css", "css")):
        reply = http.get(f"/explore/{path}")
        assert kind in reply.headers["content-type"]
        assert f'"/explore/{path}"' in page.text
        assert "//" not in reply.text.replace("// ", "")


def test_rest_is_answered_beside_the_page(explored, given):
    with Client(explored.url) as client:
        assert len(client.score(given[1])) == len(given[1]["candidates"])


def test_page_is_off_by_default(toy_url):
    assert httpx.get(toy_url.split("/v1/")[0] + "/explore").status_code == 404


def test_other_models_and_data_are_refused(exported, toy_servable, toy_data, tmp_path):
    with (
        pytest.raises(UserError, match="expected a model that ctr-export wrote"),
        embedded_server.running(exported, "toy", explore=str(toy_data.path)),
    ):
        pass
    content = toy_runs.SCHEMA.to_json()
    content["features"][2]["encoder"]["buckets"] = 6
    (tmp_path / "data").mkdir()
    other = toy_runs.write_data(tmp_path / "data", Schema.from_json(content))
    with pytest.raises(UserError, match="encoder.buckets: 5 here, 6 there"):
        Explorer(other, lambda: (1, toy_servable))


def test_page_is_for_this_machine_only(toy_version, toy_data):
    with (
        pytest.raises(UserError, match="--explore: expected a loopback --host"),
        embedded_server.running(
            toy_version.parent, "ctr", explore=str(toy_data.path), host="0.0.0.0"
        ),
    ):
        pass
