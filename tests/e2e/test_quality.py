"""How close models come to the best possible one, on logs where that is known.

Seeds are fixed. The best scorer is applied to the very requests that the models are measured on, so
that the luck of the draw is the same for both.
"""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from models import train
from models.config import run_config
from pipeline.arguments import BuildArguments
from pipeline.build_examples import build_examples
from pipeline.synthesize import synthesize, write
from pipeline.synthetic.truth import SynthesizeArguments, oracle_scores
from preprocessing import dataset

pytestmark = pytest.mark.slow

REACHED = 0.97
"""Share of the way from 0.5 to the best AUC. Measured: DemiNet .973 to .974 (five runs of one seed,
which differ by the order of additions), DIN+MISS .975. With 4,000 users DemiNet has .970 ± .001."""

FEW_USERS_MARGIN = 0.05
"""AUC that MISS adds to DIN with 600 users by its default schedule. Measured: .086 and .081."""


def _data(path, users, train_prefixes):
    log = synthesize(SynthesizeArguments(users=users, items=200, interests=5))
    write(log, path / "log.csv")
    data = build_examples(
        BuildArguments(
            input=str(path / "log.csv"),
            output=str(path / "data"),
            train_prefixes=train_prefixes,
        )
    )
    return log.truth, data


def _best_auc(truth, data):
    """AUC of the best scorer on the test requests."""
    scores, labels = [], []
    decode = data.encoders["item_id"].decode
    for batch in dataset.read(data, "test", batch_size=500, shuffle_seed=None):
        histories = decode(batch["history/item_id"].numpy())
        candidates = decode(batch["candidate/item_id"].numpy())
        scores.append(oracle_scores(truth, [[i for i in h if i] for h in histories], candidates))
        labels.append(batch["label"].numpy())
    return roc_auc_score(np.concatenate(labels).ravel(), np.concatenate(scores).ravel())


def _auc(data, path, model, ssl, epochs, seed=1):
    content = {
        "data": str(data.path),
        "model": {"name": model},
        "ssl": {"name": ssl},
        # These logs have no unknown values to prepare for.
        "train": {"epochs": epochs, "seed": seed, "oov_rate": 0.0},
    }
    return train.train(run_config.resolve(content), path, progress=False)["test"]["auc"]


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """6,000 users, trained on every prefix of their histories; the data and the best AUC."""
    truth, data = _data(tmp_path_factory.mktemp("many"), 6000, "all")
    return data, _best_auc(truth, data)


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    """600 users, one training request each."""
    return _data(tmp_path_factory.mktemp("few"), 600, "last")[1]


# Beside self-supervision, tables learn slowly under the main loss.
@pytest.mark.parametrize(("model", "ssl", "epochs"), [("deminet", "none", 2), ("din", "miss", 4)])
def test_reaches_the_best_auc(many, tmp_path, model, ssl, epochs):
    data, best = many
    auc = _auc(data, tmp_path / "run", model, ssl, epochs)
    assert auc < best
    assert (auc - 0.5) / (best - 0.5) >= REACHED


@pytest.mark.parametrize("seed", [1, 2])
def test_miss_helps_with_few_users(few, tmp_path, seed):
    plain = _auc(few, tmp_path / "plain", "din", "none", epochs=200, seed=seed)
    with_miss = _auc(few, tmp_path / "miss", "din", "miss", epochs=200, seed=seed)
    assert with_miss >= plain + FEW_USERS_MARGIN


def test_interests_of_deminet_plus_differ(few, tmp_path):
    """Measured with two seeds: .59 and .45, .70 and .66, .81 and .80; DemiNet has 1, 1, .29-.58."""
    _auc(few, tmp_path / "run", "deminet_plus", "none", epochs=60)
    last = pd.read_csv(tmp_path / "run" / "metrics.csv").iloc[-1]
    assert last["diagnostics/interest_cosine"] <= 0.7
    assert last["diagnostics/interest_cosine_candidates"] <= 0.85
    assert last["diagnostics/confidence_max"] >= 0.5
