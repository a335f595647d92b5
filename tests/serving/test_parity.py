import shutil

import numpy as np
import pytest

from models.core import run_directory
from models.evaluation.scoring import Scorer
from preprocessing.errors import UserError
from serving import parity as checking
from serving.exporting import raw_requests
from serving.parity import parity
from tests.helpers import toy_runs


def test_every_way_into_the_model_agrees(toy_run, toy_version):
    result = parity(toy_run, toy_version)
    assert result["ok"]
    assert result["requests"] == toy_runs.REQUESTS["test"]
    assert set(result["max_difference"]) == {"serving_default", "serialized", "rest"}
    assert max(result["max_difference"].values()) <= 1e-6
    assert "agree with offline ones on 11 requests" in checking.describe(result)


def test_served_scores_are_those_of_evaluation(toy_run, toy_data, toy_servable):
    evaluated = Scorer(run_directory.load_model(toy_run), toy_data).score("test")
    expected = {}
    for request_id, logit in zip(evaluated.request_id, evaluated.logit, strict=True):
        expected.setdefault(request_id, []).append(1 / (1 + np.exp(-np.float64(logit))))
    assert len(expected) == toy_runs.REQUESTS["test"]
    batch = next(raw_requests.batches(toy_data, "test", 64))
    scores = toy_servable.predict("serving_default", batch.raw)["scores"]
    for request_id, row in zip(batch.features["request_id"].numpy(), scores, strict=True):
        wanted = expected[request_id.decode()]
        np.testing.assert_allclose(row[: len(wanted)], wanted, atol=1e-6)


def test_against_a_server_with_a_limit(toy_run, toy_version, toy_url):
    result = parity(toy_run, toy_version, url=toy_url, split="train", limit=2)
    assert (result["ok"], result["requests"]) == (True, 2)


def test_other_weights_are_noticed(toy_run, toy_version, toy_data, tmp_path):
    changed = shutil.copytree(toy_run, tmp_path / "run")
    model = run_directory.load_model(changed)
    shutil.rmtree(changed / run_directory.BEST)
    table = model.embedder.tables["item_id"]
    table.assign_add(np.full(table.shape, 1e-3, np.float32))
    run_directory.best_checkpoint(model, changed).save()
    result = parity(changed, toy_version, limit=4)
    assert not result["ok"]
    assert min(result["max_difference"].values()) > 1e-6
    assert "DIFFER from" in checking.describe(result)


def test_not_a_number_does_not_pass(toy_run, toy_version, monkeypatch):
    monkeypatch.setattr(
        checking.Client, "predict", lambda self, raw: np.full([11, 5], np.nan).tolist()
    )
    result = parity(toy_run, toy_version)
    assert not result["ok"]
    assert result["max_difference"]["rest"] == np.inf


def test_other_schema_is_refused(toy_run, toy_version, tmp_path):
    other = shutil.copytree(toy_version, tmp_path / "1")
    schema = (other / "assets" / "schema.json").read_text()
    (other / "assets" / "schema.json").write_text(schema.replace('"buckets": 5', '"buckets": 6'))
    with pytest.raises(UserError, match=r"features\[hour\].encoder.buckets: 6 here, 5 there"):
        parity(toy_run, other)


def test_directory_without_a_model_is_refused(toy_run, toy_version):
    with pytest.raises(UserError, match=r"no saved_model.pb.*--model=WORKDIR/model/1"):
        parity(toy_run, toy_version.parent)


def test_server_that_is_not_there(toy_run, toy_version):
    with pytest.raises(UserError, match="Expected a model server at http://127.0.0.1:9/"):
        parity(toy_run, toy_version, url="http://127.0.0.1:9/v1/models/ctr")


def test_unknown_split(toy_run, toy_version):
    with pytest.raises(UserError, match="Expected one of the splits"):
        parity(toy_run, toy_version, split="tset")
