"""Sparser and noisier labels: exact rates, no dependence on the order of the data."""

import numpy as np
import pytest

from models.config.training import TrainConfig
from models.keras import tf
from models.training.label_noise import stressed
from tests.helpers import small_models

REQUESTS, CANDIDATES = 4000, 3


@pytest.fixture(scope="module")
def requests():
    """Encoded requests whose candidates are not all real."""
    rng = np.random.default_rng(0)
    real = np.arange(CANDIDATES) < rng.integers(1, CANDIDATES + 1, REQUESTS)[:, None]
    items = np.where(real, rng.integers(2, 30, real.shape), 0)
    return {
        "request_id": np.array([f"u{i}:{i}".encode() for i in range(REQUESTS)], object),
        "candidate/item_id": items,
        "label": (np.arange(CANDIDATES) == 0) * real.astype(np.float32),
        "history/item_id": np.tile([5, 6, 0], (REQUESTS, 1)),
        "history/category_id": np.tile([2, 3, 0], (REQUESTS, 1)),
    }


def _stress(requests, batch_size=500, **settings):
    """The requests after the stress, side by side again."""
    batches = tf.data.Dataset.from_tensor_slices(requests).batch(batch_size)
    batches = stressed(batches, small_models.schema(), TrainConfig(**settings))
    parts = list(batches.as_numpy_iterator())
    return {name: np.concatenate([part[name] for part in parts]) for name in requests}


def test_without_stress_batches_are_left_as_they_are(requests):
    batches = tf.data.Dataset.from_tensor_slices(requests).batch(10)
    assert stressed(batches, small_models.schema(), TrainConfig()) is batches


@pytest.mark.parametrize("rate", [0.8, 0.9])
def test_sampling_keeps_a_share_of_the_samples(requests, rate):
    found = _stress(requests, sampling_rate=rate)
    before, after = requests["candidate/item_id"], found["candidate/item_id"]
    kept = after != 0
    np.testing.assert_array_equal(after[kept], before[kept])
    np.testing.assert_array_equal(found["label"], np.where(kept, requests["label"], 0))
    total = (before != 0).sum()
    deviation = np.sqrt(total * rate * (1 - rate))
    assert abs(kept.sum() - rate * total) < 5 * deviation
    for label in (0, 1):  # positives and negatives alike
        mine = (before != 0) & (requests["label"] == label)
        expected = rate * mine.sum()
        assert abs((kept & mine).sum() - expected) < 5 * np.sqrt(mine.sum() * rate * (1 - rate))
    # What happens to one sample says nothing about the next one of its request.
    pairs = before[:, 1] != 0
    both = (kept[:, 0] & kept[:, 1])[pairs].mean()
    assert both == pytest.approx(rate**2, abs=5 / np.sqrt(pairs.sum()))


def test_histories_without_any_sample_vanish_unless_asked_for(requests):
    found = _stress(requests, sampling_rate=0.5)
    lost = ~(found["candidate/item_id"] != 0).any(1)
    assert 0.1 < lost.mean() < 0.5
    assert not found["history/item_id"][lost].any()
    np.testing.assert_array_equal(found["history/item_id"][~lost][:, 0], 5)
    unlabelled = _stress(requests, sampling_rate=0.5, unlabelled_histories=True)
    np.testing.assert_array_equal(unlabelled["history/item_id"], requests["history/item_id"])
    np.testing.assert_array_equal(unlabelled["candidate/item_id"], found["candidate/item_id"])


@pytest.mark.parametrize("rate", [0.1, 0.2])
def test_noise_flips_a_share_of_the_labels(requests, rate):
    found = _stress(requests, label_noise=rate)
    np.testing.assert_array_equal(found["candidate/item_id"], requests["candidate/item_id"])
    real = requests["candidate/item_id"] != 0
    flipped = found["label"] != requests["label"]
    assert not flipped[~real].any()
    for label in (0, 1):
        mine = real & (requests["label"] == label)
        deviation = np.sqrt(mine.sum() * rate * (1 - rate))
        assert abs((flipped & mine).sum() - rate * mine.sum()) < 5 * deviation


def test_every_sample_fares_the_same_in_any_batch(requests):
    settings = {"sampling_rate": 0.8, "label_noise": 0.2}
    order = np.random.default_rng(1).permutation(REQUESTS)
    shuffled = {name: value[order] for name, value in requests.items()}
    found, again = _stress(requests, **settings), _stress(shuffled, 37, **settings)
    for name in requests:
        np.testing.assert_array_equal(again[name], found[name][order])
    other = _stress(requests, **settings, seed=2)
    assert (other["candidate/item_id"] != found["candidate/item_id"]).mean() > 0.1


def test_noise_and_sampling_are_drawn_apart(requests):
    both = _stress(requests, sampling_rate=0.8, label_noise=0.2)
    kept = both["candidate/item_id"] != 0
    noise = _stress(requests, label_noise=0.2)
    np.testing.assert_array_equal(both["label"][kept], noise["label"][kept])
    flipped = noise["label"] != requests["label"]
    assert flipped[kept].mean() == pytest.approx(0.2, abs=0.02)
