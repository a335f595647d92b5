"""DMR: the twin of its score and of its auxiliary loss, and where each may look."""

import numpy as np
import pytest

from models.backbone_api import Dims
from models.backbones.dmr import DMR, DMRConfig
from models.keras import tf
from models.ops import randomness
from tests.helpers import small_models
from tests.reference import dmr as reference
from tests.reference import embedded

DIMS = Dims(
    user_fields=2, history_features=2, extra_fields=1, embedding_size=4, max_length=6, num_items=9
)
BARE = Dims(1, 1, 0, 3, 4, 9)
LENGTHS = (6, 3, 0, 1, 2)
SEED = tf.constant([4, 2])
SMALL = {"position_size": 3, "attention_units": (6, 5), "units": (6, 5), "sampled_negatives": 7}


def requests(dims=DIMS, lengths=LENGTHS, seed=0):
    user, candidates = embedded.batch(dims, lengths, seed=seed)
    keys = np.random.default_rng([seed, 2]).integers(1, dims.num_items, candidates.mask_BN.shape)
    return user, candidates._replace(key_BN=tf.constant(keys))


def build(dims=DIMS):
    model = DMR(DMRConfig(**SMALL), dims)
    score(model, *requests(dims, [2]))
    embedded.randomize(model, seed=3, scale=0.4)
    return model


@pytest.fixture(scope="module")
def model():
    return build()


def score(model, user, candidates):
    return model.score(model.encode_user(user), candidates)


def auxiliary(model, user, candidates, seed=SEED):
    state = model.encode_user(user, training=True, seed=seed)
    return model.auxiliary_losses(state, candidates, seed=seed)["next_item"]


def twin_weights(model):
    def dense(layer):
        return layer.kernel.numpy(), 0.0 if layer.bias is None else layer.bias.numpy()

    def attention(layer):
        return [dense(layer), *map(dense, layer.hidden), dense(layer.scorer)]

    return {
        "user_query": dense(model.user_query),
        "user_slope": model.user_prelu.alpha.numpy().ravel(),
        "user_attention": attention(model.user_attention),
        "user_vector": dense(model.user_vector),
        "vector_slope": model.vector_prelu.alpha.numpy(),
        "item_vectors": model.item_vectors.numpy(),
        "target_query": dense(model.target_query),
        "position_query": model.position_query.kernel.numpy(),
        "target_slope": model.target_prelu.alpha.numpy().ravel(),
        "target_attention": attention(model.target_attention),
        "dnn": [dense(layer) for layer in model.dnn.stack],
    }


def histories(user):
    """The valid events of each request and their item keys."""
    masks = user.mask_BL.numpy()
    events = [x[m] for x, m in zip(user.history_BLD.numpy(), masks, strict=True)]
    return events, [x[m] for x, m in zip(user.items_BL.numpy(), masks, strict=True)]


@pytest.mark.parametrize("dims", [DIMS, BARE], ids=["all", "bare"])
def test_equals_the_twin(dims, model):
    model = model if dims is DIMS else build(dims)
    user, candidates = requests(dims, np.minimum(LENGTHS, dims.max_length))
    events, _ = histories(user)
    weights, ranks = twin_weights(model), model.positions.table.numpy()
    expected = np.zeros(candidates.mask_BN.shape)
    for b, n in np.ndindex(*expected.shape):
        expected[b, n] = reference.logit(
            user.fields_BFd[b].numpy().ravel(),
            candidates.target_BND[b, n].numpy(),
            candidates.extra_BNEd[b, n].numpy().ravel(),
            candidates.key_BN[b, n].numpy(),
            events[b],
            ranks,
            weights,
        )
    np.testing.assert_allclose(score(model, user, candidates), expected, rtol=1e-5, atol=1e-5)


def test_auxiliary_loss_equals_the_twin(model):
    lengths = (6, 3, 0, 1, 2, 2, 4)
    user, candidates = requests(lengths=lengths)
    events, items = histories(user)
    place = randomness.for_place(SEED, "dmr/sampled_negatives")
    drawn = 1 + randomness.integers(place, tf.fill([7], DIMS.num_items - 1)).numpy()
    expected = reference.next_item_losses(
        events, items, model.positions.table.numpy(), drawn, twin_weights(model)
    )
    term = auxiliary(model, user, candidates)
    np.testing.assert_array_equal(term.weights_Pn[0], [loss is not None for loss in expected])
    for value, loss in zip(term.values_Pn[0].numpy(), expected, strict=True):
        if loss is not None:
            assert value == pytest.approx(loss, rel=1e-5)
    assert term.weight == 0.1


def test_draws_every_item_but_padding():
    model = DMR(DMRConfig(**SMALL | {"sampled_negatives": 500}), DIMS)
    user, candidates = requests()
    with tf.GradientTape() as tape:
        term = auxiliary(model, user, candidates)
        loss = tf.reduce_sum(term.values_Pn * term.weights_Pn)
    gradient = tf.convert_to_tensor(tape.gradient(loss, model.item_vectors)).numpy()
    np.testing.assert_array_equal(gradient.any(1), np.arange(DIMS.num_items) > 0)


def test_the_vector_that_seeks_the_last_item_does_not_see_it(model):
    user, candidates = requests(lengths=[5, 2])
    last = np.zeros([2, DIMS.max_length, 1, 1])
    last[0, 4], last[1, 1] = 1.0, 1.0
    other = user._replace(history_BLJd=user.history_BLJd + tf.constant(last, tf.float32))
    first, second = (model.encode_user(side, training=True, seed=SEED) for side in (user, other))
    np.testing.assert_array_equal(first.previous_Bd, second.previous_Bd)
    assert (first.user_Bd.numpy() != second.user_Bd.numpy()).all()


def test_short_histories_do_not_train_the_auxiliary_task(model):
    user, candidates = requests(lengths=[0, 1])
    with tf.GradientTape() as tape:
        term = auxiliary(model, user, candidates)
        loss = tf.reduce_sum(term.values_Pn * term.weights_Pn)
    assert not term.weights_Pn.numpy().any()
    for gradient in tape.gradient(loss, model.trainable_variables):
        if gradient is not None:
            assert not tf.convert_to_tensor(gradient).numpy().any()


def test_padding_changes_nothing(model):
    user, candidates = requests(lengths=[3, 0, 2])
    shorter = user._replace(
        history_BLJd=user.history_BLJd[:, :3],
        mask_BL=user.mask_BL[:, :3],
        items_BL=user.items_BL[:, :3],
    )
    padded = embedded.pad(shorter, 2)
    np.testing.assert_allclose(
        score(model, padded, candidates), score(model, shorter, candidates), rtol=1e-5, atol=1e-5
    )
    np.testing.assert_allclose(
        auxiliary(model, padded, candidates).values_Pn,
        auxiliary(model, shorter, candidates).values_Pn,
        rtol=1e-5,
    )


def test_order_of_the_history_matters(model):
    user, candidates = requests(lengths=[6])
    backwards = user._replace(history_BLJd=user.history_BLJd[:, ::-1])
    difference = score(model, user, candidates) - score(model, backwards, candidates)
    assert np.abs(difference).min() > 1e-4


def test_explains_by_the_attention_of_the_candidate(model):
    user, candidates = requests()
    explanation = model.explain(model.encode_user(user), candidates)
    np.testing.assert_array_equal(explanation["confidence_BNK"], np.ones((5, 3, 1)))
    attention = explanation["attention_BNKL"].numpy()
    sums = np.array(LENGTHS) > 0
    np.testing.assert_allclose(attention.sum(-1)[..., 0], np.tile(sums[:, None], 3), atol=1e-6)
    padding = np.broadcast_to(~user.mask_BL.numpy()[:, None, None], attention.shape)
    assert not attention[padding].any()


def test_the_table_of_item_vectors_trains_by_rows_touched():
    built = small_models.model(small_models.config("dmr", "none", "model.sampled_negatives=3"))
    table = built.backbone.item_vectors
    before, features = table.numpy(), small_models.batch(requests=2, candidates=1)
    built.main_step(features)
    changed = (table.numpy() != before).any(1)
    items = np.concatenate([np.ravel(features[f"{k}/item_id"]) for k in ("history", "candidate")])
    # The first history is empty and its user vector still 0, so only the second candidate learns.
    assert changed[features["candidate/item_id"][1, 0]]
    assert not changed[0]
    assert changed.sum() <= len(np.unique(items[items > 0])) + 3 < len(before)
