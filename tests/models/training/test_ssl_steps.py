"""Steps of self-supervision beside the main loss: how many, with which optimisers, on which ids."""

import numpy as np
import pandas as pd
import pytest

from models import train
from models.config import run_config
from models.config.training import TrainConfig
from models.keras import tf
from models.training import trainer
from models.training.journal import Journal
from models.training.measuring import Measuring
from models.training.updates import Updates
from tests.helpers import small_models

SEED = tf.constant([3, 5])


@pytest.mark.parametrize("rate", [4.0, 1.0, 2.5, 0.25, 0.1, 0.0])
def test_steps_come_in_the_asked_proportion_and_ahead(rate):
    ahead = [TrainConfig(ssl_steps=rate).ssl_steps_ahead(step) for step in range(100)]
    assert sum(ahead) == round(100 * rate)
    assert (ahead[0] > 0) == (rate > 0)
    assert max(ahead) - min(ahead) <= (rate % 1 > 0)


def _model(*settings):
    return small_models.model(small_models.config("din", "miss", *settings))


def test_each_loss_moves_what_it_trains_at_a_rate_of_its_own():
    """A first step of Adam has the size of its rate, so a rate shows in the largest change."""
    model = _model(
        "train.learning_rate=0.1",
        "train.embedding_learning_rate=0.2",
        "train.ssl_learning_rate=0.3",
        "train.ssl_embedding_learning_rate=0.4",
    )

    def weights():
        table, ssl = model.embedder.tables["item_id"], model.ssl.trainable_variables
        groups = [table], model.backbone.trainable_variables, ssl
        return [[weight.numpy() for weight in group] for group in groups]

    def moved(step):
        before = weights()
        step(small_models.batch())
        return [
            max(np.abs(new - old).max() for old, new in zip(*pair, strict=True))
            for pair in zip(before, weights(), strict=True)
        ]

    assert moved(model.ssl_step) == pytest.approx([0.4, 0.0, 0.3], rel=1e-3)
    assert moved(model.main_step) == pytest.approx([0.2, 0.1, 0.0], rel=1e-3)


def test_the_gradient_of_self_supervision_is_clipped_by_its_own_norm():
    model = _model("train.clip_norm=0.001", "ssl.alpha=1.0")
    logs = model.ssl_step(small_models.batch())
    assert float(logs["gradient_norm"]) > 0.01
    moments = [*model.ssl_optimizer._momentums, *model.ssl_embedding_optimizer._momentums]
    # After one step they are a tenth of the gradient.
    assert 10 * float(tf.linalg.global_norm(moments)) == pytest.approx(0.001, rel=1e-4)


def test_hidden_ids_never_enter_self_supervision():
    """Neither in steps of its own nor in the sum of both losses."""
    features = small_models.batch()
    found = []
    for rate in (0.0, 0.9):
        model = _model("train.joint=true", f"train.oov_rate={rate}")
        terms = model.loss_terms(features, SEED)
        found.append({name: term.values_Pn.numpy() for name, term in terms.items()})
        found[-1]["alone"] = model.ssl_loss(features, SEED)[0].numpy()
    plain, hidden = found
    assert np.abs(plain.pop("log_loss") - hidden.pop("log_loss")).max() > 1e-5
    assert set(plain) == {"miss_interest", "miss_feature", "alone"}
    for name, values in plain.items():
        np.testing.assert_array_equal(hidden[name], values, err_msg=name)


def _config(data, **settings):
    plain = {"batch_size": 50, "learning_rate": 0.01}
    content = {"model": {"name": "lr", "embedding_size": 4}, "ssl": {"name": "rule"}}
    return run_config.resolve({"data": str(data.path), **content, "train": plain | settings})


@pytest.fixture
def steps_only(monkeypatch):
    """Steps that do nothing but tell their kind, and evaluations whose AUC falls."""
    kinds, aucs = [], iter(np.linspace(0.9, 0.1, 1000))

    def update(self, done, count):
        kinds.append(("ssl" if self.ssl else "main", count))
        return {"loss": 1.0}

    monkeypatch.setattr(Updates, "__call__", update)
    monkeypatch.setattr(Journal, "_diagnose", lambda self: {})
    monkeypatch.setattr(Measuring, "validation", lambda self: {"auc": float(next(aucs))})
    return kinds


@pytest.mark.parametrize(
    ("ssl_steps", "at_once", "expected"),
    [
        (2.0, 1, [("ssl", 1), ("ssl", 1), ("main", 1)] * 4),
        (2.0, 8, [("ssl", 2), ("main", 1)] * 4),
        (0.5, 1, [("ssl", 1), ("main", 1), ("main", 1)] * 2),
        (0.5, 8, [("ssl", 1), ("main", 2)] * 2),
    ],
)
def test_both_kinds_of_steps_take_turns(data, tmp_path, steps_only, ssl_steps, at_once, expected):
    run = _config(data, ssl_steps=ssl_steps, steps_per_execution=at_once, max_steps=4)
    it = trainer.Trainer(run, tmp_path, progress=False)
    it.fit()
    assert steps_only == expected
    assert (it.progress.step, it.progress.ssl_step) == (4, 4 * ssl_steps)


@pytest.mark.parametrize("evaluations", [1, 3])
def test_patience_is_counted_in_passes(data, tmp_path, steps_only, monkeypatch, evaluations):
    """Six steps are a pass; the first evaluation is the best one."""
    monkeypatch.setattr(trainer, "EVALUATION_INTERVAL", 1)
    run = _config(data, patience=2, evaluations_per_epoch=evaluations, epochs=100)
    trainer.Trainer(run, tmp_path, progress=False).fit()
    steps = pd.read_csv(tmp_path / "metrics.csv")["step"].tolist()
    assert steps[-1] - steps[0] == 2 * 6


def test_losses_of_both_kinds_of_steps_are_kept(data, tmp_path):
    """A pass has six steps, so the run ends between two steps of self-supervision."""
    train.train(_config(data, ssl_steps=0.25, max_steps=6), tmp_path, progress=False)
    table = pd.read_csv(tmp_path / "metrics.csv")
    assert {"train/loss", "train/log_loss", "train/gradient_norm"} <= {*table}
    assert {"train/ssl_loss", "train/rule", "train/ssl_gradient_norm"} <= {*table}
    assert (0.1 * table["train/rule"]).tolist() == pytest.approx(table["train/ssl_loss"].tolist())
    assert table["train/loss"].tolist() != table["train/ssl_loss"].tolist()
