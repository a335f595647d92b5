import json
import pathlib
import subprocess
import sys
import time
from xml.etree import ElementTree

import numpy as np
import pytest

from preprocessing.errors import UserError
from preprocessing.schema import Schema
from serving import loadtest as command
from serving.exporting.sample_requests import sample_requests
from serving.load.generator import Bounds, Level, Samples, measure
from serving.loadtest import is_loopback, loadtest, plot, table
from tests.helpers import many_logs, toy_runs
from tests.helpers.scripted_server import Scripted

ROOT = pathlib.Path(__file__).parents[2]
ONE_CALLER = Level("closed", 1)


@pytest.fixture
def scripted():
    server = Scripted()
    server.usual = (200, b'{"outputs": [[0.5]]}')
    yield server
    server.close()


def test_percentiles_are_observed_latencies():
    samples = Samples(latencies=[i / 1000 for i in range(1000, 0, -1)], elapsed=4.0)
    summary = samples.summary()
    assert summary["latency_ms"] == {"p50": 501, "p95": 951, "p99": 991, "p99.9": 1000}
    assert summary["per_second"] == 250
    few = Samples(latencies=[0.002, 0.004], elapsed=1.0).summary()["latency_ms"]
    assert few == {"p50": 4, "p95": 4, "p99": 4, "p99.9": 4}


def test_nothing_observed_is_nothing_claimed():
    summary = Samples(elapsed=1.0).summary()
    assert summary["per_second"] == 0
    assert set(summary["latency_ms"].values()) == {None}
    assert summary["reply_bytes"] is None


@pytest.mark.parametrize("level", [Level("closed", 3), Level("open", 2000)], ids=["closed", "open"])
def test_requests_are_bounded_in_count(scripted, level):
    samples = measure(scripted.url, [b"a", b"b"], level, Bounds(30, 20), seed=1)
    assert len(samples.latencies) == 20
    assert len(scripted.heard) == 23  # three of them to warm up
    assert {body for *_, body in scripted.heard} == {b"a", b"b"}
    assert samples.reply_bytes == 20 * len(scripted.usual[1])
    assert min(samples.latencies) > 0


@pytest.mark.parametrize("level", [Level("closed", 2), Level("open", 50)], ids=["closed", "open"])
def test_requests_are_bounded_in_time(scripted, level):
    start = time.monotonic()
    samples = measure(scripted.url, [b"a"], level, Bounds(0.3, 100_000), seed=1)
    assert 0 < len(samples.latencies) < 10_000
    assert time.monotonic() - start < 10


def test_rate_of_an_open_loop_is_that_asked_for(scripted):
    samples = measure(scripted.url, [b"a"], Level("open", 100), Bounds(1.0, 1000), seed=1)
    # Within four standard deviations of a Poisson variable.
    assert 60 < len(samples.latencies) < 140


def test_open_loop_counts_the_wait_of_an_overloaded_server(scripted):
    scripted.seconds = 0.02  # one after the other: 50 per second at most
    bounds = Bounds(30, 25)
    alone = measure(scripted.url, [b"a"], ONE_CALLER, bounds, seed=1)
    crowd = measure(scripted.url, [b"a"], Level("open", 1000), bounds, seed=1)
    assert len(crowd.latencies) == 25
    # The last of 25 that come at once waits for the 24 before it.
    assert max(crowd.latencies) > 0.4
    assert np.median(alone.latencies) < max(crowd.latencies) / 2


def test_failures_are_counted_by_status(scripted):
    scripted.answers = [scripted.usual] * 3 + [(503, b"{}"), (400, b"{}"), (503, b"{}"), "silence"]
    scripted.release.set()
    samples = measure(scripted.url, [b"a"], ONE_CALLER, Bounds(30, 6), seed=1)
    assert samples.failures == {"503": 2, "400": 1, "no reply": 1}
    assert len(samples.latencies) == 2


@pytest.mark.parametrize(
    ("url", "here"),
    [
        ("http://127.0.0.1:8501/v1/models/m", True),
        ("http://localhost:8501/v1/models/m", True),
        ("http://[::1]:8501/v1/models/m", True),
        ("http://127.0.0.1.example.com/v1/models/m", False),
        ("http://localhost.example.com/v1/models/m", False),
        ("http://192.168.0.1:8501/v1/models/m", False),
        ("http://0.0.0.0:8501/v1/models/m", False),
        ("no address", False),
    ],
)
def test_loopback(url, here):
    assert is_loopback(url) is here


def test_servers_elsewhere_are_spared():
    with pytest.raises(UserError, match="found http://example.com/m: load .* --allow_remote"):
        loadtest("http://example.com/m", [ONE_CALLER], [1], [1], Bounds(1, 1))


@pytest.fixture(scope="module")
def result(toy_url):
    levels = [Level("closed", 2), Level("open", 100)]
    return loadtest(toy_url, levels, [1, 40], [0, 6], Bounds(5, 5))


def test_every_load_meets_every_size(result):
    found = [(c["loop"], c["candidates"], c["history"]) for c in result["cells"]]
    loops, sizes = ("closed", "open"), ((1, 0), (40, 0), (1, 6), (40, 6))
    assert found == [(loop, *size) for size in sizes for loop in loops]
    for cell in result["cells"]:
        assert cell["requests"] == 5
        assert cell["failures"] == {}
        assert cell["latency_ms"]["p50"] <= cell["latency_ms"]["p99"]
    small, large = (result["cells"][i] for i in (0, 6))
    assert small["request_bytes"] < large["request_bytes"]
    assert small["reply_bytes"] < large["reply_bytes"]


def test_table_has_a_line_per_measurement(result):
    header, *lines = table(result).splitlines()
    assert len(lines) == len(result["cells"])
    assert header.split()[-2:] == ["p99.9", "ms"]
    assert lines[0].split()[:6] == ["2", "callers", "1", "0", "5", "0"]
    assert len({len(line) for line in (header, *lines)}) == 1


def test_plot_has_a_panel_per_history(result):
    root = ElementTree.fromstring(plot(result))
    texts = {element.text for element in root.iter("{http://www.w3.org/2000/svg}text")}
    assert {"history 0", "history 6", "latency, ms", "2 callers, p50", "100/s, p99"} <= texts


def test_requests_are_drawn_from_a_file(toy_url, toy_data, tmp_path, monkeypatch):
    path = tmp_path / "requests.jsonl"
    given = sample_requests(toy_data, "test", 11)
    path.write_text("".join(json.dumps(request) + "\n" for request in given))
    sent = []

    def spy(url, bodies, level, bounds, seed):
        sent.extend(json.loads(body)["inputs"] for body in bodies)
        return Samples()

    monkeypatch.setattr(command, "measure", spy)
    loadtest(toy_url, [ONE_CALLER], [30], [9], Bounds(1, 1), requests=path)
    known = {candidate["item_id"] for request in given for candidate in request["candidates"]}
    users = {request["user_id"] for request in given}
    assert len({json.dumps(inputs) for inputs in sent}) == len(sent) > 1
    for inputs in sent:
        assert set(inputs["user_id"]) <= users
        assert len(inputs["candidate_item_id"][0]) == 30
        assert set(inputs["candidate_item_id"][0]) <= known
        assert len(inputs["history_item_id"][0]) == 9


def test_requests_of_another_model_are_refused(toy_url, tmp_path):
    path = tmp_path / "requests.jsonl"
    path.write_text('{"user_id": "u"}\n')
    with pytest.raises(UserError, match="requests.jsonl:1: expected the field 'hour'"):
        loadtest(toy_url, [ONE_CALLER], [1], [1], Bounds(1, 1), requests=path)
    path.write_text("\n")
    with pytest.raises(UserError, match="Expected requests in .*, found none"):
        loadtest(toy_url, [ONE_CALLER], [1], [1], Bounds(1, 1), requests=path)


def test_command(toy_url, tmp_path):
    output = tmp_path / "load"
    arguments = ["--rate=50", "--max_requests=4", "--candidates=2", f"--output={output}"]
    result = subprocess.run(
        [sys.executable, "-m", "serving.loadtest", f"--url={toy_url}", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[1].split()[:5] == ["50/s", "2", "50", "4", "0"]
    cells = json.loads((output / "loadtest.json").read_text())["cells"]
    assert [cell["requests"] for cell in cells] == [4]
    assert (output / "loadtest.svg").read_text().lstrip().startswith("<")


def test_levels_have_names():
    levels = [ONE_CALLER, Level("closed", 2.0), Level("open", 0.5)]
    assert list(map(str, levels)) == ["1 caller", "2 callers", "0.5/s"]


def test_sizes_are_read_from_flags():
    assert command._numbers("history", ["0", "50"], 0) == [0, 50]
    assert command._numbers("rate", ["0.5"], 0.01, whole=False) == [0.5]


@pytest.mark.parametrize("text", ["0", "1.5", "x", "nan", "inf", "100001", ""])
def test_sizes_that_are_none(text):
    with pytest.raises(UserError, match="--history: expected integers between 1 and 100000") as e:
        command._numbers("history", ["50", text], 1)
    assert f"found {text!r}" in str(e.value)


def test_made_up_requests_fit_the_schema():
    fields = toy_runs.SCHEMA.user_features
    made = command._made_up(command.RequestFormat.from_schema(toy_runs.SCHEMA).user)
    assert [type(value) for value in made[3].values()] == [str, float, int]
    assert list(made[3]) == [field.name for field in fields]


def test_made_up_requests_have_lists_of_several_lengths():
    fields = command.RequestFormat.from_schema(Schema.from_json(many_logs.schema())).user
    made = command._made_up(fields)
    assert [record["languages"] for record in made[:3]] == [[0], [1, 2], [2, 3, 4]]
    assert made[1]["tags"] == ["tags 1", "tags 2"]
