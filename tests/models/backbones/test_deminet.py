"""DemiNet against its equations, and golden values."""

from typing import Any

import numpy as np
import pytest
from deminet_cases import (
    DIMS,
    LENGTHS,
    SWITCHES,
    consistency,
    embedded_batch,
    logits_of,
    trained_size,
)

from models.backbone_api import Candidates, UserSide
from models.backbones import deminet as module
from models.backbones.deminet import DemiNet
from models.keras import tf
from models.layers.graph.item_graph import MergedGraph
from tests.reference import deminet as reference
from tests.reference import deminet_weights, embedded


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
        if self.model.config.selective:
            nodes = nodes + self.histories[b] @ self.model.shortcut.kernel.numpy()
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


@pytest.mark.parametrize("name", list(SWITCHES))
def test_scores_equal_the_equations(name: str) -> None:
    model = trained_size(3, **SWITCHES[name])
    user, candidates = embedded_batch()
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
    model = trained_size(3, operator=operator, divergence=divergence, drop_self=drop_self)
    user, candidates = embedded_batch()
    divergences = consistency(model, user, candidates).numpy()
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
    model = trained_size(dims=dims, embedding_size=2, heads=1)
    for weight in (*model.confidence.rest.stack[-1].weights, *model.experts.kernels):
        weight.assign(tf.zeros_like(weight))
    model.confidence.rest.stack[-1].bias.assign([1.0, 2.0, 0.0, 0.0])
    model.confidence.prototypes_KD.assign([[2.0, 0, 5, 5], [0, 1.0, 5, 5], [0, 0, 5, 5]])
    model.experts.biases[-1].assign([[1.0], [-1.0], [2.0]])
    user, candidates = embedded.batch(dims, [3, 0], 2)
    explained = model.explain(model.encode_user(user), candidates)
    omega = [0.4223188, 0.4223188, 0.1553624]
    np.testing.assert_allclose(explained["confidence_BNK"][1, 1], omega, atol=1e-6)
    logits = logits_of(model, user, candidates)
    np.testing.assert_allclose(logits, np.full([2, 2], 0.31072481), atol=1e-6)
    np.testing.assert_allclose(tf.sigmoid(logits), np.full([2, 2], 0.57706217), atol=1e-6)
    two_units = reference.softmax([logits[0, 0], 0.0])  # Eq. 15 as written, over two classes.
    np.testing.assert_allclose(two_units[0], 0.57706217, atol=1e-6)
    np.testing.assert_allclose(reference.softmax([0.3, -0.9])[0], tf.sigmoid(1.2), atol=1e-6)
