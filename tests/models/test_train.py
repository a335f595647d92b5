"""Runs: what they leave behind, that they resume exactly, and what they refuse."""

import copy as copying
import dataclasses
import json
import pathlib
import re
import shutil

import numpy as np
import pandas as pd
import pytest

from models import train
from models.backbone_api import SelfSupervision
from models.config import run_config
from models.core import run_directory
from models.evaluation import scoring
from models.keras import tf
from models.reporting import run_report
from models.training import data_checks, trainer
from models.training.updates import Updates
from preprocessing.errors import UserError
from tests.helpers import small_models


def _config(data, *overrides, model="din", ssl="none"):
    content = {
        "data": str(data.path),
        "model": {"name": model, "embedding_size": 4},
        "ssl": {"name": ssl},
        "train": {"batch_size": 64, "max_steps": 80, "learning_rate": 0.01},
    }
    return run_config.resolve(content, overrides)


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    """The directory of a finished run."""
    path = tmp_path_factory.mktemp("runs") / "run"
    train.train(_config(data, ssl="miss"), path, progress=False)
    return path


def test_a_run_leaves_what_the_design_names(run, data):
    assert {path.name for path in run.iterdir()} >= {
        "config.json",
        "schema.json",
        "metrics.json",
        "metrics.csv",
        "checkpoints",
        "best",
        "scores-test.parquet",
    }
    assert list(run.glob("events.out.tfevents.*"))
    stored = json.loads((run / "config.json").read_text())
    assert stored["ssl"]["name"] == "miss"
    assert stored["train"]["learning_rate"] == 0.01
    metrics = json.loads((run / "metrics.json").read_text())
    assert set(metrics) == {"validation", "test"}
    assert metrics["test"]["requests"] == data.num_requests("test")
    assert metrics["test"]["candidates"] == 2 * data.num_requests("test")
    history = pd.read_csv(run / "metrics.csv")
    assert history["step"].tolist() == [40, 80]
    assert {"train/loss", "train/miss_interest", "validation/auc"} <= set(history.columns)
    assert metrics["validation"]["auc"] == pytest.approx(history["validation/auc"].max())


def test_tensorboard_has_every_loss_term(run):
    names = set()
    for path in run.glob("events.out.tfevents.*"):
        for event in tf.compat.v1.train.summary_iterator(str(path)):
            names |= {value.tag for value in event.summary.value}
    assert {"train/loss", "train/log_loss", "train/miss_feature", "train/gradient_norm"} <= names
    assert "validation/auc" in names


def test_evaluate_measures_the_best_weights_again(run):
    before = run_directory.read_metrics(run)["test"]
    after = scoring.evaluate(run, "test", progress=False)
    assert after == pytest.approx(before, rel=1e-6)
    trained = scoring.evaluate(run, "train", progress=False)
    assert run_directory.read_metrics(run)["train"] == pytest.approx(trained)


def _weights(path):
    last = max((path / "checkpoints").glob("*.index"), key=lambda p: int(p.stem[5:]))
    reader = tf.train.load_checkpoint(str(last.with_suffix("")))
    return {
        name: reader.get_tensor(name)
        for name in reader.get_variable_to_shape_map()
        if "VARIABLE_VALUE" in name and not name.startswith(("state", "save_counter"))
    }


class _DeathError(BaseException):
    pass


def _die_at(monkeypatch, step):
    """The process dies when it has done so many steps."""
    update = Updates.__call__

    def fatal(updates, done, count):
        if done == step:
            raise _DeathError
        return update(updates, done, count)

    monkeypatch.setattr(Updates, "__call__", fatal)


@pytest.mark.parametrize(
    ("model", "ssl"),
    [
        ("din", "none"),
        pytest.param("din", "miss", marks=pytest.mark.slow),
        pytest.param("deminet", "none", marks=pytest.mark.slow),
    ],
)
def test_a_resumed_run_ends_as_an_uninterrupted_one(data, tmp_path, monkeypatch, model, ssl):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    # Six steps per epoch: the checkpoint of step 40 lies within one.
    settings = ["train.batch_size=50", "train.max_steps=50"]
    settings += ["train.ssl_steps=0.5"] * (ssl != "none")
    run = _config(data, *settings, model=model, ssl=ssl)
    train.train(run, whole, progress=False)
    with monkeypatch.context() as patch:
        _die_at(patch, 43)
        with pytest.raises(_DeathError):
            train.train(run, parts, progress=False)
    train.train(run, parts, resume=True, progress=False)
    expected, found = _weights(whole), _weights(parts)
    assert expected.keys() == found.keys()
    assert len(expected) > 20
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)
    kept = ["step", "epoch", "train/loss", "validation/auc"]
    rows = [pd.read_csv(path / "metrics.csv")[kept] for path in (whole, parts)]
    assert rows[0]["step"].tolist() == [40, 50]
    pd.testing.assert_frame_equal(*rows)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("model.embedding_size=8",), "model.embedding_size was 4, is 8"),
        (("train.batch_size=32",), "train.batch_size was 64, is 32"),
        (("ssl.alpha=0.5",), "ssl.alpha was 0.1, is 0.5"),
    ],
)
def test_a_run_is_not_resumed_with_other_settings(run, data, overrides, message):
    before = (run / "config.json").read_text()
    with pytest.raises(UserError, match=message):
        train.train(_config(data, *overrides, ssl="miss"), run, resume=True, progress=False)
    assert (run / "config.json").read_text() == before


def test_a_finished_run_may_be_resumed_and_stays_as_it_is(run, data):
    before = run_directory.read_metrics(run)
    again = train.train(_config(data, ssl="miss"), run, resume=True, progress=False)
    assert again["test"] == pytest.approx(before["test"])


def test_run_and_data_move_together(run, data, tmp_path):
    shutil.copytree(data.path, tmp_path / "moved" / "data")
    shutil.copytree(run, tmp_path / "moved" / "run")
    stored = json.loads((tmp_path / "moved" / "run" / "config.json").read_text())
    stored["data"] = "../data"
    (tmp_path / "moved" / "run" / "config.json").write_text(json.dumps(stored))
    opened = run_directory.open_run(tmp_path / "moved" / "run")
    assert opened.data.path == tmp_path / "moved" / "data"
    assert not pathlib.PurePath(json.loads((run / "config.json").read_text())["data"]).is_absolute()


def test_a_session_tells_its_time_and_memory(run):
    session = run_directory.read_sessions(run)[0]  # Another test resumes the run.
    assert session["last_step"] == 80
    assert set(session["seconds"]) == {
        *("preparation", "training", "evaluation", "checkpoints", "final evaluation"),
    }
    assert all(seconds > 0 for seconds in session["seconds"].values())
    estimate = session["memory_estimate"]
    parts = ("tables", "slots", "dense", "activations")
    assert estimate["total"] == sum(estimate[part] for part in parts)
    assert 0 < session["memory_before"] <= session["memory_peak"]
    assert session["versions"]["tensorflow"] == tf.__version__
    assert session["machine"]["memory"] > session["memory_peak"]


def test_a_run_is_not_overwritten(run, data):
    with pytest.raises(UserError, match="Expected an empty --workdir, found a run"):
        train.train(_config(data), run, progress=False)


def test_early_stop_keeps_the_best_weights(data, tmp_path):
    settings = (
        "train.max_steps=0",
        "train.epochs=200",
        "train.evaluations_per_epoch=2",
        "train.patience=1",
        "train.learning_rate=0.1",
    )
    metrics = train.train(_config(data, *settings), tmp_path / "run", progress=False)
    history = pd.read_csv(tmp_path / "run" / "metrics.csv")
    best = history["validation/auc"].argmax()
    assert len(history) == best + 3
    assert metrics["validation"]["auc"] == pytest.approx(history["validation/auc"][best])


def test_a_diverging_run_stops_with_one_line(data, tmp_path):
    with pytest.raises(UserError, match="Expected finite numbers, found NaN .* at step"):
        train.train(_config(data, "train.learning_rate=1e30"), tmp_path / "run", progress=False)


def test_damaged_data_is_refused(data, tmp_path):
    copy = tmp_path / "data"
    shutil.copytree(data.path, copy)
    shard = next(copy.glob("train-*"))
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    changed = run_config.resolve({**_config(data).to_json(), "data": str(copy)})
    with pytest.raises(UserError, match=shard.name):
        train.train(changed, tmp_path / "run", progress=False)
    (copy / "_COMPLETED").unlink()
    with pytest.raises(UserError, match="_COMPLETED"):
        train.train(changed, tmp_path / "run", progress=False)


def test_a_run_of_another_schema_or_another_build_is_refused(data, tmp_path):
    run_directory.begin(tmp_path, _config(data), data)
    (tmp_path / "data.sha256").write_text("0" * 64)
    with pytest.raises(UserError, match="found another build of it"):
        run_directory.open_run(tmp_path)
    schema = json.loads((tmp_path / "schema.json").read_text())
    schema["history"]["max_length"] = 7
    (tmp_path / "schema.json").write_text(json.dumps(schema))
    with pytest.raises(UserError, match="history.max_length: 7 here, 50 there"):
        run_directory.open_run(tmp_path)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda path: run_directory.open_run(path), "Expected a run directory with config.json"),
        (lambda path: scoring.evaluate(path, "tset"), "Expected --split of train, validation"),
        (lambda path: run_report.write_report(path, path / "r.html"), "Expected a run directory"),
        (lambda path: run_report.write_report(path, path), "--output: expected a .* ends in .html"),
    ],
)
def test_mistakes_are_one_line(tmp_path, call, message):
    with pytest.raises(UserError, match=message):
        call(tmp_path)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda best: _cut(best, "ckpt-1.data-00000-of-00001", 50),
            "damaged or .*: Read less",
        ),
        (lambda best: _cut(best, "ckpt-1.index", 1), "damaged or .*: file is too"),
        (lambda best: _cut(best, "checkpoint", 0), "the name of the best weights .* damaged"),
    ],
)
def test_damaged_weights_are_one_line(tmp_path, damage, message):
    model = small_models.model(small_models.config("lr"))
    run_directory.save_best(run_directory.best_checkpoint(model, tmp_path))
    run_directory.restore_best(model, tmp_path)
    other = small_models.model(small_models.config("dcn"))
    with pytest.raises(UserError, match="damaged or of another model: .*incompatible tensor"):
        run_directory.restore_best(other, tmp_path)
    damage(tmp_path / "best")
    with pytest.raises(UserError, match=message) as failed:
        run_directory.restore_best(model, tmp_path)
    assert "\n" not in str(failed.value)


def _cut(directory, name, size):
    (directory / name).write_bytes((directory / name).read_bytes()[:size])


def test_unfinished_runs_have_no_report_and_no_weights(data, tmp_path):
    run_directory.begin(tmp_path, _config(data), data)
    with pytest.raises(UserError, match="Expected a finished run .* found no metrics"):
        run_report.write_report(tmp_path, tmp_path / "report.html")
    with pytest.raises(UserError, match="Expected trained weights in .*best, found none"):
        run_directory.load_model(tmp_path)


def test_report_holds_metrics_figures_and_configuration(run, tmp_path):
    serving = {
        "model": "MODEL",
        "parity": {"rest": 1e-9},
        "requests": "requests.jsonl",
        "scores": '{"request": 1}',
    }
    html = run_report.write_report(run, tmp_path / "report.html", serving).read_text()
    assert html.count("<svg") == html.count("<figure>") > 3
    assert set(re.findall(r"https?://[^/\"'<> ]+", html)) <= {
        "http://127.0.0.1:8501",
        "http://www.w3.org",  # Names of XML name spaces, which nothing fetches.
    }
    auc = f"{run_directory.read_metrics(run)['test']['auc']:.4f}"
    markdown = (tmp_path / "report.md").read_text()
    for text in (auc, "learning_rate", "--model_base_path=MODEL", "leave_last_out", "item_id"):
        assert text in html.replace("<wbr>", "")
        assert text in markdown


def _lacking(data, split, **counts):
    """The data set with other counts of a split, in the manifest and the statistics."""
    changed = {"manifest": copying.deepcopy(data.manifest), "stats": copying.deepcopy(data.stats)}
    for content in changed.values():
        content["splits"][split] |= counts
    return dataclasses.replace(data, **changed)


@pytest.mark.parametrize(
    ("split", "counts", "message"),
    [
        ("validation", {"requests": 0, "candidates": 0}, "Expected validation requests .* none"),
        ("train", {"requests": 0, "candidates": 0}, "Expected training requests .* none"),
        ("train", {"positives": 600}, "found 600 candidates with the label 1.* --negatives of at"),
        ("train", {"positives": 0}, "found 600 candidates with the label 0: there is nothing"),
    ],
)
def test_data_with_nothing_to_learn_or_to_judge_is_refused(
    data, tmp_path, monkeypatch, split, counts, message
):
    lacking = _lacking(data, split, **counts)
    monkeypatch.setattr(trainer.DataDir, "open", lambda *args, **kwargs: lacking)
    with pytest.raises(UserError, match=message):
        train.train(_config(data), tmp_path / "run", progress=False)


def test_what_cannot_be_measured_is_said_in_a_line_each(data):
    assert list(data_checks.remarks(data)) == []
    (line,) = data_checks.remarks(_lacking(data, "test", positives=0))
    assert line == (
        "test: all 600 candidates have the label 0, so AUC, GAUC and ranking metrics are n/a there."
    )
    (line,) = data_checks.remarks(_lacking(data, "validation", positives=600))
    assert line.endswith("; the log loss chooses the best weights instead.")
    (line,) = data_checks.remarks(_lacking(data, "test", requests=0))
    assert line == "test: no requests, so nothing is measured there."


def test_where_labels_are_not_scarce_the_schedule_is_another_one_and_a_line_says_so(data, tmp_path):
    many = dataclasses.replace(_lacking(data, "train", users=100), path=tmp_path)
    (tmp_path / "_COMPLETED").touch()
    (tmp_path / "stats.json").write_text(json.dumps(many.stats))
    config = _config(many, ssl="miss")
    defaults = SelfSupervision.schedule_of_many_labels
    assert defaults.items() <= dataclasses.asdict(config.train).items()
    line = data_checks.schedule_remark(config, many)
    assert line.startswith("train: 3.0 requests per user, so labels are not scarce, and --ssl=miss")
    assert data_checks.schedule_remark(_config(many), many) == ""
    few = _config(data, ssl="miss")
    assert SelfSupervision.schedule.items() <= dataclasses.asdict(few.train).items()
    assert data_checks.schedule_remark(few, data) == ""
