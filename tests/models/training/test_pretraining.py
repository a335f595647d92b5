"""Self-supervision ahead of the main loss, and schedules that make no sense."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest

from models import train
from models.config import run_config
from models.core.base import MAIN_LOSS
from models.core.factory import build_model, compile_model
from models.keras import tf
from models.reporting import run_report
from models.training import trainer
from models.training.pretraining import SelfSupervisedSteps, mean_losses
from preprocessing.errors import UserError
from preprocessing.reading.parts import Part
from tests.helpers import small_models

PLAIN = {"batch_size": 50, "max_steps": 6, "learning_rate": 0.01, "ssl_steps": 0}
PASS = 6
"""Steps of a pass over the 300 requests."""


def _config(data, *, model="din", ssl="miss", **settings):
    content = {
        "data": str(data.path),
        "model": {"name": model, "embedding_size": 4},
        "ssl": {"name": ssl},
        "train": PLAIN | settings,
    }
    return run_config.resolve(content)


@pytest.fixture(scope="module", autouse=True)
def evaluate_often():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "EVALUATION_INTERVAL", 4)
        yield


@pytest.fixture(scope="module")
def pretrained(data, tmp_path_factory):
    """A run of three passes of pre-training, then the main loss alone: MISS-Pre of table VIII."""
    path = tmp_path_factory.mktemp("runs") / "run"
    run = _config(data, pretrain_epochs=3, ssl_learning_rate=0.02)
    train.train(run, path, progress=False)
    return path


def test_pretraining_comes_first_and_lowers_its_loss(pretrained):
    table = pd.read_csv(pretrained / "pretraining.csv")
    assert table["step"].tolist() == [PASS, 2 * PASS, 3 * PASS]
    assert table["validation/loss"].is_monotonic_decreasing
    assert {"train/miss_interest", "train/gradient_norm", "validation/miss_feature"} <= set(table)
    main = pd.read_csv(pretrained / "metrics.csv")
    assert main["step"].tolist() == [4, 6]
    assert "train/log_loss" in main
    assert "train/miss_interest" not in main
    tags = set()
    for path in pretrained.glob("events.out.tfevents.*"):
        for event in tf.compat.v1.train.summary_iterator(str(path)):
            tags |= {value.tag for value in event.summary.value}
    assert {"pretraining/validation/loss", "validation/auc"} <= tags


def test_the_report_shows_pretraining_and_diagnostics(pretrained, tmp_path):
    html = run_report.write_report(pretrained, tmp_path / "report.html").read_text()
    assert "<b>Pre-training.</b>" in html
    markdown = (tmp_path / "report.md").read_text()
    for text in (html.replace("<wbr>", ""), markdown):
        assert "miss_interest/uniformity" in text
        # Which loss pulls harder is a question to losses that share an optimiser.
        assert "embedding_gradient/ssl_to_log_loss" not in text


def _weights(path):
    """Everything in the last checkpoint."""
    last = max((path / "checkpoints").glob("*.index"), key=lambda p: int(p.stem[5:]))
    reader = tf.train.load_checkpoint(str(last.with_suffix("")))
    return {
        name: reader.get_tensor(name)
        for name in reader.get_variable_to_shape_map()
        if "VARIABLE_VALUE" in name and not name.startswith(("state", "save_counter"))
    }


def _parts(model):
    """Copies of the weights by part."""
    tables = {name: table.numpy() for name, table in model.embedder.tables.items()}
    ssl = [weight.numpy() for weight in model.ssl.trainable_variables]
    return tables, [weight.numpy() for weight in model.backbone.weights], ssl


def _same(before, after):
    return all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))


def test_stages_train_what_they_should():
    """Stage 1 leaves the backbone alone, stage 2 self-supervision; both train the embeddings."""
    settings = [f"train.{name}" for name in ("pretrain_epochs=1", "ssl_steps=0")]
    settings.append("train.ssl_learning_rate=0.05")
    model = small_models.model(small_models.config("din", "miss", *settings))
    features = small_models.batch()
    initial = _parts(model)
    logs = model.ssl_step(features)
    norms = {"gradient_norm", "gradient_norm_tables", "gradient_norm_dense"}
    assert set(logs) == {"loss", "miss_interest", "miss_feature"} | norms
    squares = [float(logs[name]) ** 2 for name in sorted(norms)]
    assert squares[0] == pytest.approx(sum(squares[1:]), rel=1e-5)
    first = _parts(model)
    for name in ("item_id", "category_id"):
        change = np.abs(first[0][name] - initial[0][name])
        # A first step of Adam has the size of its rate.
        assert change.max() == pytest.approx(0.05, rel=0.01)
    for name in ("user_id", "brand"):  # not part of the history
        np.testing.assert_array_equal(first[0][name], initial[0][name])
    assert _same(initial[1], first[1])
    assert not _same(initial[2], first[2])
    assert not any(np.any(v) for v in model.optimizer.variables[1:])  # moments are still fresh

    logs = model.main_step(features)
    assert "miss_interest" not in logs
    second = _parts(model)
    assert all((second[0][name] != first[0][name]).any() for name in first[0])
    assert not _same(first[1], second[1])
    assert _same(first[2], second[2])


def test_both_losses_train_in_joint_steps():
    model = small_models.model(
        small_models.config("din", "miss", "train.joint=true", "train.ssl_steps=0")
    )
    before = _parts(model)
    logs = model.main_step(small_models.batch())
    expected = logs[MAIN_LOSS] + 0.1 * (logs["miss_interest"] + logs["miss_feature"])
    assert float(logs["loss"]) == pytest.approx(float(expected), rel=1e-5)
    after = _parts(model)
    assert not _same(before[1], after[1])
    assert not _same(before[2], after[2])


@pytest.mark.slow
def test_a_run_resumes_in_every_phase(data, tmp_path, monkeypatch):
    """From the checkpoint of a pass, and from one between extra steps of the main loss."""
    whole = tmp_path / "whole"
    save = trainer.Trainer.save

    def save_and_copy(trainer):
        save(trainer)
        if trainer.workdir == whole:
            shutil.copytree(whole, tmp_path / f"copy-{trainer.progress.updates}")

    monkeypatch.setattr(trainer.Trainer, "save", save_and_copy)
    # Small graphs: the schedule is what counts.
    run = _config(data, model="lr", ssl="rule", pretrain_epochs=2, ssl_steps=1)
    train.train(run, whole, progress=False)
    expected = _weights(whole)
    for done in (PASS, 2 * PASS + 2 * 4):
        resumed = tmp_path / f"copy-{done}"
        train.train(run, resumed, resume=True, progress=False)
        found = _weights(resumed)
        assert expected.keys() == found.keys()
        for name, value in expected.items():
            np.testing.assert_array_equal(found[name], value, err_msg=name)
        for file in ("pretraining.csv", "metrics.csv"):
            rows = [pd.read_csv(path / file) for path in (whole, resumed)]
            timed = ["seconds", *rows[0].filter(like="speed/").columns]
            pd.testing.assert_frame_equal(*(table.drop(columns=timed) for table in rows))
        assert {"train/ssl_loss", "train/ssl_gradient_norm", "train/rule"} <= {*rows[0]}


def test_every_pass_has_an_order_of_its_own(data):
    run = _config(data, pretrain_epochs=1)
    steps = SelfSupervisedSteps(run, data, None)

    def ids(batches, count):
        return [next(batches)["request_id"].numpy().tolist() for _ in range(count)]

    stream = ids(iter(steps.dataset(0)), 2 * PASS)
    first, second = stream[:PASS], stream[PASS:]
    assert sorted(sum(first, [])) == sorted(sum(second, []))
    assert first != second
    assert ids(iter(steps.dataset(PASS + 1)), 2) == second[1:3]


def test_processes_measure_together_what_one_measures(data):
    run = _config(data, pretrain_epochs=1, batch_size=40)
    model = build_model(run, data)
    compile_model(model, run)
    alone = SelfSupervisedSteps(run, data, model).validation_losses()
    assert len(alone) == 8
    shared = [
        SelfSupervisedSteps(run, data, model, turn=Part(index, 3)).validation_losses()
        for index in range(3)
    ]
    assert [len(losses) for losses in shared] == [3, 3, 2]
    assert mean_losses(shared) == mean_losses([alone])


def test_pretraining_stops_without_gain(data, tmp_path, monkeypatch):
    losses = iter([3.0, 2.0, 2.5, 2.0, 2.1, 1.0, 1.0])
    monkeypatch.setattr(
        SelfSupervisedSteps, "validation_losses", lambda _: [[0, 300, {"loss": next(losses)}]]
    )
    run = _config(data, pretrain_epochs=9, patience=3, batch_size=300, max_steps=1)
    it = trainer.Trainer(run, tmp_path, progress=False)
    monkeypatch.setattr(it.extra, "_ssl_updates", lambda done, count: {}, raising=False)
    it._pretrain()
    # The best is that of the second pass; equal is no gain.
    table = pd.read_csv(tmp_path / "pretraining.csv")
    assert table["validation/loss"].tolist() == [3.0, 2.0, 2.5, 2.0, 2.1]


@pytest.mark.parametrize(
    ("ssl", "settings", "message"),
    [
        ("none", {"pretrain_epochs": 1}, "without self-supervision"),
        ("none", {"ssl_steps": 1}, "without self-supervision"),
        ("miss", {}, "found train.joint=false"),
    ],
)
def test_schedules_that_make_no_sense_are_refused(data, ssl, settings, message):
    with pytest.raises(UserError, match=message):
        _config(data, ssl=ssl, **settings)


def test_the_schedule_is_part_of_the_run(pretrained, data):
    stored = json.loads((pretrained / "config.json").read_text())["train"]
    assert (stored["pretrain_epochs"], stored["ssl_steps"]) == (3, 0)
    with pytest.raises(UserError, match="train.pretrain_epochs was 3, is 4"):
        train.train(_config(data, pretrain_epochs=4), pretrained, resume=True)
