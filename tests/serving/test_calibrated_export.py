"""An export with --calibrate: what it serves, what it leaves behind, what it refuses."""

import json
import pathlib
import shutil

import numpy as np
import pytest

from models.core import run_directory
from models.evaluation import calibration_record, dumped_scores
from models.evaluation.metrics import overall_auc
from models.evaluation.scoring import Scorer
from preprocessing.errors import UserError
from serving import embedded_server
from serving import export as exporting
from serving.client import Client
from serving.export import ExportOptions
from serving.exporting import publishing, raw_requests
from serving.exporting.sample_requests import sample_requests
from serving.parity import parity
from serving.score import score
from serving.tfserving.models.servable import Servable
from tests.helpers.python_runs import python
from tests.reference import calibrations

ROOT = pathlib.Path(__file__).parents[2]
METHOD = "platt"


@pytest.fixture(scope="module")
def run(tmp_path_factory, toy_run, toy_data):
    """The run of other tests, with validation labels that follow its random scores."""
    path = shutil.copytree(toy_run, tmp_path_factory.mktemp("calibrated") / "run")
    scores = Scorer(run_directory.load_model(path), toy_data).score("validation")
    label = (scores.logit > np.median(scores.logit)).astype(np.float32)
    written = scores._replace(label=label)
    dumped_scores.write(path, "validation", written, dumped_scores.origin(path))
    return path


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory):
    output = tmp_path_factory.mktemp("calibrated") / "model"
    return exporting.export(run, output, ExportOptions(calibrate=METHOD))


@pytest.fixture(scope="module")
def record(exported):
    return calibration_record.read(exported.path / "assets" / calibration_record.FILE)


@pytest.fixture(scope="module")
def servable(exported):
    return Servable(exported.path)


@pytest.fixture(scope="module")
def batch(toy_data):
    return next(raw_requests.batches(toy_data, "test", 64))


def expected_scores(run, data, record, split="test"):
    """The twin's probabilities by request id."""
    evaluated = Scorer(run_directory.load_model(run), data).score(split)
    expected = {}
    for request_id, logit in zip(evaluated.request_id, evaluated.logit, strict=True):
        calibration = record.calibration
        expected.setdefault(request_id, []).append(
            calibrations.probability(
                float(logit), calibration.logit_K, calibration.value_K, calibration.slope
            )
        )
    return expected


def test_every_signature_gives_the_scores_of_the_twin(run, toy_data, servable, record, batch):
    expected = expected_scores(run, toy_data, record)
    ways = {"serving_default": batch.raw, "serialized": {"examples": batch.examples}}
    ways["explain"] = batch.raw
    for way, inputs in ways.items():
        scores = servable.predict(way, inputs)["scores"]
        assert scores.dtype == np.float32
        for request_id, row in zip(batch.features["request_id"].numpy(), scores, strict=True):
            wanted = expected[request_id.decode()]
            np.testing.assert_allclose(row[: len(wanted)], wanted, atol=1e-6)
            assert (row[len(wanted) :] == 0).all()


def test_scores_over_rest_are_those_of_the_twin(run, toy_data, exported, record, tmp_path):
    expected = expected_scores(run, toy_data, record)
    requests = sample_requests(toy_data, "test", 64)
    file = tmp_path / "requests.jsonl"
    file.write_text("".join(f"{json.dumps(request)}\n" for request in requests))
    with embedded_server.running(exported.path.parent, "ctr") as running:
        ranked = list(score(running.url, file))
        with Client(running.url) as client:
            why = client.explain(requests[0], "here")
    for answer, wanted in zip(ranked, expected.values(), strict=True):
        found = [candidate["score"] for candidate in answer["candidates"]]
        np.testing.assert_allclose(found, sorted(wanted, reverse=True), atol=1e-6)
    np.testing.assert_allclose(why.scores_N, next(iter(expected.values())), atol=1e-6)


def test_order_is_that_of_the_model(toy_servable, servable, toy_data, batch):
    before, after = (
        model.predict("serving_default", batch.raw)["scores"] for model in (toy_servable, servable)
    )
    real = before > 0
    assert np.median(np.abs(before - after)[real]) > 0.1
    np.testing.assert_array_equal(
        np.unique(before[real], return_inverse=True)[1],
        np.unique(after[real], return_inverse=True)[1],
    )
    label = batch.features["label"].numpy()[real]
    assert overall_auc(label, before[real]) == overall_auc(label, after[real])


def test_parity_holds(run, exported):
    result = parity(run, exported.path)
    assert result["ok"]
    assert max(result["max_difference"].values()) <= 1e-6


def test_parity_notices_another_map(run, exported, monkeypatch):
    other = calibration_record.read(exported.path / "assets" / calibration_record.FILE)
    shifted = (other.calibration.value_K[0] + 1e-3,)
    other = other._replace(
        calibration=type(other.calibration)((0.0,), shifted, other.calibration.slope)
    )
    monkeypatch.setattr(calibration_record, "read", lambda path: other)
    assert not parity(run, exported.path, limit=3)["ok"]


def test_says_what_it_did(exported, run, record):
    assets = exported.path / "assets"
    assert exported.calibration == calibration_record.describe(record)
    card = (assets / "model_card.md").read_text()
    assert f"## Calibration\n\n{METHOD}: {record.how}." in card
    content = json.loads((assets / calibration_record.FILE).read_text())
    assert content["bins"] == 10
    for split in ("validation", "test"):
        sides = [content["splits"][split][side] for side in ("before", "after")]
        assert sides[0]["auc"] == sides[1]["auc"]
        assert sides[0]["bias_ratio"] != sides[1]["bias_ratio"]
        assert all(side["calibration_error"] > 0 for side in sides)
    digests = json.loads((assets / "digests.json").read_text())
    assert f"assets/{calibration_record.FILE}" in digests
    assert calibration_record.read_current(run) == (record, 1)


def test_another_file_of_the_calibration_is_not_served(exported, tmp_path):
    version = shutil.copytree(exported.path, tmp_path / "1")
    file = version / "assets" / calibration_record.FILE
    file.write_text(file.read_text().replace('"slope": ', '"slope": 1'))
    with pytest.raises(Exception, match="assets/calibration.json"):
        Servable(version)


def test_twice_gives_the_same(run, exported, record, tmp_path, batch, servable):
    again = exporting.export(run, tmp_path / "model", ExportOptions(calibrate=METHOD))
    assert calibration_record.read(again.path / "assets" / calibration_record.FILE) == record
    second = Servable(again.path)
    for way in ("serving_default", "explain"):
        np.testing.assert_array_equal(
            second.predict(way, batch.raw)["scores"], servable.predict(way, batch.raw)["scores"]
        )
    name = "variables/variables.data-00000-of-00001"
    assert (again.path / name).read_bytes() == (exported.path / name).read_bytes()


def test_makes_way_for_a_version_without_and_comes_back(
    run, exported, tmp_path, batch, toy_servable, record
):
    output = shutil.copytree(exported.path.parent, tmp_path / "model")
    plain = exporting.export(run, output)
    assert "live version" in plain.checks[-1]
    assert plain.calibration == []
    assert not (plain.path / "assets" / calibration_record.FILE).exists()
    np.testing.assert_array_equal(
        Servable(plain.path).predict("serving_default", batch.raw)["scores"],
        toy_servable.predict("serving_default", batch.raw)["scores"],
    )
    publishing.rollback(output)
    assert publishing.live_version(output) == output / "1"
    assert calibration_record.read_current(run) == (record, 1)


def test_one_class_in_validation_publishes_nothing(run, toy_data, tmp_path):
    copy = shutil.copytree(run, tmp_path / "run")
    (copy / calibration_record.FILE).unlink(missing_ok=True)
    scores = Scorer(run_directory.load_model(copy), toy_data).score("validation")
    negatives = scores._replace(label=np.zeros_like(scores.label))
    dumped_scores.write(copy, "validation", negatives, dumped_scores.origin(copy))
    with pytest.raises(UserError, match="label 0 only. Nothing was published"):
        exporting.export(copy, tmp_path / "model", ExportOptions(calibrate=METHOD))
    assert not (tmp_path / "model").exists()
    assert not (copy / calibration_record.FILE).exists()


def test_prior_of_a_data_set_that_does_not_say_how_it_was_built(run, tmp_path):
    with pytest.raises(UserError, match="--calibrate=prior: .*found --negative_sampling=None"):
        exporting.export(run, tmp_path / "model", ExportOptions(calibrate="prior"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run on a small generated log, by the commands."""
    work = tmp_path_factory.mktemp("work")
    log, data = work / "log.csv", work / "data"
    size = ("--users=300", "--items=200", "--interests=5")
    python("-m", "pipeline.synthesize", f"--output={log}", *size)
    python("-m", "pipeline.build_examples", f"--input={log}", f"--output={data}", "--num_shards=2")
    path = work / "run"
    python(
        "-m", "models.train", f"--data={data}", f"--workdir={path}", "--model=din", "--max_steps=60"
    )
    return run_directory.open_run(path)


@pytest.mark.slow
@pytest.mark.parametrize("method", calibration_record.METHODS)
def test_from_a_log_to_calibrated_scores(method, trained, tmp_path):
    output = tmp_path / "model"
    run = f"--run={trained.path}"
    said = python("-m", "serving.export", run, f"--output={output}", f"--calibrate={method}")
    assert f"Calibrated ({method}): " in said
    assert said.count("bias ratio") == 2
    version = output / "1"
    record = calibration_record.read(version / "assets" / calibration_record.FILE)
    expected = expected_scores(trained.path, trained.data, record)
    model = Servable(version)
    for batch in raw_requests.batches(trained.data, "test", 64):
        scores = model.predict("serving_default", batch.raw)["scores"]
        for request_id, row in zip(batch.features["request_id"].numpy(), scores, strict=True):
            np.testing.assert_allclose(row, expected[request_id.decode()], atol=1e-6)
    assert "agree with" in python("-m", "serving.parity", run, f"--model={version}")
    report = tmp_path / "report.html"
    python("-m", "models.report", run, f"--output={report}")
    text = report.with_suffix(".md").read_text()
    assert "## Exported calibration" in text
    assert f"--calibrate={method}: {record.how}" in text
