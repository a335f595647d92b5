"""The daily job: days on top of each other, refusals, interruptions."""

import json

import mlflow
import pandas as pd
import pytest

from models.config import run_config
from models.core import run_directory
from models.training import tracking
from models.training.run_flags import Resolved
from pipeline import daily
from pipeline.arguments import BuildArguments
from pipeline.job.day_states import STATE
from preprocessing.errors import UserError
from serving import export as exporting
from serving.exporting import publishing
from tests.helpers.daily_logs import write_day


def _resolve(data, continued, **train):
    content = {"data": data, "model": {"name": "din", "embedding_size": 4}, "train": {}}
    if continued:
        content = run_config.load_to_continue(f"{continued}/{run_directory.CONFIG}")
        content |= {"data": data, "continues": continued}
    content["train"] |= {"max_steps": 8, "batch_size": 32} | train
    return Resolved(run_config.resolve(content), {})


def _arguments(log, max_drift=None, max_auc_drop=1.0, **build):
    return daily.DayArguments(
        BuildArguments(input=str(log), output="", protocol="day", num_shards=2, **build),
        _resolve,
        max_drift,
        exporting.ExportOptions(max_auc_drop=max_auc_drop),
    )


def _run(work, log, name, **arguments):
    days = daily.Days.load(work)
    day = days.begin(name)
    daily.run_day(days, day, _arguments(log, **arguments))
    return daily.Days.load(work)


@pytest.fixture(scope="module")
def two_days(tmp_path_factory):
    work = tmp_path_factory.mktemp("daily")
    logs = [write_day(work, day) for day in (1, 2)]
    for number, log in enumerate(logs, 1):
        _run(work / "work", log, f"day{number}")
    return work


def test_each_day_stands_on_the_one_before(two_days):
    work = two_days / "work"
    days = daily.Days.load(work)
    assert [(day.name, day.done, day.version) for day in days.days] == [
        ("day1", list(daily.STAGES), 1),
        ("day2", list(daily.STAGES), 2),
    ]
    manifest = json.loads((work / "sets" / "day2" / "manifest.json").read_text())
    assert manifest["arguments"]["base"] == str(work / "sets" / "day1")
    assert run_directory.open_run(work / "runs" / "day2").config.continues == str(
        work / "runs" / "day1"
    )
    assert len(pd.read_csv(work / "runs" / "day2" / run_directory.DAYS)) == 1
    assert (work / "runs" / "day2" / "report.html").exists()
    publication = publishing.read(work / "model")
    assert (publication.stable, publication.previous) == (2, 1)
    lines = daily._summary(days, days.days[1])
    assert lines[0].startswith("day2 before training on it: ")
    assert lines[1] == "day2 is done: version 2 is published, version 2 live"
    assert lines[2].startswith("back to version 1: python -m serving.rollback --output=")


def test_a_day_that_is_done_repeats_nothing(two_days, monkeypatch, capsys):
    work = two_days / "work"
    before = {path: path.stat().st_mtime_ns for path in work.rglob("*") if path.is_file()}
    _run(work, two_days / "day2.csv", "day2")
    after = {path: path.stat().st_mtime_ns for path in work.rglob("*") if path.is_file()}
    assert before == after
    assert capsys.readouterr().out.count(": complete") == len(daily.STAGES)


def test_a_day_is_a_run_in_mlflow(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where MLflow puts files of a database's runs
    days = daily.Days.load(tmp_path / "work")
    day = days.begin("day1")
    store = f"sqlite:///{tmp_path}/mlflow.db"
    tracker = tracking.open_tracker(f"mlflow:{store}", days.run_of(day))
    daily.run_day(days, day, _arguments(write_day(tmp_path, 1)), tracker=tracker)
    client = mlflow.MlflowClient(tracking_uri=store)
    (run,) = client.search_runs(["0"])
    assert (run.info.run_name, run.info.status) == ("runs/day1", "FINISHED")
    assert "final/validation/auc" in run.data.metrics
    sent = [file.path for file in client.list_artifacts(run.info.run_id)]
    assert sent == ["config.json", "report.html"]


@pytest.mark.slow
def test_a_refusal_leaves_the_live_version_and_the_same_command_goes_on(two_days, tmp_path):
    work = two_days / "work"
    log = write_day(tmp_path, 3)
    with pytest.raises(UserError, match=r"day3 ends at drift, version 2 stays live.*EXCEEDED"):
        _run(work, log, "day3", max_drift="0.001")
    days = daily.Days.load(work)
    assert days.days[-1].stage == "drift"
    assert "max_drift=0.001" in days.days[-1].refused
    assert publishing.live_version(work / "model").name == "2"
    built = (work / "sets" / "day3" / "manifest.json").stat().st_mtime_ns
    _run(work, log, "day3")
    assert (work / "sets" / "day3" / "manifest.json").stat().st_mtime_ns == built
    assert publishing.live_version(work / "model").name == "3"
    assert daily.Days.load(work).days[-1].refused == ""


@pytest.mark.slow
def test_after_a_day_that_was_not_published_the_published_run_goes_on(two_days, tmp_path):
    """Its events are in the histories all the same."""
    work = two_days / "work"
    with pytest.raises(UserError, match="ends at drift"):
        _run(work, write_day(tmp_path, 4), "day4", max_drift="0.001")
    _run(work, write_day(tmp_path, 5), "day5")
    config = run_directory.open_run(work / "runs" / "day5").config
    manifest = json.loads((work / "sets" / "day5" / "manifest.json").read_text())
    assert manifest["arguments"]["base"] == str(work / "sets" / "day4")
    published = [day for day in daily.Days.load(work).days if "export" in day.done]
    assert config.continues == str(work / "runs" / published[-2].name)
    with pytest.raises(UserError, match=r"found day4, which ended at drift"):
        daily.Days.load(work).begin("day4")


@pytest.mark.slow
def test_a_day_whose_build_failed_blocks_the_next(tmp_path):
    work = tmp_path / "work"
    _run(work, write_day(tmp_path, 1), "day1")
    bad = tmp_path / "bad.csv"
    bad.write_text("user_id,item_id,timestamp\nu1,i1,yesterday\nu2,i2,tomorrow\n")
    with pytest.raises(UserError, match="day2 ends at build, version 1 stays live"):
        _run(work, bad, "day2")
    with pytest.raises(UserError, match="data set of day2 before that of day3, found it unfin"):
        _run(work, write_day(tmp_path, 3), "day3")
    assert [day.name for day in daily.Days.load(work).days] == ["day1", "day2"]


@pytest.mark.slow
def test_an_export_is_not_repeated_after_an_interruption(two_days, tmp_path, monkeypatch):
    work = tmp_path / "work"
    log = write_day(tmp_path, 1)
    saved = daily.Days.save

    def killed(self):
        if "export" in self.days[-1].done:
            raise KeyboardInterrupt
        saved(self)

    monkeypatch.setattr(daily.Days, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        _run(work, log, "day1")
    monkeypatch.undo()
    assert daily.Days.load(work).days[0].stage == "export"
    _run(work, log, "day1")
    assert sorted(publishing.versions(work / "model")) == [1]


def test_one_job_at_a_time(tmp_path):
    with (
        daily._alone(tmp_path),
        pytest.raises(UserError, match="one daily job at a time"),
        daily._alone(tmp_path),
    ):
        pass


@pytest.mark.parametrize("name", ["", "a/b", "..", " "])
def test_days_are_names_of_directories(tmp_path, name):
    with pytest.raises(UserError, match="--day: expected letters"):
        daily.Days(tmp_path, []).begin(name)


def test_a_damaged_state_is_named(tmp_path):
    (tmp_path / STATE).write_text('{"days": [{"nane": "day1"}]}')
    with pytest.raises(UserError, match=r"state of the daily job in .*daily.json"):
        daily.Days.load(tmp_path)
