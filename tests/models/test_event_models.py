"""Every model, and every self-supervision, trains on requests with features of events."""

import numpy as np
import pytest

from models import registry
from tests.helpers import event_models, small_models

_FAST = ("din", "deminet")


def _slow_but(names, fast):
    return [pytest.param(n, marks=[] if n in fast else [pytest.mark.slow]) for n in names]


def _train(run):
    model = event_models.model(run)
    for step in range(2):
        assert np.isfinite(model.main_step(event_models.batch(seed=step))["loss"].numpy())
    scores = model(event_models.batch())
    assert scores.shape == (6, 3)
    assert np.isfinite(scores.numpy()).all()
    return model


@pytest.mark.parametrize("name", _slow_but(registry.MODELS, _FAST))
def test_every_model_trains_two_steps(name):
    content = ["model.embedding_size=0"] if name == "lr" else []
    model = _train(small_models.config(name, "none", *content))
    if name == "lr":
        assert not model.embedder.event_projections
        assert model.embedder.tables["action"].numpy().any()
        return
    for projection in model.embedder.event_projections.values():
        assert projection.numpy().any()


@pytest.mark.parametrize("name", _slow_but([n for n in registry.SSL if n != "none"], ("rule",)))
def test_every_self_supervision_trains_a_step(name):
    model = _train(small_models.config("din", name))
    assert np.isfinite(model.ssl_step(event_models.batch())["loss"].numpy())
