"""DMIN: Deep Multi-Interest Network (Xiao et al., CIKM 2020).

Shapes: B requests, N candidates, L history length, F user and context fields, d embedding width per
field, D item width, K interests (heads), A width of the first attention layer, P width of a
position.
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
from models.layers.mlp import MLP
from models.layers.next_event import NextEvent
from models.ops import randomness
from models.ops.weight_layouts import Fields, Layout, Layouts, featureless, hidden, of_dense
from preprocessing.values.limits import limited


@dataclasses.dataclass(frozen=True, kw_only=True)
class DMINConfig(HeadConfig):
    """Settings of DMIN.

    Attributes:
        interests: Number K of interests: heads of both self-attentions; must divide the item
            width D.
        position_size: Width P of the position vector in the candidate's attention.
        auxiliary_weight: Weight of the loss by which refined events predict the next event; 0
            leaves it out.
        auxiliary_units: Hidden widths of the network of that loss.
        attention_units: Hidden widths of the candidate's attention.
        units: Hidden widths of the scoring network.
    """

    history_sum: bool = True
    interests: int = limited(4, at_least=1)
    position_size: int = limited(2, at_least=1)
    auxiliary_weight: float = limited(0.0, at_least=0)
    auxiliary_units: tuple[int, ...] = limited((100, 50), at_least=1)
    attention_units: tuple[int, ...] = limited((80, 40), at_least=1)
    units: tuple[int, ...] = limited((40, 40, 40), at_least=1)


class State(NamedTuple):
    """The user side, its history and the sum of it, and what is computed of it for all candidates.

    The refined events, the K histories extracted from them, and the part of these in the first
    layer of the candidate's attention.
    """

    user: UserSide
    history_BLD: tf.Tensor
    refined_BLD: tf.Tensor
    interests_BKLD: tf.Tensor
    encoded_BKLA: tf.Tensor
    sum_BD: tf.Tensor | None


class DMIN(Backbone):
    """Refines events by self-attention, splits them into K interests, and attends to each.

    The behaviour refiner is causal self-attention with K heads; the multi-interest extractor is a
    second self-attention whose K heads yield separate histories. Both are candidate-independent.
    The local activation unit of DIN, with positions in its query, pools each of the K histories for
    a candidate. A network on [user fields, candidate, sum of the history and its product with the
    candidate (unless disabled), the K pools] gives the logit.

    Args:
        config: Settings.
        dims: Static sizes.

    Raises:
        UserError: The interests do not divide the item width.

    Example:
        >>> dmin = DMIN(DMINConfig(interests=2), Dims(2, 2, 0, embedding_size=4, max_length=50))
        >>> items, history = tf.ones([3, 5], tf.int32), tf.ones([3, 5, 2, 4])
        >>> user = UserSide(history[:, 0], history, items > 0, tf.range(3), items, tf.zeros([3]))
        >>> candidates = Candidates(history, history[:, :, :0], items > 0, items, tf.zeros([3, 5]))
        >>> dmin.score(dmin.encode_user(user), candidates).shape
        TensorShape([3, 5])
    """

    Config = DMINConfig

    def __init__(self, config: DMINConfig, dims: Dims, name: str = "dmin") -> None:
        super().__init__(name=name)
        width = dims.item_width
        dims.require_divisor("interests", config.interests)
        self.config = config
        head_width = width // config.interests
        self.refiner = CausalBlock(config.interests, head_width, width, name="refiner")
        self.extractors = [
            CausalBlock(1, head_width, width, name=f"interest_{k}") for k in range(config.interests)
        ]
        self.positions = RecencyPositions(dims.max_length, config.position_size)
        self.readers = [
            PositionedActivation(width, config.attention_units, name=f"reader_{k}")
            for k in range(config.interests)
        ]
        self.dnn = MLP((*config.units, 1), batch_norm=config.batch_norm, name="dnn")
        self.next_event = NextEvent(config.auxiliary_units) if config.auxiliary_weight else None

    def layouts(self, fields: Fields) -> Layouts:
        """Refined events have the layout of events. See the base class."""
        item = fields.history
        for block in (self.refiner, *self.extractors):
            yield from block.layouts(item)
        for reader in self.readers:
            yield from reader.layouts(fields.target, item)
        yield from featureless(self.positions)
        if self.next_event is not None:
            yield from self.next_event.layouts(item)
        pools = item * self.config.interests
        yield from self.dnn.layouts(fields.pair + sum_layout(self.config, fields) + pools)

    def encode_user(
        self, user: UserSide, *, training: bool = False, seed: tf.Tensor | None = None
    ) -> State:
        """See the base class."""
        del training, seed
        history_BLD, mask_BL = user.history_BLD, user.mask_BL
        refined_BLD = self.refiner(history_BLD, mask_BL)
        positions_BLP = self.positions(mask_BL)
        interests = [extract(refined_BLD, mask_BL) for extract in self.extractors]
        encoded = [
            reader.encode_events(events_BLD, positions_BLP)
            for reader, events_BLD in zip(self.readers, interests, strict=True)
        ]
        return State(
            user,
            history_BLD,
            refined_BLD,
            interests_BKLD=tf.stack(interests, 1),
            encoded_BKLA=tf.stack(encoded, 1),
            sum_BD=history_sum(self.config, history_BLD),
        )

    def score(self, state: State, candidates: Candidates, *, training: bool = False) -> tf.Tensor:
        """Scores N candidates of each request. See the base class."""
        weights_BNKL = self._attend(state, candidates)
        pools_BKND = tf.matmul(tf.transpose(weights_BNKL, [0, 2, 1, 3]), state.interests_BKLD)
        inputs = [
            pair_fields(state.user.fields_BFd, candidates),
            *read_sum(state.sum_BD, candidates),
            *tf.unstack(pools_BKND, axis=1),
        ]
        inputs_BNX = tf.concat(inputs, -1)
        return self.dnn(inputs_BNX, candidates.mask_BN, training=training)[..., 0]

    def auxiliary_losses(
        self, state: State, candidates: Candidates, *, seed: tf.Tensor
    ) -> dict[str, LossTerm]:
        """Loss of predicting the next event, if its weight is not 0. See the base class."""
        del candidates
        if self.next_event is None:
            return {}
        values, weights = self.next_event(
            state.refined_BLD,
            state.history_BLD,
            state.user.mask_BL,
            state.user.key_B,
            randomness.for_place(seed, "dmin/next_event"),
        )
        term = LossTerm(
            tf.reshape(values, [1, -1]), tf.reshape(weights, [1, -1]), self.config.auxiliary_weight
        )
        return {"next_event": term}

    def explain(self, state: State, candidates: Candidates) -> dict[str, tf.Tensor]:
        """Weights of the events in each interest.

        The network treats all interests equally, so their confidences are equal.
        """
        return equal_interests(self._attend(state, candidates))

    def _attend(self, state: State, candidates: Candidates) -> tf.Tensor:
        """Weight of each event in each interest for each candidate, [B, N, K, L]."""
        mask_BNL = candidates.mask_BN[:, :, None] & state.user.mask_BL[:, None]
        interests = tf.unstack(state.interests_BKLD, axis=1)
        encoded = tf.unstack(state.encoded_BKLA, axis=1)
        weights = [
            reader(candidates.target_BND, events_BLD, encoded_BLA, mask_BNL)
            for reader, events_BLD, encoded_BLA in zip(
                self.readers, interests, encoded, strict=True
            )
        ]
        return tf.stack(weights, axis=2)


class CausalBlock(keras.layers.Layer):
    """Causal self-attention to the valid events, and a feed-forward network.

    y = LayerNorm(x + Attention(x)), then y + W2 relu(W1 y + b1) + b2. Scores are divided by the
    root of a head's width; the authors' code uses the model's width instead, and does not mask
    padding, which is correct only if all padding is at the end.

    Args:
        heads: Number of heads of the attention.
        head_width: Width of each head.
        width: Item width D.
    """

    def __init__(self, heads: int, head_width: int, width: int, name: str) -> None:
        super().__init__(name=name)
        # Without biases: the softmax would cancel the bias of the keys.
        self.attention = keras.layers.MultiHeadAttention(
            heads, head_width, use_bias=False, output_shape=width, name="attention"
        )
        # Embeddings start with a variance near 0.001, which Keras' default epsilon would drown.
        self.norm = keras.layers.LayerNormalization(epsilon=1e-6, name="norm")
        self.feed_forward = MLP((2 * width, width), name="feed_forward")
        self._head_width = head_width

    def layouts(self, item: Layout) -> Layouts:
        """Layouts of the weights, for events laid out as `item`."""
        *projections, output = self.attention.weights
        head = hidden(self._head_width)
        for kernel in projections:
            yield kernel, (item, None, head)
        yield output, (None, head, item)
        for weight in self.norm.weights:
            yield weight, (item,)
        yield from self.feed_forward.layouts(item, item)

    def call(self, values_BLD: tf.Tensor, mask_BL: tf.Tensor) -> tf.Tensor:
        """Refines events [B, L, D], finite at padding; the results at padding are meaningless."""
        length = tf.shape(mask_BL)[1]
        is_past_LL = tf.linalg.band_part(tf.ones([length, length], tf.bool), -1, 0)
        mask_BLL = mask_BL[:, None] & is_past_LL
        attended_BLD = self.attention(values_BLD, values_BLD, attention_mask=mask_BLL)
        values_BLD = self.norm(values_BLD + attended_BLD)
        return values_BLD + self.feed_forward(values_BLD)


class PositionedActivation(keras.layers.Layer):
    """A local activation unit whose query is W [target, position of the event].

    W is stored in two parts. The query is then q + p, with q from the candidate and p from the
    position, and the terms of the first layer in p and the event alone are computed once per
    request:

        W1 (q + p) + W4 ((q + p) * k) = (W1 q + W4 (q * k)) + (W1 p + W4 (p * k)).

    Args:
        width: Item width D.
        units: Hidden widths of the activation unit.
    """

    def __init__(self, width: int, units: tuple[int, ...], name: str) -> None:
        super().__init__(name=name)
        self.of_target = keras.layers.Dense(width, use_bias=False, name="of_target")
        self.of_position = keras.layers.Dense(width, name="of_position")
        self.activation = LocalActivation(width, units, "sigmoid", normalize=True)

    def layouts(self, target: Layout, item: Layout) -> Layouts:
        """Layouts of the weights, for candidates and events with the given layouts."""
        yield from of_dense(self.of_target, target, item)
        yield from of_dense(self.of_position, None, item)
        yield from self.activation.layouts(item)

    def encode_events(self, events_BLD: tf.Tensor, positions_BLP: tf.Tensor) -> tf.Tensor:
        """The part of the first layer that does not depend on the candidate, [B, L, A]."""
        return self.activation.encode_events(events_BLD, self.of_position(positions_BLP))

    def call(
        self,
        targets_BND: tf.Tensor,
        events_BLD: tf.Tensor,
        encoded_BLA: tf.Tensor,
        mask_BNL: tf.Tensor,
    ) -> tf.Tensor:
        """Weighs every event for every candidate; see `LocalActivation`."""
        return self.activation(self.of_target(targets_BND), events_BLD, encoded_BLA, mask_BNL)
