import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from preprocessing.known_items import UnknownItems


@pytest.mark.parametrize(("seed", "share"), [(0, 0.1), (1, 0.5), (2, 0.9)])
def test_the_auc_of_the_bit_is_that_of_its_ranking(seed, share):
    rng = np.random.default_rng(seed)
    labels = (rng.random(500) < 0.3).astype(int)
    unknown = rng.random(500) < np.where(labels == 1, share, 0.3)
    counted = UnknownItems.of(unknown, labels)
    assert counted.auc == pytest.approx(roc_auc_score(labels, unknown), abs=1e-12)
    assert counted.positive_share == pytest.approx(unknown[labels == 1].mean())
    assert counted.negative_share == pytest.approx(unknown[labels == 0].mean())
    assert counted == UnknownItems.of_split({"unknown_items": counted._asdict()})


@pytest.mark.parametrize("label", [0, 1])
def test_labels_of_one_kind_have_no_auc(label):
    assert UnknownItems.of(np.array([True, False]), np.full(2, label)).auc is None
    assert UnknownItems.of_split({}) is None
