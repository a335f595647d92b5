"""One command from a raw log to served scores, its resumption, and its refusals."""

import dataclasses
import json
import os
import pathlib
import re
import subprocess
import sys

import mlflow
import pytest

from models.config import run_config
from pipeline import build_examples as building
from pipeline import run as running
from pipeline.arguments import BuildArguments
from pipeline.job import build, pipelines
from pipeline.synthesize import synthesize, write
from pipeline.synthetic.truth import SynthesizeArguments
from preprocessing.errors import UserError
from serving import export as exporting
from tests.helpers.inline_runner import inline

ROOT = pathlib.Path(__file__).parents[2]
# TensorFlow 2.21 writes these whatever TF_CPP_MIN_LOG_LEVEL says.
_GREETING = re.compile("WARNING: All log messages before absl::InitializeLog|I0000 ")
SETTINGS = ("--model=din", "--ssl=miss", "--max_steps=45", "--num_shards=2")


class _ReachedError(Exception):
    """The stage in question was begun."""


def _reach(*args):
    raise _ReachedError


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    path = tmp_path_factory.mktemp("log") / "log.csv"
    write(synthesize(SynthesizeArguments(users=250, items=200, interests=5)), path)
    return path


def _command(*flags, **environment):
    return subprocess.run(
        [sys.executable, "-m", "pipeline.run", *flags],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def work(log, tmp_path_factory):
    """A finished working directory, and what the command printed."""
    path = tmp_path_factory.mktemp("run") / "work"
    store = f"sqlite:///{path.parent}/mlflow.db"
    files = str(path.parent / "files")
    mlflow.MlflowClient(store).create_experiment("clicks", artifact_location=files)
    done = _command(
        f"--input={log}",
        f"--workdir={path}",
        f"--tracking=mlflow:{store}",
        *SETTINGS,
        MLFLOW_EXPERIMENT_NAME="clicks",
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return path, done.stdout


def test_fills_the_working_directory(work):
    path, out = work
    assert (path / "data" / "_COMPLETED").exists()
    assert (path / "run" / "metrics.json").exists()
    assert (path / "model" / "1" / "saved_model.pb").exists()
    assert "<html" in (path / "report.html").read_text()
    assert (path / "report.md").exists()
    assert f"report: {path / 'report.html'}" in out
    assert f"--model_base_path={path / 'model'}" in out


def test_the_run_is_tracked_with_its_report(work):
    path, _ = work
    client = mlflow.MlflowClient(f"sqlite:///{path.parent}/mlflow.db")
    experiment = client.get_experiment_by_name("clicks")
    (run,) = client.search_runs([experiment.experiment_id])
    assert (run.info.run_name, run.info.status) == ("work/run", "FINISHED")
    files = [file.path for file in client.list_artifacts(run.info.run_id)]
    assert files == ["config.json", "report.html"]


def test_the_findings_are_the_last_lines(work):
    _, out = work
    lines = out.splitlines()
    found = [line for line in lines if re.match(r"alarm: |\w+ AUC without a model: ", line)]
    assert found
    assert lines[-len(found) :] == found


def test_served_scores_are_the_offline_ones(work):
    _, out = work
    for way in ("serving_default", "serialized", "rest"):
        (line,) = [line for line in out.splitlines() if line.startswith(way)]
        assert float(line.split()[-1]) <= 1e-6


def test_prints_ranked_scores_of_real_requests(work):
    path, out = work
    ranked = [json.loads(line) for line in out.splitlines() if line.startswith('{"request"')]
    requests = [json.loads(line) for line in (path / "requests.jsonl").read_text().splitlines()]
    assert len(ranked) == len(requests) == 3
    for answer, request in zip(ranked, requests, strict=True):
        scores = [candidate.pop("score") for candidate in answer["candidates"]]
        assert scores == sorted(scores, reverse=True)
        assert all(0 < score < 1 for score in scores)

        def names(candidates):
            return sorted(candidate["item_id"] for candidate in candidates)

        assert names(answer["candidates"]) == names(request["candidates"])


@pytest.mark.slow
def test_the_same_command_does_nothing_twice(work, log):
    path, _ = work
    before = {file: file.stat().st_mtime_ns for file in (path / "run").rglob("*")}
    done = _command(f"--input={log}", f"--workdir={path}", *SETTINGS)
    assert done.returncode == 0, done.stderr[-3000:]
    for stage in ("data", "train", "export"):
        assert f"{stage}: complete" in done.stdout
    assert {file: file.stat().st_mtime_ns for file in (path / "run").rglob("*")} == before


def _arguments(log, work):
    arguments = BuildArguments(input=str(log), output=str(work / "data"), num_shards=2)
    content = {
        "data": str(work / "data"),
        "model": {"name": "din"},
        "ssl": {"name": "miss"},
        "train": {"max_steps": 45, "seed": 1},
    }
    return arguments, content


@pytest.mark.parametrize("changed", ["negatives", "learning_rate", "log"])
def test_other_arguments_are_refused(work, log, tmp_path, changed):
    path, _ = work
    arguments, content = _arguments(log, path)
    if changed == "negatives":
        arguments = BuildArguments(**{**vars(arguments), "negatives": 2})
        message = "data.negatives was 1, is 2"
    elif changed == "learning_rate":
        content["train"]["learning_rate"] = 0.5
        message = r"run.train.learning_rate was 0\.001, is 0\.5"
    else:
        longer = tmp_path / "log.csv"
        longer.write_text(log.read_text() + "u1,i1,c1,1800000000\n")
        arguments = BuildArguments(**{**vars(arguments), "input": str(longer)})
        message = "data.input was"
    with pytest.raises(UserError, match=message):
        running.run(arguments, run_config.resolve(content), path)


def test_a_mistake_does_not_spoil_the_working_directory(log, tmp_path):
    arguments, content = _arguments(log, tmp_path)
    wrong = BuildArguments(**{**vars(arguments), "input": f"{log}.missing"})
    with pytest.raises(UserError, match=r"log.csv.missing"):
        running.run(wrong, run_config.resolve(content), tmp_path)
    # The corrected command gets past the check of its arguments, to the first stage.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            running, "_build", lambda *arguments: (_ for _ in ()).throw(StopAsyncIteration)
        )
        with pytest.raises(StopAsyncIteration):
            running.run(arguments, run_config.resolve(content), tmp_path)


def test_a_build_that_was_cut_off_goes_on_if_it_is_the_same(log, tmp_path, capsys):
    def arguments(seed):
        return BuildArguments(input=str(log), output=str(tmp_path), num_shards=2, seed=seed)

    def built(seed):
        stages, run_stage = [], build.run_stage
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                build, "run_stage", lambda *a, **k: (stages.append(a[0]), run_stage(*a, **k))
            )
            running._build(arguments(seed), None)
        return stages

    with inline():
        for seed, left in ((1, []), (2, ["Reading", "Counting values"])):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(pipelines, "write", _reach)
                with pytest.raises(_ReachedError):
                    building.build_examples(dataclasses.replace(arguments(1), overwrite=True))
            assert built(seed) == [*left, "Writing", "Keeping tails"]
    assert "the data set is begun anew: seed was 1, is 2" in capsys.readouterr().out


def test_a_failed_export_is_done_again(work, log, monkeypatch):
    path, _ = work
    arguments, content = _arguments(log, path)
    (path / "model" / "1").rename(path / "model" / "kept")
    try:
        monkeypatch.setattr(exporting, "export", _reach)
        with pytest.raises(_ReachedError):
            running.run(arguments, run_config.resolve(content), path)
    finally:
        (path / "model" / "kept").rename(path / "model" / "1")


def test_a_users_mistake_is_one_line(tmp_path):
    done = _command(f"--input={tmp_path / 'none.csv'}", f"--workdir={tmp_path / 'work'}")
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if not _GREETING.match(line)]
    assert line.startswith("error: ")
    assert "none.csv" in line
    assert "Fix:" in line
