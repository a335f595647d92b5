import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from preprocessing.errors import UserError
from serving.exporting.sample_requests import sample_requests
from serving.score import score
from tests.helpers import toy_runs

ROOT = pathlib.Path(__file__).parents[2]


def event(item, category=2):
    return {"item_id": item, "category_id": category}


def candidate(item):
    return event(item) | {"price": 2.0}


def request(**changes):
    base = {
        "user_id": "user 1",
        "age": 33.0,
        "hour": 7,
        "history": [event(item) for item in toy_runs.ITEMS[:3]],
        "candidates": [candidate(item) for item in toy_runs.ITEMS[:5]],
    }
    return base | changes


@pytest.fixture
def ask(tmp_path, toy_url):
    def ask(*lines, schema=""):
        path = tmp_path / "requests.jsonl"
        path.write_text("".join(f"{line}\n" for line in lines))
        return list(score(toy_url, path, schema))

    return ask


def by_item(ranked):
    return {row["item_id"]: row["score"] for row in ranked["candidates"]}


def test_candidates_come_best_first(ask):
    first, second = ask(json.dumps(request()), "", json.dumps(request(history=[])))
    assert (first["request"], second["request"]) == (1, 3)
    for ranked in (first, second):
        values = [row["score"] for row in ranked["candidates"]]
        assert values == sorted(values, reverse=True)
        assert {row["item_id"] for row in ranked["candidates"]} == set(toy_runs.ITEMS[:5])
        assert ranked["candidates"][0]["price"] == 2.0
        assert all(0 < value < 1 for value in values)
    assert by_item(first) != by_item(second)


def test_scores_are_those_of_the_signature(ask, toy_servable):
    ranked = by_item(ask(json.dumps(request()))[0])
    expected = toy_servable.predict("serving_default", toy_runs.raw_inputs(5))["scores"]
    found = [ranked[item] for item in toy_runs.ITEMS[:5]]
    np.testing.assert_array_equal(np.array(found, np.float32), expected[0])


def test_unknown_items_are_scored(ask):
    ranked = by_item(ask(json.dumps(request(candidates=[candidate("new"), candidate("newer")])))[0])
    assert set(ranked) == {"new", "newer"}
    assert all(0 < value < 1 for value in ranked.values())


def test_of_a_long_history_the_most_recent_events_count(ask):
    events = [event(item) for item in toy_runs.ITEMS]
    recent, long, other = ask(
        json.dumps(request(history=events[-toy_runs.MAX_LENGTH :])),
        json.dumps(request(history=events)),
        json.dumps(request(history=events[: toy_runs.MAX_LENGTH])),
    )
    assert by_item(long) == pytest.approx(by_item(recent), abs=1e-6)
    assert by_item(long) != pytest.approx(by_item(other), abs=1e-3)


def test_schema_supplies_defaults(ask, toy_version):
    """And so does the model itself; what has no default is asked for either way."""
    line = request()
    del line["age"]
    schema = toy_version / "assets" / "schema.json"
    expected = by_item(ask(json.dumps(request(age=30.0)))[0])
    for known in ({}, {"schema": schema}):
        assert by_item(ask(json.dumps(line), **known)[0]) == pytest.approx(expected, abs=1e-6)
        with pytest.raises(UserError, match=":1: expected the field 'hour'"):
            ask(json.dumps({k: v for k, v in line.items() if k != "hour"}), **known)


def test_requests_with_a_missing_number_are_json(ask, toy_data):
    missing = toy_data.encoders["price"].decode(np.array([1]))
    assert np.isnan(missing).all()
    requests = sample_requests(toy_data, "test", 11)
    prices = [row["price"] for asked in requests for row in asked["candidates"]]
    assert None in prices
    lines = [json.dumps(asked, allow_nan=False) for asked in requests]
    assert len(ask(*lines)) == 11


def test_requests_of_the_data_set_are_understood(ask, toy_data):
    requests = sample_requests(toy_data, "test", 5)
    ranked = ask(*map(json.dumps, requests))
    assert len(ranked) == 5
    for asked, answered in zip(requests, ranked, strict=True):
        assert len(answered["candidates"]) == len(asked["candidates"])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "requests.jsonl:1: expected JSON, found a syntax error"),
        ("[" * 100_000, "requests.jsonl:1: expected JSON"),
        ("5", "requests.jsonl:1: expected an object, found 5"),
        (json.dumps(request(hour="7")), "requests.jsonl:1: expected an integer as 'hour'"),
    ],
)
def test_bad_lines(ask, line, message):
    with pytest.raises(UserError) as caught:
        ask(line)
    assert message in str(caught.value)


def test_missing_file(toy_url, tmp_path):
    with pytest.raises(UserError, match="Expected a file of requests, found none"):
        list(score(toy_url, tmp_path / "none.jsonl"))


def test_gzip_changes_nothing(toy_url, tmp_path):
    path = tmp_path / "requests.jsonl"
    many = [candidate(f"item {i}") for i in range(100)]
    path.write_text(json.dumps(request(candidates=many)) + "\n")
    assert list(score(toy_url, path, compress=True)) == list(score(toy_url, path))


def test_command(toy_url, tmp_path):
    path = tmp_path / "requests.jsonl"
    path.write_text(json.dumps(request()) + "\n" + "{}\n")
    result = subprocess.run(
        [sys.executable, "-m", "serving.score", f"--url={toy_url}", f"--requests={path}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    assert len(json.loads(result.stdout)["candidates"]) == 5
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"error: {path}:2: expected the field ")
    assert line.endswith(", found nothing.")
