"""SIM against its twin: what it retrieves, and what trains the search."""

import numpy as np
import pytest

from models.backbone_api import Dims
from models.backbones.sim import SIM, SIMConfig
from models.keras import tf
from preprocessing.errors import UserError
from tests.reference import embedded, loops
from tests.reference import sim as reference

SHAPES = [Dims(2, 2, 1, 4, 7), Dims(1, 1, 0, 6, 9)]
LENGTHS = (7, 3, 0, 1, 5)


def build(dims=SHAPES[0], **settings):
    config = SIMConfig(attention_units=(6, 5), units=(8, 6), **settings)
    model = SIM(config, dims)
    user, candidates = embedded.batch(dims, [2])
    score(model, user, candidates)
    model.auxiliary_logits(model.encode_user(user), candidates)
    embedded.randomize(model, seed=3)
    return model


def score(model, user, candidates, training=False):
    return model.score(model.encode_user(user, training=training), candidates, training=training)


def twin_weights(model):
    heads = model.config.heads
    keys, queries = (
        np.split(loops.dense(layer)[0], heads, 1)
        for layer in (model.event_keys, model.target_queries)
    )
    return {
        "search": (loops.dense(model.event_search)[0], loops.dense(model.target_search)[0]),
        "heads": list(zip(keys, queries, strict=True)),
        "short_term": loops.local_activation(model.short_term),
        "dnn": loops.stack(model.dnn),
        "search_dnn": loops.stack(model.search_dnn),
    }


@pytest.mark.parametrize("dims", SHAPES, ids=["2-2-1", "1-1-0"])
@pytest.mark.parametrize(
    "settings",
    [{}, {"retrieved_events": 2, "recent_events": 3}, {"retrieved_events": 4, "heads": 2}],
    ids=["default", "few", "heads"],
)
def test_equals_the_twin(dims, settings):
    model = build(dims, **settings)
    user, candidates = embedded.batch(dims, LENGTHS, seed=1, valid_candidates=(3, 1, 2, 3, 2))
    weights, config = twin_weights(model), model.config
    real = candidates.mask_BN.numpy()
    expected = loops.logits(
        user,
        candidates,
        lambda *inputs: reference.logit(
            *inputs, weights, config.retrieved_events, config.recent_events
        ),
    )
    found = score(model, user, candidates).numpy()
    np.testing.assert_allclose(found[real], expected[real], rtol=1e-5, atol=5e-6)

    (further,) = model.auxiliary_logits(model.encode_user(user), candidates).values()
    expected = loops.logits(
        user,
        candidates,
        lambda _, history, target, __: reference.search_logit(history, target, weights),
    )
    np.testing.assert_allclose(further.logits_BN.numpy()[real], expected[real], 1e-5, 5e-6)
    assert further.weight == 1.0


def test_never_retrieves_padding_while_an_event_remains():
    """Relevances are all negative here, so that a padding of 0 would outrank every event."""
    model = build(retrieved_events=3)
    model.event_search.kernel.assign(np.eye(8))
    model.target_search.kernel.assign(-np.eye(8))
    user, candidates = embedded.batch(SHAPES[0], LENGTHS)
    user = user._replace(history_BLJd=tf.abs(user.history_BLJd))
    candidates = candidates._replace(target_BNJd=tf.abs(candidates.target_BNJd) + 0.1)
    state = model.encode_user(user)
    assert (model._relevance(state, candidates).numpy()[0] < 0).all()
    steps = model._retrieve(state, candidates).steps_BNK.numpy()
    for b, events in enumerate(LENGTHS):
        assert ((steps[b] < events).sum(-1) == min(3, events)).all()


def test_retrieves_the_most_relevant_events():
    model = build(retrieved_events=2)
    user, candidates = embedded.batch(SHAPES[0], LENGTHS)
    state = model.encode_user(user)
    steps = model._retrieve(state, candidates).steps_BNK.numpy()
    weights = twin_weights(model)
    for b, n in ((0, 0), (1, 2), (4, 1)):
        history, target = user.history_BLD.numpy()[b], candidates.target_BND.numpy()[b, n]
        scores = reference.relevance(history[: LENGTHS[b]], target, *weights["search"])
        assert list(steps[b, n]) == reference.retrieve(scores, 2)


def test_the_search_learns_from_its_own_loss_only():
    model = build(retrieved_events=2)
    user, candidates = embedded.batch(SHAPES[0], LENGTHS)
    search = [model.event_search.kernel, model.target_search.kernel]
    with tf.GradientTape(persistent=True) as tape:
        state = model.encode_user(user, training=True)
        main = tf.reduce_sum(model.score(state, candidates, training=True))
        (further,) = model.auxiliary_logits(state, candidates).values()
        auxiliary = tf.reduce_sum(further.logits_BN)
    assert tape.gradient(main, search) == [None, None]
    assert all(np.any(gradient) for gradient in tape.gradient(auxiliary, search))
    # And the other way round: no weight of the scorer.
    assert tape.gradient(auxiliary, model.dnn.trainable_variables) == [None] * 6


def test_the_short_term_interest_is_that_of_the_last_events():
    model = build(retrieved_events=1, recent_events=2)
    user, candidates = embedded.batch(SHAPES[0], [5, 2])
    state = model.encode_user(user)
    history = user.history_BLD.numpy()
    np.testing.assert_array_equal(state.recent_BSD[0], history[0, [4, 3]])
    np.testing.assert_array_equal(state.recent_BSD[1], history[1, [1, 0]])


@pytest.mark.parametrize("heads", [1, 2])
def test_explains_by_what_was_retrieved_and_what_is_recent(heads):
    model = build(retrieved_events=3, recent_events=2, heads=heads)
    user, candidates = embedded.batch(SHAPES[0], LENGTHS)
    explanation = model.explain(model.encode_user(user), candidates)
    np.testing.assert_allclose(
        explanation["confidence_BNK"], np.full((5, 3, heads + 1), 1 / (heads + 1))
    )
    attention = explanation["attention_BNKL"].numpy()
    assert attention.shape == (5, 3, heads + 1, 7)
    weights = twin_weights(model)
    for b, n in ((0, 1), (1, 0), (4, 2)):
        history = user.history_BLD.numpy()[b, : LENGTHS[b]]
        target = candidates.target_BND.numpy()[b, n]
        best = reference.retrieve(reference.relevance(history, target, *weights["search"]), 3)
        for h, kernels in enumerate(weights["heads"]):
            expected = np.zeros(7)
            expected[best] = reference.head(history[best], target, *kernels)[0]
            np.testing.assert_allclose(attention[b, n, h], expected, atol=2e-6)
        _, recent = reference.recent_weights(history, target, 2, weights["short_term"])
        expected = np.zeros(7)
        expected[LENGTHS[b] - len(recent) : LENGTHS[b]] = recent
        np.testing.assert_allclose(attention[b, n, heads], expected, atol=2e-6)
    assert not attention[2].any()


def test_heads_must_divide_the_item_width():
    with pytest.raises(UserError, match="found 3 heads for 2 item features of 4 = 8"):
        SIM(SIMConfig(heads=3), SHAPES[0])
