"""What training offers beside training: several steps at once, weights, profiles, origins."""

import dataclasses
import functools
import json
import os
import pathlib
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from absl import flags

from models import registry, train
from models.config import run_config
from models.config.json_values import ALIASES
from models.config.setting_names import setting_names
from models.core import run_directory
from models.core.base import MAIN_LOSS
from models.keras import tf
from models.training import run_flags, trainer
from models.training.profiling import Profile
from preprocessing import cli
from preprocessing.data_dir import DataDir
from preprocessing.errors import UserError
from tests.helpers import small_models


def _config(data, model="lr", ssl="none", **settings):
    plain = {"batch_size": 50, "max_steps": 12, "learning_rate": 0.01}
    return run_config.resolve(
        {
            "data": str(data.path),
            "model": {"name": model, "embedding_size": 4},
            "ssl": {"name": ssl},
            "train": plain | settings,
        }
    )


@pytest.fixture(autouse=True)
def evaluate_often(monkeypatch):
    monkeypatch.setattr(trainer, "EVALUATION_INTERVAL", 4)


def _best(path):
    reader = tf.train.load_checkpoint(tf.train.latest_checkpoint(str(path / "best")))
    return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ssl", "settings"),
    [
        ("none", {}),
        ("rule", {"pretrain_epochs": 1, "ssl_steps": 0.4}),
        ("rule", {"ssl_steps": 7}),
    ],
)
def test_several_steps_at_once_change_nothing(data, tmp_path, ssl, settings):
    """Neither the ends of epochs (6 steps) nor evaluations (4) are multiples of 5."""
    tables = []
    for at_once in (1, 5):
        path = tmp_path / str(at_once)
        run = _config(data, ssl=ssl, steps_per_execution=at_once, **settings)
        train.train(run, path, progress=False)
        table = pd.read_csv(path / "metrics.csv")
        tables.append(table.drop(columns=["seconds", *table.filter(like="speed/").columns]))
    pd.testing.assert_frame_equal(*tables)
    one, five = (_best(tmp_path / name) for name in ("1", "5"))
    for name, value in one.items():
        np.testing.assert_array_equal(five[name], value, err_msg=name)


@pytest.mark.slow
def test_speed_and_the_wait_for_input_are_shown(data, tmp_path, monkeypatch):
    monkeypatch.setattr(trainer, "LOG_EVERY", 2)
    shown = []
    monkeypatch.setattr(trainer.tqdm, "set_postfix", lambda bar, values: shown.append(values))
    train.train(_config(data), tmp_path / "run", progress=False)
    assert len(shown) == 6
    assert set(shown[-1]) == {"loss", "best_validation_auc", "samples_per_second", "input_wait"}
    assert re.fullmatch(r"\d+%", shown[0]["input_wait"])
    table = pd.read_csv(tmp_path / "run" / "metrics.csv")
    assert table["speed/input_wait"].between(0, 1).all()
    assert (table["speed/samples_per_second"] > 0).all()
    tags = set()
    for path in (tmp_path / "run").glob("events.out.tfevents.*"):
        for event in tf.compat.v1.train.summary_iterator(str(path)):
            tags |= {value.tag for value in event.summary.value}
    assert {"train/input_wait", "train/samples_per_second", "train/learning_rate"} <= tags


@pytest.mark.slow
def test_a_slow_reader_shows_as_waiting(data, tmp_path, monkeypatch):
    """Half a second per batch is nearly all of the time of a step."""
    monkeypatch.setattr(trainer, "LOG_EVERY", 2)
    it = trainer.Trainer(_config(data, max_steps=4), tmp_path, progress=False)

    def slow(batch):
        with tf.control_dependencies([tf.py_function(lambda: trainer.time.sleep(0.5), [], [])]):
            return {name: tf.identity(value) for name, value in batch.items()}

    batches = it._dataset(0).map(slow)
    monkeypatch.setattr(it, "_dataset", lambda step: batches)
    it.fit()
    assert it.progress.history[-1]["speed/input_wait"] > 0.7


@pytest.mark.slow
def test_a_step_is_no_wait_however_few_threads_there_are():
    """With one thread TensorFlow could do a long step before it looks at the clock."""
    program = """
import time
from models.keras import tf
from models.training.steps import Steps

def step(batch):
    x = batch["x"]
    for _ in range(8):
        x = tf.linalg.matmul(x, x) * 1e-3
    return {"loss": tf.reduce_sum(x)}

strategy = tf.distribute.OneDeviceStrategy("CPU:0")
batches = tf.data.Dataset.from_tensors({"x": tf.ones([600, 600])}).repeat().prefetch(2)
batches = iter(strategy.experimental_distribute_dataset(batches))
steps = Steps(step, strategy)
steps(batches, 1)
steps.waited()
started = time.monotonic()
for _ in range(10):
    steps(batches, 1)
print(steps.waited() / (time.monotonic() - started))
"""
    threads = {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", program], env=os.environ | threads, capture_output=True, text=True,
        check=True, cwd=pathlib.Path(__file__).parents[3],
    )  # fmt: skip
    assert float(done.stdout) < 0.3


@pytest.mark.slow
def test_a_profile_holds_the_chosen_steps(data, tmp_path, capsys):
    run = _config(data, steps_per_execution=4)
    profile = Profile.parse("3:5", tmp_path / "run")
    assert [profile.steps_ahead(step) for step in (0, 2, 3, 5)] == [2, 3, 2, 1 << 30]
    train.train(run, tmp_path / "run", progress=False, profile=profile)
    assert len(list((tmp_path / "run").glob("plugins/profile/*/*.xplane.pb"))) == 1
    assert f"tensorboard --logdir={tmp_path / 'run'}" in capsys.readouterr().out


@pytest.mark.parametrize("progress", [True, False])
def test_what_speaks_against_the_data_is_said_before_training(
    data, tmp_path, capsys, monkeypatch, progress
):
    said = []
    monkeypatch.setattr(DataDir, "findings", property(lambda self: ["no positive", "constant"]))
    monkeypatch.setattr(trainer.Trainer, "run", lambda self: said.append(capsys.readouterr().out))
    train.train(_config(data), tmp_path / "run", progress=progress)
    assert said == ["finding: no positive\nfinding: constant\n" if progress else ""]


@pytest.mark.parametrize("text", ["", "5", "5:", "0:3", "6:5", "a:b"])
def test_profiles_of_no_steps_are_refused(text, tmp_path):
    with pytest.raises(UserError, match="Expected --profile=FIRST:LAST"):
        Profile.parse(text, tmp_path)


def _loss(*settings, features=None):
    """The log loss of a first step, and what it is made of."""
    model = small_models.model(small_models.config("lr", "none", *settings))
    small_models.randomise(model)
    features = features or small_models.batch()
    logits_BN = model(features).numpy().astype(np.float64)
    logs = model.main_step(features)
    label_BN = features["label"].numpy()
    losses_BN = np.logaddexp(0, logits_BN) - label_BN * logits_BN
    return float(logs[MAIN_LOSS]), losses_BN, label_BN, features["candidate/item_id"].numpy() > 0


def test_positives_weigh_what_they_are_given():
    found, losses_BN, label_BN, mask_BN = _loss("train.positive_weight=3")
    weights_BN = np.where(label_BN > 0, 3.0, 1.0) * mask_BN
    assert found == pytest.approx((weights_BN * losses_BN).sum() / weights_BN.sum(), rel=1e-5)
    plain, *_ = _loss()
    assert found != pytest.approx(plain, rel=1e-3)


def test_a_numeric_feature_weighs_requests():
    """Negative weights count as 0."""
    found, losses_BN, _, mask_BN = _loss("train.sample_weight=age")
    age_B = np.maximum(small_models.batch()["age"].numpy(), 0.0)
    weights_BN = age_B[:, None] * mask_BN
    assert 0 < (age_B == 0).sum() < len(age_B)
    assert found == pytest.approx((weights_BN * losses_BN).sum() / weights_BN.sum(), rel=1e-5)


def test_weights_need_a_numeric_feature(data, tmp_path):
    for name, found in (("itemid", "found 'itemid'"), ("item_id", "found 'item_id'")):
        with pytest.raises(UserError, match=f"train.sample_weight to name a numeric .*{found}"):
            train.train(_config(data, sample_weight=name), tmp_path / "run", progress=False)


@pytest.mark.parametrize("at_once", [pytest.param(1, marks=pytest.mark.slow), 4])
def test_what_is_not_finite_is_named(data, tmp_path, monkeypatch, at_once):
    """A weight that turns infinite after two steps: the third one fails, and says where."""
    it = trainer.Trainer(
        _config(data, model="fm", steps_per_execution=at_once), tmp_path, progress=False
    )
    train_step = it.model.main_step
    table = it.model.embedder.tables["item_id"]

    def poison(batch):
        done = it.model.optimizer.iterations
        value = tf.where(done == 2, float("inf"), 1.0)
        with tf.control_dependencies([table.assign(table * value)]):
            return train_step({name: tf.identity(each) for name, each in batch.items()})

    monkeypatch.setattr(it.model, "main_step", poison)
    with pytest.raises(UserError) as failed:
        it.fit()
    message = str(failed.value)
    assert "found NaN or infinity at step 3 of" in message
    assert "loss term log_loss" in message
    assert re.search(r"weight .*item_id_embedding:0 \([\d,]+ of [\d,]+ values\)", message)
    assert (tmp_path / "diverged.txt").read_text() == f"{message}\n"  # For who comes later.


def test_a_gradient_that_is_not_finite_changes_no_weight():
    model = small_models.model(small_models.config("lr", "none"))
    small_models.randomise(model)
    before = [weight.numpy() for weight in model.trainable_variables]

    @tf.custom_gradient
    def broken(x):
        return x, lambda upstream: upstream * float("nan")

    call = model.backbone.interact
    model.backbone.interact = lambda fields: broken(call(fields))
    with pytest.raises(tf.errors.InvalidArgumentError, match="gradient is not finite"):
        tf.function(model.main_step)(small_models.batch())
    for weight, value in zip(model.trainable_variables, before, strict=True):
        np.testing.assert_array_equal(weight.numpy(), value)


@pytest.fixture
def given(monkeypatch):
    """Parses a command line of models.train."""
    defines = {name: getattr(flags, name) for name in dir(flags) if name.startswith("DEFINE_")}

    def parse(*argv):
        values = flags.FlagValues()
        monkeypatch.setattr(flags, "FLAGS", values)
        for name, define in defines.items():
            monkeypatch.setattr(flags, name, functools.partial(define, flag_values=values))
        run_flags.define_config_flags()
        values(["models.train", *argv])

    return parse


def test_every_value_has_an_origin(given, tmp_path):
    recipe = tmp_path / "recipe.json"
    content = {"data": "d", "model": {"name": "deminet_wo_ssl", "interests": 2}}
    recipe.write_text(json.dumps({**content, "train": {"epochs": 3, "l2": 0.5, "patience": 2}}))
    given(f"--config={recipe}", "--max_steps=7", "--set=train.l2=0.1", "--set=train.epochs=9")
    run, origins = run_flags.resolve_flags(None, 5)
    assert (run.train.epochs, run.train.max_steps, run.train.l2) == (9, 7, 0.1)
    assert {key: word for key, word in origins.items() if word != "default"} == {
        "data": str(recipe),
        "model.name": str(recipe),
        "model.interests": str(recipe),
        "model.ssl_weight": "model deminet_wo_ssl",
        "train.patience": str(recipe),
        "train.seed": "flag",
        "train.max_steps": "flag",
        "train.epochs": "--set",
        "train.l2": "--set",
    }
    lines = run_config.describe(run, origins).splitlines()
    assert len(lines) == sum(word != "default" for word in origins.values())
    assert any(re.fullmatch(r"train\.l2 += 0\.1  \(--set\)", line) for line in lines)


def test_another_self_supervision_brings_its_own_schedule(given, tmp_path):
    """What the schedule of a loss brought goes with the loss; what was chosen stays."""
    recipe = tmp_path / "config.json"
    chosen = {"train": {"ssl_learning_rate": 0.5, "l2": 0.1}}
    run_config.resolve({"data": str(tmp_path), "ssl": {"name": "miss"}, **chosen}).save(recipe)
    assert json.loads(recipe.read_text())["train"]["ssl_steps"] > 0
    given(f"--config={recipe}", "--ssl=none")
    run, origins = run_flags.resolve_flags(None, None)
    plain = run_config.resolve({}).train
    assert run.train == dataclasses.replace(plain, ssl_learning_rate=0.5, l2=0.1)
    assert origins["train.embedding_learning_rate"] == "default"
    assert origins["train.l2"] == str(recipe)

    run_config.resolve({"data": str(tmp_path), **chosen}).save(recipe)
    given(f"--config={recipe}", "--ssl=miss")
    run, origins = run_flags.resolve_flags(None, None)
    assert run == run_config.resolve({"data": str(tmp_path), "ssl": {"name": "miss"}, **chosen})
    assert run.train.ssl_steps > 0
    assert origins["train.ssl_steps"] == "ssl miss"
    assert origins["train.ssl_learning_rate"] == str(recipe)
    given(f"--config={recipe}", "--model=miss")
    assert run_flags.resolve_flags(None, None).config == run


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["--epochs=5"], "write --set=train.epochs=5."),
        (["--epochs", "5"], "write --set=train.epochs=5."),
        (["--lr=0.1"], "write --set=train.learning_rate=0.1."),
        (["-lr", "0.1"], "write --set=train.learning_rate=0.1."),
        (["--learning-rate=0.1"], "write --set=train.learning_rate=0.1."),
        (["--batchsize"], "write --set=train.batch_size=VALUE."),
        (["--train.patience=3"], "write --set=train.patience=3."),
        (["--embedding_dim=8"], "write --set=model.embedding_size=8."),
        (["--random_seed=3"], "write --seed=3."),
        (["--max_step=3"], "write --max_steps=3."),
        (["--interests=2", "--model=deminet"], "write --set=model.interests=2."),
        (["--interests=2", "--model=lr"], ""),
        (["--alpha=2", "--model=miss"], "write --set=ssl.alpha=2."),
        (["--tau=2", "--ssl=rule"], "write --set=ssl.temperature=2."),
        (["--heads=2", "--model=sim", "--ssl=s3rec"],
         "write --set=model.heads=2 or --set=ssl.heads=2."),
        (["--epochs=5", "--model=nowhere.model"], "write --set=train.epochs=5."),
        (["--output=x"], ""),
        (["--pretrained=v.parquet"], "write --set=pretrained.FEATURE=FILE."),
    ],
)  # fmt: skip
def test_settings_written_as_flags_are_answered_with_their_spelling(given, arguments, hint):
    given()
    flags.DEFINE_integer("seed", None, "")
    flag = arguments[0].lstrip("-").partition("=")[0]
    assert run_flags.setting_hint(flag, arguments) == hint


def test_the_command_answers_in_one_line(given, capsys):
    given()
    with pytest.raises(SystemExit) as ended:
        cli._parse(["models.train", "--lr=0.1"], hint=run_flags.setting_hint)
    assert ended.value.code == 1
    line = "error: Unknown command line flag 'lr'. Fix: write --set=train.learning_rate=0.1.\n"
    assert capsys.readouterr().err == line


def test_a_run_to_continue_has_to_be_there(given, tmp_path):
    given()
    flags.DEFINE_string("workdir", str(tmp_path), "")
    flags.DEFINE_bool("resume", True, "")
    flags.DEFINE_string("data", None, "")
    with pytest.raises(UserError, match="Expected a run to continue in --workdir, found none in"):
        train.main()


def test_a_workdir_that_is_a_file_is_named(data, tmp_path):
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(UserError, match=f"--workdir: expected to write {path}, found: "):
            train.train(_config(data), path, progress=False)


def test_every_alias_stands_for_a_setting():
    names = {
        name.partition(".")[2]
        for model in registry.MODELS
        for ssl in registry.SSL
        for name in setting_names(model, ssl)
    }
    assert set(ALIASES.values()) <= names
    assert not set(ALIASES) & names


def test_a_resumed_run_remembers_the_origins(given, data, tmp_path):
    given("--set=train.batch_size=50", "--max_steps=4", "--model=lr")
    run, origins = run_flags.resolve_flags(str(data.path), None)
    run_directory.begin(tmp_path / "run", run, data, origins)
    assert json.loads((tmp_path / "run" / "origins.json").read_text()) == origins
    given("--max_steps=6", "--set=train.patience=9")
    again, found = run_flags.resolve_flags(None, None, tmp_path / "run")
    assert again.train.batch_size == 50
    changed = {key: word for key, word in found.items() if origins[key] != word}
    assert changed == {"train.patience": "--set"}
    assert found["train.max_steps"] == "flag"
    assert found["train.batch_size"] == "--set"
