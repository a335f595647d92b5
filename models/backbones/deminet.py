"""DemiNet: Dependency-Aware Multi-Interest Network with Self-Supervised Graph Learning.

Yule Wang et al., arXiv 2109.12512; equation numbers are those of the paper. Where the paper is
silent or contradicts itself, BUILD_NOTES.md states the interpretation used here.

Shapes: B requests, V views of the same history, N candidates, L history length, F user and context
fields, E further item features, d embedding width per field, D item width, K interests, A hidden
units of an interest's attention, T = K A, C width of the experts' input besides the interests.
"""

import dataclasses
from typing import NamedTuple

from models.backbone_api import Backbone, Candidates, Dims, LossTerm, UserSide, pair_fields
from models.backbones.heads import HeadConfig, history_sum, read_sum, sum_layout
from models.keras import keras, tf
from models.layers.attention.recency_positions import RecencyPositions
from models.layers.graph.graph_operators import OPERATORS, graph_layers
from models.layers.graph.item_graph import (
    Graph,
    ItemGraph,
    add_dropped_views,
    build_graph,
    edge_densities,
    merge_relations,
)
from models.layers.interests.aggregation import AGGREGATIONS, aggregation_layer
from models.layers.interests.consistency import DIVERGENCES, interest_divergence
from models.layers.interests.diagnostics import (
    confidence_diagnostics,
    event_cosine,
    interest_diagnostics,
)
from models.layers.interests.disagreement import likeness
from models.layers.interests.experts import InterestExperts, expert_input
from models.layers.interests.extractor import InterestExtractor
from models.layers.masking import masked_mean
from models.ops import randomness
from models.ops.weight_layouts import Fields, Layouts, of_dense
from preprocessing.errors import UserError
from preprocessing.values.limits import limited

_HEAD_MODES = ("project", "slice")
_SELECTIVE_TEMPERATURE = 1.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class DemiNetConfig(HeadConfig):
    """Settings of DemiNet.

    Attributes:
        embedding_size: Width d of each field's embedding.
        interests: Number K of interests and of experts.
        operator: Operator that passes messages on the graph: "dha" (eqs 6-11), "gat", "lgc" or
            "gcmc" (Figure 3), or "none": interests are extracted from the history itself.
        threshold: Minimum cosine t of two similar items; above 1 no items are similar.
        window: Number epsilon of contextual neighbours on either side.
        depth: Number of layers of the operator.
        heads: Number of heads of graph attention ("dha", "gat"); must divide the item width D.
        head_mode: "project": heads are slices of a learned projection of the nodes; "slice": heads
            are slices of the nodes themselves.
        edge_dropout: Probability rho of dropping an edge in a view.
        drop_self: Whether views drop self-connections too.
        divergence: Divergence between the interests of two views: "symmetric_kl" (eq. 18 as
            printed) or "js" (Jensen-Shannon, as the text calls it).
        ssl_weight: Weight beta of the self-supervised loss; 0 disables the loss and its views.
        attention_units: Number A of hidden units of each interest's attention; 0 means D.
        attention_normalise: Whether the weights of the events in an interest sum to 1.
        aggregation: Method for the weights of the experts: "confidence" (eq. 14), "average",
            "hard_routing" or "moe" (Table 2), or "single": one expert instead of K.
        expert_units: Hidden widths of an expert.
        confidence_units: Hidden widths of Confi-Net.
        slope: Slope of all LeakyReLU for negative inputs.
        selective: Whether interests are extracted so that they can differ (not in the paper): nodes
            have a projection of the event itself beside what the graph gives, `InterestExtractor`
            is selective, and Confi-Net's scores are not divided by sqrt(D).
        disagreement: Weight of a loss on interests that are alike (not in the paper).
    """

    embedding_size: int = 16
    batch_norm: bool = True
    interests: int = limited(4, at_least=1)
    operator: str = "dha"
    threshold: float = 0.7
    window: int = limited(3, at_least=1)
    depth: int = limited(2, at_least=1)
    heads: int = limited(4, at_least=1)
    head_mode: str = "project"
    edge_dropout: float = limited(0.6, at_least=0, at_most=1)
    drop_self: bool = False
    divergence: str = "symmetric_kl"
    ssl_weight: float = limited(0.1, at_least=0)
    attention_units: int = limited(0, at_least=0)
    attention_normalise: bool = True
    aggregation: str = "confidence"
    expert_units: tuple[int, ...] = limited((200, 80), at_least=1)
    confidence_units: tuple[int, ...] = limited((80, 40), at_least=1)
    slope: float = limited(0.2, at_least=0, at_most=1)
    selective: bool = False
    disagreement: float = limited(0.0, at_least=0)

    def __post_init__(self) -> None:
        checks = {
            "expert_units": ("at least one width", len(self.expert_units) >= 1),
            "confidence_units": ("at least one width", len(self.confidence_units) >= 1),
        }
        for name, options in (
            ("operator", OPERATORS),
            ("head_mode", _HEAD_MODES),
            ("divergence", DIVERGENCES),
            ("aggregation", AGGREGATIONS),
        ):
            checks[name] = (f"one of {', '.join(options)}", getattr(self, name) in options)
        if self.operator == "none":
            checks["ssl_weight"] = ("0 without a graph", self.ssl_weight == 0.0)
        for name, (expected, holds) in checks.items():
            if not holds:
                raise UserError(
                    f"Expected {name} to be {expected}, found {getattr(self, name)!r} in the "
                    "settings of deminet.",
                    f"set model.{name} accordingly.",
                )


class State(NamedTuple):
    """The user side, and what is computed of its history for all candidates.

    Attributes:
        user: The user side.
        nodes_BLD: Nodes H* on the complete graph.
        projected_BLT: The nodes' half of the interest attention.
        mean_BD: Mean of the history.
        sum_BD: Result of `history_sum`.
        views: Nodes H* on each graph with dropped edges; none without self-supervision.
    """

    user: UserSide
    nodes_BLD: tf.Tensor
    projected_BLT: tf.Tensor
    mean_BD: tf.Tensor
    sum_BD: tf.Tensor | None
    views: list[tf.Tensor]


class DemiNet(Backbone):
    """Refines a history on a graph of its items, extracts K interests, and weighs K experts.

    The paper's ablations, graph operators and aggregations are settings, which models.registry
    names.

    The graph, its attention (eqs 1-12), the history's half of the interest attention, and the
    pooled user side do not depend on the candidate and are computed once per request. Training also
    computes two views of the graph with dropped edges; they share all work up to the first layer's
    scores with the complete graph, and only the self-supervised loss uses them (eqs 16-18).

    Args:
        config: Settings.
        dims: Static sizes.

    Raises:
        UserError: The heads do not divide the item width.

    Example:
        >>> deminet = DemiNet(DemiNetConfig(), Dims(2, 2, 0, embedding_size=4, max_length=50))
        >>> items, history = tf.ones([3, 5], tf.int32), tf.ones([3, 5, 2, 4])
        >>> user = UserSide(history[:, 0], history, items > 0, tf.range(3), items, tf.zeros([3]))
        >>> candidates = Candidates(history, history[:, :, :0], items > 0, items, tf.zeros([3, 5]))
        >>> deminet.score(deminet.encode_user(user), candidates).shape
        TensorShape([3, 5])
    """

    Config = DemiNetConfig
    mixed_precision = True

    def __init__(self, config: DemiNetConfig, dims: Dims, name: str = "deminet") -> None:
        super().__init__(name=name)
        width = dims.item_width
        if config.operator in ("dha", "gat"):
            dims.require_divisor("heads", config.heads)
        self.config = config
        self.graph_layers = graph_layers(
            config.operator,
            width,
            depth=config.depth,
            heads=config.heads,
            project=config.head_mode == "project",
            slope=config.slope,
        )
        if config.selective and self.graph_layers:
            self.shortcut = keras.layers.Dense(width, use_bias=False, name="shortcut")
        self.positions = RecencyPositions(dims.max_length, width)
        self.extractor = InterestExtractor(
            width,
            config.interests,
            config.attention_units or width,
            slope=config.slope,
            normalise=config.attention_normalise,
            selective=config.selective,
        )
        context = 2 * width + (dims.user_fields + dims.extra_fields) * dims.embedding_size
        self.experts = InterestExperts(
            (config.interests + (2 if config.history_sum else 0)) * width + context,
            1 if config.aggregation == "single" else config.interests,
            config.expert_units,
            batch_norm=config.batch_norm,
        )
        self.confidence = aggregation_layer(
            config.aggregation,
            width=width,
            context_width=context,
            interests=config.interests,
            units=config.confidence_units,
            temperature=_SELECTIVE_TEMPERATURE if config.selective else None,
        )

    def layouts(self, fields: Fields) -> Layouts:
        """Nodes and interests have the layout of the last graph layer's output.

        See the base class.
        """
        nodes = fields.history
        for layer in self.graph_layers:
            yield from layer.layouts(nodes)
            nodes = layer.writes(nodes)
        if self.config.selective and self.graph_layers:
            yield from of_dense(self.shortcut, fields.history, nodes)
        context = fields.history + fields.pair  # The order of `_context`.
        yield from self.positions.layouts(nodes)
        yield from self.extractor.layouts(nodes, fields.target)
        read = nodes * self.config.interests + context + sum_layout(self.config, fields)
        yield from self.experts.layouts(read)
        yield from self.confidence.layouts(nodes, context)

    def encode_user(
        self, user: UserSide, *, training: bool = False, seed: tf.Tensor | None = None
    ) -> State:
        """Eqs 1-12; in self-supervised training also the views of eqs 16-17. See the base class."""
        history_BLD, mask_BL = user.history_BLD, user.mask_BL
        nodes_BVLD = tf.expand_dims(history_BLD, 1)
        has_views = training and seed is not None and self.config.ssl_weight > 0
        if self.graph_layers:
            relations = self._graph(history_BLD, mask_BL)
            merges = self.graph_layers[0].merges_relations
            graph: Graph = merge_relations(relations) if merges else relations
            if has_views:
                place = randomness.for_place(seed, "deminet/edge_dropout")
                graph = add_dropped_views(
                    graph,
                    rate=self.config.edge_dropout,
                    seed=randomness.of_rows(place),
                    drop_self=self.config.drop_self,
                )
            for layer in self.graph_layers:
                nodes_BVLD = layer(nodes_BVLD, graph)
            if self.config.selective:
                nodes_BVLD += self.shortcut(history_BLD)[:, None]
        positioned_BVLD = nodes_BVLD + self.positions(mask_BL)[:, None]
        nodes_BVLD = tf.where(mask_BL[:, None, :, None], positioned_BVLD, 0.0)

        nodes_BLD, *views = tf.unstack(nodes_BVLD, 3 if has_views else 1, axis=1)
        return State(
            user,
            nodes_BLD,
            projected_BLT=self.extractor.project(nodes_BLD),
            mean_BD=masked_mean(history_BLD, mask_BL),
            sum_BD=history_sum(self.config, history_BLD),
            views=views,
        )

    def score(self, state: State, candidates: Candidates, *, training: bool = False) -> tf.Tensor:
        """Eqs 13-15 on the complete graph. See the base class."""
        interests_BNKD, _ = self._interests(state, candidates)
        context_BNC = _context(state, candidates)
        read_BNC = tf.concat([context_BNC, *read_sum(state.sum_BD, candidates)], -1)
        scores_BNE = self.experts(
            expert_input(interests_BNKD, read_BNC), candidates.mask_BN, training=training
        )
        weights_BNE = self.confidence(interests_BNKD, context_BNC, training=training)
        return tf.reduce_sum(weights_BNE * scores_BNE, -1)

    def auxiliary_losses(
        self, state: State, candidates: Candidates, *, seed: tf.Tensor
    ) -> dict[str, LossTerm]:
        """Consistency of the interests of both views (eq. 18), and disagreement of interests.

        See the base class.
        """
        del seed
        terms = {}
        if self.config.disagreement and self.config.interests > 1:
            interests_BNKD, _ = self._interests(state, candidates)
            several_B1 = tf.reduce_sum(tf.cast(state.user.mask_BL, tf.int32), 1, keepdims=True) > 1
            terms["interest_disagreement"] = LossTerm(
                tf.reshape(likeness(interests_BNKD), [1, -1]),
                tf.reshape(tf.cast(candidates.mask_BN & several_B1, tf.float32), [1, -1]),
                self.config.disagreement,
            )
        if not state.views:
            return terms
        first_BNKD, second_BNKD = self._view_interests(state, candidates)
        divergence_BNK = interest_divergence(first_BNKD, second_BNKD, self.config.divergence)
        divergence_BN = tf.reduce_sum(divergence_BNK, -1)
        weights_BN = tf.cast(candidates.mask_BN, tf.float32)
        return terms | {
            "interest_consistency": LossTerm(
                tf.reshape(divergence_BN, [1, -1]),
                tf.reshape(weights_BN, [1, -1]),
                self.config.ssl_weight,
            )
        }

    def explain(self, state: State, candidates: Candidates) -> dict[str, tf.Tensor]:
        """Weights of the experts (one with `single`), and of the events in each interest."""
        interests_BNKD, attention_BNKL = self._interests(state, candidates)
        return {
            "confidence_BNK": self.confidence(interests_BNKD, _context(state, candidates)),
            "attention_BNKL": attention_BNKL,
        }

    def inspect(self, user: UserSide, candidates: Candidates) -> dict[str, tf.Tensor]:
        """Interests, confidence, attention, and the relations of the first layer of "dha"."""
        state = self.encode_user(user)
        interests_BNKD, _ = self._interests(state, candidates)
        values = self.explain(state, candidates) | {"interests_BNKD": interests_BNKD}
        if self.config.operator == "dha":
            nodes_B1LD = tf.expand_dims(user.history_BLD, 1)
            graph = self._graph(user.history_BLD, user.mask_BL)
            alpha_B1RHLL, beta_B1QHL = self.graph_layers[0].attention(nodes_B1LD, graph)
            values["relation_attention_BRLL"] = tf.reduce_mean(alpha_B1RHLL[:, 0], axis=2)
            values["relation_weight_BQL"] = tf.reduce_mean(beta_B1QHL[:, 0], axis=2)
        return values

    def diagnostics(
        self, user: UserSide, candidates: Candidates, *, seed: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        """Diagnostics of graph, views and experts. See the base class.

        Returns:
            `edge_density_*`: share of the pairs of events that a relation connects.
            `event_cosine`: mean cosine of two events of a history after the graph, with positions;
            near 1 the events are indistinguishable.
            `view_cosine`: mean cosine of the interests of two views; 1 leaves nothing to learn.
            The values of `interest_diagnostics` and, if the weights of experts are learned, those
            of `confidence_diagnostics`.
        """
        values = {}
        if self.graph_layers:
            graph = self._graph(user.history_BLD, user.mask_BL)
            values = {f"edge_density_{name}": x for name, x in edge_densities(graph).items()}
        state = self.encode_user(user, training=True, seed=seed)
        values["event_cosine"] = event_cosine(state.nodes_BLD, user.mask_BL)
        if state.views:
            first_BNKD, second_BNKD = self._view_interests(state, candidates)
            cosine_BNK = -keras.losses.cosine_similarity(first_BNKD, second_BNKD)
            has_history_B = tf.reduce_any(user.mask_BL, axis=1)
            both_BN = candidates.mask_BN & has_history_B[:, None]
            values["view_cosine"] = tf.reduce_mean(tf.boolean_mask(cosine_BNK, both_BN))
        interests_BNKD, attention_BNKL = self._interests(state, candidates)
        values |= interest_diagnostics(interests_BNKD, attention_BNKL, candidates, user.mask_BL)
        if self.config.aggregation not in ("single", "average"):
            weights_BNE = self.confidence(interests_BNKD, _context(state, candidates))
            values |= confidence_diagnostics(weights_BNE, candidates, user.mask_BL)
        return values

    def _graph(self, history_BLD: tf.Tensor, mask_BL: tf.Tensor) -> ItemGraph:
        """The graph of the items of each history (eqs 1-5)."""
        return build_graph(
            history_BLD, mask_BL, window=self.config.window, threshold=self.config.threshold
        )

    def _interests(self, state: State, candidates: Candidates) -> tuple[tf.Tensor, tf.Tensor]:
        """Interests [B, N, K, D] on the complete graph, and the weights of the events in them."""
        return self.extractor(
            state.nodes_BLD, state.projected_BLT, state.user.mask_BL, candidates.target_BND
        )

    def _view_interests(self, state: State, candidates: Candidates) -> list[tf.Tensor]:
        """Interests [B, N, K, D] on each of the two views with dropped edges.

        The views are computed one after the other: the intermediate tensors are large, and those of
        one view are more likely to fit into a cache.
        """
        mask_BL, target_BND = state.user.mask_BL, candidates.target_BND
        return [
            self.extractor(view_BLD, self.extractor.project(view_BLD), mask_BL, target_BND)[0]
            for view_BLD in state.views
        ]


def _context(state: State, candidates: Candidates) -> tf.Tensor:
    """Context c of experts and Confi-Net: mean of the history, features of the pair, [B, N, C]."""
    mean_BND = tf.broadcast_to(state.mean_BD[:, None], tf.shape(candidates.target_BND))
    return tf.concat([mean_BND, pair_fields(state.user.fields_BFd, candidates)], -1)
