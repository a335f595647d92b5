"""Base of MIND and ComiRec: K interest vectors of a user, independent of the candidate.

Both are retrieval models. To rank with them, a candidate pools the interests by label-aware
attention, and a network scores the result (as in the comparison of DemiNet, arXiv 2109.12512).

Shapes: B requests, N candidates, L history length, F user and context fields, d embedding width per
field, D item width, K interests.
"""

import dataclasses
from typing import NamedTuple

from models.backbone_api import Backbone, Candidates, UserSide, pair_fields
from models.backbones.heads import HeadConfig, history_sum, read_sum, sum_layout
from models.keras import tf
from models.layers.attention.label_aware_attention import label_aware_weights
from models.layers.masking import masked_mean
from models.layers.mlp import MLP
from models.ops.weight_layouts import Fields, Layouts
from preprocessing.errors import UserError
from preprocessing.values.limits import limited

_READOUTS = ("soft", "hard")


@dataclasses.dataclass(frozen=True, kw_only=True)
class MultiInterestConfig(HeadConfig):
    """Settings of every model with label-aware interests.

    Attributes:
        interests: Number K of interests.
        readout: "soft": a candidate pools all interests by weight; "hard": it uses only the
            interest of highest weight, as in the authors' code.
        power: Power p of the soft readout; larger values are closer to the hard one.
        units: Hidden widths of the scoring network.
    """

    interests: int = limited(4, at_least=1)
    readout: str = "soft"
    power: float = limited(1.0, at_least=1)
    units: tuple[int, ...] = limited((40, 40, 40), at_least=1)

    def __post_init__(self) -> None:
        """Raises `UserError` on an unknown readout."""
        if self.readout not in _READOUTS:
            raise UserError(
                f"Expected model.readout to be one of {', '.join(_READOUTS)}, "
                f"found {self.readout!r}."
            )


class Interests(NamedTuple):
    """The interests of each user.

    Attributes:
        vectors_BKD: Interest vectors; exactly zero for an empty history.
        attention_BKL: Weight of each event in each interest, 0 at padding.
        mask_BK: True for interests that the user has; at least the first.
    """

    vectors_BKD: tf.Tensor
    attention_BKL: tf.Tensor
    mask_BK: tf.Tensor


class State(NamedTuple):
    """User and context features, the mean of the history, its interests, and its sum."""

    fields_BFd: tf.Tensor
    mean_BD: tf.Tensor
    interests: Interests
    sum_BD: tf.Tensor | None


class MultiInterestBackbone(Backbone):
    """Scores [user fields, candidate, mean of the history, interests pooled for the candidate].

    The history is processed independently of candidates; a candidate costs K products and a
    network.

    Args:
        config: Settings.
        name: Name of the layer.
    """

    def __init__(self, config: MultiInterestConfig, name: str) -> None:
        super().__init__(name=name)
        self.config = config
        self.dnn = MLP((*config.units, 1), batch_norm=config.batch_norm, name="dnn")

    def layouts(self, fields: Fields) -> Layouts:
        """Interests have the layout of events, as candidates are compared with both.

        See the base class. A subclass adds the layouts of its own weights.
        """
        read = fields.pair + fields.history * 2 + sum_layout(self.config, fields)
        yield from self.dnn.layouts(read)

    def extract(self, history_BLD: tf.Tensor, mask_BL: tf.Tensor) -> Interests:
        """Extracts the interests from a history that is zero at padding."""
        raise NotImplementedError(f"{type(self).__name__} must implement extract")

    def encode_user(
        self, user: UserSide, *, training: bool = False, seed: tf.Tensor | None = None
    ) -> State:
        """See the base class."""
        del training, seed
        history_BLD = user.history_BLD
        interests = self.extract(history_BLD, user.mask_BL)
        mean_BD = masked_mean(history_BLD, user.mask_BL)
        sum_BD = history_sum(self.config, history_BLD)
        return State(user.fields_BFd, mean_BD, interests, sum_BD)

    def score(self, state: State, candidates: Candidates, *, training: bool = False) -> tf.Tensor:
        """Scores N candidates of each request. See the base class."""
        pairs = pair_fields(state.fields_BFd, candidates)
        read_BND = tf.matmul(self._weights(state, candidates), state.interests.vectors_BKD)
        mean_BND = tf.broadcast_to(state.mean_BD[:, None], tf.shape(read_BND))
        inputs = tf.concat([pairs, mean_BND, read_BND, *read_sum(state.sum_BD, candidates)], -1)
        return self.dnn(inputs, candidates.mask_BN, training=training)[..., 0]

    def explain(self, state: State, candidates: Candidates) -> dict[str, tf.Tensor]:
        """Weight of each interest for the candidate, and of each event in the interest."""
        weights_BNK = self._weights(state, candidates)
        attention_BKL = state.interests.attention_BKL
        shape = tf.concat([tf.shape(weights_BNK), tf.shape(attention_BKL)[2:]], 0)
        return {
            "confidence_BNK": weights_BNK,
            "attention_BNKL": tf.broadcast_to(attention_BKL[:, None], shape),
        }

    def _weights(self, state: State, candidates: Candidates) -> tf.Tensor:
        """Weight of each interest for each candidate, [B, N, K]."""
        return label_aware_weights(
            state.interests.vectors_BKD,
            candidates.target_BND,
            state.interests.mask_BK,
            power=self.config.power,
            hard=self.config.readout == "hard",
        )
