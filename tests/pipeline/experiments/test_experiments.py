"""The plan of runs, statistics and pages, on made-up scores."""

import copy
import dataclasses
import json
import math
import pathlib
import re
import shutil

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from models.core import run_directory
from models.evaluation import scoring, yardsticks
from models.evaluation.metrics import Scores
from pipeline.experiments import TABLES, comparisons, planned_runs, quick, rendering
from pipeline.experiments.recipe import TITLES, Row, Table
from preprocessing.errors import UserError
from tests.helpers import inline_runner


@pytest.fixture(scope="module")
def data_path(tmp_path_factory):
    with inline_runner.inline():
        return quick.build_data("time_split", tmp_path_factory.mktemp("experiment"))


TABLE = Table(
    id="deminet/2",
    title="Two baselines and a proposal",
    protocol="time_split",
    data_sets=("Amazon(Book)",),
    reference="Amazon(Book)",
    claim="The proposal is best.",
    batch_samples=64,
    rows=[
        Row(label="FM", settings={"model": {"name": "fm"}}, published={"Amazon(Book)": [0.7, 0.4]}),
        Row(label="LR", settings={"model": {"name": "lr"}}, published={"Amazon(Book)": [0.6, 0.5]}),
        Row(
            label="DIN",
            settings={"model": {"name": "din"}},
            published={"Amazon(Book)": [0.77, 0.3]},
            proposed=True,
        ),
    ],
)


def _plan(path, workdir, table=TABLE, seeds=(1, 2, 3)):
    named = planned_runs.open_data([str(path)], table)
    return named, planned_runs.plan_runs(table, named, seeds, workdir)


def test_plans_a_run_per_row_and_seed(data_path, tmp_path):
    _, planned = _plan(data_path, tmp_path)
    assert len({run.path for run in planned}) == 9
    assert re.fullmatch(r"fm-1-[0-9a-f]{8}", planned[0].name)
    assert planned[0].path.parent == tmp_path / "runs"
    assert planned[0].config.train.batch_size == 32
    assert [run.seed for run in planned[:3]] == [1, 2, 3]


@pytest.mark.parametrize(
    ("negatives", "samples", "requests"), [(1, 128, 64), (9, 128, 13), (1, 1, 1), (1, 0, 128)]
)
def test_a_batch_holds_so_many_samples_whatever_the_negatives(
    data_path, tmp_path, negatives, samples, requests
):
    table = dataclasses.replace(TABLE, batch_samples=samples)
    (named,) = planned_runs.open_data([str(data_path)], table)
    manifest = copy.deepcopy(named.data.manifest)
    train = manifest["splits"]["train"]
    train["candidates"] = train["requests"] * (1 + negatives)
    data = dataclasses.replace(named.data, manifest=manifest)
    planned = planned_runs.plan_runs(table, [named._replace(data=data)], [1], tmp_path)
    assert {run.config.train.batch_size for run in planned} == {requests}


RATES = (1e-3, 1e-1, 1e-2)


def _trial_plan(path, workdir):
    return _plan(path, workdir, dataclasses.replace(TABLE, learning_rates=RATES), seeds=(5, 6))[1]


def _finish(run, validation):
    _begin(run, run.path)
    for split, auc in (("validation", validation), ("test", 1.0 - validation)):
        run_directory.write_metrics(run.path, {split: dict.fromkeys(TITLES, 0.5) | {"auc": auc}})


def test_each_row_trains_at_the_rate_that_its_validation_chooses(data_path, tmp_path):
    first = _trial_plan(data_path, tmp_path)
    assert all(run.is_trial and run.seed == 5 for run in first)
    assert [run.config.train.learning_rate for run in first] == list(RATES) * 3
    # FM: the second rate is best; LR: one trial is not done yet; DIN: the best one diverged.
    for run, auc in zip(first, (0.6, 0.7, 0.5, 0.6, 0.7, None, 0.6, None, 0.65), strict=True):
        if auc is not None:
            _finish(run, auc)
    _begin(first[7], first[7].path)
    (first[7].path / run_directory.DIVERGED).write_text("Expected finite numbers, found NaN.")
    planned = _trial_plan(data_path, tmp_path)
    rows = {
        label: [run for run in planned if run.row.label == label] for label in ("FM", "LR", "DIN")
    }
    for label, rate in (("FM", 1e-1), ("DIN", 1e-2)):
        chosen = [run for run in rows[label] if not run.is_trial]
        assert [run.seed for run in chosen] == [5, 6]
        assert {run.config.train.learning_rate for run in chosen} == {rate}
        assert [run.is_finished for run in chosen] == [True, False]  # No trial is done twice.
        assert len(rows[label]) == 4
    assert [run.is_trial for run in rows["LR"]] == [True] * 3
    measured = {each.row.label: each for each in comparisons.collect(planned, "Amazon(Book)")}
    assert measured["FM"].mean("auc") == pytest.approx(0.3)  # Of no other trial.
    assert [measured[label].learning_rate for label in rows] == [1e-1, None, 1e-2]
    assert [measured[label].seeds for label in rows] == [[5], [], [5]]


def test_a_row_of_which_every_rate_diverges_has_failed(data_path, tmp_path):
    for run in _trial_plan(data_path, tmp_path)[:3]:
        _begin(run, run.path)
        (run.path / run_directory.DIVERGED).write_text("Expected finite numbers, found NaN.")
    row = [run for run in _trial_plan(data_path, tmp_path) if run.row.label == "FM"]
    assert [run.is_settled for run in row] == [True, True, False, False]


def test_rows_with_the_same_settings_share_their_runs(data_path, tmp_path):
    again = dataclasses.replace(TABLE.rows[0], label="FM again")
    _, planned = _plan(data_path, tmp_path, dataclasses.replace(TABLE, rows=[*TABLE.rows, again]))
    assert planned[0].path == planned[-3].path
    table = dataclasses.replace(TABLES["deminet/fig3a"], learning_rates=())
    _, planned = _plan(data_path, tmp_path, table)
    by_label = {run.row.label: run.path for run in planned if run.seed == 1}
    assert by_label["K = 4"] == by_label["t = 0.7"]
    assert len(set(by_label.values())) == 6


def _begin(run, path):
    """What training leaves at its start."""
    run_directory.begin(path, run.config, run.data.data)


@pytest.mark.parametrize("changed", ["nothing", "setting", "data", "old"])
def test_runs_are_known_by_settings_and_data(data_path, tmp_path, changed):
    _, planned = _plan(data_path, tmp_path)
    by_hand = tmp_path / "runs" / "by-hand"
    _begin(planned[0], by_hand)
    config = json.loads((by_hand / "config.json").read_text())
    if changed == "setting":
        config["train"]["l2"] = 0.1
    elif changed == "old":
        config["train"]["a_setting_of_old"] = 1
    (by_hand / "config.json").write_text(json.dumps(config))
    if changed == "data":
        (by_hand / "data.sha256").write_text("0" * 64)
    _, planned = _plan(data_path, tmp_path)
    assert (planned[0].path == by_hand) == (changed == "nothing")
    assert planned[1].path != by_hand


def test_data_may_move(data_path, tmp_path):
    moved = tmp_path / "elsewhere" / "time_split"
    shutil.copytree(data_path, moved)
    _, planned = _plan(data_path, tmp_path)
    _begin(planned[0], planned[0].path)
    _, again = _plan(moved, tmp_path)
    assert again[0].path == planned[0].path


def test_refuses_data_of_another_protocol(data_path, tmp_path):
    with pytest.raises(UserError, match="--protocol=leave_last_out for --table=miss/3, found time"):
        planned_runs.open_data([str(data_path)], TABLES["miss/3"])


def test_refuses_two_data_sets_of_one_name(data_path):
    with pytest.raises(UserError, match="different names, found time_split, time_split"):
        planned_runs.open_data([str(data_path), str(data_path)], TABLE)


@pytest.mark.parametrize(
    ("name", "table_id", "published"),
    [
        ("taobao", "deminet/2", "Taobao"),
        ("amazon_books_9", "deminet/2", "Amazon(Book)"),
        ("beauty", "deminet/2", None),
    ],
)
def test_knows_the_logs_of_the_papers_by_name(data_path, tmp_path, name, table_id, published):
    shutil.copytree(data_path, tmp_path / name)
    (found,) = planned_runs.open_data([str(tmp_path / name)], TABLES[table_id])
    assert (found.name, found.published) == (name, published)


# Statistics and pages.


def _scores(gain, seed):
    """Scores of 50 users with two requests of three candidates each."""
    rng = np.random.default_rng(seed)
    user = np.repeat([f"u{i}" for i in range(50)], 6)
    request = np.repeat([f"r{i}" for i in range(100)], 3)
    label = np.tile([1.0, 0.0, 0.0], 100)
    logit = gain * label + rng.normal(size=300)
    item = 1 + (np.arange(300) % 4 > 0)  # A fourth is out of vocabulary.
    return Scores(user, request, label, logit, np.ones(300), {"candidate/item_id": item})


GAINS = {
    "test": {"FM": 0.9, "LR": 1.4, "DIN": 3.0},
    "validation": {"FM": 1.5, "LR": 4.0, "DIN": 2.5},
}


def _fake(run):
    """A finished run."""
    _begin(run, run.path)
    for split, gains in GAINS.items():
        scores = _scores(gains[run.row.label], run.seed)
        scoring.record(run.path, split, scores, run.data.data)
    history = pd.DataFrame({"step": [40, 80], "seconds": [30.0, 60.0], "curve": [0.5, 0.7]})
    history.to_csv(run.path / run_directory.HISTORY, index=False)


@pytest.fixture(scope="module")
def made(data_path, tmp_path_factory):
    """The table with made-up runs: data sets, plan, rows, comparisons, directory."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(comparisons, "DRAWS", 50)
        yield _made(data_path, tmp_path_factory)


def _made(data_path, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("made")
    named, planned = _plan(data_path, workdir)
    for run in planned:
        _fake(run)
    measured = comparisons.collect(planned, "Amazon(Book)")
    return named, planned, measured, comparisons.compare(TABLE, measured), workdir


def _auc_known(made, label):
    """AUC of the candidates known from training, mean over seeds, counted pair by pair."""
    found = []
    for run in made[1]:
        if run.row.label == label:
            scores = scoring.read_scores(run.path, "test")
            known = scores.ids["candidate/item_id"] > 1
            positive, negative = (scores.logit[known & (scores.label == y)] for y in (1, 0))
            gap = positive[:, None] - negative
            found.append(np.mean((gap > 0) + 0.5 * (gap == 0)))
    return np.mean(found)


def test_rows_are_means_over_seeds(made):
    _, planned, measured, _, _ = made
    din = measured[2]
    values = [run_directory.read_metrics(run.path)["test"]["auc"] for run in planned[-3:]]
    assert din.mean("auc") == pytest.approx(np.mean(values))
    assert din.std("auc") == pytest.approx(np.std(values, ddof=1))
    assert din.mean("auc_known") == pytest.approx(_auc_known(made, "DIN"))
    assert din.mean("auc_known") != pytest.approx(din.mean("auc"), abs=1e-4)
    assert din.seeds == [1, 2, 3]
    assert din.seconds == [60.0] * 3
    assert din.published == {"auc": 0.77, "log_loss": 0.3}


def test_the_proposal_is_compared_with_the_best_of_the_others(made):
    _, _, measured, found, _ = made
    auc, known, loss = found
    assert known.metric == "auc_known"
    assert known.difference == pytest.approx(_auc_known(made, "DIN") - _auc_known(made, "LR"))
    assert known.interval[0] < known.difference < known.interval[1]
    assert math.isnan(known.published)
    assert (auc.row, auc.baseline, auc.metric, loss.metric) == ("DIN", "LR", "auc", "log_loss")
    din, lr = measured[2], measured[1]
    assert auc.difference == pytest.approx(din.mean("auc") - lr.mean("auc"))
    assert auc.improvement == pytest.approx(din.mean("auc") / lr.mean("auc") - 1)
    assert loss.improvement == pytest.approx(1 - din.mean("log_loss") / lr.mean("log_loss"))
    assert auc.published == pytest.approx(0.77 / 0.7 - 1)  # Their best baseline, not ours.
    assert loss.published == pytest.approx(1 - 0.3 / 0.4)
    assert auc.rela_impr == pytest.approx((din.mean("auc") - 0.5) / (lr.mean("auc") - 0.5) - 1)
    assert math.isnan(loss.rela_impr)
    welch = stats.ttest_ind(din.values["auc"], lr.values["auc"], equal_var=False).pvalue
    assert auc.welch == pytest.approx(welch)
    paired = stats.ttest_rel(din.values["auc"], lr.values["auc"]).pvalue
    assert auc.paired == pytest.approx(paired)
    assert auc.interval[0] < auc.difference < auc.interval[1]
    assert auc.interval[0] > 0


@pytest.mark.parametrize(("level", "star"), [(1.0, True), (0.0, False)])
def test_star_follows_the_level_of_the_paper(made, level, star):
    table = dataclasses.replace(TABLE, level=level)
    assert [each.star for each in comparisons.compare(table, made[2])] == [star] * 3


def test_a_worse_row_has_no_star(made):
    rows = [dataclasses.replace(each.row, proposed=each.row.label == "FM") for each in made[2]]
    measured = [each._replace(row=row) for each, row in zip(made[2], rows, strict=True)]
    found = comparisons.compare(dataclasses.replace(TABLE, level=1.0), measured)
    assert {(each.row, each.baseline, each.star) for each in found} == {("FM", "DIN", False)}


def test_a_named_baseline_wins_over_the_best(made):
    rows = [dataclasses.replace(made[2][2].row, baseline="FM")]
    measured = [*made[2][:2], made[2][2]._replace(row=rows[0])]
    found = comparisons.compare(TABLE, measured)
    assert {each.baseline for each in found} == {"FM"}
    assert found[0].published == pytest.approx(0.77 / 0.7 - 1)


def test_one_seed_has_no_test_over_seeds(made):
    measured = comparisons.collect([run for run in made[1] if run.seed == 1], "Amazon(Book)")
    auc = comparisons.compare(TABLE, measured)[0]
    assert math.isnan(auc.welch)
    assert math.isnan(auc.paired)
    assert not auc.star
    assert math.isnan(measured[0].std("auc"))


def test_names_pairs_in_another_order(made):
    tau, found = comparisons.reversals(made[2])
    assert tau == pytest.approx(1 / 3)  # Two of three pairs agree.
    (pair,) = found
    assert (pair.better, pair.worse) == ("FM", "LR")
    assert pair.published == (0.7, 0.6)
    assert pair.ours[0] < pair.ours[1]


def test_page_markdown_and_csv(made, tmp_path):
    named, planned, measured, found, _ = made
    page = rendering.write(TABLE, named, planned, tmp_path, "the command")
    assert page == tmp_path / "deminet-2.html"
    html, text = page.read_text(), page.with_suffix(".md").read_text()
    assert not re.search(r'(src|href)="(?!#|data:)', html)  # Self-contained.
    star = "*" if found[0].star else ""
    cell = f"{measured[2].mean('auc'):.4f} ± {measured[2].std('auc'):.4f}{star}"
    for written in (html.replace("\N{NO-BREAK SPACE}", " "), text):
        assert cell in written
        assert "the command" in written
        assert "The proposal is best." in written
        assert "another log" in written
    assert text.count("| DIN |") == 4  # Metrics; improvements of three metrics.
    header = next(line for line in text.splitlines() if line.startswith("| model | AUC |"))
    columns = [column.strip() for column in header.split("|")[1:-1]]
    row = next(line for line in text.splitlines() if line.startswith("| DIN |"))
    cells = dict(zip(columns, (cell.strip() for cell in row.split("|")[1:-1]), strict=False))
    for column, metric in (("AUC, known items", "auc_known"), ("GAUC", "gauc")):
        assert cells[column].rstrip("*") == measured[2].text(metric)
    assert columns[-3:] == ["learning rate", "seeds", "minutes"]
    assert "| 0.001 | 3 |" in row
    assert "Batches: 64 samples (32 requests)." in text
    assert "best validation AUC" in text
    assert "front of the network that scores: no row." in text
    assert "9 of 9 finished" in text
    table = pd.read_csv(tmp_path / "deminet-2.csv").set_index(["model", "metric"])
    popularity = yardsticks.measure(named[0].data, "test")[0]
    assert table.loc[("popularity", "auc")]["mean"] == pytest.approx(popularity.auc)
    known = f"{popularity.auc_known:.4f} | {popularity.gauc:.4f}"
    line = f"| popularity (no model) | {popularity.auc:.4f} | – | – | {known} | – |"
    assert line in text
    row = table.loc[("DIN", "auc")]
    assert row["mean"] == pytest.approx(measured[2].mean("auc"))
    assert row["baseline"] == "LR"
    assert row["welch_p"] == pytest.approx(found[0].welch)
    by_run = pd.read_csv(tmp_path / "deminet-2-runs.csv")
    assert len(by_run) == 9
    assert by_run["auc"].notna().all()


def test_validation_chooses(made, tmp_path):
    """Although another row is better on the test split."""
    named, planned, measured, _, _ = made
    table = dataclasses.replace(TABLE, choice=True)
    text = rendering.write(table, named, planned, tmp_path, "").with_suffix(".md").read_text()
    choice = text.split("### The choice")[1].split("###")[0]
    assert re.findall(r"^\| (\w+) \| 0", choice, re.MULTILINE) == ["LR", "DIN", "FM"]
    assert f"| {measured[1].mean('auc'):.4f} ±" in choice
    assert "The validation split chooses LR." in choice


def test_page_shows_what_is_finished(made, tmp_path):
    named, planned = _plan(made[0][0].data.path, tmp_path)
    for run in planned[:1]:
        _fake(run)
    page = rendering.write(TABLE, named, planned, tmp_path, "")
    text = page.with_suffix(".md").read_text()
    assert "1 of 9 finished" in text
    assert re.search(r"\| LR \| – \|.*\| 0.001 \| 0 \| – \|", text)


def test_what_is_undefined_is_n_a(made, tmp_path, monkeypatch):
    """A test split without a click, and one user: no AUC, no interval, no p-value of it."""
    monkeypatch.setattr(comparisons, "DRAWS", 5)
    named, planned = _plan(made[0][0].data.path, tmp_path)
    for run in planned:
        _fake(run)
        scores = _scores(1.0, run.seed)
        one_user = np.full(300, "u1", object)
        lost = scores._replace(label=np.zeros(300), user=one_user)
        scoring.record(run.path, "test", lost, run.data.data)
    page = rendering.write(TABLE, named, planned, tmp_path, "")
    for text in (page.read_text(), page.with_suffix(".md").read_text()):
        assert "n/a" in text
        assert not re.search(r"\bnan\b", text)
    assert "| DIN | n/a |" in page.with_suffix(".md").read_text()
    table = pd.read_csv(page.with_suffix(".csv"), keep_default_na=False)
    row = table.set_index(["model", "metric"]).loc[("FM", "auc")]
    assert row["mean"] == "n/a"
    by_run = pd.read_csv(tmp_path / "deminet-2-runs.csv", keep_default_na=False)
    assert set(by_run["auc"]) == {"n/a"}


@pytest.mark.parametrize("kind", ["sweep", "curve"])
def test_figures_over_settings_and_steps(made, tmp_path, kind):
    named, planned, _, _, _ = made
    changes = {"curve": "curve"} if kind == "curve" else {}
    rows = [dataclasses.replace(row, series="K", x=i) for i, row in enumerate(TABLE.rows)]
    table = dataclasses.replace(TABLE, rows=rows, **changes)
    moved = [run._replace(row=rows[TABLE.rows.index(run.row)]) for run in planned]
    html = rendering.write(table, named, moved, tmp_path, "").read_text()
    title = {"sweep": "K: Test metrics by K", "curve": "Curve: By step"}[kind]
    assert f'aria-label="{title}' in html
    assert html.count("<svg") == 1


def test_counts_of_data_sets(data_path, tmp_path):
    named = planned_runs.open_data([str(data_path)], TABLES["deminet/1"])
    rendering.write(TABLES["deminet/1"], named, [], tmp_path, "")
    table = pd.read_csv(tmp_path / "deminet-1.csv").set_index("data")
    log = pd.read_csv(pathlib.Path(data_path).parent / "log.csv")
    ours = table.loc["time_split"]
    assert ours["users"] == log["user_id"].nunique()
    assert ours["items"] == log["item_id"].nunique()
    assert ours["categories"] == log["category_id"].nunique()
    assert ours["samples"] == len(log) - log["user_id"].nunique()  # All but the first events.
    assert table.loc["paper, Taobao", "items"] == 4162024
