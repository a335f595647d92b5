"""Every clause of the REST contract, asked over the wire; the cases are those of the goldens."""

import base64
import json
import urllib.parse

import pytest

from serving import embedded_server, goldens
from serving.conformance import all_cases, models
from serving.conformance.all_cases import CASES
from serving.conformance.case import ANY, Answer, Case, Expected, request, same

CLAUSES = (
    *(f"U{i}" for i in range(1, 10)),
    *("E1", "E3"),
    *(f"J{i}" for i in range(1, 11)),
    *("R1", "R2", "R3", "R4", "R6", "R7", "R8"),
    *(f"H{i}" for i in range(1, 8)),
    *("M1", "M2", "M3", "M4"),
    *("B2", "B3", "B5", "B6"),
)
"""Those a client can see in a single exchange; R5 and R9 are about white space."""


@pytest.fixture(scope="module")
def models_config(tmp_path_factory):
    directory = tmp_path_factory.mktemp("goldens") / "models"
    models.write(directory)
    return directory / "models.config"


@pytest.fixture(scope="module")
def servers(models_config):
    """Servers without and with the flags of the cases."""
    shared = {
        "model_config_file": str(models_config),
        "file_system_poll_wait_seconds": 0,
        "rest_api_timeout_in_ms": 120_000,  # for machines with other work
    }
    flags = {
        "rest_api_enable_cors_support": True,
        "monitoring_config_file": str(models_config.parent / "monitoring.config"),
        "enable_batching": True,
        "batching_parameters_file": str(models_config.parent / "batching.config"),
    }
    with (
        embedded_server.running("", "", **shared) as plain,
        embedded_server.running("", "", **shared, **flags) as with_flags,
    ):
        yield {False: plain.root, True: with_flags.root}


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_rest(servers, case):
    address = urllib.parse.urlsplit(servers[case.with_flags])
    answers = case.run(address.hostname, address.port)
    assert case.problems(answers) == []


def test_every_clause_has_a_case_and_no_name_comes_twice():
    names = [case.name for case in CASES]
    assert len(set(names)) == len(names)
    parts = {part for name in names for part in name.split("-")}
    assert set(CLAUSES) - parts == set()


def test_answers_are_stored_and_compared(servers, monkeypatch):
    chosen = [case for case in CASES if case.name in ("U2-latest", "H4-head", "U1-root")]
    monkeypatch.setattr(all_cases, "CASES", chosen)
    stored = goldens.record(servers[False], with_flags=False)
    assert set(stored) == {case.name for case in chosen}
    assert all(entry["problems"] == [] for entry in stored.values())
    assert json.loads(json.dumps(stored)) == stored
    assert goldens.differences(stored, stored) == []

    other = json.loads(json.dumps(stored))
    reply = other["U2-latest"]["replies"][0]
    reply["body"] = base64.b64encode(b'{"predictions": [3.5, 4, 5.5]}').decode()
    other["H4-head"]["replies"][0]["status"] = 405
    other["U1-root"]["replies"] = []
    found = goldens.differences(stored, other)
    assert [line.split(":")[0] for line in found] == ["H4-head", "U1-root", "U2-latest"]


def test_a_server_that_answers_otherwise_is_told(servers):
    address = urllib.parse.urlsplit(servers[False])

    def problems(expected, sent=None, methods=("POST",)):
        sent = sent or request("POST", "/v1/models/toy:predict", '{"instances": [1]}')
        case = Case("x", sent, (expected,), methods)
        return case.problems(case.run(address.hostname, address.port))

    assert problems(Expected(200, {"predictions": [3.5]})) == []
    assert len(problems(Expected(201, {"predictions": [3]}))) == 2
    assert len(problems(Expected(200, error="x"))) == 1
    assert len(problems(Expected(200, b"", contains=("nowhere",)))) == 2
    assert len(problems(Expected(200, headers={"content-type": None, "x": "y"}))) == 2
    bad = request("GET", "/v1/models")
    message = "Missing model name in request."
    assert problems(Expected(400, error="model name"), bad, ("GET",)) == []
    assert problems(Expected(400, error=message, whole_error=True), bad, ("GET",)) == []
    assert len(problems(Expected(400, error="model", whole_error=True), bad, ("GET",))) == 1

    stays_open = Case("x", request("GET", "/v1/none"), (Expected(400),), ("GET",), closes=True)
    with pytest.raises(TimeoutError):
        stays_open.run(address.hostname, address.port, timeout_seconds=0.2)


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        (1, 1, True),
        (1, 1.0, False),
        (True, 1, False),
        (float("nan"), float("nan"), True),
        (1 / 3, 0.333333343, True),
        (1 / 3, 0.3334, False),
        ([1, {"a": [2.0]}], [1, {"a": [2.0]}], True),
        ([1], [1, 1], False),
        ({"a": 1}, {"b": 1}, False),
    ],
)
def test_json_values_are_compared_as_a_client_sees_them(one, other, equal):
    assert same(one, other) is equal


def test_any_body_is_enough_where_nothing_is_promised():
    assert Expected(200, ANY).problems(Answer(200, "OK", {}, b"no JSON")) == []
