"""DemiNet: Dependency-Aware Multi-Interest Network with Self-Supervised Graph Learning.

Yule Wang et al., arXiv 2109.12512; equation numbers are those of the paper. Where the paper is
silent or contradicts itself, BUILD_NOTES.md names the reading taken here.

Shapes: B requests, V views of the same history, N candidates, L history length, F user and context
fields, E further item features, d embedding width per field, D item width, K interests, A hidden
units of an interest's attention, T = K A, U width of the pooled user side, C width of what experts
know besides the interests.
"""

import dataclasses

from models import randomness, replicas
from models.interfaces import (
    Backbone,
    Candidates,
    Dims,
    LossTerm,
    ModelConfig,
    State,
    UserSide,
)
from models.keras import tf
from models.layers.graph_attention import DependencyAttention
from models.layers.interest_consistency import interest_divergence
from models.layers.interest_experts import ConfidenceNetwork, InterestExperts
from models.layers.interest_extractor import InterestExtractor
from models.layers.item_graph import add_dropped_views, build_graph
from models.layers.masking import masked_mean
from models.layers.recency_positions import RecencyPositions
from preprocessing.errors import UserError

_HEAD_MODES = ("project", "slice")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DemiNetConfig(ModelConfig):
    """Settings of DemiNet.

    Attributes:
        embedding_size: d, width of each field's embedding.
        interests: K, number of interests and of experts.
        threshold: t, cosine from which two items are similar.
        window: epsilon, neighbours on either side that are contextual.
        depth: Layers of graph attention.
        heads: Heads of graph attention; must divide the item width D.
        head_mode: "project": heads are slices of a learned projection of the nodes; "slice": of the
            nodes themselves.
        edge_dropout: rho, probability of dropping an edge in a view.
        ssl_weight: beta, weight of the self-supervised loss; 0 switches it and its views off.
        attention_units: A, hidden units of each interest's attention; 0 means D.
        expert_units: Hidden widths of an expert.
        confidence_units: Hidden widths of Confi-Net.
        slope: Of LeakyReLU on its negative side, everywhere.
    """

    embedding_size: int = 16
    interests: int = 4
    threshold: float = 0.7
    window: int = 3
    depth: int = 2
    heads: int = 4
    head_mode: str = "project"
    edge_dropout: float = 0.6
    ssl_weight: float = 0.1
    attention_units: int = 0
    expert_units: tuple[int, ...] = (200, 80)
    confidence_units: tuple[int, ...] = (80, 40)
    slope: float = 0.2

    def __post_init__(self) -> None:
        for name, expected, holds in (
            ("interests", "at least 1", self.interests >= 1),
            ("window", "at least 1", self.window >= 1),
            ("heads", "at least 1", self.heads >= 1),
            ("head_mode", f"one of {', '.join(_HEAD_MODES)}", self.head_mode in _HEAD_MODES),
            ("edge_dropout", "in [0, 1]", 0.0 <= self.edge_dropout <= 1.0),
            ("ssl_weight", "at least 0", self.ssl_weight >= 0.0),
            ("slope", "in [0, 1]", 0.0 <= self.slope <= 1.0),
            ("expert_units", "at least one width", len(self.expert_units) >= 1),
            ("confidence_units", "at least one width", len(self.confidence_units) >= 1),
        ):
            if not holds:
                raise UserError(
                    f"Expected {name} to be {expected}, found {getattr(self, name)!r} in the "
                    "settings of deminet.",
                    f"set model.{name} accordingly.",
                )


class DemiNet(Backbone):
    """Refines a history on a graph of its items, extracts K interests, and weighs K experts.

    Candidate-independent and computed once per request: the graph, its attention (eqs 1-12), the
    history's half of the interest attention, and the pooled user side. In training, two views of
    the graph with dropped edges travel along it; they share all work up to the first layer's scores
    with the complete graph, and feed only the self-supervised loss (eqs 16-18).

    Args:
        config: Settings.
        dims: Static sizes.

    Raises:
        UserError: The heads do not divide the item width.
    """

    Config = DemiNetConfig

    def __init__(self, config: DemiNetConfig, dims: Dims, name: str = "deminet") -> None:
        super().__init__(name=name)
        width = dims.item_width
        if width % config.heads:
            raise UserError(
                f"Expected heads to divide the item width, found {config.heads} heads for "
                f"{dims.history_features} item features of {dims.embedding_size} = {width}.",
                "change model.heads or model.embedding_size.",
            )
        self.config = config
        self.graph_layers = [
            DependencyAttention(
                width,
                config.heads,
                project=config.head_mode == "project",
                slope=config.slope,
                name=f"graph_{i}",
            )
            for i in range(config.depth)
        ]
        self.positions = RecencyPositions(dims.max_length, width)
        self.extractor = InterestExtractor(
            width, config.interests, config.attention_units or width, slope=config.slope
        )
        context = 2 * width + (dims.user_fields + dims.extra_fields) * dims.embedding_size
        self.experts = InterestExperts(
            config.interests * width + context, config.interests, config.expert_units
        )
        self.confidence = ConfidenceNetwork(
            width, context, config.interests, config.confidence_units
        )

    def encode_user(
        self, user: UserSide, *, training: bool = False, seed: tf.Tensor | None = None
    ) -> State:
        """Eqs 1-12, with the two views of eqs 16-17 when they are trained on. See the base class.

        Returns:
            `nodes_BLD` (H*), `projected_BLT` (their half of the interest attention), `mask_BL`,
            `user_BU` (pooled history and user fields), and in self-supervised training the nodes
            and projections of both views, `view_nodes_BVLD` and `view_projected_BVLT`.
        """
        mask_BL = user.mask_BL
        history_BLD = tf.where(mask_BL[:, :, None], user.history_BLD, 0.0)
        graph = build_graph(
            history_BLD, mask_BL, window=self.config.window, threshold=self.config.threshold
        )
        has_views = training and seed is not None and self.config.ssl_weight > 0
        if has_views:
            # Each replica has requests of its own, and so draws of its own.
            place = randomness.for_place(seed, "deminet/edge_dropout")
            place = tf.random.experimental.stateless_fold_in(place, replicas.index())
            graph = add_dropped_views(graph, rate=self.config.edge_dropout, seed=place)

        nodes_BVLD = tf.expand_dims(history_BLD, 1)
        for layer in self.graph_layers:
            nodes_BVLD = layer(nodes_BVLD, graph)
        positioned_BVLD = nodes_BVLD + self.positions(mask_BL)[:, None]
        nodes_BVLD = tf.where(mask_BL[:, None, :, None], positioned_BVLD, 0.0)

        fields_BFd = user.fields_BFd
        width = fields_BFd.shape[1] * fields_BFd.shape[2]
        fields = tf.reshape(fields_BFd, [tf.shape(fields_BFd)[0], width])
        # Split, not sliced: the gradient of a slice is a copy of the whole.
        full_BVLD, views_BVLD = tf.split(nodes_BVLD, [1, 2 if has_views else 0], axis=1)
        nodes_BLD = tf.squeeze(full_BVLD, 1)
        state = {
            "nodes_BLD": nodes_BLD,
            "projected_BLT": self.extractor.project(nodes_BLD),
            "mask_BL": mask_BL,
            "user_BU": tf.concat([masked_mean(history_BLD, mask_BL), fields], -1),
        }
        if has_views:
            state["view_nodes_BVLD"] = views_BVLD
            state["view_projected_BVLT"] = self.extractor.project(views_BVLD)
        return state

    def score(self, state: State, candidates: Candidates, *, training: bool = False) -> tf.Tensor:
        """Eqs 13-15 on the complete graph. See the base class."""
        interests_BNKD, _ = self._interests(state, candidates)
        context_BNC = _context(state, candidates)
        shape = tf.shape(interests_BNKD)
        width = interests_BNKD.shape[2] * interests_BNKD.shape[3]
        flat = tf.reshape(interests_BNKD, [shape[0], shape[1], width])
        scores_BNK = self.experts(
            tf.concat([flat, context_BNC], -1), candidates.mask_BN, training=training
        )
        confidence_BNK = self.confidence(interests_BNKD, context_BNC)
        return tf.reduce_sum(confidence_BNK * scores_BNK, -1)

    def auxiliary_losses(
        self, state: State, candidates: Candidates, *, seed: tf.Tensor
    ) -> dict[str, LossTerm]:
        """Eq. 18: each interest must survive the loss of edges. See the base class."""
        del seed
        if "view_nodes_BVLD" not in state:
            return {}
        interests_BVNKD, _ = self.extractor(
            state["view_nodes_BVLD"],
            state["view_projected_BVLT"],
            state["mask_BL"],
            candidates.target_BND,
        )
        first_BNKD, second_BNKD = tf.unstack(interests_BVNKD, axis=1)
        divergence_BN = tf.reduce_sum(interest_divergence(first_BNKD, second_BNKD), -1)
        weights_BN = tf.cast(candidates.mask_BN, tf.float32)
        return {
            "interest_consistency": LossTerm(
                tf.reshape(divergence_BN, [1, -1]),
                tf.reshape(weights_BN, [1, -1]),
                self.config.ssl_weight,
            )
        }

    def explain(self, state: State, candidates: Candidates) -> dict[str, tf.Tensor]:
        """Confidence of each expert, and weights of the events in each interest."""
        interests_BNKD, attention_BNKL = self._interests(state, candidates)
        return {
            "confidence_BNK": self.confidence(interests_BNKD, _context(state, candidates)),
            "attention_BNKL": attention_BNKL,
        }

    def _interests(self, state: State, candidates: Candidates) -> tuple[tf.Tensor, tf.Tensor]:
        """Interests [B, N, K, D] on the complete graph, and the weights of the events in them."""
        interests_BVNKD, attention_BVNKL = self.extractor(
            tf.expand_dims(state["nodes_BLD"], 1),
            tf.expand_dims(state["projected_BLT"], 1),
            state["mask_BL"],
            candidates.target_BND,
        )
        return tf.squeeze(interests_BVNKD, 1), tf.squeeze(attention_BVNKL, 1)


def _context(state: State, candidates: Candidates) -> tf.Tensor:
    """c: what experts and Confi-Net know of user and candidate besides the interests, [B, N, C]."""
    target_BND = candidates.target_BND
    batch, count = tf.shape(target_BND)[0], tf.shape(target_BND)[1]
    user_BU = state["user_BU"]
    user = tf.broadcast_to(user_BU[:, None], [batch, count, user_BU.shape[1]])
    extra_BNEd = candidates.extra_BNEd
    width = extra_BNEd.shape[2] * extra_BNEd.shape[3]
    extra = tf.reshape(extra_BNEd, [batch, count, width])
    return tf.concat([user, target_BND, extra], -1)
