"""DIN: Deep Interest Network (Zhou et al., KDD 2018), the base model of MISS.

Shapes: B requests, N candidates, L history length, F user and context fields, J item features of
the history, d embedding width per field, D = J d, A width of the first attention layer, K = 1.
"""

import dataclasses
from typing import NamedTuple

from models.backbone_api import Backbone, Candidates, Dims, UserSide, equal_interests, pair_fields
from models.backbones.heads import HeadConfig, history_sum, read_sum, sum_layout
from models.keras import tf
from models.layers.attention.local_activation import LocalActivation
from models.layers.mlp import MLP
from models.ops.weight_layouts import Fields, Layouts
from preprocessing.errors import UserError
from preprocessing.values.limits import limited

_ACTIVATIONS = ("dice", "sigmoid")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DINConfig(HeadConfig):
    """Settings of DIN.

    Attributes:
        attention_units: Hidden widths of the local activation unit.
        attention_activation: Activation of the local activation unit, "dice" (paper) or "sigmoid".
        normalize: Whether to apply a softmax to the attention scores; the paper does not.
        units: Hidden widths of the scoring network.
    """

    attention_units: tuple[int, ...] = limited((80, 40), at_least=1)
    attention_activation: str = "dice"
    normalize: bool = False
    units: tuple[int, ...] = limited((40, 40, 40), at_least=1)

    def __post_init__(self) -> None:
        """Raises `UserError` on an unknown activation."""
        if self.attention_activation not in _ACTIVATIONS:
            raise UserError(
                f"Expected model.attention_activation to be one of {', '.join(_ACTIVATIONS)}, "
                f"found {self.attention_activation!r}."
            )


class State(NamedTuple):
    """The user side, its history, the history's part of the attention's first layer, its sum."""

    user: UserSide
    history_BLD: tf.Tensor
    encoded_BLA: tf.Tensor
    sum_BD: tf.Tensor | None


class DIN(Backbone):
    """Pools the history by each event's relevance to the candidate (eq. 3).

    The pooled history is sum_l a(e_l, q) e_l with a from `LocalActivation`; a network on [user
    fields, candidate, pooled history] gives the logit. The order of events has no effect.

    Args:
        config: Settings.
        dims: Static sizes.

    Example:
        >>> din = DIN(DINConfig(), Dims(2, 2, 0, embedding_size=4, max_length=50))
        >>> items, history = tf.ones([3, 5], tf.int32), tf.ones([3, 5, 2, 4])
        >>> user = UserSide(history[:, 0], history, items > 0, tf.range(3), items, tf.zeros([3]))
        >>> candidates = Candidates(history, history[:, :, :0], items > 0, items, tf.zeros([3, 5]))
        >>> din.score(din.encode_user(user), candidates).shape
        TensorShape([3, 5])
    """

    Config = DINConfig
    mixed_precision = True

    def __init__(self, config: DINConfig, dims: Dims, name: str = "din") -> None:
        super().__init__(name=name)
        self.attention = LocalActivation(
            dims.item_width,
            config.attention_units,
            config.attention_activation,
            config.normalize,
        )
        self.config = config
        self.dnn = MLP((*config.units, 1), batch_norm=config.batch_norm, name="dnn")

    def layouts(self, fields: Fields) -> Layouts:
        """The network reads user, candidate and pooled history. See the base class."""
        yield from self.attention.layouts(fields.history)
        read = fields.pair + fields.history + sum_layout(self.config, fields)
        yield from self.dnn.layouts(read)

    def encode_user(
        self, user: UserSide, *, training: bool = False, seed: tf.Tensor | None = None
    ) -> State:
        """See the base class."""
        del training, seed
        history_BLD = user.history_BLD
        encoded_BLA = self.attention.encode_events(history_BLD)
        return State(user, history_BLD, encoded_BLA, history_sum(self.config, history_BLD))

    def score(self, state: State, candidates: Candidates, *, training: bool = False) -> tf.Tensor:
        """Scores N candidates of each request. See the base class."""
        weights_BNL = self._attend(state, candidates, training)
        pooled_BND = tf.matmul(weights_BNL, state.history_BLD)
        pairs = pair_fields(state.user.fields_BFd, candidates)
        inputs = tf.concat([pairs, pooled_BND, *read_sum(state.sum_BD, candidates)], -1)
        return self.dnn(inputs, candidates.mask_BN, training=training)[..., 0]

    def explain(self, state: State, candidates: Candidates) -> dict[str, tf.Tensor]:
        """The attention weights, as one interest. See the base class.

        Without `normalize` the weights are scores of either sign that do not sum to 1.
        """
        return equal_interests(self._attend(state, candidates, training=False)[:, :, None])

    def _attend(self, state: State, candidates: Candidates, training: bool) -> tf.Tensor:
        """Weight of each event for each candidate, [B, N, L]."""
        mask_BNL = candidates.mask_BN[:, :, None] & state.user.mask_BL[:, None]
        target_BND, history_BLD = candidates.target_BND, state.history_BLD
        return self.attention(
            target_BND, history_BLD, state.encoded_BLA, mask_BNL, training=training
        )
