import dataclasses
from typing import Any

import numpy as np
import pytest

from models.backbones import deminet as module
from models.backbones.deminet import DemiNet, DemiNetConfig
from models.interfaces import Candidates, Dims, UserSide
from models.keras import keras, tf
from preprocessing.errors import UserError
from reference import deminet as reference
from reference import embedded

DIMS = Dims(user_fields=1, history_features=2, extra_fields=1, embedding_size=4, max_length=9)
SMALL: dict[str, Any] = {
    "embedding_size": 4,
    "interests": 3,
    "heads": 2,
    "threshold": 0.3,
    "window": 2,
    "expert_units": (6, 5),
    "confidence_units": (5, 4),
}
LENGTHS = [7, 9, 2, 1, 0]
SEED = tf.constant([3, 4])


def _batch(lengths: list[int] = LENGTHS, candidates: int = 3) -> tuple[UserSide, Candidates]:
    """Embedded requests whose histories repeat items; some candidates are padding."""
    user, candidates_ = embedded.batch(
        DIMS, lengths, candidates, valid_candidates=[candidates, *[2] * (len(lengths) - 1)]
    )
    random = np.random.default_rng(1)
    items = random.normal(size=(5, 2, 4))
    history = items[random.integers(0, 5, user.mask_BL.shape)]
    history *= user.mask_BL.numpy()[..., None, None]
    return user._replace(history_BLJd=tf.constant(history, tf.float32)), candidates_


def _model(seed: int = 0, dims: Dims = DIMS, **settings: Any) -> DemiNet:
    """A model with weights of a trained size everywhere, moving averages included."""
    keras.utils.set_random_seed(seed)
    model = DemiNet(DemiNetConfig(**(SMALL | settings)), dims)
    user, candidates = embedded.batch(dims, [2, 3], 2)
    model.score(model.encode_user(user), candidates)
    random = np.random.default_rng(seed)
    for weight in model.trainable_variables:
        weight.assign_add(random.normal(scale=0.3, size=weight.shape))
    normalize = model.experts.normalize
    normalize.moving_mean.assign(random.normal(size=normalize.moving_mean.shape))
    normalize.moving_variance.assign(random.uniform(0.5, 2, normalize.moving_mean.shape))
    return model


def _logits(model: DemiNet, user: UserSide, candidates: Candidates, **kwargs: Any) -> np.ndarray:
    state = model.encode_user(user, **kwargs)
    return model.score(state, candidates, training=kwargs.get("training", False)).numpy()


def _consistency(model: DemiNet, user: UserSide, candidates: Candidates) -> tf.Tensor:
    """Eq. 18 summed over interests, per valid candidate."""
    state = model.encode_user(user, training=True, seed=SEED)
    term = model.auxiliary_losses(state, candidates, seed=SEED)["interest_consistency"]
    assert term.weight == model.config.ssl_weight
    return tf.boolean_mask(term.values_Pn[0], term.weights_Pn[0] > 0)


class _Reference:
    """The equations of a whole model, fed with the weights of `model`."""

    def __init__(self, model: DemiNet, user: UserSide, candidates: Candidates) -> None:
        self.model = model
        self.lengths = user.mask_BL.numpy().sum(1)
        self.histories = [
            history[:n] for history, n in zip(user.history_BLD.numpy(), self.lengths, strict=True)
        ]
        self.fields = user.fields_BFd.numpy()
        self.targets = candidates.target_BND.numpy()
        self.extras = candidates.extra_BNEd.numpy()
        self.mask = candidates.mask_BN.numpy()

    def edges(self, b: int) -> reference.Edges:
        config = self.model.config
        return reference.neighbours(self.histories[b], config.window, config.threshold)

    def nodes(self, b: int, edges: reference.Edges) -> np.ndarray:
        """H*, eqs 6-12."""
        nodes = self.histories[b]
        for layer in self.model.graph_layers:
            pair = np.concatenate([layer.receiver_RHC, layer.sender_RHC], -1)
            weights = reference.GraphWeights(
                projection=layer.project.kernel.numpy(),
                pair=dict(zip(reference.RELATIONS, pair, strict=True)),
                relation=layer.relation_HC.numpy(),
                relation_bias=layer.relation_bias_H.numpy(),
                slope=layer.slope,
            )
            nodes = reference.graph_attention(nodes, edges, weights)
        return reference.add_positions(nodes, self.model.positions.table.numpy())

    def interests(self, b: int, n: int, nodes: np.ndarray) -> list[np.ndarray]:
        """v_k, eq. 13."""
        extractor = self.model.extractor
        kernel = np.concatenate([extractor.history_half.kernel, extractor.target_half.kernel])
        kernels = np.split(kernel, extractor.interests, axis=1)
        biases = np.split(extractor.target_half.bias.numpy(), extractor.interests)
        return [
            reference.interest(
                nodes,
                self.targets[b, n],
                reference.AttentionWeights(kernel, bias, last, extractor.slope),
            )[0]
            for kernel, bias, last in zip(kernels, biases, extractor.last_KA.numpy(), strict=True)
        ]

    def context(self, b: int, n: int) -> np.ndarray:
        history = self.histories[b]
        pooled = history.mean(0) if len(history) else np.zeros(history.shape[1])
        parts = [pooled, self.fields[b].ravel(), self.targets[b, n], self.extras[b, n].ravel()]
        return np.concatenate(parts)

    def logits(self, training: bool) -> dict[tuple[int, int], float]:
        """Eqs 13-15 for every valid candidate."""
        pairs = list(zip(*np.nonzero(self.mask), strict=True))
        interests = {(b, n): self.interests(b, n, self.nodes(b, self.edges(b))) for b, n in pairs}
        inputs = {pair: np.concatenate([*interests[pair], self.context(*pair)]) for pair in pairs}
        experts, confidence = self.model.experts, self.model.confidence
        mean = experts.normalize.moving_mean.numpy()
        variance = experts.normalize.moving_variance.numpy()
        if training:
            mean = np.mean(list(inputs.values()), 0)
            variance = np.var(list(inputs.values()), 0)
        first = np.concatenate([confidence.interest_half.kernel, confidence.context_half.kernel])
        layers = [
            (first, confidence.context_half.bias.numpy()),
            *((dense.kernel.numpy(), dense.bias.numpy()) for dense in confidence.rest.stack),
        ]
        logits = {}
        for pair in pairs:
            scores = []
            for k in range(self.model.config.interests):
                kernels = [experts.kernels[0][:, k], *(kernel[k] for kernel in experts.kernels[1:])]
                weights = reference.ExpertWeights(
                    mean=mean,
                    variance=variance,
                    epsilon=experts.normalize.epsilon,
                    scale=experts.scale_IK.numpy()[:, k],
                    offset=experts.offset_IK.numpy()[:, k],
                    layers=[
                        (kernel.numpy(), bias[k].numpy())
                        for kernel, bias in zip(kernels, experts.biases, strict=True)
                    ],
                )
                scores.append(reference.expert(inputs[pair], weights))
            omega = reference.confidences(
                interests[pair], self.context(*pair), layers, confidence.prototypes_KD.numpy()
            )
            logits[pair] = reference.combine(omega, scores)
        return logits


@pytest.mark.parametrize("training", [False, True])
def test_scores_equal_the_equations(training: bool) -> None:
    model = _model(3, attention_units=5)
    user, candidates = _batch()
    expected = _Reference(model, user, candidates).logits(training)
    logits = _logits(model, user, candidates, training=training, seed=SEED if training else None)
    assert len(expected) == 3 + 4 * 2
    for pair, logit in expected.items():
        np.testing.assert_allclose(logits[pair], logit, rtol=2e-5, atol=2e-5)


def test_self_supervision_equals_the_equations(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eqs 16-18, the reference dropping the same edges."""
    views: list[Any] = []
    original = module.add_dropped_views

    def recording(*args: Any, **kwargs: Any) -> Any:
        views.append(original(*args, **kwargs))
        return views[-1]

    monkeypatch.setattr(module, "add_dropped_views", recording)
    model = _model(3)
    user, candidates = _batch()
    divergences = _consistency(model, user, candidates).numpy()
    twin = _Reference(model, user, candidates)
    context, similar = views[0].context_BVRWL.numpy(), views[0].similar_BVLL.numpy()

    def keep(b: int, view: int) -> dict[str, np.ndarray]:
        kept = {"sim": similar[b, view]}
        for r, (relation, sign) in enumerate([("in", -1), ("out", +1)]):
            kept[relation] = np.zeros_like(kept["sim"])
            for w, i in zip(*np.nonzero(context[b, view, r]), strict=True):
                kept[relation][i, i + sign * (w + 1)] = True
        return kept

    expected = []
    for b, n in zip(*np.nonzero(twin.mask), strict=True):
        first, second = (
            twin.interests(b, n, twin.nodes(b, reference.drop_edges(twin.edges(b), keep(b, v))))
            for v in (1, 2)
        )
        expected.append(sum(map(reference.divergence, first, second)))
    assert max(expected) > 1e-3
    np.testing.assert_allclose(divergences, expected, rtol=1e-4, atol=1e-6)


def test_golden_g4_and_g5() -> None:
    """omega from dots/2 = [1, 1, 0]; the logit of o = [1, -1, 2]; its probability."""
    dims = DIMS._replace(embedding_size=2)
    model = _model(dims=dims, embedding_size=2, heads=1)
    for weight in (*model.confidence.rest.stack[-1].weights, *model.experts.kernels):
        weight.assign(tf.zeros_like(weight))
    model.confidence.rest.stack[-1].bias.assign([1.0, 2.0, 0.0, 0.0])
    model.confidence.prototypes_KD.assign([[2.0, 0, 5, 5], [0, 1.0, 5, 5], [0, 0, 5, 5]])
    model.experts.biases[-1].assign([[1.0], [-1.0], [2.0]])
    user, candidates = embedded.batch(dims, [3, 0], 2)
    explained = model.explain(model.encode_user(user), candidates)
    omega = [0.4223188, 0.4223188, 0.1553624]
    np.testing.assert_allclose(explained["confidence_BNK"][1, 1], omega, atol=1e-6)
    logits = _logits(model, user, candidates)
    np.testing.assert_allclose(logits, np.full([2, 2], 0.31072481), atol=1e-6)
    np.testing.assert_allclose(tf.sigmoid(logits), np.full([2, 2], 0.57706217), atol=1e-6)
    two_units = reference.softmax([logits[0, 0], 0.0])  # Eq. 15 as written, over two classes.
    np.testing.assert_allclose(two_units[0], 0.57706217, atol=1e-6)
    np.testing.assert_allclose(reference.softmax([0.3, -0.9])[0], tf.sigmoid(1.2), atol=1e-6)


def test_padding_changes_nothing() -> None:
    """Invariant 1, with garbage at padding."""
    model = _model()
    user, candidates = _batch([4, 6, 0])
    expected = _logits(model, user, candidates)
    explained = model.explain(model.encode_user(user), candidates)["attention_BNKL"]
    for length in (6, 9):
        mask = user.mask_BL[:, :length]
        garbage = np.where(mask.numpy()[..., None, None], user.history_BLJd[:, :length], 99.0)
        padded = user._replace(history_BLJd=tf.constant(garbage), mask_BL=mask)
        np.testing.assert_allclose(_logits(model, padded, candidates), expected, atol=1e-6)
        attention = model.explain(model.encode_user(padded), candidates)["attention_BNKL"]
        np.testing.assert_allclose(attention[..., :6], explained[..., :6], atol=1e-6)


def test_padding_changes_no_self_supervision(monkeypatch: pytest.MonkeyPatch) -> None:
    """Invariant 1, with draws that depend on the place of an edge and not on the padded length."""

    def draws(seed: tf.Tensor, shape: tf.Tensor) -> tf.Tensor:
        places = sum((axis + 2) ** 1.5 * x for axis, x in enumerate(np.indices(shape)))
        return tf.constant(np.modf(np.abs(np.sin(places)) * 1e3)[0], tf.float32)

    monkeypatch.setattr("models.randomness.uniform", draws)
    model = _model()
    user, candidates = _batch([4, 6, 0])
    short = user._replace(history_BLJd=user.history_BLJd[:, :6], mask_BL=user.mask_BL[:, :6])
    expected = _consistency(model, short, candidates)
    assert tf.reduce_max(expected) > 1e-3
    np.testing.assert_allclose(_consistency(model, user, candidates), expected, atol=1e-6)


def test_padded_candidates_change_nothing_in_training() -> None:
    model = _model()
    user, candidates = _batch()
    arguments = {"training": True, "seed": SEED}
    expected = _logits(model, user, candidates, **arguments)
    mask = candidates.mask_BN.numpy()
    assert not mask.all()
    garbage = tf.where(mask[..., None, None], candidates.target_BNJd, 99.0)
    logits = _logits(model, user, candidates._replace(target_BNJd=garbage), **arguments)
    np.testing.assert_allclose(logits[mask], expected[mask], rtol=1e-5, atol=1e-6)


def test_empty_histories_are_finite() -> None:
    """Invariant 2."""
    model = _model()
    user, candidates = _batch([0, 0])
    with tf.GradientTape() as tape:
        tape.watch([user.history_BLJd, candidates.target_BNJd])
        logits = model.score(
            model.encode_user(user, training=True, seed=SEED), candidates, training=True
        )
        loss = tf.reduce_sum(logits) + tf.reduce_sum(_consistency(model, user, candidates))
    sources = [user.history_BLJd, candidates.target_BNJd, *model.trainable_variables]
    gradients = tape.gradient(loss, sources, unconnected_gradients=tf.UnconnectedGradients.ZERO)
    assert np.isfinite(logits).all()
    assert all(np.isfinite(gradient).all() for gradient in gradients)
    np.testing.assert_array_equal(gradients[0], tf.zeros_like(gradients[0]))
    np.testing.assert_array_equal(_consistency(model, user, candidates), np.zeros(5))
    explained = model.explain(model.encode_user(user), candidates)
    np.testing.assert_array_equal(explained["attention_BNKL"], np.zeros([2, 3, 3, 9]))


def test_requests_do_not_see_each_other_at_inference() -> None:
    """Invariant 3."""
    model = _model()
    user, candidates = _batch()
    expected = _logits(model, user, candidates)
    order = np.array([3, 1, 4, 0, 2])
    shuffled = [tf.nest.map_structure(lambda x: tf.gather(x, order), x) for x in (user, candidates)]
    np.testing.assert_allclose(_logits(model, *shuffled), expected[order], atol=1e-6)
    for b in range(5):
        one = (
            UserSide(*(x[b : b + 1] for x in user)),
            Candidates(*(x[b : b + 1] for x in candidates)),
        )
        np.testing.assert_allclose(_logits(model, *one)[0], expected[b], atol=1e-6)


def test_many_candidates_equal_single_ones() -> None:
    """Invariant 4: one state serves any number of candidates."""
    model = _model()
    user, candidates = _batch(candidates=6)
    state = model.encode_user(user)
    together = model.score(state, candidates).numpy()
    for n in range(6):
        one = Candidates(*(x[:, n : n + 1] for x in candidates))
        np.testing.assert_allclose(model.score(state, one)[:, 0], together[:, n], atol=1e-5)


def test_order_of_the_history_matters() -> None:
    """Invariant 5."""
    model = _model()
    user, candidates = _batch([9])
    backwards = user._replace(history_BLJd=user.history_BLJd[:, ::-1])
    difference = _logits(model, user, candidates) - _logits(model, backwards, candidates)
    assert np.abs(difference).min() > 1e-4


def test_without_edges_slices_leave_the_history_alone() -> None:
    """Invariant 7: DemiNet is then DemiNet without its graph."""
    model = _model(head_mode="slice", threshold=1.1, edge_dropout=1.0)
    user, _ = _batch()
    state = model.encode_user(user, training=True, seed=SEED)
    views = state["view_nodes_BVLD"] - model.positions(user.mask_BL)[:, None]
    for view in (0, 1):
        np.testing.assert_allclose(
            tf.where(user.mask_BL[..., None], views[:, view], 0.0), user.history_BLD, atol=1e-6
        )
    assert not any("project" in weight.name for weight in model.graph_layers[0].weights)


def test_views_agree_without_dropout() -> None:
    """Invariant 13: rho = 0 gives a divergence of exactly 0, and no gradient."""
    model = _model(edge_dropout=0.0)
    user, candidates = _batch()
    with tf.GradientTape() as tape:
        divergences = _consistency(model, user, candidates)
    np.testing.assert_array_equal(divergences, np.zeros_like(divergences))
    for gradient in tape.gradient(divergences, model.trainable_variables):
        assert gradient is None or not np.any(gradient)


def test_self_supervision_leaves_the_main_path_alone() -> None:
    """Invariant 13: same logits with and without, and without it nothing random is computed."""
    user, candidates = _batch()
    with_ssl, without = _model(ssl_weight=0.1), _model(ssl_weight=0.0)
    arguments = {"training": True, "seed": SEED}
    np.testing.assert_allclose(
        _logits(with_ssl, user, candidates, **arguments),
        _logits(without, user, candidates, **arguments),
        atol=1e-6,
    )

    def operations(training: bool, **settings: Any) -> set[str]:
        model = _model(depth=1, **settings)

        def run(seed: tf.Tensor) -> tf.Tensor:
            return model.encode_user(user, training=training, seed=seed)["nodes_BLD"]

        graph = tf.function(run).get_concrete_function(SEED).graph
        return {operation.type for operation in graph.get_operations()}

    random = "StatelessRandomUniformV2"
    assert random in operations(training=True)
    assert random not in operations(training=True, ssl_weight=0.0)
    assert random not in operations(training=False)
    state = without.encode_user(user, **arguments)
    assert without.auxiliary_losses(state, candidates, seed=SEED) == {}


def test_draws_follow_the_seed() -> None:
    model = _model()
    user, _ = _batch()

    def views(seed: list[int]) -> np.ndarray:
        return model.encode_user(user, training=True, seed=tf.constant(seed))["view_nodes_BVLD"]

    np.testing.assert_array_equal(views([1, 2]), views([1, 2]))
    assert np.abs(views([1, 2]) - views([1, 3])).max() > 1e-3


def _gradients(model: DemiNet) -> dict[str, Any]:
    user, candidates = _batch([9, 9, 4, 3, 0])
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


@pytest.mark.parametrize("head_mode", ["project", "slice"])
def test_gradient_reaches_every_weight(head_mode: str) -> None:
    gradients = _gradients(_model(head_mode=head_mode))
    dead = [
        name for name, gradient in gradients.items() if gradient is None or not np.any(gradient)
    ]
    assert not dead
    # Every slice of the weights of relations and of experts, too.
    for name, gradient in gradients.items():
        if "receiver" in name or "sender" in name:
            assert (np.abs(gradient).max((1, 2)) > 0).all(), name


def test_one_interest_is_one_expert() -> None:
    """Invariant 14: all confidence in the only expert, and nothing to learn about it."""
    model = _model(interests=1)
    user, candidates = _batch()
    explained = model.explain(model.encode_user(user), candidates)
    np.testing.assert_array_equal(explained["confidence_BNK"], np.ones([5, 3, 1]))
    confidence = {id(weight) for weight in model.confidence.trainable_variables}
    for variable, gradient in zip(
        model.trainable_variables, _gradients(model).values(), strict=True
    ):
        assert np.any(gradient) != (id(variable) in confidence), variable.name


def test_explanations_are_weights() -> None:
    """Invariant 12."""
    model = _model()
    user, candidates = _batch()
    explained = model.explain(model.encode_user(user), candidates)
    np.testing.assert_allclose(tf.reduce_sum(explained["confidence_BNK"], -1), 1.0, atol=1e-6)
    attention = explained["attention_BNKL"].numpy()
    has_history = np.broadcast_to((np.array(LENGTHS) > 0)[:, None, None], attention.shape[:3])
    np.testing.assert_allclose(attention.sum(-1), has_history, atol=1e-6)
    assert not attention[~np.broadcast_to(user.mask_BL[:, None, None], attention.shape)].any()


def test_works_for_any_batch_in_one_graph() -> None:
    """One trace serves all sizes; nothing depends on a static batch, length or count."""
    model = _model(dims=DIMS._replace(user_fields=0, extra_fields=0))
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
    )
    run = tf.function(
        lambda user, candidates: model.score(model.encode_user(user), candidates),
        input_signature=[user_spec, shapes(candidates, 2)],
    )
    for lengths, count, length in (([2, 3], 2, 3), ([9, 0, 4], 7, 9), ([1], 1, 1)):
        user, candidates = embedded.batch(dims, lengths, count, length=length)
        np.testing.assert_allclose(
            run(user, candidates), _logits(model, user, candidates), atol=1e-6
        )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"interests": 0}, "Expected interests to be at least 1, found 0"),
        ({"window": 0}, "Expected window to be at least 1, found 0"),
        ({"head_mode": "split"}, "one of project, slice, found 'split'"),
        ({"edge_dropout": 1.5}, r"in \[0, 1\], found 1.5"),
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
