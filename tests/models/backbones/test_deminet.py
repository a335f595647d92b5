import dataclasses
from typing import Any

import numpy as np
import pytest

from models import registry
from models.backbones import deminet as module
from models.backbones.deminet import DemiNet, DemiNetConfig
from models.interfaces import Candidates, Dims, UserSide
from models.keras import keras, tf
from models.layers.item_graph import MergedGraph
from preprocessing.errors import UserError
from reference import deminet as reference
from reference import deminet_weights, embedded

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
        self.pairs = list(zip(*np.nonzero(self.mask), strict=True))

    def edges(self, b: int) -> reference.Edges:
        config = self.model.config
        return reference.neighbours(self.histories[b], config.window, config.threshold)

    def nodes(self, b: int, edges: reference.Edges, own: np.ndarray | None = None) -> np.ndarray:
        """H*, eqs 6-12."""
        nodes = self.histories[b]
        own = np.ones(len(nodes)) if own is None else own
        for layer in self.model.graph_layers:
            nodes = deminet_weights.refine(self.model.config.operator, layer, nodes, edges, own)
        return reference.add_positions(nodes, self.model.positions.table.numpy())

    def interests(self, b: int, n: int, nodes: np.ndarray) -> list[np.ndarray]:
        """v_k, eq. 13."""
        extractor, target = self.model.extractor, self.targets[b, n]
        return [
            deminet_weights.interest(extractor, k, nodes, target)[0]
            for k in range(extractor.interests)
        ]

    def context(self, b: int, n: int) -> np.ndarray:
        history = self.histories[b]
        pooled = history.mean(0) if len(history) else np.zeros(history.shape[1])
        parts = [pooled, self.fields[b].ravel(), self.targets[b, n], self.extras[b, n].ravel()]
        return np.concatenate(parts)

    def logits(
        self, interests: dict[tuple[int, int], list[np.ndarray]], training: bool
    ) -> list[float]:
        """Eqs 14-15 for every valid candidate, given its interests."""
        inputs = [np.concatenate([*interests[pair], self.context(*pair)]) for pair in self.pairs]
        experts, aggregation = self.model.experts, self.model.config.aggregation
        mean = experts.normalize.moving_mean.numpy()
        variance = experts.normalize.moving_variance.numpy()
        if training:
            mean, variance = np.mean(inputs, 0), np.var(inputs, 0)
            aggregation = aggregation.replace("hard_routing", "confidence")
        logits = []
        for pair, x in zip(self.pairs, inputs, strict=True):
            scores = [
                deminet_weights.expert(experts, k, x, mean, variance)
                for k in range(experts.experts)
            ]
            shares = deminet_weights.expert_shares(
                aggregation, self.model.confidence, interests[pair], self.context(*pair)
            )
            logits.append(reference.combine(shares, scores))
        return logits


def _recipe(name: str) -> dict[str, Any]:
    return registry.MODELS[name].settings


RECIPES = [name for name in registry.MODELS if name.startswith("deminet")]
SWITCHES: dict[str, dict[str, Any]] = {
    **{name: _recipe(name) for name in RECIPES},
    "slices": {"head_mode": "slice"},
    "deep": {"depth": 3, "heads": 4, "window": 3},
    "bare_attention": {"attention_normalise": False},
    "one_interest": {"interests": 1},
    "sixteen_interests": {"interests": 16},
    "attention_units": {"attention_units": 5},
}


@pytest.mark.parametrize("name", list(SWITCHES))
def test_scores_equal_the_equations(name: str) -> None:
    model = _model(3, **SWITCHES[name])
    user, candidates = _batch()
    twin = _Reference(model, user, candidates)
    nodes = [twin.nodes(b, twin.edges(b)) for b in range(len(LENGTHS))]
    interests = {(b, n): twin.interests(b, n, nodes[b]) for b, n in twin.pairs}
    assert len(interests) == 3 + 4 * 2
    state = model.encode_user(user)
    for training in (False, True):
        expected = twin.logits(interests, training)
        logits = model.score(state, candidates, training=training).numpy()[twin.mask]
        np.testing.assert_allclose(logits, expected, rtol=5e-5, atol=5e-5)


def _kept(views: Any, b: int, view: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Which edges a view keeps: by relation [receiver, sender], and of nodes to themselves."""
    own = np.broadcast_to(views.self_BVL, [len(LENGTHS), 3, views.mask_BL.shape[1]])[b, view]
    if isinstance(views, MergedGraph):
        return dict.fromkeys(reference.RELATIONS, views.edges_BVLL.numpy()[b, view]), own
    kept = {"sim": views.similar_BVLL.numpy()[b, view]}
    for r, (relation, sign) in enumerate([("in", -1), ("out", +1)]):
        kept[relation] = np.zeros_like(kept["sim"])
        for w, i in zip(*np.nonzero(views.context_BVRWL.numpy()[b, view, r]), strict=True):
            kept[relation][i, i + sign * (w + 1)] = True
    return kept, own


@pytest.mark.parametrize(
    ("operator", "divergence", "drop_self"),
    [
        ("dha", "symmetric_kl", False),
        ("dha", "js", True),
        ("gat", "symmetric_kl", False),
        ("gat", "symmetric_kl", True),
        ("lgc", "symmetric_kl", False),
        ("gcmc", "js", False),
        ("gcmc", "symmetric_kl", True),
    ],
)
def test_self_supervision_equals_the_equations(
    operator: str, divergence: str, drop_self: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eqs 16-18, the reference dropping the same edges."""
    views: list[Any] = []
    original = module.add_dropped_views

    def recording(*args: Any, **kwargs: Any) -> Any:
        views.append(original(*args, **kwargs))
        return views[-1]

    monkeypatch.setattr(module, "add_dropped_views", recording)
    model = _model(3, operator=operator, divergence=divergence, drop_self=drop_self)
    user, candidates = _batch()
    divergences = _consistency(model, user, candidates).numpy()
    twin = _Reference(model, user, candidates)

    def interests(b: int, n: int, view: int) -> list[np.ndarray]:
        kept, own = _kept(views[0], b, view)
        edges = reference.drop_edges(twin.edges(b), kept)
        return twin.interests(b, n, twin.nodes(b, edges, own))

    distance = reference.divergence if divergence == "symmetric_kl" else reference.jensen_shannon
    expected = [sum(map(distance, interests(b, n, 1), interests(b, n, 2))) for b, n in twin.pairs]
    assert max(expected) > 1e-3
    np.testing.assert_allclose(divergences, expected, rtol=2e-4, atol=1e-6)


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
        own = slice(b, b + 1)
        one = [tf.nest.map_structure(lambda x, o=own: x[o], x) for x in (user, candidates)]
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


def test_without_edges_slices_are_no_graph_at_all() -> None:
    """Invariant 7: without any edge, DemiNet is DemiNet without its graph."""
    model = _model(head_mode="slice", threshold=1.1, edge_dropout=1.0)
    user, _ = _batch()
    state = model.encode_user(user, training=True, seed=SEED)
    without = _model(operator="none", ssl_weight=0.0)
    without.positions.table.assign(model.positions.table)
    expected = without.encode_user(user)["nodes_BLD"]
    for view in (0, 1):
        np.testing.assert_allclose(state[f"view_{view}_BLD"], expected, atol=1e-6)
    assert not any("projection" in weight.name for weight in model.graph_layers[0].weights)


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
        return model.encode_user(user, training=True, seed=tf.constant(seed))["view_0_BLD"]

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


@pytest.mark.parametrize("name", [*RECIPES, "slices", "bare_attention"])
def test_gradient_reaches_every_weight(name: str) -> None:
    gradients = _gradients(_model(**SWITCHES[name]))
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
    names = [weight.name for weight in _model(**_recipe(name)).weights]
    assert len(set(names)) == len(names), sorted(names)


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
            run(user, candidates), _logits(model, user, candidates), atol=1e-6
        )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"interests": 0}, "Expected interests to be at least 1, found 0"),
        ({"window": 0}, "Expected window to be at least 1, found 0"),
        ({"depth": 0}, "Expected depth to be at least 1, found 0"),
        ({"head_mode": "split"}, "one of project, slice, found 'split'"),
        ({"operator": "gcn"}, "one of dha, gat, lgc, gcmc, none, found 'gcn'"),
        ({"divergence": "kl"}, "one of symmetric_kl, js, found 'kl'"),
        ({"aggregation": "max"}, "moe, single, found 'max'"),
        ({"operator": "none"}, "Expected ssl_weight to be 0 without a graph, found 0.1"),
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


def test_the_average_is_equal_confidence() -> None:
    """Invariant 15; and hard routing trains as DemiNet does, and differs at inference only."""
    user, candidates = _batch()
    confident = _model()
    average = _model(aggregation="average")
    routed = _model(aggregation="hard_routing")
    weights = {weight.name: weight for weight in confident.weights}
    for model in (average, routed):
        for weight in model.weights:
            weight.assign(weights[weight.name])
    arguments = {"training": True, "seed": SEED}
    soft = _logits(confident, user, candidates, **arguments)
    np.testing.assert_array_equal(_logits(routed, user, candidates, **arguments), soft)

    for model in (average, routed):
        for weight in model.weights:
            weight.assign(weights[weight.name])
    explained = confident.explain(confident.encode_user(user), candidates)["confidence_BNK"]
    weights["confidence/prototypes:0"].assign(tf.zeros_like(confident.confidence.prototypes_KD))
    equal = _logits(confident, user, candidates)
    np.testing.assert_allclose(_logits(average, user, candidates), equal, atol=1e-5)
    chosen = routed.explain(routed.encode_user(user), candidates)["confidence_BNK"]
    np.testing.assert_array_equal(tf.argmax(chosen, -1), tf.argmax(explained, -1))
    assert set(np.unique(chosen)) == {0.0, 1.0}


def test_nothing_similar_is_no_similarity() -> None:
    """Invariant 8: above a cosine of 1 the weights of the relation have no influence."""
    model = _model(threshold=1.1)
    user, candidates = _batch()
    before = _logits(model, user, candidates)
    for layer in model.graph_layers:
        for weight in (layer.receiver_RHC, layer.sender_RHC):
            weight.assign(weight * np.array([1.0, 1.0, 77.0])[:, None, None])
    np.testing.assert_array_equal(_logits(model, user, candidates), before)


def test_diagnostics_see_a_collapse_and_agreeing_views() -> None:
    user, candidates = _batch()
    model = _model()
    before = [weight.numpy() for weight in model.weights]

    def diagnose(model: DemiNet) -> dict[str, float]:
        found = model.diagnostics(user, candidates, seed=SEED)
        return {name: float(value) for name, value in found.items()}

    found = diagnose(model)
    assert set(found) == {
        "edge_density_earlier",
        "edge_density_later",
        "edge_density_similar",
        "view_cosine",
        "expert_usage_entropy",
    }
    assert 0.2 < found["expert_usage_entropy"] < 1.0
    assert found["view_cosine"] < 0.999
    for weight, value in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(weight, value)

    twin = _model(edge_dropout=0.0, aggregation="average")
    found = diagnose(twin)
    assert found["view_cosine"] == pytest.approx(1.0, abs=1e-6)
    assert found["expert_usage_entropy"] == pytest.approx(1.0, abs=1e-6)
    model.confidence.rest.stack[-1].bias.assign(100 * model.confidence.prototypes_KD[0])
    assert diagnose(model)["expert_usage_entropy"] < 0.1

    plain = _model(operator="none", ssl_weight=0.0, aggregation="single")
    assert diagnose(plain) == {}
