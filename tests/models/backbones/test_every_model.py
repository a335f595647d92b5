"""What every name of the registry must do: train, alone and with MISS, score, export and serve.

A model is built once, with self-supervision, which its scores do not depend on.
"""

import numpy as np
import pytest

from models import registry
from models.backbone_api import Backbone
from models.config import run_config
from models.core import run_directory
from models.core.factory import build_model, compile_model
from models.keras import tf
from preprocessing.example_keys import LABEL, REQUEST_ID, candidate_key, history_key
from preprocessing.features.feature import PAD_ID, Role
from serving.exporting import raw_requests
from serving.exporting.signatures import SCORES, SERVING_DEFAULT, ServingModule
from tests.helpers import small_models, toy_runs

SEED = tf.constant([3, 5])
ITEM = "item_id"
HISTORY = [history_key(feature.name) for feature in toy_runs.SCHEMA.history_features]
CANDIDATE = [LABEL] + [candidate_key(feature.name) for feature in toy_runs.SCHEMA.item_features]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return toy_runs.write_data(tmp_path_factory.mktemp("every_model") / "data")


@pytest.fixture(scope="module")
def batch(data):
    """Eleven requests: histories of 0 to 6 events, the first empty, and 1 to 5 candidates."""
    return next(raw_requests.batches(data, "test", 11))


@pytest.fixture(scope="module")
def features(batch):
    features = {name: value for name, value in batch.features.items() if name != REQUEST_ID}
    clicks = np.random.default_rng(4).integers(0, 2, features[LABEL].shape)
    features[LABEL] = tf.constant(clicks, tf.float32) * tf.cast(_real(features), tf.float32)
    assert not features[history_key(ITEM)][0].numpy().any()
    return features


def _names():
    """Every name; those of classes that have come before are left to `make test-slow`."""
    seen = set()
    for name in registry.MODELS:
        model_class, _ = registry.load_model_class(name)
        yield pytest.param(name, marks=[pytest.mark.slow] if model_class in seen else [])
        seen.add(model_class)


@pytest.fixture(scope="module", params=_names())
def config(request, data):
    model_class, settings = registry.load_model_class(request.param)
    embeds = model_class.Config(**settings).embedding_size > 0
    content = {
        "data": str(data.path),
        "model": {"name": request.param},
        "ssl": {"name": "miss" if embeds else "none"},
        # Values are hidden by draws that depend on shapes, and so on padding.
        "train": {
            "learning_rate": 0.01,
            "embedding_learning_rate": 0.01,
            "oov_rate": 0.0,
            "joint": embeds,
        },
    }
    return run_config.resolve(content)


@pytest.fixture(scope="module")
def model(config, data):
    """Weights away from where they start, but no score near 0 or 1. Tests may train it further."""
    built = build_model(config, data)
    compile_model(built, config)
    small_models.randomise(built, scale=0.05)
    return built


def _real(features):
    return features[candidate_key(ITEM)].numpy() != PAD_ID


def _pad(features, steps, candidates):
    """The same batch with more padding on the right; only item keys and labels are 0 there."""
    padded = dict(features)
    for names, extra in ((HISTORY, steps), (CANDIDATE, candidates)):
        for name in names:
            garbage = 0 if name in (LABEL, history_key(ITEM), candidate_key(ITEM)) else 2
            padded[name] = tf.pad(features[name], [[0, 0], [0, extra]], constant_values=garbage)
    return padded


def _mean(term):
    weights = np.asarray(term.weights_Pn)
    return (np.where(weights > 0, term.values_Pn, 0) * weights).sum() / weights.sum()


def test_one_step_moves_every_weight(model, features):
    before = [weight.numpy() for weight in model.trainable_variables]
    logs = model.main_step(features)
    assert ("miss_interest" in logs) == (model.ssl is not None)
    assert all(np.isfinite(value) for value in logs.values())
    weights = model.trainable_variables
    assert len(weights) == len(before)  # None was created by the step.
    still = [
        weight.name
        for weight, old in zip(weights, before, strict=True)
        if np.array_equal(weight, old)
    ]
    assert still == []
    assert all(np.isfinite(weight).all() for weight in weights)


def test_every_input_matters_and_padding_does_not(model, features):
    tables = model.embedder.tables
    with tf.GradientTape() as tape:
        logits = model(features)
        total = tf.reduce_sum(tf.boolean_mask(logits, _real(features)))
    moved = {}
    for name, gradient in tape.gradient(total, tables).items():
        gradient = tf.convert_to_tensor(gradient).numpy()
        assert np.isfinite(gradient).all()
        moved[name] = set(np.flatnonzero(np.abs(gradient).max(1)))
    for feature in toy_runs.SCHEMA.encoded_features:
        if feature.name in moved:
            keys = [feature.name]
            if feature.role is Role.ITEM:
                keys = [candidate_key(feature.name), history_key(feature.name)]
            ids = [np.unique(features[key]) for key in keys if key in features]
            assert moved[feature.name] == set(np.concatenate(ids)) - {PAD_ID}, feature.name


def test_padding_changes_neither_scores_nor_loss(model, features):
    # At most as many steps as the schema allows: a longer history cannot occur.
    short = features | {key: features[key][:, :4] for key in HISTORY}
    padded = _pad(short, steps=2, candidates=2)
    real = _real(features)
    logits, padded_logits = model(short).numpy(), model(padded).numpy()
    np.testing.assert_allclose(padded_logits[_real(padded)], logits[real], rtol=1e-5, atol=5e-6)
    assert np.isfinite(padded_logits).all()
    plain, other = model.loss_terms(short, SEED), model.loss_terms(padded, SEED)
    assert plain.keys() == other.keys()
    assert _mean(other["log_loss"]) == pytest.approx(_mean(plain["log_loss"]), abs=1e-5)


def test_many_candidates_score_as_single_ones(model, features):
    """And requests alone as in a batch, an empty history among them."""
    together = model(features).numpy()
    count = together.shape[1]
    alone = {
        name: tf.reshape(value, [-1, 1]) if name in CANDIDATE else tf.repeat(value, count, axis=0)
        for name, value in features.items()
    }
    np.testing.assert_allclose(
        model(alone).numpy().reshape(together.shape), together, rtol=1e-5, atol=5e-6
    )
    empty = {name: value[:1] for name, value in features.items()}
    empty |= {name: empty[name][:, :1] for name in HISTORY}
    np.testing.assert_allclose(model(empty).numpy(), together[:1], rtol=1e-5, atol=5e-6)


def test_explains_what_it_can(model, features):
    if type(model.backbone).explain is Backbone.explain:
        with pytest.raises(NotImplementedError, match="must implement explain"):
            model.explain(features)
        return
    why = {name: value.numpy() for name, value in model.explain(features).items()}
    real, events = _real(features), features[history_key(ITEM)].numpy() != PAD_ID
    *shape, interests = why["confidence_BNK"].shape
    assert tuple(shape) == real.shape
    np.testing.assert_allclose(why["confidence_BNK"].sum(-1)[real], 1.0, atol=1e-5)
    attention = why["attention_BNKL"]
    assert attention.shape[:2] == real.shape
    assert attention.shape[3] == events.shape[1]
    assert interests in (attention.shape[2], 1)  # 1 where one expert reads all interests.
    assert not attention[~np.broadcast_to(events[:, None, None], attention.shape)].any()


@pytest.fixture(scope="module")
def loaded(model, config, data, tmp_path_factory):
    """The model, written as the best weights of a run and read again."""
    run = tmp_path_factory.mktemp("run")
    run_directory.begin(run, config, data)
    run_directory.best_checkpoint(model, run).save()
    return run_directory.load_model(run)


@pytest.fixture(scope="module")
def served(loaded, data, tmp_path_factory):
    """What serving.export saves, but for the other signatures, which take time to trace."""
    path = str(tmp_path_factory.mktemp("served"))
    module, exported = ServingModule(loaded, data), tf.Module()
    exported.parts = [module.encoder, module.weights]
    tf.saved_model.save(exported, path, {SERVING_DEFAULT: module.trace(SERVING_DEFAULT)})
    return tf.saved_model.load(path)


def _scores(served, raw):
    inputs = {name: tf.constant(value) for name, value in raw.items()}
    return served.signatures[SERVING_DEFAULT](**inputs)[SCORES].numpy()


def test_saves_loads_exports_and_serves_the_same(model, loaded, served, batch):
    for part in ("embedder", "backbone"):
        for weight, other in zip(
            getattr(model, part).weights, getattr(loaded, part).weights, strict=True
        ):
            assert weight.shape == other.shape  # Cross (tfrs) numbers the names of its weights.
            np.testing.assert_array_equal(weight, other)
    found = _scores(served, batch.raw)
    real = _real(batch.features)
    offline = tf.sigmoid(model(batch.features)).numpy()
    np.testing.assert_allclose(found[real], offline[real], rtol=0, atol=1e-6)
    assert not found[~real].any()
    assert np.ptp(offline[real]) > 1e-3


def test_requests_whose_inputs_do_not_belong_together_are_refused_by_name(served, batch):
    """Nobody is scored with the history of somebody else, whatever the model would make of it."""
    one = {name: value[1:2] for name, value in batch.raw.items()}
    groups = {
        "users": [name for name in one if one[name].ndim == 1],
        "history": [name for name in one if name.startswith("history_")],
        "candidates": [name for name in one if name.startswith("candidate_")],
    }
    twice = {name: np.repeat(value, 2, axis=0) for name, value in one.items()}
    assert _scores(served, twice).shape[0] == 2
    for names in groups.values():
        assert names
        for rows in ({name: one[name] for name in names}, {names[0]: one[names[0]]}):
            # One of it for two requests, then two of it for one.
            for request in (twice | rows, one | {name: twice[name] for name in rows}):
                with pytest.raises(tf.errors.InvalidArgumentError) as refused:
                    _scores(served, request)
                for name, value in request.items():
                    shape = " ".join(map(str, value.shape))
                    assert f"[{name} [B" in refused.value.message
                    assert f":] [{shape}]" in refused.value.message
