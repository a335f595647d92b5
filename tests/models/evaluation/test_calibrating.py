"""Calibrating a run: what is fitted, what is measured, what is refused."""

import dataclasses

import numpy as np
import pytest

from models.config import run_config
from models.core import run_directory
from models.core.factory import build_model
from models.evaluation import calibrating, calibration_record, dumped_scores
from models.evaluation.calibration import Calibration
from models.evaluation.calibration_record import METHODS
from models.evaluation.metrics import Scores, ranking_metrics, sigmoid
from models.evaluation.scoring import Scorer
from preprocessing.errors import UserError
from preprocessing.schema import Schema

SLOPE, INTERCEPT = 0.4, -0.7


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    """A run whose dumped scores are overconfident; labels of the splits are drawn anew."""
    path = tmp_path_factory.mktemp("runs") / "run"
    config = run_config.resolve({"data": str(data.path), "model": {"name": "lr"}})
    model = build_model(config, data)
    run_directory.begin(path, config, data)
    run_directory.best_checkpoint(model, path).save()
    rng = np.random.default_rng(0)
    for split in ("validation", "test"):
        scores = Scorer(model, data).score(split)
        true = rng.normal(size=len(scores.label))
        drawn = scores._replace(
            logit=((true - INTERCEPT) / SLOPE).astype(np.float32),
            label=(rng.random(len(true)) < sigmoid(true)).astype(np.float32),
        )
        dumped_scores.write(path, split, drawn, dumped_scores.origin(path))
    return run_directory.open_run(path)


@pytest.fixture(scope="module")
def model(run):
    return run_directory.load_model(run.path)


def scores_of(label, logit, weight=None):
    nothing = np.zeros(len(label))
    return Scores(nothing, nothing, np.array(label), np.array(logit), nothing, {}, weight)


@pytest.mark.parametrize("method", ["platt", "isotonic"])
def test_fits_to_validation_and_measures_both_splits(run, model, method):
    record = calibrating.of_run(run, model, method)
    assert record.method == method
    assert list(record.splits) == ["validation", "test"]
    candidates = len(dumped_scores.read(run.path, "validation").label)
    assert f"fitted to {candidates:,} candidates of validation" in record.how
    for split, measured in record.splits.items():
        scores = dumped_scores.read(run.path, split)
        raw = ranking_metrics(scores)
        assert measured.before == {name: raw[name] for name in calibration_record.METRICS}
        better = ranking_metrics(scores._replace(logit=record.calibration.logits(scores.logit)))
        assert measured.after == {name: better[name] for name in calibration_record.METRICS}
        assert measured.after["auc"] == measured.before["auc"]
        assert measured.after["calibration_error"] < 0.6 * measured.before["calibration_error"]
    assert record.splits["validation"].after["bias_ratio"] == pytest.approx(1.0, abs=0.02)


def test_test_split_takes_no_part_in_the_fit(run, model):
    before = calibrating.of_run(run, model, "platt")
    path = dumped_scores.path(run.path, "test")
    content = path.read_bytes()
    try:
        scores = dumped_scores.read(run.path, "test")
        flipped = scores._replace(label=1 - scores.label)
        dumped_scores.write(run.path, "test", flipped, dumped_scores.origin(run.path))
        after = calibrating.of_run(run, model, "platt")
    finally:
        path.write_bytes(content)
    assert after.calibration == before.calibration
    assert after.splits["test"] != before.splits["test"]


def test_scores_anew_if_there_are_none_and_leaves_nothing(run, model, monkeypatch):
    expected = dumped_scores.read(run.path, "validation")
    monkeypatch.setattr(dumped_scores, "are_current", lambda path, split: False)
    asked = []

    def score(self, split, progress):
        asked.append(split)
        return expected

    monkeypatch.setattr(Scorer, "score", score)
    files = {file: file.stat().st_mtime_ns for file in run.path.iterdir()}
    calibrating.of_run(run, model, "platt")
    assert asked == ["validation", "test"]
    assert files == {file: file.stat().st_mtime_ns for file in run.path.iterdir()}


def test_weights_decide_what_is_fitted_and_measured(run, model, monkeypatch):
    rng = np.random.default_rng(3)
    true = rng.normal(size=4000)
    label = (rng.random(4000) < sigmoid(true)).astype(float)
    weight = np.where(label > 0, 3.0, 1.0).astype(np.float32)
    weight[:10] = 0.0
    scores = scores_of(label, true, weight)
    monkeypatch.setattr(calibrating, "_scores", lambda *_: scores)
    record = calibrating.of_run(run, model, "platt")
    assert record.how.endswith("weighted")
    # Odds grow by the weight of a positive.
    assert record.calibration.value_K[0] == pytest.approx(np.log(3.0), abs=0.15)
    measured = record.splits["test"]
    assert measured.candidates == 3990
    assert measured.before["bias_ratio"] < 0.75
    assert measured.after["bias_ratio"] == pytest.approx(1.0, abs=0.01)


def test_prior_knows_the_rate_from_the_data_set(run, model):
    record = calibrating.of_run(run, model, "prior")
    items = {name: s["items_to_draw_from"] for name, s in run.data.stats["splits"].items()}
    assert record.calibration == Calibration(
        (0.0,), (pytest.approx(np.log(1 / items["train"])),), 1.0
    )
    for split, measured in record.splits.items():
        assert measured.negative_weight == items[split]
        assert measured.after["bias_ratio"] < measured.before["bias_ratio"]


def _with(run, schema=None, **arguments):
    data = run.data
    manifest = data.manifest | {"arguments": data.manifest["arguments"] | arguments}
    return run._replace(
        data=dataclasses.replace(data, manifest=manifest, schema=schema or data.schema)
    )


def _schema(run, role, **record):
    content = run.data.schema.to_json()
    content["features"].append({"name": "more", "role": role, **record})
    return Schema.from_json(content)


def _trained(run, setting):
    config = run_config.resolve(run.config.to_json(), [setting])
    return run._replace(config=config)


@pytest.mark.parametrize(
    ("changed", "found"),
    [
        (lambda run: _with(run, negative_sampling="popularity"), "--negative_sampling=popularity"),
        (lambda run: _with(run, negative_sampling="available"), "--negative_sampling=available"),
        (lambda run: _with(run, negatives=0), "--negatives=0"),
        (lambda run: _with(run, _schema(run, "label", dtype="int64")), "a log of impressions"),
        (lambda run: _with(run, _schema(run, "weight", dtype="float32")), "weighted by 'more'"),
        (lambda run: _trained(run, "train.positive_weight=2"), "train.positive_weight"),
    ],
)
def test_prior_is_refused_where_no_rate_is_known(run, model, changed, found):
    with pytest.raises(UserError, match=f"--calibrate=prior: expected .*found .*{found}"):
        calibrating.of_run(changed(run), model, "prior")


@pytest.mark.parametrize("method", ["platt", "isotonic"])
def test_one_class_in_validation_is_refused_in_one_line(run, model, method, monkeypatch):
    scores = scores_of(np.ones(3), np.arange(3.0))
    monkeypatch.setattr(calibrating, "_scores", lambda *_: scores)
    with pytest.raises(UserError, match=f"--calibrate={method}: .*found the label 1 only") as error:
        calibrating.of_run(run, model, method)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("method", METHODS)
def test_a_run_without_validation_has_no_fit_but_may_have_a_prior(run, model, method):
    splits = run.data.manifest["splits"]
    empty = splits | {"validation": splits["validation"] | {"requests": 0}}
    manifest = run.data.manifest | {"splits": empty}
    without = run._replace(data=dataclasses.replace(run.data, manifest=manifest))
    if method == "prior":
        assert list(calibrating.of_run(without, model, method).splits) == ["test"]
    else:
        with pytest.raises(UserError, match="in the validation split.*found none"):
            calibrating.of_run(without, model, method)
