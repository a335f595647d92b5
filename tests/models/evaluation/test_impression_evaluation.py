"""Evaluation of impression logs: several requests per user, whose ids tell nothing of the user.

The right values come from the log itself, scikit-learn and SciPy, user by user. Names of features
are those of columns of the scores, of the batches and of the tables, which nothing may mix up.
"""

import json

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from scipy import stats
from sklearn import metrics as sklearn_metrics

from models import evaluate, train
from models.config import run_config
from models.core import run_directory
from models.evaluation import confidence_intervals, dumped_scores, scoring, slices
from models.evaluation.metrics import Scores, ranking_metrics
from models.reporting import run_report
from models.training import measuring, trainer
from pipeline.arguments import BuildArguments
from pipeline.build_examples import build_examples

USER, ITEM, GROUP, CONTEXT = "user", "logit", "history_length", "split"
"""Names of features."""
DRAWS = 100
RANKED = ("mrr", "hr@1", "hr@5", "ndcg@5")


def _log(seed=0, users=40, shown=7):
    """A frame of impressions; some users are in the last part of it only.

    A request shows up to `shown` items. Users differ in how much they click, so that AUC and GAUC
    differ, and so do bootstraps of users and of candidates.
    """
    rng = np.random.default_rng(seed)
    rows = []
    for user in range(users):
        rate = rng.uniform(0.1, 0.6)
        for _ in range(rng.integers(4, 9)):
            time = int(rng.integers(1 if user % 5 else 900, 1001))
            session = f"s{rng.integers(10**9)}"
            for item in rng.permutation(40)[: rng.integers(1, shown + 1)]:
                click = int(rng.random() < rate * (1.5 if item < 20 else 0.5))
                rows.append((f"kä:{user}", item, item % 3, time % 4, session, click, time))
    return pd.DataFrame(rows, columns=["u", ITEM, GROUP, CONTEXT, "session", "click", "at"])


def _schema(path):
    def feature(name, role, dtype="int64", **more):
        return {"name": name, "role": role, "dtype": dtype, **more}

    vocabulary = {"encoder": {"kind": "vocabulary"}}
    features = [
        feature(USER, "user", "string", column="u", **vocabulary),
        feature(CONTEXT, "context", default=0, **vocabulary),
        feature(ITEM, "item", **vocabulary),
        feature(GROUP, "item", **vocabulary),
        feature("session", "request", "string"),
        feature("click", "label"),
        feature("at", "timestamp"),
    ]
    content = {"features": features, "history": {"max_length": 5, "features": [ITEM, GROUP]}}
    path.write_text(json.dumps(content))
    return str(path)


def _build(directory, log):
    log.to_csv(directory / "log.csv", index=False)
    return build_examples(
        BuildArguments(
            input=str(directory / "log.csv"),
            schema=_schema(directory / "schema.json"),
            output=str(directory / "data"),
            protocol="time_split",
            split_fraction=0.6,
            min_history=0,
            num_shards=1,
        )
    )


def _config(data, steps=2):
    content = {
        "data": str(data.path),
        "model": {"name": "lr"},
        "train": {"batch_size": 32, "max_steps": steps, "learning_rate": 0.05},
    }
    return run_config.resolve(content)


@pytest.fixture(scope="module")
def log():
    return _log()


@pytest.fixture(scope="module")
def run(log, tmp_path_factory):
    """A run, and one with other weights beside it."""
    directory = tmp_path_factory.mktemp("impressions")
    data = _build(directory, log)
    train.train(_config(data), directory / "run", progress=False)
    other = run_config.resolve(_config(data).to_json(), ["train.seed=2", "train.max_steps=1"])
    train.train(other, directory / "other", progress=False)
    return directory / "run"


@pytest.fixture(scope="module")
def scores(run):
    return scoring.read_scores(run, "test")


@pytest.fixture(scope="module")
def candidates(log, scores):
    """The candidates of the test split, with the user that the log has for their session."""
    user = dict(zip(log["session"], log["u"], strict=True))
    return pd.DataFrame(
        {
            "user": [user[name] for name in scores.request_id],
            "request": scores.request_id,
            "label": scores.label,
            "logit": scores.logit.astype(np.float64),
        }
    )


def test_requests_keep_the_user_of_the_log(log, scores, candidates, run):
    assert scores.user.tolist() == candidates["user"].tolist()
    data = run_directory.open_run(run).data
    known = set((data.vocab_dir / f"{USER}.txt").read_text().splitlines())
    strangers = set(scores.user) - known
    assert len(strangers) > 1  # They share an id, and are different users.
    assert len(set(scores.ids[USER][np.isin(scores.user, list(strangers))])) == 1
    times = log.drop_duplicates("session").set_index("session")["at"]
    chosen = times > data.manifest["cutoffs"]["validation_end"]
    assert set(scores.request_id) == set(times.index[chosen])


def _is_mixed(group):
    return group["label"].nunique() == 2


def _of_users(candidates):
    """AUC and size of the users who have both classes."""
    rows = {
        user: (sklearn_metrics.roc_auc_score(group["label"], group["logit"]), len(group))
        for user, group in candidates.groupby("user")
        if _is_mixed(group)
    }
    return pd.DataFrame(rows, index=["auc", "size"]).T


def _of_requests(candidates):
    """User and ranking metrics of the requests that have both classes."""
    rows = []
    for _, group in candidates.groupby("request"):
        if not _is_mixed(group):
            continue
        label, logit = group["label"].to_numpy(), group["logit"].to_numpy()
        rank = 1 + min((logit[label == 0] >= value).sum() for value in logit[label == 1])
        rows.append(
            {
                "user": group["user"].iloc[0],
                "mrr": 1 / rank,
                "hr@1": rank <= 1,
                "hr@5": rank <= 5,
                # Behind negatives of the same score, as everywhere.
                "ndcg@5": sklearn_metrics.ndcg_score([label], [logit - 1e-9 * label], k=5),
            }
        )
    return pd.DataFrame(rows)


def test_metrics_are_those_of_scikit_learn_user_by_user(run, candidates):
    found = run_directory.read_metrics(run)["test"]
    label, logit = candidates["label"], candidates["logit"]
    assert found["auc"] == pytest.approx(sklearn_metrics.roc_auc_score(label, logit))
    by_user = _of_users(candidates)
    assert len(by_user) > 10
    gauc = np.average(by_user["auc"], weights=by_user["size"])
    assert found["gauc"] == pytest.approx(gauc)
    assert abs(found["gauc"] - found["auc"]) > 1e-3
    by_request = _of_requests(candidates)
    assert candidates["user"].nunique() < len(by_request) < candidates["request"].nunique()
    for name in RANKED:
        assert found[name] == pytest.approx(by_request[name].mean()), name


def _statistics(candidates):
    """Metrics as functions of a sample of numbers of users, in the order of their appearance."""
    users = list(dict.fromkeys(candidates["user"]))
    number = candidates["user"].map(users.index).to_numpy()
    by_user = _of_users(candidates).reindex(users)
    by_request = _of_requests(candidates)

    def auc(sample):
        weight = np.bincount(sample, minlength=len(users))[number]
        label, logit = candidates["label"], candidates["logit"]
        return sklearn_metrics.roc_auc_score(label, logit, sample_weight=weight)

    def gauc(sample):
        drawn = by_user.iloc[sample].dropna()
        return np.average(drawn["auc"], weights=drawn["size"])

    def mrr(sample):
        weight = np.bincount(sample, minlength=len(users))
        return np.average(
            by_request["mrr"], weights=weight[by_request["user"].map(users.index).to_numpy()]
        )

    return len(users), {"auc": auc, "gauc": gauc, "mrr": mrr}


def _bootstrap(users, statistic):
    return stats.bootstrap(
        (np.arange(users),),
        statistic,
        n_resamples=DRAWS,
        vectorized=False,
        method="percentile",
        random_state=np.random.default_rng(0),
    )


def test_intervals_are_those_of_scipy_over_users(scores, candidates):
    found = confidence_intervals.estimate(scores, draws=DRAWS)
    users, statistics = _statistics(candidates)
    for name, statistic in statistics.items():
        expected = _bootstrap(users, statistic).confidence_interval
        assert found[name].low == pytest.approx(expected.low), name
        assert found[name].high == pytest.approx(expected.high), name
        assert found[name].high - found[name].low > 0.01


def test_p_values_are_those_of_scipy_over_users(scores, candidates, run):
    second = scoring.read_scores(run.parent / "other", "test")
    assert second.request_id.tolist() == scores.request_id.tolist()
    found = confidence_intervals.compare(scores, second, draws=DRAWS)
    users, first = _statistics(candidates)
    _, other = _statistics(candidates.assign(logit=second.logit.astype(np.float64)))
    for name, statistic in first.items():
        drawn = _bootstrap(
            users, lambda sample, one=statistic, two=other[name]: two(sample) - one(sample)
        ).bootstrap_distribution
        rarer = min((drawn <= 0).sum(), (drawn >= 0).sum())
        assert found[name].p_value == pytest.approx(min(1, 2 * (1 + rarer) / (1 + DRAWS))), name
        assert found[name].p_value > 2 / (1 + DRAWS)  # These two models hardly differ.


def test_slices_and_reports_of_features_with_the_names_of_columns(run, tmp_path):
    found = scoring.analyse(run, "test", progress=False)
    assert set(found.slices["dimension"]) == {
        *("history length", "item popularity", slices.USERS, slices.ITEMS, GROUP, CONTEXT)
    }
    for _, part in found.slices.groupby("dimension"):
        assert part["candidates"].sum() == run_directory.read_metrics(run)["test"]["candidates"]
    text = run_report.write_report(run, tmp_path / "report.html").with_suffix(".md").read_text()
    assert f"| GAUC | {run_directory.read_metrics(run)['validation']['gauc']:.4f} |" in text


@pytest.mark.parametrize(
    "name", ["user", "logit", "split", "history_length", "label", "request_id", "ids", "weight"]
)
def test_scores_and_ids_of_any_name_survive_the_disk(name, tmp_path):
    rng = np.random.default_rng(1)
    scores = Scores(
        user=np.array(["é", "b:1", "b"], object),
        request_id=np.array(["r1", "r2", "r3"], object),
        label=np.array([1.0, 0.0, 1.0], np.float32),
        logit=rng.normal(size=3).astype(np.float32),
        history_length=np.array([3, 0, 1]),
        ids={name: np.array([7, 8, 9]), f"candidate/{name}": np.array([4, 5, 6])},
        weight=np.array([0.5, 1.0, 2.0], np.float32),
    )
    dumped_scores.write(tmp_path, "test", scores, dumped_scores.origin(tmp_path))
    read = dumped_scores.read(tmp_path, "test")
    for field in set(Scores._fields) - {"ids"}:
        np.testing.assert_array_equal(getattr(read, field), getattr(scores, field), err_msg=field)
    assert {key: ids.tolist() for key, ids in read.ids.items()} == {
        name: [7, 8, 9],
        f"candidate/{name}": [4, 5, 6],
    }


def test_dumped_scores_have_the_values_of_known_ids(run):
    scoring.evaluate(run, "test", progress=False)
    data = run_directory.open_run(run).data
    table = pq.read_table(dumped_scores.path(run, "test"))
    key = f"candidate/{data.schema.item_key.name}"
    encoder = data.encoders[data.schema.item_key.name]
    ids = table[f"ids/{key}"].to_numpy()
    values = table[f"values/{key}"].to_pylist()
    assert len(values) > 1
    for identifier, value in zip(ids, values, strict=True):
        known = identifier > encoder.num_oov
        assert value == (encoder.decode(np.array([identifier]))[0] if known else None)


def test_scores_of_other_weights_are_computed_anew(run, tmp_path):
    """As after a resume: of every split that was scored, for all who read scores."""
    before = scoring.evaluate(run, "train", progress=False)
    assert dumped_scores.are_current(run, "train")
    model = run_directory.load_model(run)
    for weight in model.embedder.trainable_variables:
        weight.assign(-weight)
    run_directory.save_best(run_directory.best_checkpoint(model, run))
    assert run_directory.read_metrics(run) == {}
    assert not dumped_scores.are_current(run, "train")
    run_report.write_report(run, tmp_path / "report.html")
    after = run_directory.read_metrics(run)
    assert set(after) == {"train", "validation", "test"}
    assert after["train"]["auc"] != pytest.approx(before["auc"])
    compared = scoring.compare(run, run.parent / "other", "train")
    assert compared["auc"].first == pytest.approx(after["train"]["auc"])
    assert dumped_scores.are_current(run, "train")


def test_scores_that_no_weights_are_left_of_are_kept(run, tmp_path):
    scores = scoring.read_scores(run, "test")
    dumped_scores.write(tmp_path, "test", scores, dumped_scores.origin(tmp_path))
    assert dumped_scores.are_current(tmp_path, "test")
    (tmp_path / "data.sha256").write_text("of another data set")
    assert not dumped_scores.are_current(tmp_path, "test")


def _one_each(late_clicks):
    """A labelled row per impression; without late clicks, held-out parts hold none."""
    log = _log(seed=3, shown=1)
    return log if late_clicks else log.assign(click=log["click"].where(log["at"] < 600, 0))


def test_one_candidate_per_request_is_trained_and_measured(tmp_path, capsys):
    data = _build(tmp_path, _one_each(late_clicks=True))
    split = data.manifest["splits"]["validation"]
    assert split["candidates"] == split["requests"] > 0
    found = train.train(_config(data, steps=1), tmp_path / "run", progress=False)
    scores = scoring.read_scores(tmp_path / "run", "test")
    expected = sklearn_metrics.roc_auc_score(scores.label, scores.logit)
    assert found["test"]["auc"] == pytest.approx(expected)
    by_user = _of_users(
        pd.DataFrame({"user": scores.user, "label": scores.label, "logit": scores.logit})
    )
    gauc = np.average(by_user["auc"], weights=by_user["size"])
    assert found["test"]["gauc"] == pytest.approx(gauc)
    assert found["test"]["mrr"] is found["test"]["hr@1"] is None
    evaluate._print_differences(scoring.compare(tmp_path / "run", tmp_path / "run", "test"))
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("mrr")]
    assert line.split() == ["mrr", "n/a", "n/a", "n/a", "n/a", "p", "n/a"]


@pytest.fixture(scope="module")
def unclicked(tmp_path_factory):
    """A run whose validation and test have no click, and what it printed."""
    directory = tmp_path_factory.mktemp("unclicked")
    data = _build(directory, _one_each(late_clicks=False))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "EVALUATION_INTERVAL", 1)
        train.train(_config(data, steps=3), directory / "run", progress=False)
    return directory / "run"


def test_without_a_validation_click_log_loss_chooses_the_weights(unclicked):
    history = pd.read_csv(unclicked / "metrics.csv")
    assert history["validation/auc"].isna().all()
    found = json.loads((unclicked / "metrics.json").read_text())
    lowest = history["validation/log_loss"].min()
    assert found["validation"]["log_loss"] == pytest.approx(lowest, rel=1e-5)


def test_what_does_not_exist_is_null_and_everything_else_goes_on(unclicked, tmp_path, capsys):
    found = json.loads((unclicked / "metrics.json").read_text())["test"]
    undefined = {"auc", "auc_known", "gauc", "normalised_entropy", "bias_ratio", "mrr", "hr@1"}
    assert {name for name, value in found.items() if value is None} == undefined
    analysis = scoring.analyse(unclicked, "test", progress=False)
    evaluate._print_metrics(found, analysis)
    printed = capsys.readouterr().out
    lines = dict(line.split(maxsplit=1) for line in printed.splitlines()[: len(found)])
    assert {name for name, text in lines.items() if text == "n/a"} == undefined
    assert lines["log_loss"].count(".") == 3  # With its interval.
    assert "nan" not in printed.lower()
    path = run_report.write_report(unclicked, tmp_path / "report.html")
    for text in (path.read_text(), path.with_suffix(".md").read_text()):
        assert "Of the test candidates none was clicked" in text
        assert "nan" not in text.replace("nance", "").lower().split()
    assert "| AUC | n/a | n/a | n/a |" in path.with_suffix(".md").read_text()


@pytest.mark.slow
def test_a_validation_auc_of_0_does_not_lose_the_run(run, tmp_path, monkeypatch):
    def worst(scores):
        return ranking_metrics(scores) | {"auc": 0.0}

    monkeypatch.setattr(measuring, "ranking_metrics", worst)
    settings = _config(run_directory.open_run(run).data, steps=1)
    found = train.train(settings, tmp_path / "run", progress=False)
    assert found["test"]["auc"] > 0
