"""What every DemiNet must keep: padding, batches, gradients, settings."""

import dataclasses
from typing import Any

import numpy as np
import pytest
from deminet_cases import (
    DIMS,
    LENGTHS,
    RECIPES,
    SEED,
    SMALL,
    SWITCHES,
    consistency,
    embedded_batch,
    logits_of,
    recipe,
    trained_size,
)

from models.backbone_api import Candidates, UserSide
from models.backbones.deminet import DemiNet, DemiNetConfig
from models.keras import tf
from preprocessing.errors import UserError
from tests.reference import embedded


def test_padding_changes_nothing() -> None:
    """Invariant 1."""
    model = trained_size()
    user, candidates = embedded_batch([4, 6, 0])
    short = user._replace(history_BLJd=user.history_BLJd[:, :6], mask_BL=user.mask_BL[:, :6])
    expected = logits_of(model, short, candidates)
    np.testing.assert_allclose(logits_of(model, user, candidates), expected, atol=1e-6)
    attention, explained = (
        model.explain(model.encode_user(side), candidates)["attention_BNKL"]
        for side in (user, short)
    )
    np.testing.assert_allclose(attention[..., :6], explained, atol=1e-6)


def test_padding_changes_no_self_supervision(monkeypatch: pytest.MonkeyPatch) -> None:
    """Invariant 1, with draws that depend on the place of an edge and not on the padded length."""

    def draws(seed: tf.Tensor, shape: tf.Tensor) -> tf.Tensor:
        places = sum((axis + 2) ** 1.5 * x for axis, x in enumerate(np.indices(shape)))
        return tf.constant(np.modf(np.abs(np.sin(places)) * 1e3)[0], tf.float32)

    monkeypatch.setattr("models.ops.randomness.uniform", draws)
    model = trained_size()
    user, candidates = embedded_batch([4, 6, 0])
    short = user._replace(history_BLJd=user.history_BLJd[:, :6], mask_BL=user.mask_BL[:, :6])
    expected = consistency(model, short, candidates)
    assert tf.reduce_max(expected) > 1e-3
    np.testing.assert_allclose(consistency(model, user, candidates), expected, atol=1e-6)


def test_padded_candidates_change_nothing_in_training() -> None:
    model = trained_size()
    user, candidates = embedded_batch()
    arguments = {"training": True, "seed": SEED}
    expected = logits_of(model, user, candidates, **arguments)
    mask = candidates.mask_BN.numpy()
    assert not mask.all()
    garbage = tf.where(mask[..., None, None], candidates.target_BNJd, 99.0)
    logits = logits_of(model, user, candidates._replace(target_BNJd=garbage), **arguments)
    np.testing.assert_allclose(logits[mask], expected[mask], rtol=1e-5, atol=1e-6)


def test_empty_histories_are_finite() -> None:
    """Invariant 2."""
    model = trained_size()
    user, candidates = embedded_batch([0, 0])
    with tf.GradientTape() as tape:
        tape.watch([user.history_BLJd, candidates.target_BNJd])
        logits = model.score(
            model.encode_user(user, training=True, seed=SEED), candidates, training=True
        )
        loss = tf.reduce_sum(logits) + tf.reduce_sum(consistency(model, user, candidates))
    sources = [user.history_BLJd, candidates.target_BNJd, *model.trainable_variables]
    gradients = tape.gradient(loss, sources, unconnected_gradients=tf.UnconnectedGradients.ZERO)
    assert np.isfinite(logits).all()
    assert all(np.isfinite(gradient).all() for gradient in gradients)
    np.testing.assert_array_equal(gradients[0], tf.zeros_like(gradients[0]))
    np.testing.assert_array_equal(consistency(model, user, candidates), np.zeros(5))
    explained = model.explain(model.encode_user(user), candidates)
    np.testing.assert_array_equal(explained["attention_BNKL"], np.zeros([2, 3, 3, 9]))


def test_requests_do_not_see_each_other_at_inference() -> None:
    """Invariant 3."""
    model = trained_size()
    user, candidates = embedded_batch()
    expected = logits_of(model, user, candidates)
    order = np.array([3, 1, 4, 0, 2])
    shuffled = [tf.nest.map_structure(lambda x: tf.gather(x, order), x) for x in (user, candidates)]
    np.testing.assert_allclose(logits_of(model, *shuffled), expected[order], atol=1e-6)
    for b in range(5):
        own = slice(b, b + 1)
        one = [tf.nest.map_structure(lambda x, o=own: x[o], x) for x in (user, candidates)]
        np.testing.assert_allclose(logits_of(model, *one)[0], expected[b], atol=1e-6)


def test_many_candidates_equal_single_ones() -> None:
    """Invariant 4: one state serves any number of candidates."""
    model = trained_size()
    user, candidates = embedded_batch(candidates=6)
    state = model.encode_user(user)
    together = model.score(state, candidates).numpy()
    for n in range(6):
        one = Candidates(*(x[:, n : n + 1] for x in candidates))
        np.testing.assert_allclose(model.score(state, one)[:, 0], together[:, n], atol=1e-5)


def test_order_of_the_history_matters() -> None:
    """Invariant 5."""
    model = trained_size()
    user, candidates = embedded_batch([9])
    backwards = user._replace(history_BLJd=user.history_BLJd[:, ::-1])
    difference = logits_of(model, user, candidates) - logits_of(model, backwards, candidates)
    assert np.abs(difference).min() > 1e-4


def test_without_edges_slices_are_no_graph_at_all() -> None:
    """Invariant 7: without any edge, DemiNet is DemiNet without its graph."""
    model = trained_size(head_mode="slice", threshold=1.1, edge_dropout=1.0)
    user, _ = embedded_batch()
    state = model.encode_user(user, training=True, seed=SEED)
    without = trained_size(operator="none", ssl_weight=0.0)
    without.positions.table.assign(model.positions.table)
    expected = without.encode_user(user).nodes_BLD
    for view in (0, 1):
        np.testing.assert_allclose(state.views[view], expected, atol=1e-6)
    assert not any("projection" in weight.name for weight in model.graph_layers[0].weights)


def test_views_agree_without_dropout() -> None:
    """Invariant 13: rho = 0 gives a divergence of 0, and no gradient.

    To the last bit of float32: on some processors exp differs by the place in memory.
    """
    model = trained_size(edge_dropout=0.0)
    user, candidates = embedded_batch()
    with tf.GradientTape() as tape:
        divergences = consistency(model, user, candidates)
    np.testing.assert_allclose(divergences, np.zeros_like(divergences), atol=1e-13)
    for gradient in tape.gradient(divergences, model.trainable_variables):
        assert gradient is None or np.abs(gradient).max() < 1e-6


def test_self_supervision_leaves_the_main_path_alone() -> None:
    """Invariant 13: same logits with and without, and without it nothing random is computed."""
    user, candidates = embedded_batch()
    with_ssl, without = trained_size(ssl_weight=0.1), trained_size(ssl_weight=0.0)
    arguments = {"training": True, "seed": SEED}
    np.testing.assert_allclose(
        logits_of(with_ssl, user, candidates, **arguments),
        logits_of(without, user, candidates, **arguments),
        atol=1e-6,
    )

    def operations(training: bool, **settings: Any) -> set[str]:
        model = trained_size(depth=1, **settings)

        def run(seed: tf.Tensor) -> tf.Tensor:
            return model.encode_user(user, training=training, seed=seed).nodes_BLD

        graph = tf.function(run).get_concrete_function(SEED).graph
        return {operation.type for operation in graph.get_operations()}

    random = "StatelessRandomUniformV2"
    assert random in operations(training=True)
    assert random not in operations(training=True, ssl_weight=0.0)
    assert random not in operations(training=False)
    state = without.encode_user(user, **arguments)
    assert without.auxiliary_losses(state, candidates, seed=SEED) == {}


def test_draws_follow_the_seed() -> None:
    model = trained_size()
    user, _ = embedded_batch()

    def views(seed: list[int]) -> np.ndarray:
        return model.encode_user(user, training=True, seed=tf.constant(seed)).views[0]

    np.testing.assert_array_equal(views([1, 2]), views([1, 2]))
    assert np.abs(views([1, 2]) - views([1, 3])).max() > 1e-3


def _gradients(model: DemiNet) -> dict[str, Any]:
    user, candidates = embedded_batch([9, 9, 4, 3, 0])
    with tf.GradientTape() as tape:
        state = model.encode_user(user, training=True, seed=SEED)
        loss = tf.reduce_sum(model.score(state, candidates, training=True) ** 2)
        for term in model.auxiliary_losses(state, candidates, seed=SEED).values():
            loss += tf.reduce_sum(term.values_Pn * term.weights_Pn)
    variables = model.trainable_variables
    gradients = tape.gradient(loss, variables)
    return {
        f"{i}:{variable.name}": gradient
        for i, (variable, gradient) in enumerate(zip(variables, gradients, strict=True))
    }


@pytest.mark.parametrize("name", [*RECIPES, "slices", "bare_attention"])
def test_gradient_reaches_every_weight(name: str) -> None:
    gradients = _gradients(trained_size(**SWITCHES[name]))
    dead = [
        name for name, gradient in gradients.items() if gradient is None or not np.any(gradient)
    ]
    assert not dead
    # Every slice of the weights of relations, too.
    for name, gradient in gradients.items():
        if "receiver" in name or "sender" in name:
            assert (np.abs(gradient).reshape([len(gradient), -1]).max(1) > 0).all(), name


@pytest.mark.parametrize("name", RECIPES)
def test_weights_have_names_of_their_own(name: str) -> None:
    names = [weight.name for weight in trained_size(**recipe(name)).weights]
    assert len(set(names)) == len(names), sorted(names)


def test_one_interest_is_one_expert() -> None:
    """Invariant 14: all confidence in the only expert, and nothing to learn about it.

    To the last bit of float32, since exp(0) is not exactly 1 on every processor.
    """
    model = trained_size(interests=1)
    user, candidates = embedded_batch()
    explained = model.explain(model.encode_user(user), candidates)
    np.testing.assert_allclose(explained["confidence_BNK"], np.ones([5, 3, 1]), rtol=1.2e-7)
    confidence = {id(weight) for weight in model.confidence.trainable_variables}
    sizes = [float(np.abs(gradient).max()) for gradient in _gradients(model).values()]
    for variable, size in zip(model.trainable_variables, sizes, strict=True):
        assert (size > 1e-6 * max(sizes)) != (id(variable) in confidence), variable.name


def test_explanations_are_weights() -> None:
    """Invariant 12."""
    model = trained_size()
    user, candidates = embedded_batch()
    explained = model.explain(model.encode_user(user), candidates)
    np.testing.assert_allclose(tf.reduce_sum(explained["confidence_BNK"], -1), 1.0, atol=1e-6)
    attention = explained["attention_BNKL"].numpy()
    has_history = np.broadcast_to((np.array(LENGTHS) > 0)[:, None, None], attention.shape[:3])
    np.testing.assert_allclose(attention.sum(-1), has_history, atol=1e-6)
    assert not attention[~np.broadcast_to(user.mask_BL[:, None, None], attention.shape)].any()


def test_works_for_any_batch_in_one_graph() -> None:
    """One trace serves all sizes; nothing depends on a static batch, length or count."""
    model = trained_size(dims=DIMS._replace(user_fields=0, extra_fields=0))
    dims = DIMS._replace(user_fields=0, extra_fields=0)

    def shapes(tensors: Any, axes: int) -> Any:
        return tf.nest.map_structure(
            lambda x: tf.TensorSpec([None] * min(axes, x.shape.rank) + x.shape[axes:], x.dtype),
            tensors,
        )

    user, candidates = embedded.batch(dims, [2, 3], 2)
    user_spec = UserSide(
        tf.TensorSpec([None, 0, 4]),
        tf.TensorSpec([None, None, 2, 4]),
        tf.TensorSpec([None, None], tf.bool),
        tf.TensorSpec([None], tf.int64),
        tf.TensorSpec([None, None], tf.int64),
        tf.TensorSpec([None]),
    )
    run = tf.function(
        lambda user, candidates: model.score(model.encode_user(user), candidates),
        input_signature=[user_spec, shapes(candidates, 2)],
    )
    for lengths, count, length in (([2, 3], 2, 3), ([9, 0, 4], 7, 9), ([1], 1, 1)):
        user, candidates = embedded.batch(dims, lengths, count, length=length)
        np.testing.assert_allclose(
            run(user, candidates), logits_of(model, user, candidates), atol=1e-6
        )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"head_mode": "split"}, "one of project, slice, found 'split'"),
        ({"operator": "gcn"}, "one of dha, gat, lgc, gcmc, none, found 'gcn'"),
        ({"divergence": "kl"}, "one of symmetric_kl, js, found 'kl'"),
        ({"aggregation": "max"}, "moe, single, found 'max'"),
        ({"operator": "none"}, "Expected ssl_weight to be 0 without a graph, found 0.1"),
        ({"heads": 3}, "Expected heads to divide the item width, found 3 heads"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        DemiNet(DemiNetConfig(**(SMALL | settings)), DIMS)


def test_defaults_are_those_of_the_paper() -> None:
    config = dataclasses.asdict(DemiNetConfig())
    stated = {"embedding_size": 16, "window": 3, "depth": 2, "edge_dropout": 0.6, "interests": 4}
    assert stated.items() <= config.items()


def test_the_average_is_equal_confidence() -> None:
    """Invariant 15; and hard routing trains as DemiNet does, and differs at inference only."""
    user, candidates = embedded_batch()
    confident = trained_size()
    average = trained_size(aggregation="average")
    routed = trained_size(aggregation="hard_routing")
    weights = {weight.name: weight for weight in confident.weights}
    for model in (average, routed):
        for weight in model.weights:
            weight.assign(weights[weight.name])
    arguments = {"training": True, "seed": SEED}
    soft = logits_of(confident, user, candidates, **arguments)
    np.testing.assert_array_equal(logits_of(routed, user, candidates, **arguments), soft)

    for model in (average, routed):
        for weight in model.weights:
            weight.assign(weights[weight.name])
    explained = confident.explain(confident.encode_user(user), candidates)["confidence_BNK"]
    weights["confidence/prototypes:0"].assign(tf.zeros_like(confident.confidence.prototypes_KD))
    equal = logits_of(confident, user, candidates)
    np.testing.assert_allclose(logits_of(average, user, candidates), equal, atol=1e-5)
    chosen = routed.explain(routed.encode_user(user), candidates)["confidence_BNK"]
    np.testing.assert_array_equal(tf.argmax(chosen, -1), tf.argmax(explained, -1))
    assert set(np.unique(chosen)) == {0.0, 1.0}


def test_nothing_similar_is_no_similarity() -> None:
    """Invariant 8: above a cosine of 1 the weights of the relation have no influence."""
    model = trained_size(threshold=1.1)
    user, candidates = embedded_batch()
    before = logits_of(model, user, candidates)
    for layer in model.graph_layers:
        for weight in (layer.receiver_RHC, layer.sender_RHC):
            weight.assign(weight * np.array([1.0, 1.0, 77.0])[:, None, None])
    np.testing.assert_array_equal(logits_of(model, user, candidates), before)


def test_diagnostics_see_a_collapse_and_agreeing_views() -> None:
    user, candidates = embedded_batch()
    model = trained_size()
    before = [weight.numpy() for weight in model.weights]

    def diagnose(model: DemiNet) -> dict[str, float]:
        found = model.diagnostics(user, candidates, seed=SEED)
        return {name: float(value) for name, value in found.items()}

    found = diagnose(model)
    assert set(found) == {
        "edge_density_earlier",
        "edge_density_later",
        "edge_density_similar",
        "event_cosine",
        "view_cosine",
        "interest_cosine",
        "interest_cosine_candidates",
        "attention_entropy",
        "confidence_max",
        "expert_usage_min",
        "expert_usage_entropy",
        "expert_information",
    }
    assert 0.2 < found["expert_usage_entropy"] < 1.0
    assert found["view_cosine"] < 0.999
    for weight, value in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(weight, value)

    twin = trained_size(edge_dropout=0.0, aggregation="average")
    found = diagnose(twin)
    assert found["view_cosine"] == pytest.approx(1.0, abs=1e-6)
    assert "confidence_max" not in found  # Equal weights are no collapse where they are a setting.
    model.confidence.rest.stack[-1].bias.assign(100 * model.confidence.prototypes_KD[0])
    assert diagnose(model)["expert_usage_entropy"] < 0.1

    plain = trained_size(operator="none", ssl_weight=0.0, aggregation="single")
    assert set(diagnose(plain)) == {
        "event_cosine",
        "interest_cosine",
        "interest_cosine_candidates",
        "attention_entropy",
    }
