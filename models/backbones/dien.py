"""DIEN: Deep Interest Evolution Network (Zhou et al., AAAI 2019), without its auxiliary loss.

DemiNet (arXiv 2109.12512) compares with this form: the auxiliary loss needs a displayed item that
was not clicked beside each event, which most logs do not have.

Shapes: B requests, N candidates, L history length, F user and context fields, d embedding width per
field, D item width, K = 1.
"""

import dataclasses
from typing import NamedTuple

from models.backbone_api import Backbone, Candidates, Dims, UserSide, equal_interests, pair_fields
from models.backbones.heads import HeadConfig, history_sum, read_sum, sum_layout
from models.keras import keras, tf
from models.layers.augru import AUGRU
from models.layers.masking import masked_softmax
from models.layers.mlp import MLP
from models.ops.weight_layouts import Fields, Layouts, hidden, of_dense
from preprocessing.values.limits import limited


@dataclasses.dataclass(frozen=True, kw_only=True)
class DIENConfig(HeadConfig):
    """Settings of DIEN.

    Attributes:
        units: Hidden widths of the scoring network.
    """

    units: tuple[int, ...] = limited((40, 40, 40), at_least=1)


class State(NamedTuple):
    """The user side, the interests, their half of the attention, and the sum of the history."""

    user: UserSide
    interests_BLD: tf.Tensor
    keys_BLD: tf.Tensor
    sum_BD: tf.Tensor | None


class DIEN(Backbone):
    """Models how a user's interest evolves towards a candidate.

    Interest extractor layer: a GRU turns the history into interests h_l, independent of candidates.
    Interest evolving layer: a candidate e attends to the interests, a = softmax_l(h_l W e), and an
    AUGRU with these weights runs over them. A network on [user fields, candidate, last state] gives
    the logit.

    Args:
        config: Settings.
        dims: Static sizes.

    Example:
        >>> dien = DIEN(DIENConfig(), Dims(2, 2, 0, embedding_size=4, max_length=50))
        >>> items, history = tf.ones([3, 5], tf.int32), tf.ones([3, 5, 2, 4])
        >>> user = UserSide(history[:, 0], history, items > 0, tf.range(3), items, tf.zeros([3]))
        >>> candidates = Candidates(history, history[:, :, :0], items > 0, items, tf.zeros([3, 5]))
        >>> dien.score(dien.encode_user(user), candidates).shape
        TensorShape([3, 5])
    """

    Config = DIENConfig

    def __init__(self, config: DIENConfig, dims: Dims, name: str = "dien") -> None:
        super().__init__(name=name)
        width = dims.item_width
        # An RNN over a cell, not the GRU layer: on a CPU it is as fast, compiles in a quarter of
        # the time, and adds no GPU variant to the exported graph.
        self.extractor = keras.layers.RNN(
            keras.layers.GRUCell(width, name="cell"),
            return_sequences=True,
            name="interest_extractor",
        )
        self.attention = keras.layers.Dense(width, use_bias=False, name="attention")
        self.evolution = AUGRU(width, name="interest_evolution")
        self.config = config
        self.dnn = MLP((*config.units, 1), batch_norm=config.batch_norm, name="dnn")

    def layouts(self, fields: Fields) -> Layouts:
        """The states of both recurrent layers are hidden units. See the base class."""
        width = fields.history.size
        state, gates = hidden(width), hidden(width, groups=3)
        cell = self.extractor.cell
        yield cell.kernel, (fields.history, gates)
        yield cell.recurrent_kernel, (state, gates)
        yield cell.bias, (None, gates)
        yield from of_dense(self.attention, state, fields.target)
        yield from self.evolution.layouts(state)
        yield from self.dnn.layouts(fields.pair + state + sum_layout(self.config, fields))

    def encode_user(
        self, user: UserSide, *, training: bool = False, seed: tf.Tensor | None = None
    ) -> State:
        """See the base class."""
        del training, seed
        history_BLD = user.history_BLD
        # At padding the RNN repeats the state of the last event.
        interests_BLD = self.extractor(history_BLD, mask=user.mask_BL)
        keys_BLD = self.attention(interests_BLD)
        return State(user, interests_BLD, keys_BLD, history_sum(self.config, history_BLD))

    def score(self, state: State, candidates: Candidates, *, training: bool = False) -> tf.Tensor:
        """Scores N candidates of each request. See the base class."""
        evolved_BND = self.evolution(
            state.interests_BLD, self._attend(state, candidates), state.user.mask_BL
        )
        pairs = pair_fields(state.user.fields_BFd, candidates)
        inputs = tf.concat([pairs, evolved_BND, *read_sum(state.sum_BD, candidates)], -1)
        return self.dnn(inputs, candidates.mask_BN, training=training)[..., 0]

    def explain(self, state: State, candidates: Candidates) -> dict[str, tf.Tensor]:
        """The attention weights, as one interest. See the base class."""
        return equal_interests(self._attend(state, candidates)[:, :, None])

    def _attend(self, state: State, candidates: Candidates) -> tf.Tensor:
        """Weight of each event for each candidate, [B, N, L]."""
        scores_BNL = tf.matmul(candidates.target_BND, state.keys_BLD, transpose_b=True)
        return masked_softmax(scores_BNL, state.user.mask_BL[:, None])
