"""The models of fields, from LR to Fi-GNN, against their NumPy twins; what they have in common."""

import itertools
import re

import numpy as np
import pytest

from models import registry
from models.backbone_api import Dims
from preprocessing.errors import UserError
from tests.reference import embedded
from tests.reference import fieldwise as reference

DIMS = Dims(user_fields=2, history_features=2, extra_fields=1, embedding_size=4, max_length=6)
# No context, no further item features, a history of one feature.
BARE = Dims(user_fields=1, history_features=1, extra_fields=0, embedding_size=3, max_length=4)
LENGTHS = (6, 3, 0, 1, 4)
SETTINGS = {
    "lr": {},
    "fm": {},
    "deepfm": {"units": (6, 5)},
    "ipnn": {"units": (6, 5)},
    "dcn": {"cross_layers": 2, "units": (6, 5)},
    "dcn_v2": {"cross_layers": 2, "units": (6, 5)},
    "xdeepfm": {"interaction_units": (4, 6, 5), "units": (6, 5)},
    "autoint": {"attention_layers": 2, "heads": 2, "head_width": 3, "units": (6, 5)},
    "fignn": {"steps": 2},
}
LINEAR = {"lr", "fm", "deepfm", "xdeepfm"}


def build(name, dims=DIMS, **settings):
    backbone, fixed = registry.load_model_class(name)
    model = backbone(backbone.Config(**(fixed | SETTINGS[name] | settings)), dims)
    score(model, *embedded.batch(dims, [2]))
    embedded.randomize(model, seed=3, scale=0.3)
    return model


def score(model, user, candidates):
    return model.score(model.encode_user(user), candidates)


def dense(layer):
    return layer.kernel.numpy(), 0.0 if layer.bias is None else layer.bias.numpy()


def mlp(layer):
    return [dense(part) for part in layer.stack]


def twin(name, model):
    """The logit of one candidate's fields, from the weights of a model."""
    match name:
        case "lr" | "fm":
            return lambda x: getattr(reference, name)(x, model.bias.numpy())
        case "deepfm" | "ipnn":
            return lambda x: getattr(reference, name)(x, mlp(model.dnn))
        case "dcn":
            crosses = [(c.kernel.numpy()[:, 0], c.bias.numpy()) for c in model.crosses]
            return lambda x: reference.dcn(x, crosses, mlp(model.dnn), dense(model.last))
        case "dcn_v2":
            crosses = [dense(cross._dense) for cross in model.crosses]
            return lambda x: reference.dcn(
                x, crosses, mlp(model.dnn), dense(model.last), matrix=True
            )
        case "xdeepfm":

            def xdeepfm(x):
                sizes = itertools.pairwise([2 * len(x), *SETTINGS[name]["interaction_units"]])
                maps = [
                    layer.kernel.numpy().reshape(rows // 2, len(x), -1)
                    for layer, (rows, _) in zip(model.interaction.maps, sizes, strict=True)
                ]
                return reference.xdeepfm(x, maps, model.last.kernel.numpy()[:, 0], mlp(model.dnn))

            return xdeepfm
        case "autoint":
            attentions = []
            for layer in model.attentions:
                kernel, bias = dense(layer.projection)
                projections = zip(np.split(kernel, 4, 1), np.split(bias, 4), strict=True)
                normalization = layer.normalization
                attentions.append(
                    (list(projections), normalization.gamma.numpy(), normalization.beta.numpy())
                )
            return lambda x: reference.autoint(
                x, attentions, model.last.kernel.numpy()[:, 0], mlp(model.dnn), 2, 1e-5
            )
        case "fignn":
            graph = model.graph
            cell = graph.cell
            return lambda x: reference.fignn(
                x,
                graph.edge_kernel.numpy().T.ravel(),
                graph.out_kernel.numpy(),
                graph.in_kernel.numpy(),
                graph.bias.numpy(),
                (cell.kernel.numpy(), cell.recurrent_kernel.numpy(), cell.bias.numpy()),
                graph.steps,
                model.opinion.kernel.numpy()[:, 0],
                model.attention.kernel.numpy(),
            )
    raise AssertionError(name)


def twin_logits(name, of_fields, user, candidates):
    logits = np.zeros(candidates.mask_BN.shape)
    for b, n in np.ndindex(*logits.shape):
        logits[b, n] = of_fields(
            reference.fields(
                user.fields_BFd[b].numpy(),
                user.history_BLJd[b].numpy(),
                user.mask_BL[b].numpy(),
                candidates.target_BNJd[b, n].numpy(),
                candidates.extra_BNEd[b, n].numpy(),
            )
        )
        if name in LINEAR:
            logits[b, n] += user.linear_B[b].numpy() + candidates.linear_BN[b, n].numpy()
    return logits


@pytest.fixture(scope="module")
def models():
    return {name: build(name) for name in SETTINGS}


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("dims", [DIMS, BARE], ids=["all", "bare"])
def test_equals_the_twin(name, dims, models):
    model = models[name] if dims is DIMS else build(name, dims)
    lengths = np.minimum(LENGTHS, dims.max_length)
    user, candidates = embedded.batch(dims, lengths, seed=5)
    expected = twin_logits(name, twin(name, model), user, candidates)
    np.testing.assert_allclose(score(model, user, candidates), expected, rtol=1e-5, atol=1e-5)


def test_stacked_dcn_equals_the_twin():
    model = build("dcn", structure="stacked")
    crosses = [(c.kernel.numpy()[:, 0], c.bias.numpy()) for c in model.crosses]

    def of_fields(x):
        return reference.dcn(x, crosses, mlp(model.dnn), dense(model.last), stacked=True)

    user, candidates = embedded.batch(DIMS, LENGTHS)
    expected = twin_logits("dcn", of_fields, user, candidates)
    np.testing.assert_allclose(score(model, user, candidates), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", SETTINGS)
def test_padding_changes_nothing(name, models):
    user, candidates = embedded.batch(DIMS, LENGTHS)
    expected = score(models[name], user, candidates)
    logits = score(models[name], embedded.pad(user, 3), candidates)
    np.testing.assert_allclose(logits, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", SETTINGS)
def test_a_history_is_a_set(name, models):
    user, candidates = embedded.batch(DIMS, [DIMS.max_length] * 3)
    backwards = user._replace(history_BLJd=user.history_BLJd[:, ::-1])
    np.testing.assert_allclose(
        score(models[name], backwards, candidates),
        score(models[name], user, candidates),
        rtol=1e-5,
        atol=1e-5,
    )


@pytest.mark.parametrize("name", sorted(set(SETTINGS) - {"lr"}))
def test_history_and_candidate_interact(name, models):
    """The effect of another candidate depends on the history, unlike in LR."""
    user, candidates = embedded.batch(DIMS, [6, 6], seed=2)
    doubled = user._replace(history_BLJd=2.0 * user.history_BLJd)
    before, after = (score(models[name], side, candidates) for side in (user, doubled))
    effects = (after - before).numpy()
    assert np.abs(effects[:, 1] - effects[:, 0]).min() > 1e-3


def test_only_some_models_have_linear_weights():
    names = {name for name in SETTINGS if registry.load_model_class(name)[0].linear_weights}
    assert names == LINEAR


def test_defaults_are_those_of_the_paper():
    """Embeddings of 10 but for LR, which has none, and layers 40-40-40-1 (MISS, section V)."""
    for name in SETTINGS:
        config = registry.load_model_class(name)[0].Config()
        assert config.embedding_size == (0 if name == "lr" else 10)
        if name not in {"lr", "fm", "fignn"}:
            assert config.units == (40, 40, 40)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("dcn", {"cross": "tensor"}, "model.cross to be one of vector, matrix, found 'tensor'"),
        ("dcn", {"structure": "deep"}, "one of parallel, stacked, found 'deep'"),
        ("dcn", {"units": ()}, "at least one layer in model.units"),
        ("xdeepfm", {"interaction_units": (5, 4)}, "all but the last even, found [5, 4]"),
        ("xdeepfm", {"interaction_units": ()}, "found []"),
    ],
)
def test_settings_that_cannot_work_are_refused(name, settings, message):
    with pytest.raises(UserError, match=re.escape(message)):
        registry.load_model_class(name)[0].Config(**settings)
