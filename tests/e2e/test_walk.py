"""The commands from a stranger's CSV to a server, and three strangers who ask it.

The log is that of docs/notebook.ipynb: other names of columns, dates, genres between bars, stars,
prices with gaps. curl, a gRPC client that knows only what the server reflects, and our client get
the same scores.
"""

import json
import pathlib
import socket
import subprocess
import sys
import tempfile

import grpc
import numpy as np
import pytest

from preprocessing.schema import Schema
from serving.client import Client
from tests.helpers import notebooks
from tests.helpers.python_runs import python
from tests.helpers.reflected_grpc import ReflectedClient

pytestmark = pytest.mark.slow

ROOT = pathlib.Path(__file__).parents[2]
USER = ("memberId", "age", "gender")
EVENT = ("movieId", "genres")
MOST_GENRES = 6
MISSING = {"movieId": "", "genres": "", "price_EUR": float("nan")}
"""How callers that know no schema write what is missing, and padding."""


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("walk")


@pytest.fixture(scope="module")
def log(home):
    """The notebook's log, as a table and as the file `log_file`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(home))
        return notebooks.run(notebooks.WALK, notebooks.cells(notebooks.WALK)[:2])


@pytest.fixture(scope="module")
def model(home, log):
    """Directory of versions that the commands wrote."""
    drafted = python(
        "-m",
        "pipeline.infer_schema",
        f"--input={log['log_file']}",
        f"--output={home / 'schema.json'}",
    )
    assert "uncertain" not in drafted
    python(
        "-m",
        *("pipeline.build_examples", f"--input={log['log_file']}", f"--output={home / 'data'}"),
        *(f"--schema={home / 'schema.json'}", "--protocol=time_split", "--num_shards=2"),
    )
    python(
        "-m",
        *("models.train", f"--data={home / 'data'}", f"--workdir={home / 'run'}"),
        *("--model=din", "--max_steps=120", "--set=train.batch_size=64"),
    )
    exported = python(
        "-m",
        *("serving.export", f"--run={home / 'run'}", f"--output={home / 'model'}"),
        "--calibrate=isotonic",
    )
    assert "Calibrated (isotonic)" in exported
    return home / "model"


@pytest.fixture(scope="module")
def server(model):
    """Address of the model over REST, and the port of gRPC, of a server process."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "serving.server", "--model_name=ctr", "--rest_api_port=0"]
    with subprocess.Popen(
        [*command, f"--model_base_path={model}", f"--port={port}"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process.stdout.readline().split()[-1], port
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def requests(log):
    """Requests as our client takes them: histories and candidates of several lengths.

    One member is new and has no history, one film is new, and prices are missing. Ids of films are
    the integers of the log.
    """
    rows, found = log["log"], []
    for number, member in enumerate(("m3", "m50", "m77", "m199", "nobody")):
        own = rows[rows["memberId"] == member]
        liked = own[own["stars"] >= 4].head(3 * number)
        films = rows.drop_duplicates("movieId").iloc[10 * number :].head(2 + number)
        candidates = [
            {**event, "price_EUR": None if np.isnan(price) else price}
            for event, price in zip(_events(films), films["price (EUR)"], strict=True)
        ]
        person = own.iloc[0] if len(own) else rows.iloc[0]
        about = {"memberId": member, "age": int(person["age"]), "gender": person["gender"]}
        found.append({**about, "history": _events(liked), "candidates": candidates})
    found[1]["candidates"][0]["movieId"] = 987_654_321
    found[2]["candidates"][-1]["price_EUR"] = None
    assert [len(request["history"]) for request in found] == [0, 3, 6, 9, 0]
    return found


def _events(rows):
    return [
        {"movieId": int(film), "genres": genres.split("|")}
        for film, genres in zip(rows["movieId"], rows["genres"], strict=True)
    ]


def _columns(requests, padding):
    """Inputs of the model by name, ids as texts, with so many steps of padding and more."""
    inputs = {name: np.array([request[name] for request in requests], object) for name in USER}
    for side, prefix, names in (
        ("history", "history_", EVENT),
        ("candidates", "candidate_", (*EVENT, "price_EUR")),
    ):
        width = max(len(request[side]) for request in requests) + padding
        for name in names:
            shape = [len(requests), width, *([MOST_GENRES] if name == "genres" else [])]
            filled = np.full(shape, MISSING[name], object)
            for row, request in enumerate(requests):
                for step, record in enumerate(request[side]):
                    _fill(filled, (row, step), name, record[name])
            inputs[prefix + name] = filled
    return inputs


def _fill(array, place, name, value):
    if name == "genres":
        array[place][: len(value)] = value
    elif value is not None:
        array[place] = str(value) if name == "movieId" else value


def _curl(address, body):
    done = subprocess.run(
        ["curl", "--silent", "--data", "@-", f"{address}:predict"],
        input=json.dumps(body),
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def expected(server, requests):
    """Scores of each request, by our client."""
    with Client(server[0]) as client:
        scores = [client.score(request) for request in requests]
    assert all(0 < score < 1 for of_request in scores for score in of_request)
    assert np.ptp(np.concatenate(scores)) > 0.1
    return scores


def _require_equal(answers, expected):
    """Asserts that rows of scores, padding behind them, are the expected ones."""
    for row, scores in zip(answers, expected, strict=True):
        np.testing.assert_allclose(row[: len(scores)], scores, rtol=0, atol=1e-6)


def test_our_client_with_the_schema(model, server, requests, expected):
    schema = Schema.load(model / "1" / "assets" / "schema.json")
    with Client(server[0], schema=schema) as client:
        _require_equal([client.score(request) for request in requests], expected)


def test_curl_in_column_form(server, requests, expected):
    for padding in (0, 3):
        inputs = {name: array.tolist() for name, array in _columns(requests, padding).items()}
        _require_equal(_curl(server[0], {"inputs": inputs})["outputs"], expected)


def test_curl_in_row_form(server, requests, expected):
    """All requests at once, padded to one form, and each alone without padding."""
    _require_equal(_curl(server[0], _rows(requests, 2))["predictions"], expected)
    for request, scores in zip(requests, expected, strict=True):
        # A history without events needs a step of padding, to say how wide its lists are.
        body = _rows([request], 0 if request["history"] else 1)
        _require_equal(_curl(server[0], body)["predictions"], [scores])


def _rows(requests, padding):
    columns = _columns(requests, padding)
    rows = zip(*(array.tolist() for array in columns.values()), strict=True)
    return {"instances": [dict(zip(columns, row, strict=True)) for row in rows]}


def test_grpc_by_reflection(server, requests, expected):
    with grpc.insecure_channel(f"127.0.0.1:{server[1]}") as channel:
        client = ReflectedClient(channel, "ctr")
        types = client.types()
        assert types["candidate_movieId"] == "DT_STRING"
        assert types.keys() == _columns(requests, 0).keys()
        for padding in (0, 3):
            (scores,) = client.predict(_columns(requests, padding)).values()
            _require_equal(scores, expected)


def test_grpc_may_leave_out_what_has_a_default(server, requests):
    priceless = [
        {**request, "candidates": [{**film, "price_EUR": None} for film in request["candidates"]]}
        for request in requests
    ]
    with Client(server[0]) as client:
        expected = [client.score(request) for request in priceless]
    inputs = _columns(requests, 0)
    del inputs["candidate_price_EUR"]
    with grpc.insecure_channel(f"127.0.0.1:{server[1]}") as channel:
        (scores,) = ReflectedClient(channel, "ctr").predict(inputs).values()
    _require_equal(scores, expected)
