import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from preprocessing.errors import UserError
from serving.client import Explanation
from serving.explain import describe, explain
from serving.exporting.sample_requests import sample_requests
from tests.helpers import toy_runs

ROOT = pathlib.Path(__file__).parents[2]
REQUEST = {
    "user": "u",
    "history": [{"item": "old"}, {"item": "new"}, {"item": "dropped"}],
    "candidates": [{"item": "worse"}, {"item": "better"}],
}
WHY = Explanation(
    scores_N=np.array([0.25, 0.5], np.float32),
    confidence_NK=np.array([[0.5, 0.5], [0.9, 0.1]], np.float32),
    attention_NKL=np.array([[[1, 0, 0], [0, 1, 0]], [[0.3, -0.7, 0], [1, 0, 0]]], np.float32),
    unknown=2,
)


def test_best_candidate_first_with_its_experts_and_what_they_looked_at():
    assert describe(REQUEST, WHY, candidates=1) == (
        "2 candidates, 3 events; 2 of its values are unknown to the model.\n"
        "\n"
        "1. 0.5000  item=better\n"
        "   expert 1   90.0% ██████████████████\n"
        "      -0.700  event 1: item=new\n"
        "      +0.300  event 0: item=old\n"
        "   expert 2   10.0% ██\n"
        "      +1.000  event 0: item=old\n"
    )


def test_all_candidates_in_order_of_their_scores():
    lines = describe(REQUEST, WHY, events=0).splitlines()
    assert [line for line in lines if line[:1].isdigit()][1:] == [
        "1. 0.5000  item=better",
        "2. 0.2500  item=worse",
    ]


@pytest.fixture
def path(tmp_path, toy_data):
    file = tmp_path / "requests.jsonl"
    lines = [json.dumps(request) for request in sample_requests(toy_data, "test", 3)]
    file.write_text("\n".join([*lines[:2], "", lines[2]]) + "\n")
    return file


def test_lines_are_those_of_the_file(toy_url, toy_data, path):
    request, why = explain(toy_url, path, 4)
    assert request == sample_requests(toy_data, "test", 3)[2]
    assert why.attention_NKL.shape == (len(request["candidates"]), 1, len(request["history"]))
    for line in (3, 5):
        with pytest.raises(UserError, match=f"Expected a request at .*:{line}, found none"):
            explain(toy_url, path, line)


def test_schema_supplies_defaults(toy_url, tmp_path):
    schema = tmp_path / "schema.json"
    toy_runs.SCHEMA.save(schema)
    event = {"item_id": "item 1 é", "category_id": 2}
    asked = {"user_id": "u", "hour": 1, "history": [event], "candidates": [event | {"price": 1.0}]}
    path = tmp_path / "requests.jsonl"
    path.write_text(json.dumps(asked))
    _, why = explain(toy_url, path, 1, schema)
    assert len(why.scores_N) == 1


def test_command(toy_url, path):
    result = subprocess.run(
        [sys.executable, "-m", "serving.explain", f"--url={toy_url}", f"--requests={path}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert " unknown to the model." in result.stdout
    assert "expert 1  100.0% ████" in result.stdout
