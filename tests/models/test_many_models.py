"""Every model, and every self-supervision, trains on a log with many values per feature."""

import numpy as np
import pytest

from models import registry
from tests.helpers import many_models

_FAST = ("din", "deminet")


def _slow_but(names, fast):
    return [pytest.param(n, marks=[] if n in fast else [pytest.mark.slow]) for n in names]


def _train(run):
    model = many_models.model(run)
    before = model.embedder.tables["category_id"].numpy()
    logs = model.main_step(many_models.batch())
    assert np.isfinite(logs["loss"].numpy())
    scores = model(many_models.batch())
    assert scores.shape == (6, 3)
    assert np.isfinite(scores.numpy()).all()
    assert (model.embedder.tables["category_id"].numpy() != before).any()
    return model


@pytest.mark.parametrize("name", _slow_but(registry.MODELS, _FAST))
def test_every_model_trains_a_step(name):
    _, settings = registry.load_model_class(name)
    content = ["model.embedding_size=0"] if settings.get("embedding_size") == 0 else []
    _train(many_models.config(name, "none", *content))


@pytest.mark.parametrize("name", _slow_but([n for n in registry.SSL if n != "none"], ("rule",)))
def test_every_self_supervision_trains_a_step(name):
    model = _train(many_models.config("din", name))
    logs = model.ssl_step(many_models.batch())
    assert np.isfinite(logs["loss"].numpy())
