"""Drops in AUC by input: of models whose inputs are known, and of a run from command to report."""

import contextlib
import io
import shutil
import types

import numpy as np
import pandas as pd
import pytest
from absl import flags

from models import evaluate
from models.core import run_directory
from models.evaluation import confidence_intervals, importance, permutation, scoring
from models.evaluation.metrics import overall_auc, shown, shown_interval
from models.keras import tf
from preprocessing import dataset
from preprocessing.errors import UserError
from tests.helpers import toy_runs

READ = ("item_id", "candidate")
"""The input that the model of the first tests reads."""


@pytest.fixture(scope="module")
def rates(data):
    """Share of the candidates of an item that were clicked in validation, by encoded item."""
    clicks, counts = np.zeros((2, data.encoders["item_id"].cardinality))
    for batch in dataset.read(data, "validation", batch_size=64, shuffle_seed=None):
        np.add.at(counts, batch["candidate/item_id"].numpy(), 1.0)
        np.add.at(clicks, batch["candidate/item_id"].numpy(), batch["label"].numpy())
    return tf.constant(clicks / np.maximum(counts, 1.0), tf.float32)


@pytest.fixture(scope="module")
def model(rates):
    """Scores candidates by the click rate of their item, and reads nothing else."""
    return lambda features: tf.gather(rates, features["candidate/item_id"])


@pytest.fixture(scope="module")
def table(model, data):
    return importance.measure(model, data, "validation")


def _row(table, feature, part):
    (row,) = table[(table["feature"] == feature) & (table["part"] == part)].to_dict("records")
    return row


def test_only_what_the_model_reads_has_a_drop(table, data):
    inputs = permutation.inputs(data.schema)
    assert set(zip(table["feature"], table["part"], strict=True)) == {
        (one.feature, one.part) for one in inputs
    }
    assert (table.loc[0, "feature"], table.loc[0, "part"]) == READ
    assert table.loc[0, "low"] > 0.1
    others = table.loc[1:, ["auc_drop", "low", "high", "gauc_drop", "log_loss_rise"]]
    assert (others == 0.0).all(axis=None)
    assert importance.includes_zero(table).tolist() == [False] + [True] * (len(table) - 1)


def test_the_drop_is_that_of_numpy(table, data, rates):
    """The permutation of all candidates of the split, with NumPy alone."""
    rates = rates.numpy()
    batches = dataset.read(
        data, "validation", batch_size=scoring.BATCH_SIZE, shuffle_seed=None, with_users=True
    )
    items, labels, users = [], [], []
    for batch in batches.as_numpy_iterator():
        real = batch["candidate/item_id"] != 0
        items.append(batch["candidate/item_id"][real])
        labels.append(batch["label"][real])
        users.append(batch["request/user"][np.nonzero(real)[0]])
    item_C, label_C, user_C = map(np.concatenate, (items, labels, users))
    permuted_C = np.random.default_rng(importance.SEED).permutation(item_C)
    row = _row(table, *READ)
    auc = overall_auc(label_C, rates[item_C])
    assert row["auc"] == pytest.approx(auc)
    assert row["auc_drop"] == pytest.approx(auc - overall_auc(label_C, rates[permuted_C]))

    def measured(logit_C):
        columns = (user_C, user_C, label_C, logit_C, np.zeros(len(user_C)))
        return confidence_intervals.Scores(*columns, ids={})

    differences = confidence_intervals.compare(measured(rates[permuted_C]), measured(rates[item_C]))
    assert (row["low"], row["high"]) == pytest.approx(differences["auc"].difference[1:])
    assert row["gauc_drop"] == pytest.approx(differences["gauc"].difference.value)
    assert row["log_loss_rise"] == pytest.approx(-differences["log_loss"].difference.value)


def test_the_same_seed_gives_the_same_table(table, model, data):
    pd.testing.assert_frame_equal(importance.measure(model, data, "validation"), table)
    other = importance.measure(model, data, "validation", seed=1)
    assert _row(other, *READ)["auc_drop"] != _row(table, *READ)["auc_drop"]
    assert _row(other, *READ)["auc"] == _row(table, *READ)["auc"]


def test_the_scores_without_permutation_are_those_of_evaluation(table, model, data):
    scores = scoring.Scorer(model, data).score("validation")
    assert table["auc"].unique() == overall_auc(scores.label, scores.logit)


def test_of_a_large_split_a_sample_is_measured_and_said(model, data, monkeypatch):
    monkeypatch.setattr(importance, "BATCH_SIZE", 4)
    monkeypatch.setattr(importance, "MOST_REQUESTS", 128)
    sample = importance.measure(model, data, "validation")
    all_requests = data.num_requests("validation")
    assert all_requests > 128
    assert (sample["requests"] == 128).all()
    assert (sample["split_requests"] == all_requests).all()
    said = importance.how_measured(sample, "validation")
    assert f"a seeded sample of 128 of the {all_requests} requests of validation" in said
    pd.testing.assert_frame_equal(importance.measure(model, data, "validation"), sample)
    whole = importance.how_measured(sample.assign(requests=all_requests), "validation")
    assert f"all {all_requests} requests of validation" in whole


def test_a_split_of_one_label_is_refused(model, data, monkeypatch):
    scores = scoring.Scorer(model, data).score("validation")
    of_one_label = scores._replace(label=np.ones_like(scores.label))
    monkeypatch.setattr(importance.Scorer, "score_batches", lambda *_: of_one_label)
    with pytest.raises(UserError, match="Expected candidates of both labels in split 'validation'"):
        importance.measure(model, data, "validation")


def test_without_an_interval_nothing_includes_0():
    undefined = pd.DataFrame({"low": [np.nan, -1.0, 0.5], "high": [np.nan, 1.0, 0.7]})
    assert importance.includes_zero(undefined).tolist() == [False, True, False]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run with numbers, a context and features of candidates only; it ignores the hour."""
    directory = tmp_path_factory.mktemp("toy")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(toy_runs, "REQUESTS", {"train": 4, "validation": 60, "test": 40})
        data = toy_runs.write_data(directory / "data")
    path = toy_runs.write_run(directory / "run", data, "din")
    model = run_directory.load_model(path)
    table = model.embedder.tables["hour"]
    table.assign(tf.ones_like(table))
    run_directory.save_best(run_directory.best_checkpoint(model, path))
    return path


def _call(monkeypatch, **values):
    """Calls the command with these flags and the defaults of all others."""
    defaults = {"run": None, "compare": None, "against": None, "split": None, "importance": False}
    monkeypatch.setattr(flags, "FLAGS", types.SimpleNamespace(**(defaults | values)))
    evaluate.main()


@pytest.fixture(scope="module")
def printed(run):
    """What the command prints on the run."""
    output = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(output):
        _call(patch, run=str(run), importance=True)
    return output.getvalue()


def test_the_command_prints_a_row_per_input_and_how_it_was_measured(run, printed):
    table = pd.read_csv(importance.path(run, "validation"))
    head, *rows, blank, said = printed.splitlines()
    assert head.split() == [
        *("input", "part", "AUC", "drop", "95%", "GAUC", "drop", "log", "loss", "rise")
    ]
    assert (blank, said) == ("", importance.how_measured(table, "validation"))
    assert len(rows) == len(table) == 9
    assert table["auc_drop"].is_monotonic_decreasing
    for line, (_, row) in zip(rows, table.iterrows(), strict=True):
        assert line.startswith(row["feature"])
        assert shown(row["auc_drop"], "+.5f") in line
        assert shown_interval(row["low"], row["high"], "+.5f") in line
        assert line.endswith("includes 0") == (row["low"] <= 0 <= row["high"])
    assert set(table["part"]) == {"user", "context", "candidate", "history"}


def test_a_feature_that_a_model_does_not_tell_apart_has_no_drop(run, printed):
    del printed  # Its file is read.
    hour = _row(pd.read_csv(importance.path(run, "validation")), "hour", "context")
    for name in ("auc_drop", "low", "high", "gauc_drop", "log_loss_rise"):
        assert hour[name] == 0.0
    age = _row(pd.read_csv(importance.path(run, "validation")), "age", "user")
    assert age["log_loss_rise"] != 0.0


def test_the_default_split_is_validation_for_importance_only(run, tmp_path, monkeypatch):
    measured = []
    monkeypatch.setattr(importance, "of_run", lambda _, split: measured.append(split))
    monkeypatch.setattr(evaluate, "_print_importance", lambda table, split: None)
    _call(monkeypatch, run=str(run), importance=True)
    _call(monkeypatch, run=str(run), importance=True, split="test")
    assert measured == ["validation", "test"]
    monkeypatch.setattr(scoring, "evaluate", lambda _, split: measured.append(split) or {})
    analysis = types.SimpleNamespace(slices=pd.DataFrame())
    monkeypatch.setattr(scoring, "analyse", lambda _, split: measured.append(split) or analysis)
    monkeypatch.setattr(evaluate, "_print_metrics", lambda *_: None)
    (tmp_path / "config.json").touch()
    _call(monkeypatch, run=str(tmp_path))
    assert measured[2:] == ["test", "test"]
    assert (tmp_path / "slices-test.csv").exists()


def test_importance_of_two_runs_is_refused(run, monkeypatch):
    with pytest.raises(UserError, match="Expected --run, perhaps with --importance, or --compare"):
        _call(monkeypatch, compare=str(run), against=str(run), importance=True)


def test_a_table_of_other_weights_is_not_current(run, printed, tmp_path):
    del printed  # Its file is read.
    table = importance.read_current(run, "validation")
    pd.testing.assert_frame_equal(table, pd.read_csv(importance.path(run, "validation")))
    assert importance.read_current(run, "test") is None
    copy = shutil.copytree(run, tmp_path / "run")
    for column in ("weights", "data"):
        table.assign(**{column: "other"}).to_csv(importance.path(copy, "validation"), index=False)
        assert importance.read_current(copy, "validation") is None
    shutil.rmtree(copy / run_directory.BEST)
    table.assign(weights="gone").to_csv(importance.path(copy, "validation"), index=False)
    assert importance.read_current(copy, "validation") is not None


def test_a_feature_of_any_name_survives_the_disk(run, printed, tmp_path):
    del printed  # Its file is read.
    copy = shutil.copytree(run, tmp_path / "run")
    table = importance.read_current(run, "validation").assign(feature="NA", low=np.nan)
    table.to_csv(importance.path(copy, "validation"), index=False)
    pd.testing.assert_frame_equal(importance.read_current(copy, "validation"), table)


def test_an_unknown_split_is_refused(run):
    with pytest.raises(UserError, match="Expected --split of train, validation, test"):
        importance.of_run(run, "tset")
