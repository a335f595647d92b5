"""ComiRec against its twin: self-attention and routing with maps by recency."""

import numpy as np
import pytest

from models.backbone_api import Dims
from models.backbones.comirec import ComiRecDR, ComiRecDRConfig, ComiRecSA
from models.keras import tf
from tests.reference import embedded, loops
from tests.reference import multi_interest as reference

SHAPES = [Dims(2, 2, 1, 4, 9), Dims(1, 1, 0, 6, 9)]
LENGTHS = (9, 3, 0, 1, 4, 8)


def build(kind, dims=SHAPES[0], **settings):
    model = kind(kind.Config(units=(8, 6), **settings), dims)
    score(model, *embedded.batch(dims, [2]))
    embedded.randomize(model, seed=3)
    return model


def score(model, user, candidates):
    return model.score(model.encode_user(user), candidates)


def twin_interests(model, history):
    """Interests, and the weights of the events in them."""
    if isinstance(model, ComiRecDR):
        kernel = model.kernel_LDKD.numpy().astype(np.float64)
        return reference.comirec_dr_interests(history, kernel, model.routing_iterations)
    return reference.comirec_sa_interests(
        history,
        model.positions.table.numpy().astype(np.float64),
        loops.dense(model.hidden)[0],
        loops.dense(model.scorer)[0],
    )


@pytest.mark.parametrize("dims", SHAPES, ids=["2-2-1", "1-1-0"])
@pytest.mark.parametrize(
    ("kind", "settings", "readout"),
    [
        (ComiRecSA, {}, {}),
        (ComiRecSA, {"interests": 3, "readout": "hard"}, {"hard": True}),
        (ComiRecDR, {}, {}),
        (ComiRecDR, {"interests": 2, "routing_iterations": 2, "power": 3.0}, {"power": 3.0}),
    ],
    ids=["sa", "sa-hard", "dr", "dr-power"],
)
def test_equals_the_twin(kind, settings, readout, dims):
    model = build(kind, dims, **settings)
    user, candidates = embedded.batch(dims, LENGTHS, seed=1, valid_candidates=(3, 1, 2, 3, 2, 3))

    def logit(fields, history, target, extra):
        interests = twin_interests(model, history)[0] if len(history) else None
        return reference.logit(
            fields, history, target, extra, interests, loops.stack(model.dnn), **readout
        )

    real = candidates.mask_BN.numpy()
    found = score(model, user, candidates).numpy()
    expected = loops.logits(user, candidates, logit)
    np.testing.assert_allclose(found[real], expected[real], rtol=1e-5, atol=5e-6)


@pytest.mark.parametrize("kind", [ComiRecSA, ComiRecDR], ids=["sa", "dr"])
def test_order_matters(kind):
    model = build(kind)
    user, candidates = embedded.batch(SHAPES[0], [9, 5])
    turned = user._replace(history_BLJd=tf.reverse_sequence(user.history_BLJd, [9, 5], seq_axis=1))
    difference = np.abs(score(model, user, candidates) - score(model, turned, candidates))
    assert (difference.max(1) > 1e-4).all()


def test_maps_belong_to_recency():
    """The last event goes through the same map whatever came before."""
    model = build(ComiRecDR)
    kernel = model.kernel_LDKD.numpy()
    kernel[0] = 0.0
    model.kernel_LDKD.assign(kernel)
    user, _ = embedded.batch(SHAPES[0], LENGTHS)
    last = np.maximum(np.array(LENGTHS) - 1, 0)
    is_last = tf.one_hot(last, 9)[:, :, None, None] > 0
    other = user._replace(history_BLJd=tf.where(is_last, 5.0, user.history_BLJd))
    changed, expected = (model.encode_user(side).interests for side in (other, user))
    np.testing.assert_allclose(changed.vectors_BKD, expected.vectors_BKD, atol=1e-6)
    np.testing.assert_allclose(changed.attention_BKL, expected.attention_BKL, atol=1e-6)


def test_values_have_no_positions():
    """Positions steer the attention; a history of equal events gives that event."""
    model = build(ComiRecSA)
    user, _ = embedded.batch(SHAPES[0], [9, 2])
    same = tf.where(user.mask_BL[..., None, None], 0.3, tf.zeros_like(user.history_BLJd))
    state = model.encode_user(user._replace(history_BLJd=same))
    np.testing.assert_allclose(state.interests.vectors_BKD, np.full((2, 4, 8), 0.3), rtol=1e-5)
    assert np.ptp(state.interests.attention_BKL.numpy()[0], axis=-1).min() > 1e-3


@pytest.mark.parametrize("kind", [ComiRecSA, ComiRecDR], ids=["sa", "dr"])
def test_explains_by_attention_and_readout(kind):
    model = build(kind)
    user, candidates = embedded.batch(SHAPES[0], LENGTHS)
    explanation = model.explain(model.encode_user(user), candidates)
    confidence = explanation["confidence_BNK"].numpy()
    np.testing.assert_allclose(confidence.sum(-1), 1.0, atol=1e-6)
    attention = explanation["attention_BNKL"].numpy()
    assert attention.shape == (6, 3, 4, 9)
    interests, weights = twin_interests(model, user.history_BLD.numpy()[1, :3])
    np.testing.assert_allclose(attention[1, 2, :, :3], weights, atol=2e-6)
    expected = reference.read(interests, candidates.target_BND.numpy()[1, 2])
    np.testing.assert_allclose(confidence[1, 2], expected, atol=2e-6)
    assert not attention[1, :, :, 3:].any()
    assert not attention[2].any()


def test_maps_start_at_a_scale_that_keeps_lengths():
    kernel = ComiRecDR(ComiRecDRConfig(), Dims(1, 2, 0, 10, 50)).kernel_LDKD.numpy()
    assert kernel.shape == (50, 20, 4, 20)
    assert kernel.std() == pytest.approx(1 / np.sqrt(20), rel=0.02)
