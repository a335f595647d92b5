"""Slices of a split, dumped scores, and the comparison of two runs."""

import types

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from models.evaluation import scoring, slices
from models.evaluation.metrics import Scores, ranking_metrics
from models.keras import tf
from preprocessing.encoders.fitted import BucketisedEncoder, VocabularyEncoder
from preprocessing.errors import UserError
from preprocessing.features.encoder_specs import Bucketised
from preprocessing.features.feature import DType, Feature, Role
from preprocessing.schema import Schema


class _Encoder:
    """The words of a vocabulary in the order of their counts, after one id for others."""

    num_oov = 1

    def __init__(self, words):
        self._words = np.array(["", "unknown", *words])

    def decode(self, ids):
        return self._words[ids]


def _data():
    vocabulary = {"kind": "vocabulary"}
    schema = Schema.from_json(
        {
            "features": [
                {"name": "user_id", "role": "user", "dtype": "string", "encoder": vocabulary},
                {"name": "device", "role": "context", "dtype": "string", "encoder": vocabulary},
                {"name": "item_id", "role": "item", "dtype": "string", "encoder": vocabulary},
                {"name": "brand", "role": "item", "dtype": "string", "encoder": vocabulary},
            ],
            "history": {"max_length": 8, "features": ["item_id", "brand"]},
        }
    )
    return types.SimpleNamespace(
        schema=schema,
        encoders={
            "user_id": _Encoder("uvw"),
            "item_id": _Encoder("abcd"),
            "brand": _Encoder("xy"),
            "device": _Encoder("pt"),
        },
        stats={
            "vocabularies": {
                "user_id": {"words_by_count": {"2": 3}},
                "item_id": {"words_by_count": {"30": 1, "5": 1, "1": 2}},  # a: 30, b: 5, c, d: 1
                "brand": {"words_by_count": {"20": 1, "3": 1}},
            }
        },
    )


@pytest.fixture
def scores():
    """Two candidates per request; ids as in `_data`."""
    rng = np.random.default_rng(0)
    item = np.array([[1, 2], [3, 4], [2, 5], [4, 1], [2, 3], [3, 1]])
    user = np.array([1, 2, 2, 3, 4, 4])
    return Scores(
        user=np.repeat([f"u{i}" for i in user], 2),
        request_id=np.repeat([f"r{i}" for i in range(6)], 2),
        label=np.tile([1.0, 0.0], 6),
        logit=rng.normal(size=12),
        history_length=np.repeat([0, 1, 3, 4, 20, 50], 2),
        ids={
            "user_id": np.repeat(user, 2),
            "candidate/item_id": item.ravel(),
            "candidate/brand": np.where(item.ravel() > 2, 3, 2),
            "device": np.repeat([2, 2, 2, 3, 3, 2], 2),
        },
    )


def test_slices_tell_candidates_apart(scores):
    found = {
        (part.dimension, part.name): np.flatnonzero(part.chosen_C)
        for part in slices.slices(scores, _data())
    }
    item = scores.ids["candidate/item_id"]
    expected = {
        ("history length", "0"): [0, 1],
        ("history length", "1"): [2, 3],
        ("history length", "3-4"): [4, 5, 6, 7],
        ("history length", "13-20"): [8, 9],
        ("history length", "34+"): [10, 11],
        (slices.USERS, "known"): np.arange(2, 12),
        (slices.USERS, "not in training"): [0, 1],
        (slices.ITEMS, "known"): np.flatnonzero(item > 1),
        (slices.ITEMS, "not in training"): np.flatnonzero(item == 1),
        ("item popularity", "0"): np.flatnonzero(item == 1),
        ("item popularity", "1"): np.flatnonzero(item >= 4),
        ("item popularity", "5-9"): np.flatnonzero(item == 3),
        ("item popularity", "20-49"): np.flatnonzero(item == 2),
        ("brand", "x"): np.flatnonzero(item <= 2),
        ("brand", "y"): np.flatnonzero(item > 2),
        ("device", "p"): [0, 1, 2, 3, 4, 5, 10, 11],
        ("device", "t"): [6, 7, 8, 9],
    }
    assert found.keys() == expected.keys()
    for key, places in expected.items():
        np.testing.assert_array_equal(found[key], places, str(key))


def test_scores_of_before_have_no_ids_of_requests(scores):
    del scores.ids["device"]
    assert "device" not in {part.dimension for part in slices.slices(scores, _data())}


def test_rare_values_share_a_slice(scores, monkeypatch):
    monkeypatch.setattr(slices, "_VALUES", 1)
    names = [part.name for part in slices.slices(scores, _data()) if part.dimension == "brand"]
    assert names == ["y", "all others"] or names == ["x", "all others"]


def test_slices_of_numbers_are_intervals_in_their_order():
    age = Feature(
        name="age", column="age", role=Role.USER, dtype=DType.FLOAT32,
        encoder=Bucketised(boundaries=(18.0, 25.5, 40.0)),
    )  # fmt: skip
    encoder = BucketisedEncoder(age, np.array([18.0, 25.5, 40.0]))
    ids = encoder.encode(np.array([50, 17, 20, 50, 39.9, 18, np.nan], np.float32))
    data = types.SimpleNamespace(encoders={"age": encoder})
    found = {part.name: part.chosen_C.sum() for part in slices._values(data, age, ids)}
    assert list(found.items()) == [
        ("missing", 1), ("below 18", 1), ("18 to below 25.5", 2), ("25.5 to below 40", 1),
        ("40 or more", 2),
    ]  # fmt: skip


def test_metrics_of_slices(scores, monkeypatch):
    monkeypatch.setattr(slices, "_DRAWS", 30)
    table = slices.measure(scores, _data()).set_index(["dimension", "slice"])
    for dimension, parts in table.groupby("dimension"):
        assert parts["candidates"].sum() == len(scores.label), dimension
        assert parts["positives"].sum() == scores.label.sum(), dimension
    known = scores.ids["user_id"] > 1
    expected = ranking_metrics(Scores(*(column[known] for column in scores[:5]), ids={}))
    row = table.loc[(slices.USERS, "known")]
    for name in ("auc", "log_loss", "calibration_error", "bias_ratio", "mrr", "hr@1"):
        assert row[name] == pytest.approx(expected[name]), name
    assert row["auc_low"] <= row["auc"] <= row["auc_high"]


def test_hashed_ids_are_all_known(scores):
    data = _data()
    del data.stats["vocabularies"]["user_id"]
    names = [part.name for part in slices.slices(scores, data) if part.dimension == slices.USERS]
    assert names == ["known"]


def test_training_counts_are_those_of_the_log(data):
    """Of a data set on disk: popular items first, and none of the vocabulary without a count."""
    assert isinstance(data.encoders["item_id"], VocabularyEncoder)
    ids = np.arange(data.encoders["item_id"].cardinality)
    counts = slices._training_counts(data, data.schema.item_key, ids)
    assert counts[:2].tolist() == [0, 0]  # Padding, out of vocabulary.
    assert counts[2:].min() >= 1
    assert (np.diff(counts[2:]) <= 0).all()
    train = data.stats["splits"]["train"]["features"]["candidate/item_id"]
    word = max(train["top_values"], key=train["top_values"].get)
    assert counts[data.encoders["item_id"].encode(np.array([word]))[0]] >= train["top_values"][word]


def test_the_auc_of_known_items_is_that_of_their_pairs(scores, tmp_path):
    metrics = scoring.record(tmp_path, "test", scores, _data())
    known = scores.ids["candidate/item_id"] > 1
    assert 0 < known.sum() < len(known)
    expected = roc_auc_score(scores.label[known], scores.logit[known])
    assert metrics["auc_known"] == pytest.approx(expected)
    assert metrics["auc_known"] != pytest.approx(metrics["auc"], abs=1e-6)
    alone = scores._replace(label=np.where(known, 0.0, scores.label))
    assert scoring.record(tmp_path, "test", alone, _data())["auc_known"] is None


def test_scores_survive_the_disk(scores, tmp_path):
    metrics = scoring.record(tmp_path, "test", scores, _data())
    read = scoring.read_scores(tmp_path, "test")
    assert metrics == pytest.approx(ranking_metrics(read, slices.known_items(read, _data())))
    assert read.ids.keys() == scores.ids.keys()
    pd.testing.assert_series_equal(pd.Series(read.logit), pd.Series(scores.logit))
    np.testing.assert_array_equal(read.ids["candidate/brand"], scores.ids["candidate/brand"])


@pytest.fixture
def two_runs(scores, tmp_path, monkeypatch):
    """Directories with dumped scores; the second model is better by a bit on each positive."""
    paths = []
    for name, gain in (("one", 0.0), ("two", 1.0)):
        path = tmp_path / name
        path.mkdir()
        logit = scores.logit + gain * scores.label
        scoring.record(path, "test", scores._replace(logit=logit), _data())
        paths.append(path)

    def open_run(path):
        data = types.SimpleNamespace(fingerprint=(path / "data").exists(), path=path / "data")
        return types.SimpleNamespace(path=path, data=data)

    monkeypatch.setattr(scoring.run_directory, "open_run", open_run)
    return paths


def test_compares_runs(two_runs):
    one, two = two_runs
    found = scoring.compare(one, two, "test")
    assert found["auc"].difference.value > 0
    for column, path in (("first", one), ("second", two)):
        expected = ranking_metrics(scoring.read_scores(path, "test"))
        assert getattr(found["auc"], column) == pytest.approx(expected["auc"])
        assert getattr(found["mrr"], column) == pytest.approx(expected["mrr"])


def test_refuses_runs_on_different_data(two_runs):
    one, two = two_runs
    (two / "data").touch()
    with pytest.raises(UserError, match="Expected two runs on the same data set"):
        scoring.compare(one, two, "test")


def test_refuses_an_unknown_split(tmp_path):
    with pytest.raises(UserError, match="Expected --split of train, validation, test"):
        scoring.read_scores(tmp_path, "tset")


def test_a_score_that_is_no_number_ends_the_evaluation(data):
    """Metrics would rank it last, or first, without a word."""

    def scores_of_positives_only(features):
        return tf.where(features["label"] == 1, 0.0, np.nan)

    with pytest.raises(UserError) as caught:
        scoring.Scorer(scores_of_positives_only, data).score("test")
    assert "NaN or infinity for 300 of 600 candidates of split test" in str(caught.value)
    assert ", the first in request" in str(caught.value)
