import itertools

import numpy as np
import pytest

from models.backbone_api import Dims
from models.keras import tf
from models.layers.interests.diagnostics import (
    confidence_diagnostics,
    event_cosine,
    interest_diagnostics,
)
from tests.reference import embedded

DIMS = Dims(user_fields=1, history_features=1, extra_fields=0, embedding_size=5, max_length=6)
LENGTHS = [6, 3, 2, 1, 0]
RANDOM = np.random.default_rng(0)
INTERESTS = RANDOM.normal(size=(5, 4, 3, 5)).astype(np.float32)
CONFIDENCE = RANDOM.dirichlet([0.5] * 3, size=(5, 4)).astype(np.float32)


def _batch():
    user, candidates = embedded.batch(DIMS, LENGTHS, 4, valid_candidates=[4, 3, 4, 4, 4])
    attention = RANDOM.normal(size=(5, 4, 3, 6)) * user.mask_BL.numpy()[:, None, None]
    return user, candidates, attention.astype(np.float32)


PAIRS = [(b, n) for b, valid in ((0, 4), (1, 3), (2, 4)) for n in range(valid)]
"""Valid candidates of requests with at least two events."""


def _cosine(first: np.ndarray, second: np.ndarray) -> float:
    return float(first @ second / np.linalg.norm(first) / np.linalg.norm(second))


def _entropy(shares: np.ndarray) -> float:
    return float(-sum(share * np.log(share) for share in shares if share > 0))


def test_interests_against_loops() -> None:
    user, candidates, attention = _batch()
    figures = interest_diagnostics(INTERESTS, attention, candidates, user.mask_BL)
    between = [
        abs(_cosine(INTERESTS[b, n, j], INTERESTS[b, n, k]))
        for b, n in PAIRS
        for j, k in itertools.combinations(range(3), 2)
    ]
    across = [
        abs(_cosine(INTERESTS[b, n, k], INTERESTS[b, n + 1, k]))
        for b, n in PAIRS
        if (b, n + 1) in PAIRS
        for k in range(3)
    ]
    entropies = []
    for b, n in PAIRS:
        for k in range(3):
            weights = np.abs(attention[b, n, k, : LENGTHS[b]])
            entropies.append(_entropy(weights / weights.sum()) / np.log(LENGTHS[b]))
    assert float(figures["interest_cosine"]) == pytest.approx(np.mean(between), abs=1e-5)
    assert float(figures["interest_cosine_candidates"]) == pytest.approx(np.mean(across), abs=1e-5)
    assert float(figures["attention_entropy"]) == pytest.approx(np.mean(entropies), abs=1e-5)


def test_confidence_against_loops() -> None:
    user, candidates, _ = _batch()
    figures = confidence_diagnostics(tf.constant(CONFIDENCE), candidates, user.mask_BL)
    weights = np.array([CONFIDENCE[pair] for pair in PAIRS], np.float64)
    usage = weights.mean(0)
    within = np.mean([_entropy(row) for row in weights])
    expected = {
        "confidence_max": weights.max(1).mean(),
        "expert_usage_min": usage.min(),
        "expert_usage_entropy": _entropy(usage) / np.log(3),
        "expert_information": (_entropy(usage) - within) / np.log(3),
    }
    assert set(figures) == set(expected)
    for name, value in expected.items():
        assert float(figures[name]) == pytest.approx(value, abs=1e-5), name


def test_one_interest_for_all_is_seen() -> None:
    user, candidates, _ = _batch()
    same = np.broadcast_to(INTERESTS[:, :1, :1], INTERESTS.shape)
    even = user.mask_BL.numpy()[:, None, None] * np.ones([5, 4, 3, 6], np.float32)
    figures = interest_diagnostics(same, even, candidates, user.mask_BL)
    assert {name: pytest.approx(float(value), abs=1e-5) for name, value in figures.items()} == {
        "interest_cosine": 1.0,
        "interest_cosine_candidates": 1.0,
        "attention_entropy": 1.0,
    }
    figures = confidence_diagnostics(tf.fill([5, 4, 3], 1 / 3), candidates, user.mask_BL)
    assert float(figures["confidence_max"]) == pytest.approx(1 / 3)
    assert float(figures["expert_information"]) == pytest.approx(0.0, abs=1e-6)


def test_interests_that_differ_by_their_sign_are_one() -> None:
    user, candidates, attention = _batch()
    signs = np.array([1.0, -1.0, 1.0], np.float32)
    turned = INTERESTS[:, :, :1] * signs[:, None]
    figures = interest_diagnostics(turned, attention, candidates, user.mask_BL)
    assert float(figures["interest_cosine"]) == pytest.approx(1.0, abs=1e-5)


def test_events_against_loops() -> None:
    user, _, _ = _batch()
    nodes = RANDOM.normal(size=(5, 6, 5)).astype(np.float32)
    means = [
        np.mean([_cosine(*pair) for pair in itertools.combinations(nodes[b, :length], 2)])
        for b, length in enumerate(LENGTHS)
        if length >= 2
    ]
    assert float(event_cosine(nodes, user.mask_BL)) == pytest.approx(np.mean(means), abs=1e-5)
    assert np.isnan(float(event_cosine(nodes[3:], user.mask_BL[3:])))
