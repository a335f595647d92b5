"""Yardsticks against loops, and on a data set."""

import itertools
import math

import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.metrics import roc_auc_score

from models.evaluation import yardsticks
from models.evaluation.yardsticks import Candidates, ClickCounts
from tests.helpers.small_data_sets import read_examples

CLICKS = np.array(
    [
        [0, 0, 1, 1, 1, 0, 0],
        [0, 0, 1, 1, 0, 0, 0],
        [0, 0, 0, 1, 1, 0, 0],
        [0, 0, 0, 0, 0, 1, 1],
        [0, 0, 1, 0, 0, 1, 1],
    ]
)
HISTORIES = [[2, 3], [5], []]
CANDIDATES = [(0, 4), (0, 6), (1, 6), (1, 2), (1, 1), (2, 3)]
"""Request and item; item 1 is no word."""


def _candidates() -> Candidates:
    history = np.zeros([3, 7])
    for row, items in enumerate(HISTORIES):
        history[row, items] = 1
    request, item = np.array(CANDIDATES).T
    return Candidates(sp.csr_matrix(history), request, request, item, np.zeros(len(item)))


def _cosine(first: int, second: int) -> float:
    if first == second:
        return 0.0
    a, b = CLICKS[:, first], CLICKS[:, second]
    return (a @ b) / math.sqrt(max(a.sum(), 1) * max(b.sum(), 1))


def test_popularity_is_the_number_of_users() -> None:
    scores = ClickCounts(sp.csr_matrix(CLICKS, dtype=float)).popularity(_candidates())
    assert scores.tolist() == [CLICKS[:, item].sum() for _, item in CANDIDATES]


def test_item_knn_is_the_mean_cosine_with_the_history() -> None:
    scores = ClickCounts(sp.csr_matrix(CLICKS, dtype=float)).item_knn(_candidates())
    expected = [
        np.mean([_cosine(item, event) for event in HISTORIES[request]] or [0.0])
        for request, item in CANDIDATES
    ]
    np.testing.assert_allclose(scores, expected)


def test_ppmi_svd_is_the_cosine_in_the_factors_of_the_information() -> None:
    clicks = (np.random.default_rng(0).random([40, 7]) < 0.4).astype(float)
    together = np.zeros([7, 7])
    for row, (i, j) in itertools.product(clicks, itertools.permutations(range(7), 2)):
        together[i, j] += row[i] * row[j]
    margins, total = together.sum(0), together.sum()
    ratios = np.maximum(together * total / np.outer(margins, margins), 1.0)
    left, value, _ = np.linalg.svd(np.log(ratios))
    assert value[1] > 1.05 * value[2]  # So the first two vectors are what they are.
    vectors = left[:, :2] * np.sqrt(value[:2])
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    expected = []
    for request, item in CANDIDATES:
        history = sum((units[event] for event in HISTORIES[request]), np.zeros(2))
        norm = np.linalg.norm(history)
        expected.append(history @ units[item] / norm if norm else 0.0)
    scores = ClickCounts(sp.csr_matrix(clicks)).ppmi_svd(_candidates(), 2)
    np.testing.assert_allclose(scores, expected, atol=1e-3)


def test_too_many_pairs_are_those_of_some_users(monkeypatch) -> None:
    monkeypatch.setattr(yardsticks, "_MOST_PAIRS", 10)
    scores = ClickCounts(sp.csr_matrix(CLICKS, dtype=float)).item_knn(_candidates())
    assert 0 < np.count_nonzero(scores) < 3  # All users: 3.


@pytest.fixture(scope="module")
def measured(data):
    return {each.name: each for each in yardsticks.measure(data, "test", [4, 8])}


def test_a_data_set_has_all_of_them(measured) -> None:
    names = ["popularity", "unknown item", "item-kNN", "PPMI-SVD, 4 wide", "PPMI-SVD, 8 wide"]
    assert list(measured) == names
    assert measured["unknown item"].auc >= 0.5
    assert measured["PPMI-SVD, 8 wide"].auc > measured["popularity"].auc > 0.4


def test_popularity_of_a_data_set_counts_users_of_the_training_split(data, measured) -> None:
    users: dict[int, set[bytes]] = {}
    for request in read_examples(data, "train").values():
        shown = zip(request["candidate/item_id"], request["label"], strict=True)
        for item in [*request["history/item_id"], *(item for item, clicked in shown if clicked)]:
            users.setdefault(item, set()).update(request["request/user"])
    labels, counts = [], []
    for request in read_examples(data, "test").values():
        labels += request["label"]
        # Ids of no word are 1; nothing is known of them.
        counts += [len(users.get(i, ())) if i > 1 else 0 for i in request["candidate/item_id"]]
    assert measured["popularity"].auc == pytest.approx(roc_auc_score(labels, counts))
