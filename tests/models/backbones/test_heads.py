"""One head for all rows of a table: normalised or not, with the history's sum or without."""

import numpy as np
import pytest

from models.config import run_config
from models.core.factory import build_model
from models.keras import tf
from models.layers.interests.experts import InterestExperts
from models.layers.mlp import MLP
from models.ops.weight_layouts import Fields
from preprocessing.example_keys import LABEL, REQUEST_ID, candidate_key, history_key
from preprocessing.features.feature import PAD_ID
from serving.exporting import raw_requests
from tests.helpers import toy_runs

NAMES = ("din", "dien", "mind", "comirec_sa", "comirec_dr", "dmin", "dmr", "deminet")
ITEM = "item_id"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return toy_runs.write_data(tmp_path_factory.mktemp("heads") / "data")


@pytest.fixture(scope="module")
def features(data):
    found = next(raw_requests.batches(data, "test", 11)).features
    return {name: value for name, value in found.items() if name not in (REQUEST_ID, LABEL)}


def _model(name, data, **settings):
    content = {"data": str(data.path), "model": {"name": name, "embedding_size": 4, **settings}}
    return build_model(run_config.resolve(content), data)


def _sums(model, features):
    """Sum of the history and its product with each candidate side by side, [B, N, 2 D]."""
    user, candidates = model.embedder.user_side(features), model.embedder.candidates(features)
    history_BLD = user.history_BLD.numpy()
    valid_BL = features[history_key(ITEM)].numpy() != PAD_ID
    sum_BD = np.array(
        [events[valid].sum(0) for events, valid in zip(history_BLD, valid_BL, strict=True)]
    )
    target_BND = candidates.target_BND.numpy()
    return np.concatenate(
        [np.broadcast_to(sum_BD[:, None], target_BND.shape), target_BND * sum_BD[:, None]], -1
    )


@pytest.mark.parametrize("name", NAMES)
def test_every_head_can_read_the_sum_and_be_normalised(name, data, features, monkeypatch):
    read = []

    def recording(call):
        def recorded(self, values, *args, **kwargs):
            read.append((self, values.numpy()))
            return call(self, values, *args, **kwargs)

        return recorded

    monkeypatch.setattr(MLP, "call", recording(MLP.call))
    monkeypatch.setattr(InterestExperts, "call", recording(InterestExperts.call))
    for has_sum, is_normalised in ((True, True), (False, False)):
        model = _model(name, data, history_sum=has_sum, batch_norm=is_normalised)
        head = model.backbone.experts if name == "deminet" else model.backbone.dnn
        before = [] if head.normalize is None else float(head.normalize.seen_batches)
        read.clear()
        model(features, training=True)
        (values,) = (values for layer, values in read if layer is head)
        expected = _sums(model, features)
        found = [
            i
            for i in range(values.shape[-1] - expected.shape[-1] + 1)
            if np.allclose(values[..., i : i + expected.shape[-1]], expected, atol=1e-6)
        ]
        assert len(found) == has_sum
        assert (head.normalize is not None) == is_normalised
        if is_normalised:
            assert float(head.normalize.seen_batches) == before + 1
            valid = features[candidate_key(ITEM)].numpy() != PAD_ID
            np.testing.assert_allclose(
                head.normalize(values, valid, training=True).numpy()[valid].mean(0), 0.0, atol=1e-4
            )
        fields = Fields.of(data.schema, 4)
        for weight, axes in model.backbone.layouts(fields):
            for axis, layout in enumerate(axes[: weight.shape.rank]):
                assert layout is None or layout.size == weight.shape[axis], weight.name


def test_a_normalised_network_equals_the_equations():
    rng = np.random.default_rng(1)
    values, mask = rng.normal(2.0, 3.0, [5, 4, 3]).astype(np.float32), rng.random([5, 4]) < 0.7
    network = MLP((6, 1), batch_norm=True)
    found = network(values, mask, training=True).numpy()
    valid = values[mask].astype(np.float64)
    x = (values - valid.mean(0)) / np.sqrt(valid.var(0) + 1e-3)
    for i, layer in enumerate(network.stack):
        x = x @ layer.kernel.numpy() + layer.bias.numpy()
        x = np.maximum(x, 0.0) if i == 0 else x
    np.testing.assert_allclose(found, x, atol=1e-5)


def test_experts_without_normalisation_equal_the_equations():
    rng = np.random.default_rng(2)
    values = rng.normal(size=[3, 2, 5]).astype(np.float32)
    experts = InterestExperts(5, 2, (4, 3), batch_norm=False)
    found = experts(values, tf.ones([3, 2], tf.bool), training=True).numpy()
    assert len(experts.weights) == 6
    for k in range(2):
        x = np.maximum(values @ experts.kernels[0].numpy()[:, k] + experts.biases[0][k], 0.0)
        x = np.maximum(x @ experts.kernels[1].numpy()[k] + experts.biases[1][k], 0.0)
        x = x @ experts.kernels[2].numpy()[k] + experts.biases[2][k]
        np.testing.assert_allclose(found[..., k], x[..., 0], atol=1e-5)
