"""DMR: Deep Match to Rank (Lyu et al., AAAI 2020).

Shapes: B requests, N candidates, L history length, F user and context fields, d embedding width per
field, D item width, P width of a position, A width of the first attention layer, C requests of all
replicas, S sampled items.
"""

import dataclasses
from typing import NamedTuple

from models.backbone_api import (
    Backbone,
    Candidates,
    Dims,
    LossTerm,
    UserSide,
    equal_interests,
    pair_fields,
)
from models.backbones.heads import HeadConfig, history_sum, read_sum, sum_layout
from models.keras import keras, tf
from models.layers.attention.local_activation import LocalActivation
from models.layers.attention.recency_positions import RecencyPositions
from models.layers.masking import masked_softmax
from models.layers.mlp import MLP
from models.ops import randomness, replicas
from models.ops.weight_layouts import Fields, Layouts, featureless, hidden, of_dense
from preprocessing.values.limits import limited

_LOWEST = -1e9
_PRELU_SLOPE = 0.1


@dataclasses.dataclass(frozen=True, kw_only=True)
class DMRConfig(HeadConfig):
    """Settings of DMR.

    Attributes:
        position_size: Width P of the position vectors.
        attention_units: Hidden widths of both attentions.
        auxiliary_weight: Weight of the loss by which the user vector predicts the next item.
        sampled_negatives: Number S of items that this loss draws beside those of the batch.
        units: Hidden widths of the scoring network.
    """

    position_size: int = limited(8, at_least=1)
    history_sum: bool = True
    attention_units: tuple[int, ...] = limited((80, 40), at_least=1)
    auxiliary_weight: float = limited(0.1, above=0)
    sampled_negatives: int = limited(100, at_least=1)
    units: tuple[int, ...] = limited((40, 40, 40), at_least=1)


class State(NamedTuple):
    """The user side, its history and the sum of it, and what is computed of it for all candidates.

    The events' part of the item-to-item network, the user vector, and in training, else None, the
    user vector before the last event.
    """

    user: UserSide
    history_BLD: tf.Tensor
    encoded_BLA: tf.Tensor
    positions_BLD: tf.Tensor
    user_Bd: tf.Tensor
    sum_BD: tf.Tensor | None
    previous_Bd: tf.Tensor | None


class DMR(Backbone):
    """Adds two relevance scores of user and candidate to inputs like those of DIN.

    User-to-item network: attention by position pools the history into a user vector u; the
    relevance is u . v', with v' from a second table of item vectors. An auxiliary loss trains the
    vector of all events but the last to predict the last one. Item-to-item network: attention by
    candidate and position pools the history again, and the sum of its raw scores is the second
    relevance. As in the authors' code, the scoring network also reads the sum of the history and
    its product with the candidate.

    Args:
        config: Settings.
        dims: Static sizes.

    Example:
        >>> dmr = DMR(DMRConfig(), Dims(2, 2, 0, embedding_size=4, max_length=50, num_items=9))
        >>> items, history = tf.ones([3, 5], tf.int32), tf.ones([3, 5, 2, 4])
        >>> user = UserSide(history[:, 0], history, items > 0, tf.range(3), items, tf.zeros([3]))
        >>> candidates = Candidates(history, history[:, :, :0], items > 0, items, tf.zeros([3, 5]))
        >>> dmr.score(dmr.encode_user(user), candidates).shape
        TensorShape([3, 5])
    """

    Config = DMRConfig

    def __init__(self, config: DMRConfig, dims: Dims, name: str = "dmr") -> None:
        super().__init__(name=name)
        self.config = config
        width = dims.item_width
        self.positions = RecencyPositions(dims.max_length, config.position_size)
        self.user_query = keras.layers.Dense(width, name="user_query")
        self.user_prelu = _prelu("user_prelu", shared_axes=[1])
        # The scores are used in softmaxes only, which would cancel a bias.
        self.user_attention = LocalActivation(
            width, config.attention_units, "sigmoid", normalize=True, name="user_attention"
        )
        self.user_vector = keras.layers.Dense(dims.embedding_size, name="user_vector")
        self.vector_prelu = _prelu("vector_prelu")
        self.item_vectors = self.add_weight(
            name="item_vectors",
            shape=(dims.num_items, dims.embedding_size),
            initializer=keras.initializers.RandomUniform(-0.05, 0.05),
            experimental_autocast=False,
        )
        self.target_query = keras.layers.Dense(width, name="target_query")
        self.position_query = keras.layers.Dense(width, use_bias=False, name="position_query")
        self.target_prelu = _prelu("target_prelu", shared_axes=[1, 2])
        self.target_attention = LocalActivation(
            width, config.attention_units, "sigmoid", name="target_attention"
        )
        self.dnn = MLP((*config.units, 1), batch_norm=config.batch_norm, name="dnn")

    @property
    def tables(self) -> list[tf.Variable]:
        """The item vectors v' of the user-to-item network. See the base class."""
        return [self.item_vectors]

    def layouts(self, fields: Fields) -> Layouts:
        """Queries have the layout of the events they are compared with. See the base class."""
        item = fields.history
        yield from of_dense(self.user_query, None, item)
        yield self.user_prelu.alpha, (None, item)
        yield from self.user_attention.layouts(item)
        yield from of_dense(self.user_vector, item, None)
        yield from of_dense(self.target_query, fields.target, item)
        yield from of_dense(self.position_query, None, item)
        yield self.target_prelu.alpha, (None, None, item)
        yield from self.target_attention.layouts(item)
        yield from featureless(self.positions, self.vector_prelu)
        relevances = hidden(2)
        read = fields.pair + item + relevances + sum_layout(self.config, fields)
        yield from self.dnn.layouts(read)

    def encode_user(
        self, user: UserSide, *, training: bool = False, seed: tf.Tensor | None = None
    ) -> State:
        """See the base class."""
        del seed
        history_BLD, mask_BL = user.history_BLD, user.mask_BL
        positions_BLP = self.positions(mask_BL)
        queries_BLD = self.user_prelu(self.user_query(positions_BLP))
        scores_BL = self.user_attention.scores(
            queries_BLD[:, None],
            history_BLD,
            self.user_attention.encode_events(history_BLD),
            mask_BL[:, None],
        )[:, 0]
        before_BL = tf.pad(mask_BL[:, 1:], [[0, 0], [0, 1]])  # Events that another one follows.
        return State(
            user,
            history_BLD,
            encoded_BLA=self.target_attention.encode_events(history_BLD),
            positions_BLD=self.position_query(positions_BLP),
            user_Bd=self._user_vector(scores_BL, history_BLD, mask_BL),
            sum_BD=history_sum(self.config, history_BLD),
            previous_Bd=self._user_vector(scores_BL, history_BLD, before_BL) if training else None,
        )

    def score(self, state: State, candidates: Candidates, *, training: bool = False) -> tf.Tensor:
        """Scores N candidates of each request. See the base class."""
        scores_BNL = self._item_scores(state, candidates)
        mask_BNL = tf.broadcast_to(state.user.mask_BL[:, None], tf.shape(scores_BNL))
        pooled_BND = tf.matmul(masked_softmax(scores_BNL, mask_BNL), state.history_BLD)
        to_items_BN = tf.reduce_sum(tf.where(mask_BNL, scores_BNL, 0.0), -1)
        vectors_BNd = tf.nn.embedding_lookup(self.item_vectors, candidates.key_BN)
        vectors_BNd = tf.cast(vectors_BNd, self.compute_dtype)
        to_user_BN = tf.linalg.matvec(vectors_BNd, state.user_Bd)
        relevances_BN2 = tf.stack([to_user_BN, to_items_BN], -1)
        pairs = pair_fields(state.user.fields_BFd, candidates)
        inputs = [pairs, pooled_BND, relevances_BN2, *read_sum(state.sum_BD, candidates)]
        inputs_BNX = tf.concat(inputs, -1)
        return self.dnn(inputs_BNX, candidates.mask_BN, training=training)[..., 0]

    def auxiliary_losses(
        self, state: State, candidates: Candidates, *, seed: tf.Tensor
    ) -> dict[str, LossTerm]:
        """Loss of predicting the last item from the user vector before it. See the base class.

        The loss is a softmax of the products with v' over the last items of all requests and S
        items drawn uniformly. Copies of the positive item are not negatives.
        """
        del candidates
        if state.previous_Bd is None:
            return {}
        lengths_B = tf.reduce_sum(tf.cast(state.user.mask_BL, tf.int32), 1)
        items_B = tf.gather(state.user.items_BL, tf.maximum(lengths_B - 1, 0), batch_dims=1)
        valid_B = lengths_B > 1
        # All replicas draw the same items, so that the loss does not depend on their number.
        below = tf.fill([self.config.sampled_negatives], self.item_vectors.shape[0] - 1)
        place = randomness.for_place(seed, "dmr/sampled_negatives")
        drawn_S = 1 + tf.cast(randomness.integers(place, below), items_B.dtype)
        compared_items = tf.concat([replicas.all_gather(items_B), drawn_S], 0)
        is_valid = tf.concat([replicas.all_gather(valid_B), tf.ones_like(drawn_S, tf.bool)], 0)
        is_negative = is_valid[None] & (compared_items[None] != items_B[:, None])

        previous_Bd = tf.cast(state.previous_Bd, tf.float32)
        sought_Bd = tf.nn.embedding_lookup(self.item_vectors, items_B)
        positive_B = tf.reduce_sum(previous_Bd * sought_Bd, -1)
        logits = tf.matmul(
            previous_Bd, tf.nn.embedding_lookup(self.item_vectors, compared_items), transpose_b=True
        )
        logits = tf.concat([positive_B[:, None], tf.where(is_negative, logits, _LOWEST)], 1)
        values_B = tf.reduce_logsumexp(logits, -1) - positive_B
        return {
            "next_item": LossTerm(
                values_B[None], tf.cast(valid_B[None], tf.float32), self.config.auxiliary_weight
            )
        }

    def explain(self, state: State, candidates: Candidates) -> dict[str, tf.Tensor]:
        """Attention of the item-to-item network, as one interest. See the base class."""
        scores_BNL = self._item_scores(state, candidates)
        attention_BNL = masked_softmax(scores_BNL, state.user.mask_BL[:, None])
        return equal_interests(attention_BNL[:, :, None])

    def _user_vector(
        self, scores_BL: tf.Tensor, history_BLD: tf.Tensor, mask_BL: tf.Tensor
    ) -> tf.Tensor:
        """The user vector u of the events of a mask, [B, d]."""
        weights_BL = masked_softmax(scores_BL, mask_BL)
        pooled_BD = tf.linalg.matvec(history_BLD, weights_BL, transpose_a=True)
        return self.vector_prelu(self.user_vector(pooled_BD))

    def _item_scores(self, state: State, candidates: Candidates) -> tf.Tensor:
        """Attention scores of the item-to-item network, [B, N, L]; meaningless at padding."""
        target_BND = self.target_query(candidates.target_BND)
        queries_BNLD = self.target_prelu(target_BND[:, :, None] + state.positions_BLD[:, None])
        return self.target_attention.scores(
            queries_BNLD, state.history_BLD, state.encoded_BLA, state.user.mask_BL[:, None]
        )


def _prelu(name: str, shared_axes: list[int] | None = None) -> keras.layers.Layer:
    """A PReLU with a slope per channel."""
    slope = keras.initializers.Constant(_PRELU_SLOPE)
    return keras.layers.PReLU(slope, shared_axes=shared_axes, name=name)
