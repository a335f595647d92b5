"""DMIN against its twin: causal attention, key masks, positions by recency, next event."""

import numpy as np
import pytest

from models.backbone_api import Dims
from models.backbones.dmin import DMIN, DMINConfig
from models.keras import tf
from models.layers.next_event import NextEvent
from models.ops import randomness
from preprocessing.errors import UserError
from tests.reference import dmin as reference
from tests.reference import embedded, loops

SHAPES = [Dims(2, 2, 1, 4, 7), Dims(1, 1, 0, 8, 9), Dims(3, 3, 2, 4, 8)]
LENGTHS = (7, 3, 0, 1, 5)
SEED = tf.constant([4, 2])


def build(dims=SHAPES[0], **settings):
    model = DMIN(DMINConfig(attention_units=(6, 5), units=(8, 6), **settings), dims)
    user, candidates = embedded.batch(dims, [2])
    score(model, user, candidates)
    model.auxiliary_losses(model.encode_user(user), candidates, seed=SEED)
    embedded.randomize(model, seed=3)
    return model


@pytest.fixture(scope="module")
def model():
    """Tests leave its weights as they are."""
    return build()


@pytest.fixture(scope="module")
def predictive():
    """With the auxiliary loss. Tests leave its weights as they are."""
    return build(auxiliary_weight=0.7, auxiliary_units=(6, 5))


def score(model, user, candidates):
    return model.score(model.encode_user(user), candidates)


def block_weights(block):
    query, key, value, output = (w.astype(np.float64) for w in block.attention.get_weights())
    return {
        "heads": [(query[:, h], key[:, h], value[:, h], output[h]) for h in range(query.shape[1])],
        "norm": (block.norm.gamma.numpy(), block.norm.beta.numpy()),
        "epsilon": 1e-6,
        "feed_forward": loops.stack(block.feed_forward),
    }


def twin_weights(model):
    interests = []
    for extractor, reader in zip(model.extractors, model.readers, strict=True):
        target, _ = loops.dense(reader.of_target)
        position, bias = loops.dense(reader.of_position)
        weights = loops.local_activation(reader.activation)
        weights["query"] = np.concatenate([target, position]), bias
        interests.append({"block": block_weights(extractor), "reader": weights})
    return {
        "refiner": block_weights(model.refiner),
        "interests": interests,
        "positions": model.positions.table.numpy(),
        "dnn": loops.stack(model.dnn),
    }


@pytest.mark.parametrize("dims", SHAPES, ids=["2-2-1", "1-1-0", "3-3-2"])
@pytest.mark.parametrize("interests", [1, 4])
def test_equals_the_twin(dims, interests):
    model = build(dims, interests=interests)
    user, candidates = embedded.batch(dims, LENGTHS, seed=1, valid_candidates=(3, 1, 2, 3, 2))
    weights = twin_weights(model)
    expected = loops.logits(user, candidates, lambda *inputs: reference.logit(*inputs, weights))
    real = candidates.mask_BN.numpy()
    found = score(model, user, candidates).numpy()
    # Layer norm of an event lets go of a digit.
    np.testing.assert_allclose(found[real], expected[real], rtol=1e-5, atol=1e-5)


def test_an_event_sees_the_past_only(model):
    user, _ = embedded.batch(SHAPES[0], [7, 5])
    changed = tf.where(tf.range(7)[:, None, None] >= 3, 2.0, user.history_BLJd)
    mask = user.mask_BL[..., None, None]
    other = user._replace(history_BLJd=tf.where(mask, changed, 0.0))
    first, second = model.encode_user(user), model.encode_user(other)
    for key, past in (("refined_BLD", np.s_[:, :3]), ("interests_BKLD", np.s_[:, :, :3])):
        before, after = (getattr(state, key).numpy()[past] for state in (first, second))
        np.testing.assert_array_equal(before, after)
    difference = np.abs(first.refined_BLD - second.refined_BLD)
    assert difference[:, 3:5].max(-1).min() > 1e-3


def test_keys_of_padding_are_masked(model):
    """Not only because they come later: padding in front is not seen either."""
    block = model.refiner
    values = tf.constant(np.random.default_rng(0).normal(size=[1, 4, 8]), tf.float32)
    late = block(values, tf.constant([[False, False, True, True]]))
    alone = block(values[:, 2:], tf.constant([[True, True]]))
    np.testing.assert_allclose(late[:, 2:], alone, atol=1e-6)


def test_positions_belong_to_recency():
    model = build()
    table = np.zeros([7, 2])
    table[0] = 50.0
    model.positions.table.assign(table)
    user, candidates = embedded.batch(SHAPES[0], LENGTHS)
    same = tf.where(user.mask_BL[..., None, None], 0.2, tf.zeros_like(user.history_BLJd))
    state = model.encode_user(user._replace(history_BLJd=same))
    attention = model.explain(state, candidates)["attention_BNKL"].numpy()
    # All events are alike, and so are their weights, but for the most recent one's.
    for b, events in ((0, 7), (1, 3), (4, 5)):
        older, last = attention[b, ..., : events - 1], attention[b, ..., events - 1]
        np.testing.assert_allclose(older, older[..., :1].repeat(events - 1, -1), atol=1e-6)
        assert np.abs(last - older[..., 0]).min() > 1e-4


def test_explains_by_attention(model):
    user, candidates = embedded.batch(SHAPES[0], LENGTHS)
    explanation = model.explain(model.encode_user(user), candidates)
    np.testing.assert_allclose(explanation["confidence_BNK"], np.full((5, 3, 4), 0.25))
    attention = explanation["attention_BNKL"].numpy()
    assert attention.shape == (5, 3, 4, 7)
    sums = np.where(np.array(LENGTHS) > 0, 1.0, 0.0)[:, None, None]
    np.testing.assert_allclose(attention.sum(-1), sums.repeat(3, 1).repeat(4, 2), atol=1e-6)
    assert not attention[1, :, :, 3:].any()


# --- next event ---


def test_no_auxiliary_loss_by_default(model):
    user, candidates = embedded.batch(SHAPES[0], LENGTHS)
    assert model.auxiliary_losses(model.encode_user(user), candidates, seed=SEED) == {}
    assert not [w for w in model.weights if "next_event" in w.name]


def test_next_event_equals_the_twin(predictive):
    lengths = (7, 3, 0, 1, 5, 4)
    user, candidates = embedded.batch(SHAPES[0], lengths)
    keys = np.array([1, 2, 3, 4, 1, 5])
    user = user._replace(key_B=tf.constant(keys))
    state = predictive.encode_user(user)
    shifts = set()
    for step in range(6):
        seed = tf.constant([4, step])
        (term,) = predictive.auxiliary_losses(state, candidates, seed=seed).values()
        assert term.weight == 0.7
        place = randomness.for_place(seed, "dmin/next_event")
        shift = 1 + int(randomness.integers(place, tf.constant(5)))
        shifts.add(shift)
        expected = reference.next_event_losses(
            state.refined_BLD.numpy(),
            [user.history_BLD.numpy()[b, :n] for b, n in enumerate(lengths)],
            keys,
            shift,
            loops.stack(predictive.next_event.network),
        )
        values, weights = (np.reshape(x, [6, 6]) for x in (term.values_Pn, term.weights_Pn))
        assert {tuple(place) for place in np.argwhere(weights)} == set(expected)
        for place, loss in expected.items():
            assert values[place] == pytest.approx(loss, rel=1e-5, abs=1e-6)
    assert len(shifts) > 2


def test_next_event_of_padded_and_of_lonely_requests():
    layer = NextEvent((6,))
    user, _ = embedded.batch(SHAPES[0], LENGTHS)
    padded = embedded.pad(user, 3, 5.0)
    plain, _ = layer(user.history_BLD, user.history_BLD, user.mask_BL, user.key_B, SEED)
    loss, weights = layer(padded.history_BLD, padded.history_BLD, padded.mask_BL, user.key_B, SEED)
    np.testing.assert_allclose(loss[:, :6] * weights[:, :6], plain * weights[:, :6], atol=1e-6)
    assert not weights.numpy()[:, 6:].any()
    alone, _ = embedded.batch(SHAPES[0], [5])
    loss, weights = layer(alone.history_BLD, alone.history_BLD, alone.mask_BL, alone.key_B, SEED)
    assert np.isfinite(loss).all()
    assert not weights.numpy().any()


def test_next_event_trains_every_weight_of_the_refiner(predictive):
    user, candidates = embedded.batch(SHAPES[0], LENGTHS)
    weights = [*predictive.refiner.trainable_variables, *predictive.next_event.trainable_variables]
    with tf.GradientTape() as tape:
        (term,) = predictive.auxiliary_losses(
            predictive.encode_user(user), candidates, seed=SEED
        ).values()
        loss = tf.reduce_sum(term.values_Pn * term.weights_Pn)
    for weight, gradient in zip(weights, tape.gradient(loss, weights), strict=True):
        assert np.any(gradient), weight.name


def test_interests_must_divide_the_item_width():
    with pytest.raises(UserError, match="found 3 interests for 2 item features of 4 = 8"):
        DMIN(DMINConfig(interests=3), SHAPES[0])
