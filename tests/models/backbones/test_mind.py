"""MIND against its twin: routing, number of interests, readout."""

import numpy as np
import pytest

from models.backbone_api import Dims
from models.backbones.mind import MIND, MINDConfig
from models.keras import tf
from preprocessing.errors import UserError
from tests.reference import embedded, loops
from tests.reference import multi_interest as reference

SHAPES = [Dims(2, 2, 1, 4, 9), Dims(1, 1, 0, 6, 9)]
LENGTHS = (9, 3, 0, 1, 4, 8)


def build(dims=SHAPES[0], **settings):
    model = MIND(MINDConfig(units=(8, 6), **settings), dims)
    score(model, *embedded.batch(dims, [2]))
    embedded.randomize(model, seed=3)
    return model


def score(model, user, candidates):
    return model.score(model.encode_user(user), candidates)


def twin_interests(model, history, interests=4):
    return reference.mind_interests(
        history,
        loops.dense(model.to_vote)[0],
        model.logits_KL.numpy().astype(np.float64),
        loops.dense(model.projection)[0],
        interests,
        model.routing_iterations,
    )


def adaptive_number(events):
    return max(1, min(4, int(np.log2(events))))


@pytest.mark.parametrize("dims", SHAPES, ids=["2-2-1", "1-1-0"])
@pytest.mark.parametrize(
    ("settings", "readout"),
    [
        ({}, {}),
        ({"power": 2.5, "routing_iterations": 1}, {"power": 2.5}),
        ({"readout": "hard"}, {"hard": True}),
        ({"adaptive": True}, {}),
        ({"adaptive": True, "readout": "hard"}, {"hard": True}),
    ],
    ids=["default", "power", "hard", "adaptive", "adaptive-hard"],
)
def test_equals_the_twin(dims, settings, readout):
    model = build(dims, **settings)
    user, candidates = embedded.batch(dims, LENGTHS, seed=1, valid_candidates=(3, 1, 2, 3, 2, 3))

    def logit(fields, history, target, extra):
        interests = None
        if len(history):
            number = adaptive_number(len(history)) if model.config.adaptive else 4
            interests = twin_interests(model, history, number)[0]
        return reference.logit(
            fields, history, target, extra, interests, loops.stack(model.dnn), **readout
        )

    real = candidates.mask_BN.numpy()
    found = score(model, user, candidates).numpy()
    expected = loops.logits(user, candidates, logit)
    np.testing.assert_allclose(found[real], expected[real], rtol=1e-5, atol=5e-6)


def test_routing_logits_stay_as_they_were_drawn():
    model = build()
    assert "routing_logits" not in " ".join(w.name for w in model.trainable_variables)
    fresh = MIND(MINDConfig(), Dims(1, 2, 0, 10, 50)).logits_KL.numpy()
    assert 0.8 < fresh.std() < 1.0  # A standard normal cut at two deviations has .88.
    user, candidates = embedded.batch(SHAPES[0], LENGTHS)
    first, second = score(model, user, candidates), score(model, user, candidates)
    np.testing.assert_array_equal(first, second)


def test_order_matters_only_through_the_drawn_logits():
    model = build()
    user, candidates = embedded.batch(SHAPES[0], LENGTHS)
    backwards = tf.reverse_sequence(user.history_BLJd, LENGTHS, seq_axis=1)
    turned = user._replace(history_BLJd=backwards)
    assert np.abs(score(model, user, candidates) - score(model, turned, candidates)).max() > 1e-4
    model.logits_KL.assign(tf.zeros_like(model.logits_KL))
    np.testing.assert_allclose(
        score(model, user, candidates), score(model, turned, candidates), atol=2e-6
    )


def test_logits_belong_to_recency():
    """An older event in front changes no other event's logit."""
    model = build(routing_iterations=1)
    dims = SHAPES[0]
    user, _ = embedded.batch(dims, [4])
    longer, _ = embedded.batch(dims, [5])
    longer = longer._replace(
        history_BLJd=tf.concat([longer.history_BLJd[:, :1], user.history_BLJd[:, :8]], 1)
    )
    shares = model.encode_user(user).interests.attention_BKL.numpy()[0, :, :4]
    older = model.encode_user(longer).interests.attention_BKL.numpy()[0, :, 1:5]
    np.testing.assert_allclose(older, shares, atol=1e-6)


def test_explains_by_shares_and_readout():
    model = build(adaptive=True)
    user, candidates = embedded.batch(SHAPES[0], LENGTHS)
    explanation = model.explain(model.encode_user(user), candidates)
    confidence = explanation["confidence_BNK"].numpy()
    attention = explanation["attention_BNKL"].numpy()
    assert attention.shape == (6, 3, 4, 9)
    np.testing.assert_allclose(confidence.sum(-1), 1.0, atol=1e-6)
    for b, events in enumerate(LENGTHS):
        number = adaptive_number(max(events, 1))
        assert not confidence[b, :, number:].any()
        assert not attention[b, :, number:].any()
        assert not attention[b, :, :, events:].any()
        np.testing.assert_allclose(attention[b, :, :, :events].sum(1), 1.0, atol=1e-6)
    history = user.history_BLD.numpy()[5, :8]
    _, shares = twin_interests(model, history, 3)
    np.testing.assert_allclose(attention[5, 0, :3, :8], shares, atol=2e-6)


def test_an_unknown_readout_is_named():
    with pytest.raises(UserError, match="model.readout to be one of soft, hard, found 'max'"):
        MINDConfig(readout="max")
