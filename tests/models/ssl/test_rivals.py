"""Rule, IRSSL, S3Rec and CL4SRec: their NumPy twins, and what they draw."""

import numpy as np
import pytest

from models.backbone_api import Dims
from models.keras import tf
from models.ssl.cl4srec import CL4SRec, CL4SRecConfig
from models.ssl.irssl import IRSSL, IRSSLConfig
from models.ssl.rule import Rule, RuleConfig
from models.ssl.s3rec import S3Rec, S3RecConfig
from preprocessing.errors import UserError
from tests.reference import embedded
from tests.reference import rivals as reference

DIMS = Dims(user_fields=1, history_features=2, extra_fields=0, embedding_size=4, max_length=12)
LENGTHS = (9, 4, 0, 1, 2, 3, 7, 5)
KEY = np.array([1, 2, 3, 4, 5, 6, 1, 7])
SEED = tf.constant([3, 8])
KINDS = {
    "rule": (Rule, RuleConfig),
    "irssl": (IRSSL, IRSSLConfig),
    "s3rec": (S3Rec, S3RecConfig),
    "cl4srec": (CL4SRec, CL4SRecConfig),
}


def requests(dims=DIMS, lengths=LENGTHS, length=None, seed=0):
    """Embedded requests with ids of categories; two are of the same user."""
    user, candidates = embedded.batch(
        dims, lengths, length=length, seed=seed, valid_candidates=[1 + i % 3 for i in lengths]
    )
    rng = np.random.default_rng(seed)
    mask = user.mask_BL.numpy()
    ids = [tf.constant(np.where(mask, rng.integers(2, 5, mask.shape), 0)) for _ in range(2)]
    key = tf.constant(np.resize(KEY, len(lengths)))
    return user._replace(key_B=key, history_ids=tuple(ids)), candidates


def build(name, dims=DIMS, **settings):
    kind, config = KINDS[name]
    ssl = kind(config(**settings), dims)
    ssl.losses(*requests(dims), seed=SEED)
    embedded.randomize(ssl, seed=1)
    return ssl


def layers(mlp):
    return [[w.numpy().astype(np.float64) for w in layer.weights] for layer in mlp.stack]


def encoder_weights(encoder):
    attention = [w.numpy().astype(np.float64) for w in encoder.attention.weights]
    return {
        "positions": encoder.positions.table.numpy().astype(np.float64),
        "norms": [[w.numpy().astype(np.float64) for w in norm.weights] for norm in encoder.norms],
        "attention": list(zip(attention[::2], attention[1::2], strict=True)),
        "feed_forward": layers(encoder.feed_forward),
    }


def twin_states(encoder, user, drawn):
    """The twin's representation of every view that has events."""
    weights = encoder_weights(encoder)
    mask_vector = encoder.mask_vector.numpy().astype(np.float64)
    views = []
    for v in range(2):
        states = []
        for b, history in enumerate(user.history_BLD.numpy().astype(np.float64)):
            length = int(drawn.lengths_VB[v, b])
            if not length:
                states.append(None)
                continue
            sources, hidden = drawn.sources_VBL[v, b].numpy(), drawn.hidden_VBL[v, b].numpy()
            events = reference.alter(history, sources, length, hidden, mask_vector)
            states.append(reference.transformer(events, weights))
        views.append(states)
    return views


# --- the twins ---


@pytest.mark.parametrize("features", [2, 3])
def test_rule_equals_its_twin(features):
    dims = DIMS._replace(history_features=features)
    ssl = build("rule", dims, temperature=0.3)
    user, candidates = requests(dims)
    valid = np.array(LENGTHS) > 0
    kept = ssl.draw(user, SEED).numpy()
    expected = reference.rule(
        user.history_BLJd.numpy().astype(np.float64), kept, layers(ssl.encoder), 0.3, KEY, valid
    )
    (term,) = ssl.losses(user, candidates, seed=SEED).values()
    np.testing.assert_array_equal(term.weights_Pn[0], valid)
    np.testing.assert_allclose(term.values_Pn[0], expected, rtol=1e-6, atol=2e-6)


@pytest.mark.parametrize("features", [2, 3])
def test_irssl_equals_its_twin(features):
    dims = DIMS._replace(history_features=features)
    ssl = build("irssl", dims, temperature=0.2)
    user, candidates = requests(dims)
    key_BN = tf.constant(np.random.default_rng(0).integers(2, 5, candidates.mask_BN.shape))
    candidates = candidates._replace(key_BN=key_BN)
    drawn = ssl.draw(candidates.mask_BN, SEED)
    rows = np.arange(len(LENGTHS))
    expected = reference.irssl(
        candidates.target_BNJd.numpy().astype(np.float64),
        drawn.candidate_B.numpy(),
        drawn.first_BJ.numpy(),
        layers(ssl.encoder),
        0.2,
        key_BN.numpy()[rows, drawn.candidate_B.numpy()],
        np.ones(len(LENGTHS), bool),
    )
    (term,) = ssl.losses(user, candidates, seed=SEED).values()
    np.testing.assert_allclose(term.values_Pn[0], expected, rtol=1e-6, atol=2e-6)


@pytest.mark.parametrize("features", [2, 3])
def test_s3rec_equals_its_twin(features):
    dims = DIMS._replace(history_features=features)
    ssl = build("s3rec", dims)
    user, candidates = requests(dims)
    valid = np.array(LENGTHS) >= 2
    contexts, segments = twin_states(ssl.encoder, user, ssl.draw(user.mask_BL, SEED))
    bilinear = ssl.bilinear.numpy().astype(np.float64)
    expected = reference.s3rec(contexts, segments, bilinear, KEY, valid)
    (term,) = ssl.losses(user, candidates, seed=SEED).values()
    np.testing.assert_array_equal(term.weights_Pn[0], valid)
    np.testing.assert_allclose(term.values_Pn[0], expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(np.mean(term.values_Pn), np.mean(expected), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("features", [2, 3])
def test_cl4srec_equals_its_twin(features):
    dims = DIMS._replace(history_features=features)
    ssl = build("cl4srec", dims, temperature=0.5)
    user, candidates = requests(dims)
    valid = np.array(LENGTHS) > 0
    first, second = twin_states(ssl.encoder, user, ssl.draw(user.mask_BL, SEED))
    expected = reference.nt_xent(first, second, 0.5, KEY, valid)
    (term,) = ssl.losses(user, candidates, seed=SEED).values()
    np.testing.assert_array_equal(term.weights_Pn[0], np.tile(valid, 2))
    np.testing.assert_allclose(term.values_Pn[0], expected, rtol=1e-6, atol=5e-6)
    np.testing.assert_allclose(np.mean(term.values_Pn), np.mean(expected), rtol=1e-6, atol=1e-6)


# --- what they draw ---


def test_rule_keeps_events_of_one_category_that_occurs_twice():
    ssl = build("rule")
    user, _ = requests(lengths=(6, 4, 3, 1), length=6)
    categories = np.array(
        [[2, 3, 2, 3, 4, 2], [2, 3, 4, 4, 0, 0], [2, 3, 4, 0, 0, 0], [5] + [0] * 5]
    )
    user = user._replace(history_ids=(user.history_ids[0], tf.constant(categories)))
    chosen = [set(), set(), set(), set()]
    for step in range(60):
        kept = ssl.draw(user, tf.constant([0, step])).numpy()
        assert kept.any(-1).all()
        assert not (kept & ~user.mask_BL.numpy()).any()
        for b in range(4):
            chosen[b].add(frozenset(categories[b][kept[:, b].any(0)].tolist()))
    # Both categories with two events; the only one; all events for want of such a category.
    assert chosen[0] == {frozenset([2]), frozenset([3])}
    assert chosen[1] == {frozenset([4])}
    assert frozenset([2, 3, 4]) in chosen[2]
    assert chosen[3] == {frozenset([5])}


def test_irssl_takes_every_candidate_and_half_of_its_features():
    ssl = build("irssl", DIMS._replace(history_features=3))
    mask = np.array([[1, 1, 1], [1, 0, 0], [0, 1, 0]], bool)
    drawn = ssl.draw(tf.constant(np.repeat(mask, 300, axis=0)), SEED)
    taken = drawn.candidate_B.numpy().reshape(3, 300)
    np.testing.assert_array_equal(taken[1:], [[0] * 300, [1] * 300])
    np.testing.assert_allclose(np.bincount(taken[0]), 100, atol=6 * np.sqrt(100))
    first_BJ = drawn.first_BJ.numpy()
    np.testing.assert_array_equal(first_BJ.sum(-1), 1)
    np.testing.assert_allclose(first_BJ.sum(0), 300, atol=6 * np.sqrt(300))


def test_s3rec_cuts_at_most_half_of_the_history():
    ssl = build("s3rec")
    lengths = np.repeat([2, 3, 7, 12], 2000)
    mask = np.arange(12) < lengths[:, None]
    drawn = ssl.draw(tf.constant(mask), SEED)
    inside = drawn.hidden_VBL[0].numpy()
    np.testing.assert_array_equal(drawn.hidden_VBL[1].numpy(), ~inside)
    size = inside.sum(-1)
    assert not (inside & ~mask).any()
    # Contiguous: one entry into the segment.
    entries = np.diff(inside.astype(int), axis=-1, prepend=0) == 1
    np.testing.assert_array_equal(entries.sum(-1), 1)
    for length in (2, 3, 7, 12):
        chosen = lengths == length
        counts = np.bincount(size[chosen], minlength=length // 2 + 1)[1:]
        expected = 2000 / (length // 2)
        np.testing.assert_allclose(counts, expected, atol=6 * np.sqrt(expected))
        shortest = chosen & (size == 1)
        starts = np.bincount(entries[shortest].argmax(-1), minlength=length)
        np.testing.assert_allclose(starts, starts.mean(), atol=6 * np.sqrt(starts.mean()))


def test_cl4srec_crops_masks_and_reorders():
    ssl = build("cl4srec")
    lengths = np.tile([0, 1, 5, 12], 1500)
    mask = np.arange(12) < lengths[:, None]
    drawn = ssl.draw(tf.constant(mask), SEED)
    seen = {"crop": 0, "mask": 0, "reorder": 0, "none": 0}
    rows = zip(
        np.tile(lengths, 2),
        drawn.sources_VBL.numpy().reshape(-1, 12),
        drawn.lengths_VB.numpy().ravel(),
        drawn.hidden_VBL.numpy().reshape(-1, 12),
        strict=True,
    )
    for length, sources, kept, hidden in rows:
        sources, hidden = sources[:kept], hidden[:kept]
        if kept < length or (length and kept and sources[0] > 0 and (np.diff(sources) == 1).all()):
            assert kept == max(1, int(0.6 * length))
            assert (np.diff(sources) == 1).all()
            assert 0 <= sources[0] <= length - kept
            assert not hidden.any()
            seen["crop"] += 1
            continue
        assert kept == length
        assert sorted(sources) == list(range(length))
        if hidden.any():
            assert hidden.sum() == length // 2
            assert (sources == np.arange(length)).all()
            seen["mask"] += 1
        elif (sources != np.arange(length)).any():
            moved = np.flatnonzero(sources != np.arange(length))
            assert moved[-1] - moved[0] < int(0.2 * length)
            seen["reorder"] += 1
        else:
            seen["none"] += 1
    # A third each of 3,000 copies of 5 and 12 events (2 of 12 swapped or not) and of 3,000 shorter.
    assert abs(seen["crop"] - 2000) < 6 * np.sqrt(2000)
    assert abs(seen["mask"] - 2000) < 6 * np.sqrt(2000)
    assert abs(seen["reorder"] - 500) < 6 * np.sqrt(500)


# --- invariants ---


@pytest.mark.parametrize("name", list(KINDS))
def test_padding_changes_nothing(name):
    dims = DIMS._replace(max_length=16)
    ssl = build(name, dims)
    user, candidates = requests(dims, length=9)
    padded = embedded.pad(user, 6, 1e3)
    padded = padded._replace(
        history_ids=tuple(
            tf.pad(ids, [[0, 0], [0, 6]], constant_values=3) for ids in user.history_ids
        )
    )

    def loss_and_gradient(user):
        with tf.GradientTape() as tape:
            tape.watch(user.history_BLJd)
            (term,) = ssl.losses(user, candidates, seed=SEED).values()
            total = tf.reduce_sum(term.values_Pn)
        gradient = tape.gradient(total, user.history_BLJd)
        return term.values_Pn, None if gradient is None else gradient.numpy()

    values, gradient = loss_and_gradient(user)
    padded_values, padded_gradient = loss_and_gradient(padded)
    np.testing.assert_allclose(padded_values, values, rtol=1e-5, atol=1e-6)
    if name == "irssl":
        assert gradient is None  # It looks at candidates only.
        return
    np.testing.assert_allclose(padded_gradient[:, :9], gradient, atol=1e-5)
    assert not padded_gradient[:, 9:].any()
    assert not gradient[~user.mask_BL.numpy()].any()
    assert gradient[0].any()


@pytest.mark.parametrize("name", ["rule", "s3rec", "cl4srec"])
def test_no_history_is_no_loss(name):
    ssl = build(name)
    user, candidates = requests(lengths=(0, 0, 0), length=1)
    with tf.GradientTape() as tape:
        (term,) = ssl.losses(user, candidates, seed=SEED).values()
        total = tf.reduce_sum(term.values_Pn)
    assert not term.values_Pn.numpy().any()
    assert not term.weights_Pn.numpy().any()
    for gradient in tape.gradient(total, ssl.trainable_variables):
        assert gradient is None or not np.nan_to_num(gradient, nan=1.0).any()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Rule(RuleConfig(), DIMS._replace(history_features=1)), "ssl.feature to be one of"),
        (lambda: IRSSL(IRSSLConfig(), DIMS._replace(history_features=1)), "at least two item feat"),
        (lambda: S3Rec(S3RecConfig(heads=3), DIMS), "ssl.heads to divide 8"),
    ],
    ids=["rule", "irssl", "heads"],
)
def test_mistakes_are_named(call, message):
    with pytest.raises(UserError, match=message):
        call()
