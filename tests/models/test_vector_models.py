"""Every model, and every self-supervision, trains with vectors and a pretrained table."""

import numpy as np
import pytest

from models import registry
from tests.helpers import vector_models

_FAST = ("din", "deminet")


def _slow_but(names, fast):
    return [pytest.param(n, marks=[] if n in fast else [pytest.mark.slow]) for n in names]


def _train(run):
    model = vector_models.model(run)
    embedder = model.embedder
    table, projections = embedder.tables["item_id"].numpy(), dict(embedder.projections)
    before = {name: value.numpy() for name, value in projections.items()}
    logs = model.main_step(vector_models.batch())
    assert np.isfinite(logs["loss"].numpy())
    scores = model(vector_models.batch())
    assert scores.shape == (6, 3)
    assert np.isfinite(scores.numpy()).all()
    np.testing.assert_array_equal(embedder.tables["item_id"], table)
    for name, value in projections.items():
        assert (value.numpy() != before[name]).any(), name
    return model


@pytest.mark.parametrize("name", _slow_but(registry.MODELS, _FAST))
def test_every_model_trains_a_step(name):
    _, settings = registry.load_model_class(name)
    content = ["model.embedding_size=0"] if settings.get("embedding_size") == 0 else []
    _train(vector_models.config(name, "none", *content))


@pytest.mark.parametrize("name", _slow_but([n for n in registry.SSL if n != "none"], ("miss",)))
def test_every_self_supervision_trains_a_step(name):
    model = _train(vector_models.config("din", name))
    logs = model.ssl_step(vector_models.batch())
    assert np.isfinite(logs["loss"].numpy())
