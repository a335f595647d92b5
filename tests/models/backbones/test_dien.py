"""DIEN against its twin, and the traps of its recurrences."""

import numpy as np
import pytest

from models.backbone_api import Dims
from models.backbones.dien import DIEN, DIENConfig
from models.keras import tf
from tests.reference import dien as reference
from tests.reference import embedded, loops

SHAPES = [Dims(2, 2, 1, 4, 7), Dims(1, 1, 0, 6, 9), Dims(3, 3, 2, 2, 8)]
LENGTHS = (7, 3, 0, 1, 5)


def build(dims=SHAPES[0]):
    model = DIEN(DIENConfig(units=(8, 6)), dims)
    score(model, *embedded.batch(dims, [2]))
    embedded.randomize(model, seed=3)
    return model


def score(model, user, candidates):
    return model.score(model.encode_user(user), candidates)


def twin_weights(model):
    augru = model.evolution
    return {
        "gru": [weight.numpy().astype(np.float64) for weight in model.extractor.cell.weights],
        "attention": loops.dense(model.attention)[0],
        "augru": (*loops.dense(augru.of_input), augru.of_state.numpy().astype(np.float64)),
        "dnn": loops.stack(model.dnn),
    }


@pytest.mark.parametrize("dims", SHAPES, ids=["2-2-1", "1-1-0", "3-3-2"])
def test_equals_the_twin(dims):
    model = build(dims)
    user, candidates = embedded.batch(dims, LENGTHS, valid_candidates=(3, 1, 2, 3, 2), seed=1)
    weights = twin_weights(model)
    expected = loops.logits(user, candidates, lambda *inputs: reference.logit(*inputs, weights))
    real = candidates.mask_BN.numpy()
    found = score(model, user, candidates).numpy()
    np.testing.assert_allclose(found[real], expected[real], rtol=1e-5, atol=2e-6)


def test_reads_the_last_valid_step():
    """The interest of padding is that of the last event, and no candidate attends to it."""
    model = build()
    user, candidates = embedded.batch(SHAPES[0], LENGTHS)
    state = model.encode_user(user)
    interests = state.interests_BLD.numpy()
    np.testing.assert_array_equal(interests[1, 3:], np.broadcast_to(interests[1, 2], (4, 8)))
    np.testing.assert_array_equal(interests[2], np.zeros((7, 8)))
    changed = state._replace(interests_BLD=tf.where(user.mask_BL[..., None], interests, 9.0))
    np.testing.assert_array_equal(model.score(changed, candidates), model.score(state, candidates))


def test_an_event_without_attention_leaves_no_trace():
    """With the gate of the authors' code, a = 0 would overwrite the state."""
    model = build()
    user, candidates = embedded.batch(SHAPES[0], LENGTHS)
    state = model.encode_user(user)
    # Keys far apart: all attention on event 0.
    keys = np.zeros([5, 7, 8])
    keys[:, 0] = 1e4
    target = tf.ones_like(candidates.target_BNJd)
    state = state._replace(keys_BLD=tf.constant(keys, tf.float32))
    candidates = candidates._replace(target_BNJd=target)
    later = tf.where(tf.range(7)[:, None] > 0, -3.0, state.interests_BLD)
    np.testing.assert_array_equal(
        model.score(state._replace(interests_BLD=later), candidates), model.score(state, candidates)
    )


def test_order_matters():
    model = build()
    user, candidates = embedded.batch(SHAPES[0], [7, 7])
    backwards = user._replace(history_BLJd=user.history_BLJd[:, ::-1])
    difference = score(model, user, candidates) - score(model, backwards, candidates)
    assert np.abs(difference).min() > 1e-4


def test_only_the_evolution_is_repeated_per_candidate():
    model = build()
    user, candidates = embedded.batch(SHAPES[0], LENGTHS, candidates=6)
    calls = []
    extract = model.extractor.call
    model.extractor.call = lambda *args, **kwargs: calls.append(1) or extract(*args, **kwargs)
    assert score(model, user, candidates).shape == (5, 6)
    assert len(calls) == 1


def test_explains_by_attention():
    model = build()
    user, candidates = embedded.batch(SHAPES[0], LENGTHS)
    explanation = model.explain(model.encode_user(user), candidates)
    np.testing.assert_array_equal(explanation["confidence_BNK"], np.ones((5, 3, 1)))
    attention = explanation["attention_BNKL"].numpy()
    assert attention.shape == (5, 3, 1, 7)
    weights = twin_weights(model)
    history = user.history_BLD.numpy()[1, :3]
    states = reference.gru(history, *weights["gru"])
    expected = reference.attention(
        states, candidates.target_BND.numpy()[1, 2], weights["attention"]
    )
    np.testing.assert_allclose(attention[1, 2, 0], np.append(expected, [0] * 4), atol=1e-6)
    assert not attention[2].any()
