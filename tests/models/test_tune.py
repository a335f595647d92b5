"""The search: its space, its trials, and that it goes on where it stopped."""

import contextlib
import json
import math
import os
import signal

import optuna
import pandas as pd
import pytest

from models import search, train, tune
from models.config import run_config as config
from models.core import run_directory
from models.training import trainer
from models.training.interruption import Interrupted
from models.training.progress import Progress
from models.training.updates import Updates
from preprocessing.errors import UserError

SPACE = {
    "train.learning_rate": {"low": 1e-9, "high": 0.1, "log": True},
    "train.batch_size": {"low": 50, "high": 100, "step": 50},
    "train.schedule": {"choices": ["constant", "plateau"]},
}


@pytest.fixture(autouse=True)
def evaluate_often(monkeypatch):
    monkeypatch.setattr(trainer, "EVALUATION_INTERVAL", 2)


@pytest.fixture
def base(data):
    content = {"data": str(data.path), "model": {"name": "lr"}, "train": {"max_steps": 4}}
    return config.resolve(content).to_json()


def _trials(path):
    return pd.read_csv(path / "trials.csv")


@pytest.mark.slow
def test_a_search_finds_prunes_and_goes_on(base, tmp_path):
    """Rates of next to nothing learn nothing: they are pruned, and not the best."""
    path = tmp_path / "search"
    search.search(base, SPACE, 5, path, progress=False)
    first = _trials(path)
    assert first["trial"].tolist() == list(range(5))
    best = search.search(base, SPACE, 7, path, progress=False)
    table = _trials(path)
    pd.testing.assert_frame_equal(table[:5], first)
    assert len(table) == 7
    assert set(table["state"]) <= {"complete", "pruned"}
    assert table["train.batch_size"].isin([50, 100]).all()
    assert table["train.learning_rate"].nunique() == 7  # No draw comes twice.
    top = table[table["state"] == "complete"].sort_values("validation/auc").iloc[-1]
    assert best.train.learning_rate == pytest.approx(top["train.learning_rate"])
    assert best.train.schedule == json.loads(top["train.schedule"])
    # The recipe trains to the same result.
    recipe = config.resolve(config.load(path / "best.json"))
    assert recipe == best
    metrics = train.train(recipe, tmp_path / "run", progress=False)
    assert metrics["validation"]["auc"] == pytest.approx(top["validation/auc"], abs=1e-6)
    assert not list(path.glob("trials/*/checkpoints"))
    assert not list(path.glob("trials/*/metrics.json"))  # Nobody looked at the test split.


class _Told:
    """In place of a trainer: evaluates three times, to a given AUC (NaN: of no use at all)."""

    def __init__(self, auc, on_evaluation):
        self.progress = Progress(best_score=auc)
        self.journal = contextlib.nullcontext()
        self._on_evaluation = on_evaluation

    def fit(self):
        for _ in range(3):
            self.progress.history.append({})
            auc = self.progress.best_score
            self._on_evaluation({"auc": auc, "log_loss": auc if math.isnan(auc) else 0.7})


def test_a_trial_below_the_median_ends_early(base, tmp_path, monkeypatch):
    aucs = iter([0.7] * 5 + [0.6, 0.8])
    monkeypatch.setattr(
        search.training,
        "begin",
        lambda *args, on_evaluation, **kwargs: _Told(next(aucs), on_evaluation),
    )
    search.search(base, SPACE, 7, tmp_path / "search", progress=False)
    table = _trials(tmp_path / "search")
    assert table["state"].tolist() == ["complete"] * 5 + ["pruned", "complete"]
    assert table["validation/auc"].tolist() == [0.7] * 5 + [0.6, 0.8]
    best = config.resolve(config.load(tmp_path / "search" / "best.json"))
    assert best.train.learning_rate == pytest.approx(table["train.learning_rate"][6])
    assert best.train.schedule == json.loads(table["train.schedule"][6])


@pytest.mark.slow
def test_a_stopped_trial_is_resumed(base, tmp_path, monkeypatch):
    """SIGTERM in the second trial: it keeps its settings and goes on from its third step."""
    update, steps = Updates.__call__, []

    def signalled(it, done, count):
        steps.append(done)
        if len(steps) == 4 + 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return update(it, done, count)

    monkeypatch.setattr(Updates, "__call__", signalled)
    path = tmp_path / "search"
    with pytest.raises(Interrupted):
        search.search(base, SPACE, 2, path, progress=False)
    stopped = run_directory.open_run(path / "trials" / "0001").config
    search.search(base, SPACE, 2, path, progress=False)
    assert steps == [0, 1, 2, 3, 0, 1, 2, 3]
    assert run_directory.open_run(path / "trials" / "0001").config == stopped
    assert _trials(path)["trial"].tolist() == [0, 1]


@pytest.mark.slow
def test_trials_that_fail_are_told_and_not_repeated(base, tmp_path):
    space = {"train.learning_rate": {"choices": [3e38]}, "train.clip_norm": {"choices": [0.0]}}
    with pytest.raises(UserError, match="Expected a trial .* found none among 2"):
        search.search(base, space, 2, tmp_path / "search", progress=False)
    table = _trials(tmp_path / "search")
    assert table["state"].tolist() == ["fail", "fail"]
    assert table["error"].str.contains("found NaN or infinity at step").all()


def _begins(monkeypatch, *outcomes):
    """Makes trials end as told, the last of them again and again; returns the trials begun."""
    begun = []

    def begin(config, path, resume, *, on_evaluation, **_):
        begun.append(path.name)
        outcome = outcomes[min(len(begun), len(outcomes)) - 1]
        if isinstance(outcome, BaseException):
            raise outcome
        return _Told(outcome, on_evaluation)

    monkeypatch.setattr(search.training, "begin", begin)
    return begun


def test_a_trial_that_raises_is_recorded_and_the_search_goes_on(base, tmp_path, monkeypatch):
    begun = _begins(monkeypatch, KeyError("age"), RuntimeError("out of\nmemory"), 0.7, 0.6)
    best = search.search(base, SPACE, 4, tmp_path / "search", progress=False)
    assert begun == ["0000", "0001", "0002", "0003"]
    table = _trials(tmp_path / "search")
    assert table["state"].tolist() == ["fail", "fail", "complete", "complete"]
    assert table["error"].tolist()[:2] == ["KeyError: 'age'.", "RuntimeError: out of memory."]
    assert best.train.learning_rate == pytest.approx(table["train.learning_rate"][2])


def test_a_search_in_which_all_trials_raise_ends_and_names_the_cause(base, tmp_path, monkeypatch):
    begun = _begins(monkeypatch, KeyError("age"))
    with pytest.raises(UserError, match=r"none among 2; the last one failed with: KeyError: 'age'"):
        search.search(base, SPACE, 2, tmp_path / "search", progress=False)
    with pytest.raises(UserError, match="none among 2"):
        search.search(base, SPACE, 2, tmp_path / "search", progress=False)
    assert begun == ["0000", "0001"]  # The second start repeated none of them.
    _begins(monkeypatch, 0.7)
    search.search(base, SPACE, 3, tmp_path / "search", progress=False)
    assert _trials(tmp_path / "search")["state"].tolist() == ["fail", "fail", "complete"]


def test_a_trial_without_a_finite_metric_fails(base, tmp_path, monkeypatch):
    _begins(monkeypatch, math.nan, 0.7)
    search.search(base, SPACE, 2, tmp_path / "search", progress=False)
    table = _trials(tmp_path / "search")
    assert table["state"].tolist() == ["fail", "complete"]
    assert table["error"][0] == "Expected a validation metric that is finite, found nan."


def _killed_search(base, path, begin):
    """Searches in a process that kills itself where a trial begins."""
    child = os.fork()
    if child == 0:
        search.training.begin = begin
        search.search(base, SPACE, 2, path, progress=False)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def test_a_trial_in_which_the_process_is_killed_again_is_given_up(base, tmp_path, monkeypatch):
    def killed(*args, **kwargs):
        os.kill(os.getpid(), signal.SIGKILL)

    path = tmp_path / "search"
    _killed_search(base, path, killed)
    _killed_search(base, path, killed)
    begun = _begins(monkeypatch, 0.7)
    search.search(base, SPACE, 2, path, progress=False)
    assert begun == ["0001"]
    table = _trials(path)
    assert table["state"].tolist() == ["fail", "complete"]
    assert "found 2 processes that died after update 0 without a word" in table["error"][0]


def test_a_killed_trial_that_gets_further_each_time_is_resumed(base, tmp_path, monkeypatch):
    """A checkpoint in between shows that it is not the trial that ends the process."""
    path = tmp_path / "search"

    def further(_, directory, *args, **kwargs):
        checkpoints = directory / run_directory.CHECKPOINTS
        checkpoints.mkdir(parents=True, exist_ok=True)
        (checkpoints / f"ckpt-{len(list(checkpoints.iterdir())) + 1}.index").touch()
        os.kill(os.getpid(), signal.SIGKILL)

    for _ in range(4):
        _killed_search(base, path, further)
    begun = _begins(monkeypatch, 0.7)
    search.search(base, SPACE, 1, path, progress=False)
    assert begun == ["0000"]
    assert _trials(path)["state"].tolist() == ["complete"]


def test_stopping_a_trial_is_not_held_against_it(base, tmp_path, monkeypatch):
    for end in (Interrupted("stopped"), KeyboardInterrupt(), Interrupted("stopped")):
        _begins(monkeypatch, end)
        with pytest.raises(type(end)):
            search.search(base, SPACE, 1, tmp_path / "search", progress=False)
    begun = _begins(monkeypatch, 0.7)
    search.search(base, SPACE, 1, tmp_path / "search", progress=False)
    assert begun == ["0000"]


def test_a_study_that_cannot_be_read_is_one_line(base, tmp_path):
    (tmp_path / "study.db").write_text("this is no database " * 100)
    with pytest.raises(UserError, match=r"Expected to read and write .*study.db, found .*database"):
        search.search(base, SPACE, 1, tmp_path, progress=False)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="--workdir: expected to write .*File exists"):
        search.search(base, SPACE, 1, tmp_path / "file", progress=False)


def test_another_search_needs_another_directory(base, tmp_path):
    search._open_study(tmp_path, base, SPACE, 1)
    search._open_study(tmp_path, base, SPACE, 1)
    with pytest.raises(UserError, match="was begun with; space.train.* was"):
        search._open_study(tmp_path, base, {"train.l2": {"choices": [0.0]}}, 1)
    with pytest.raises(UserError, match="was begun with; train.seed was 1, is 2"):
        search._open_study(tmp_path, {**base, "train": {"seed": 2}}, SPACE, 1)


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ([], "a JSON object, found list"),
        ({}, "expected settings to search in .*, found none"),
        ({"train.l2": 3}, "expected an object, found int"),
        ({"train.l2": {"low": 1}}, "expected the key 'high'"),
        ({"train.l2": {"low": 2, "high": 1}}, "low <= high, found 2 and 1"),
        ({"train.l2": {"low": "a", "high": 1}}, "expected numbers"),
        ({"train.l2": {"low": 0, "high": 1, "log": True}}, "a range above 0"),
        ({"train.l2": {"choices": []}}, "list of choices"),
        ({"train.l2": {"choices": [1], "low": 0}}, "unknown key 'low'"),
        ({"train.l2": {"low": 0, "high": float("inf")}}, "low <= high, found 0 and inf"),
        ({"train.l2": {"low": 1, "high": 9, "step": 0.5}}, "step to be an integer above 0"),
        ({"train.l2": {"low": 0.0, "high": 9, "step": -1}}, "step to be a number above 0"),
        ({"train.l2": {"low": 1, "high": 9, "log": "yes"}}, "log to be true or false"),
    ],
)
def test_spaces_that_make_no_sense_are_refused(tmp_path, space, message):
    (tmp_path / "space.json").write_text(json.dumps(space))
    with pytest.raises(UserError, match=message):
        tune.load_space(tmp_path / "space.json")


def test_settings_that_do_not_exist_are_refused_at_once(base, tmp_path):
    with pytest.raises(UserError, match="did you mean 'learning_rate'"):
        search.search(base, {"train.lerning_rate": {"low": 1, "high": 2}}, 1, tmp_path / "search")
    assert not (tmp_path / "search" / "study.db").exists()


def test_a_missing_data_set_is_no_failure_of_trials(base, tmp_path):
    with pytest.raises(UserError, match="Expected a data set, found no directory"):
        search.search(base | {"data": str(tmp_path / "no")}, SPACE, 9, tmp_path / "search")
    assert not (tmp_path / "search" / "study.db").exists()


def test_a_missing_space_is_refused(tmp_path):
    with pytest.raises(UserError, match="Expected a search space in .*, found no such file"):
        tune.load_space(tmp_path / "space.json")


def test_values_are_of_the_kind_of_their_range():
    trial = optuna.trial.FixedTrial({"a": 3, "b": 0.5, "c": "[200, 80]"})
    assert search._suggest(trial, "a", {"low": 1, "high": 9}) == 3
    assert search._suggest(trial, "b", {"low": 0.0, "high": 1}) == 0.5
    space = {"c": {"choices": [[200, 80], [64]]}, "b": {"low": 0.0, "high": 1}}
    assert search._suggest(trial, "c", space["c"]) == "[200, 80]"
    assert search._overrides(space, {"c": "[200, 80]", "b": 0.5}) == ["c=[200, 80]", "b=0.5"]
