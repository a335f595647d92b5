"""Runs in MLflow: what stands there, that they go on, and that MLflow never ends a training."""

import math
import os
import shutil
import signal
import socket
import subprocess
import sys

import mlflow
import optuna
import pandas as pd
import pytest

from models import search, train
from models.config import run_config
from models.core import run_directory
from models.training import tracking, trainer
from models.training.interruption import Interrupted, StopRequest
from models.training.journal import Journal
from models.training.tracking import open_tracker
from preprocessing.errors import UserError
from tests.helpers.quick_commands import ROOT


@pytest.fixture(scope="module")
def empty(tmp_path_factory):
    """A database of MLflow, which takes seconds to make."""
    file = tmp_path_factory.mktemp("mlflow") / "empty.db"
    open_tracker(f"mlflow:sqlite:///{file}", file.parent)
    return file


@pytest.fixture(autouse=True)
def surroundings(monkeypatch, tmp_path):
    monkeypatch.setattr(trainer, "EVALUATION_INTERVAL", 4)
    monkeypatch.chdir(tmp_path)  # where MLflow puts files of a database's runs
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "clicks")


@pytest.fixture
def store(tmp_path, empty):
    """The value of --tracking for a database of this test."""
    shutil.copy(empty, tmp_path / "mlflow.db")
    return f"mlflow:sqlite:///{tmp_path}/mlflow.db"


def _client(store):
    return mlflow.MlflowClient(store.removeprefix("mlflow:"))


def _config(data, model="lr", ssl="none", **settings):
    content = {"data": str(data.path), "model": {"name": model}, "ssl": {"name": ssl}}
    return run_config.resolve(content | {"train": {"batch_size": 50, "max_steps": 8} | settings})


def _train(data, path, flag, resume=False, **settings):
    tracker = open_tracker(flag, path)
    config = _config(data, **settings)
    return train.train(config, path, resume=resume, progress=False, tracker=tracker)


def _only_run(store):
    client = _client(store)
    experiment = client.get_experiment_by_name("clicks")
    (run,) = client.search_runs([experiment.experiment_id])
    return client, run


def _points(client, run, key):
    return [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, key)]


def _require_whole(client, run, path, prefix="", table=run_directory.HISTORY):
    """Every number of a table is there, each once."""
    rows = pd.read_csv(path / table)
    for column in rows.columns.drop("step"):
        there = rows[["step", column]].dropna()
        expected = list(there.itertuples(index=False, name=None))
        assert _points(client, run, f"{prefix}{column}".replace("@", "-")) == [
            (step, pytest.approx(value)) for step, value in expected if math.isfinite(value)
        ]


def test_a_run_is_in_mlflow_as_in_its_directory(data, tmp_path, store):
    path = tmp_path / "runs" / "one"
    settings = {"ssl_steps": 1, "pretrain_epochs": 1, "learning_rate": 0.01}
    measured = _train(data, path, store, model="din", ssl="rule", **settings)
    client, run = _only_run(store)
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "runs/one"
    assert run.data.params["model.name"] == "din"
    assert run.data.params["train.learning_rate"] == "0.01"
    assert "train.epochs" not in run.data.params
    assert run.data.tags["data fingerprint"] == data.fingerprint
    assert run.data.tags["run directory"] == str(path)
    assert {"model": "din", "ssl": "rule"}.items() <= run.data.tags.items()
    assert run.data.tags["version"]
    _require_whole(client, run, path)
    _require_whole(client, run, path, "pretraining/", run_directory.PRETRAINING)
    for split, metrics in measured.items():
        assert run.data.metrics[f"final/{split}/auc"] == pytest.approx(metrics["auc"])
    files = [file.path for file in client.list_artifacts(run.info.run_id)]
    assert files == ["config.json"]
    assert not {"mlflow.user", "mlflow.source.name"} & set(run.data.tags)

    open_tracker(None, path).attach(path / "metrics.csv")
    files = [file.path for file in client.list_artifacts(run.info.run_id)]
    assert files == ["config.json", "metrics.csv"]


@pytest.mark.parametrize("flag", [True, False])
def test_a_resumed_run_goes_on_in_its_mlflow_run(data, tmp_path, store, flag):
    path = tmp_path / "run"

    class Stops(StopRequest):
        def __bool__(self):
            return len(begun.progress.history) == 1

    tracker = open_tracker(store, path)
    begun = train.begin(_config(data), path, progress=False, stop=Stops(), tracker=tracker)
    with pytest.raises(Interrupted):
        begun.run()
    _, before = _only_run(store)
    assert before.info.status == "KILLED"
    _train(data, path, store if flag else None, resume=True, max_steps=12)
    client, run = _only_run(store)
    assert run.info.status == "FINISHED"
    assert run.data.params == before.data.params
    assert [step for step, _ in _points(client, run, "validation/auc")] == [4, 8, 12]
    _require_whole(client, run, path)


def test_a_failed_run_is_one_in_mlflow(data, tmp_path, store):
    def fail(_):
        raise ValueError("a callback's mistake")

    tracker = open_tracker(store, tmp_path / "run")
    begun = train.begin(
        _config(data), tmp_path / "run", progress=False, tracker=tracker, on_evaluation=fail
    )
    with pytest.raises(ValueError, match="callback"):
        begun.run()
    assert _only_run(store)[1].info.status == "FAILED"


class _Server:
    """A client of MLflow whose server answers or not."""

    def __init__(self, client, answers):
        self._client, self._answers, self.calls = client, answers, 0

    def __getattr__(self, name):
        def call(*arguments, **named):
            self.calls += 1
            if not self._answers():
                raise ConnectionError("nobody there")
            return getattr(self._client, name)(*arguments, **named)

        return call


@pytest.mark.parametrize("back_at", [0, 8, 99])
def test_a_server_that_fails_ends_no_training(data, tmp_path, store, capfd, monkeypatch, back_at):
    """It is said in a line; what was missed is sent when the server is back, or on resume."""
    monkeypatch.setattr(tracking, "_PAUSE", 0.0)
    path = tmp_path / "run"
    tracker = open_tracker(store, path)
    tracker._client = _Server(tracker._client, lambda: begun.progress.step >= back_at)
    begun = train.begin(_config(data), path, progress=False, tracker=tracker)
    begun.run()
    notes = [line for line in capfd.readouterr().err.splitlines() if line.startswith("note: MLf")]
    assert len(notes) == (back_at > 0)
    if back_at == 99:
        assert "the training goes on" in notes[0]
        assert "ConnectionError: nobody there" in notes[0]
        _train(data, path, store, resume=True)
    client, run = _only_run(store)
    assert run.info.status == "FINISHED"
    assert "final/test/auc" in run.data.metrics
    _require_whole(client, run, path)


def test_a_server_that_fails_is_left_alone_for_a_while(data, tmp_path, store):
    tracker = open_tracker(store, tmp_path / "run")
    tracker._client = _Server(tracker._client, lambda: False)
    train.train(_config(data), tmp_path / "run", progress=False, tracker=tracker)
    assert tracker._client.calls == 2  # at the beginning, and with the result


def test_a_tracked_run_goes_on_without_its_server(data, tmp_path, store, capfd):
    path = tmp_path / "run"
    _train(data, path, store)
    (tmp_path / "mlflow.db").write_bytes(bytes(range(200)))  # no database any more
    _train(data, path, None, resume=True, max_steps=12)
    (note,) = [one for one in capfd.readouterr().err.splitlines() if one.startswith("note: MLf")]
    assert "Expected a server or database of MLflow at sqlite:///" in note


def test_a_run_that_is_gone_is_not_begun_anew(data, tmp_path, store):
    path = tmp_path / "run"
    _train(data, path, store)
    client, run = _only_run(store)
    client.delete_run(run.info.run_id)
    with pytest.raises(UserError, match=r"Expected the MLflow run .* remove tracking\.json"):
        open_tracker(store, path)


def test_another_place_gets_all_rows(data, tmp_path, store, empty):
    path = tmp_path / "run"
    _train(data, path, store)
    shutil.copy(empty, tmp_path / "other.db")
    other = f"mlflow:sqlite:///{tmp_path}/other.db"
    _train(data, path, other, resume=True, max_steps=12)
    client, run = _only_run(other)
    _require_whole(client, run, path)
    assert len(_points(*_only_run(store), "validation/auc")) == 2


def _search(data, path, store, trials):
    base = _config(data).to_json()
    space = {"train.learning_rate": {"low": 0.001, "high": 0.1, "log": True}}
    search.search(base, space, trials, path, progress=False, tracked_at=store)
    return pd.read_csv(path / "trials.csv")


def test_every_trial_of_a_search_is_a_run(data, tmp_path, store, monkeypatch):
    """Trials that are ended early are no failures."""
    report = optuna.Trial.report

    def prune_the_second(trial, value, step):
        report(trial, value, step)
        if trial.number == 1:
            raise optuna.TrialPruned

    monkeypatch.setattr(optuna.Trial, "report", prune_the_second)
    path = tmp_path / "search"
    table = _search(data, path, store, 3)
    client = _client(store)
    experiment = client.get_experiment_by_name("clicks")
    found = client.search_runs([experiment.experiment_id])
    runs = {run.info.run_name: run for run in found}
    assert {name: run.info.status for name, run in runs.items()} == {
        "trials/0000": "FINISHED",
        "trials/0001": "KILLED",
        "trials/0002": "FINISHED",
    }
    for number in (0, 2):
        name = f"trials/{number:04d}"
        run = runs[name]
        _require_whole(client, run, path / name)
        measured = run.data.metrics["final/validation/auc"]
        assert measured == pytest.approx(table["validation/auc"][number])
        assert "final/test/auc" not in run.data.metrics
        assert [file.path for file in client.list_artifacts(run.info.run_id)] == ["config.json"]
        rate = float(run.data.params["train.learning_rate"])
        assert rate == pytest.approx(table["train.learning_rate"][number])


def test_an_interrupted_trial_goes_on_in_its_run(data, tmp_path, store, monkeypatch):
    record, stopped = Journal.record_evaluation, []

    def stop_once(journal, *arguments):
        record(journal, *arguments)
        if not stopped:
            stopped.append(True)
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Journal, "record_evaluation", stop_once)
    path = tmp_path / "search"
    with pytest.raises(Interrupted):
        _search(data, path, store, 1)
    assert _only_run(store)[1].info.status == "KILLED"
    _search(data, path, store, 1)
    client, run = _only_run(store)
    assert run.info.status == "FINISHED"
    _require_whole(client, run, path / "trials" / "0000")


def test_a_search_goes_on_without_its_server(data, tmp_path, store, capfd):
    (tmp_path / "mlflow.db").write_bytes(bytes(range(200)))  # no database any more
    table = _search(data, tmp_path / "search", store, 1)
    assert table["state"].tolist() == ["complete"]
    assert "note: MLflow at sqlite:///" in capfd.readouterr().err


def test_a_run_without_tracking_has_none(tmp_path):
    assert open_tracker(None, tmp_path) is None


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("sqlite:///x.db", r"Expected --tracking=mlflow:URI, found 'sqlite.* for example"),
        ("mlflow:", "Expected --tracking=mlflow:URI, found 'mlflow:'"),
        ("mlflow:https://me:secret@host", "without a password"),
        ("mlflow:foo://bar", "MLflow at foo://bar, found: .*unsupported URI"),
        ("mlflow:some/directory", "MLflow at some/directory, found: .*maintenance mode"),
        (
            "mlflow:sqlite:///wrong.db",
            r"MLflow at sqlite:////.*/wrong\.db, found: .* not a database",
        ),
    ],
)
def test_a_wrong_place_is_refused(tmp_path, flag, message):
    (tmp_path / "wrong.db").write_bytes(bytes(range(200)))
    with pytest.raises(UserError, match=message) as error:
        open_tracker(flag, tmp_path)
    assert "secret" not in str(error.value)


_PROGRAM = """
import sys
{before}
from {room} import {command}
sys.argv = {argv}
try:
    {command}.console_main()
finally:
    assert "tensorflow" not in sys.modules
"""


def _refused(room, command, *flags, before=""):
    argv = [f"ctr-{command}", *flags]
    program = _PROGRAM.format(room=room, command=command, argv=argv, before=before)
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    return line


def test_mistakes_are_one_line_before_tensorflow_loads(data, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    tracked, workdir = f"--tracking=mlflow:http://127.0.0.1:{port}", f"--workdir={tmp_path}/run"
    (tmp_path / "space.json").write_text('{"train.learning_rate": {"low": 0.1, "high": 1}}')
    (tmp_path / "log.csv").write_text("user_id,item_id,timestamp\nu,i,1\n")
    trained = ("models", "train", f"--data={data.path}", workdir, tracked)
    for command in (
        trained,
        ("models", "tune", f"--data={data.path}", f"--space={tmp_path}/space.json", *trained[3:]),
        ("pipeline", "daily", "--day=d1", f"--input={tmp_path}/log.csv", *trained[3:]),
    ):
        line = _refused(*command)
        assert line.startswith("error: Expected a server or database of MLflow at http://127.0.0.")
        assert "Connection refused" in line
    line = _refused(*trained, before="sys.modules['mlflow'] = None")
    assert "Expected the package mlflow" in line
    assert "pip install 'sequence-ctr[mlflow]'" in line
    assert not list((tmp_path / "run").rglob("*.json"))
