"""Tables in seconds: every recipe from data to pages, and what the command refuses."""

import re

import pandas as pd
import pytest

from models.core import run_directory
from pipeline import experiment
from pipeline.experiments import TABLES, quick
from preprocessing.errors import UserError
from tests.helpers import inline_runner


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A directory that the tables share, so that no run is done twice, and its data sets."""
    path = tmp_path_factory.mktemp("experiment")
    with inline_runner.inline():
        data = {name: quick.build_data(name, path) for name in ("time_split", "leave_last_out")}
    return path, data


def _make(work, table_id, seeds=1, learning_rates=()):
    path, data = work
    data_set = [str(data[TABLES[table_id].protocol])]
    page = experiment.quick_experiment(
        table_id, data_set, path, seeds, "the command", learning_rates
    )
    html, text = page.read_text(), page.with_suffix(".md").read_text()
    assert not re.search(r'(src|href)="(?!#|data:)', html)
    assert "A quick run, to see that everything works" in html
    assert "**A quick run, to see that everything works" in text
    assert all(row.label in text for row in TABLES[table_id].rows)
    table = [line for line in text.split("###")[1].splitlines() if "(no model)" not in line]
    assert "–" not in "".join(table)  # No number is missing from the first table.
    return page, html, text


def _runs(table_id, page, seeds=1):
    found = pd.read_csv(page.with_name(f"{page.stem}-runs.csv"))
    assert len(found[~found["trial"]]) == seeds * len(TABLES[table_id].rows)
    assert found["finished"].all()
    return found


@pytest.mark.slow
def test_a_look_inside_a_model(work):
    page, html, text = _make(work, "deminet/fig5", seeds=2, learning_rates=(1e-3, 1e-4))
    found = _runs("deminet/fig5", page)  # One is enough for it.
    assert html.count("<svg") == 1
    # The learning rate is that of the better one on the validation split.
    assert sorted(found["learning_rate"]) == [1e-4, 1e-3]
    aucs = {
        rate: run_directory.read_metrics(page.parent / "runs" / name)["validation"]["auc"]
        for name, rate in zip(found["run"], found["learning_rate"], strict=True)
    }
    (chosen,) = found.loc[~found["trial"], "learning_rate"]
    assert aucs[chosen] == max(aucs.values())
    assert f"| {chosen:g} | 1 |" in text
    assert "the one of 0.001, 0.0001 with the best validation AUC with seed 1" in text


@pytest.mark.slow
def test_pretraining_over_two_seeds(work):
    page, html, text = _make(work, "miss/8", seeds=2)
    _runs("miss/8", page, seeds=2)
    assert re.search(r"\| MISS-Pre \| DIN \| AUC \|", text)
    assert "Kendall's tau" in text
    assert len(list(page.parent.glob("runs/din-miss-*/pretraining.csv"))) == 2


@pytest.mark.parametrize("table_id", ["deminet/1", "miss/2"])
def test_statistics_of_data_sets(work, table_id):
    _, _, text = _make(work, table_id)
    assert text.count("| paper, ") == 3


@pytest.mark.slow
@pytest.mark.parametrize(
    "table_id",
    [
        name
        for name, table in TABLES.items()
        # Tested above; or as miss/4 and miss/fig6 with more rows.
        if table.rows
        and name not in ("deminet/fig5", "miss/8", "beyond/miss", "beyond/rivals", "beyond/width")
    ],
)
def test_every_other_table(work, table_id):
    page, html, _ = _make(work, table_id)
    _runs(table_id, page)
    table = TABLES[table_id]
    series = len({row.series for row in table.rows})
    assert html.count("<svg") == series + bool(table.along)


def test_refuses_an_unknown_table(tmp_path):
    with pytest.raises(UserError, match="Expected --table to be one of deminet/1, .* did you mean"):
        experiment.experiment("deminet/33", [], tmp_path)


def test_refuses_a_remote_workdir():
    with pytest.raises(UserError, match="--workdir: expected a path of this machine"):
        experiment.experiment("deminet/3", [], "s3://bucket/work")


def test_failed_runs_are_named_after_the_page_is_written(work, tmp_path, monkeypatch):
    failure = experiment.scheduler.Failure("din-1-abc", tmp_path / "din.log", "error: no memory")
    answers = iter([[failure], []])  # To the trials of learning rates, and to what follows them.
    monkeypatch.setattr(experiment.scheduler, "run_all", lambda *_, **__: next(answers))
    with pytest.raises(UserError, match="1 that failed; the first, din-1-abc, ended with: error"):
        experiment.experiment("deminet/3", [str(work[1]["time_split"])], tmp_path)
    assert "0 of 16 finished" in (tmp_path / "deminet-3.md").read_text()
