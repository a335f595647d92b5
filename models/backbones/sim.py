"""SIM: Search-based Interest Model (Pi et al., CIKM 2020), with soft search.

Shapes: B requests, N candidates, L history length, F user and context fields, d embedding width per
field, D item width, K events that a candidate retrieves, S recent events, H heads, C width of a
head, A width of the first attention layer.
"""

import dataclasses
import math
from typing import NamedTuple

from models.backbone_api import (
    AuxiliaryLogits,
    Backbone,
    Candidates,
    Dims,
    ModelConfig,
    UserSide,
    equal_interests,
    pair_fields,
)
from models.keras import keras, tf
from models.layers.attention.local_activation import LocalActivation
from models.layers.attention.recency import reverse_history
from models.layers.masking import masked_softmax
from models.layers.mlp import MLP
from models.ops.weight_layouts import Fields, Layouts, hidden, of_dense
from preprocessing.values.limits import limited


@dataclasses.dataclass(frozen=True, kw_only=True)
class SIMConfig(ModelConfig):
    """Settings of SIM.

    Attributes:
        retrieved_events: Number K of events of the whole history that a candidate retrieves.
        recent_events: Number S of most recent events for the short-term interest.
        heads: Number of heads of the attention to retrieved events; must divide the item width D.
        auxiliary_weight: Weight of the search's separate click loss; without this loss the search
            would not be trained.
        attention_units: Hidden widths of the short-term attention.
        units: Hidden widths of the scoring network, and of the network that trains the search.
    """

    retrieved_events: int = limited(10, at_least=1)
    recent_events: int = limited(10, at_least=1)
    heads: int = limited(1, at_least=1)
    auxiliary_weight: float = limited(1.0, above=0)
    attention_units: tuple[int, ...] = limited((80, 40), at_least=1)
    units: tuple[int, ...] = limited((40, 40, 40), at_least=1)


class State(NamedTuple):
    """The user side, its history, and what is computed of the history for all candidates.

    The projections of all events for the general and for the exact search; the most recent events,
    latest first, their part of the short-term attention's first layer, and their mask.
    """

    user: UserSide
    history_BLD: tf.Tensor
    search_BLD: tf.Tensor
    keys_BLD: tf.Tensor
    recent_BSD: tf.Tensor
    recent_BSA: tf.Tensor
    recent_mask_BS: tf.Tensor


class _Retrieved(NamedTuple):
    """The events that a candidate retrieved.

    Attributes:
        steps_BNK: Index of each event in the history.
        events_BNKD: The events.
        weights_BNHK: Attention of each head; 0 where there were fewer than K events.
    """

    steps_BNK: tf.Tensor
    events_BNKD: tf.Tensor
    weights_BNHK: tf.Tensor


class SIM(Backbone):
    """Searches the history for events relevant to the candidate, then attends to these.

    The general search scores all events by r_l = (W_b x_l) (W_a e) and keeps the best K; no
    gradient passes through this selection, so a network on [sum_l r_l x_l, e] with a separate click
    loss trains W_a and W_b. The exact search is multi-head attention of the candidate to the K
    events. The S most recent events go through the local activation unit of DIN.
    Time intervals, which the paper adds to the events, are not part of the model's input.

    Args:
        config: Settings.
        dims: Static sizes.

    Raises:
        UserError: The heads do not divide the item width.

    Example:
        >>> sim = SIM(SIMConfig(), Dims(2, 2, 0, embedding_size=4, max_length=50))
        >>> items, history = tf.ones([3, 5], tf.int32), tf.ones([3, 5, 2, 4])
        >>> user = UserSide(history[:, 0], history, items > 0, tf.range(3), items, tf.zeros([3]))
        >>> candidates = Candidates(history, history[:, :, :0], items > 0, items, tf.zeros([3, 5]))
        >>> sim.score(sim.encode_user(user), candidates).shape
        TensorShape([3, 5])
    """

    Config = SIMConfig

    def __init__(self, config: SIMConfig, dims: Dims, name: str = "sim") -> None:
        super().__init__(name=name)
        width = dims.item_width
        dims.require_divisor("heads", config.heads)
        self.config = config
        self.event_search = keras.layers.Dense(width, use_bias=False, name="event_search")
        self.target_search = keras.layers.Dense(width, use_bias=False, name="target_search")
        self.event_keys = keras.layers.Dense(width, use_bias=False, name="event_keys")
        self.target_queries = keras.layers.Dense(width, use_bias=False, name="target_queries")
        self.short_term = LocalActivation(width, config.attention_units, name="short_term")
        self.search_dnn = MLP((*config.units, 1), name="search_dnn")
        self.dnn = MLP((*config.units, 1), name="dnn")

    def layouts(self, fields: Fields) -> Layouts:
        """Searches compare hidden vectors and return events. See the base class."""
        item, heads = fields.history, self.config.heads
        searched = hidden(item.size)
        compared = hidden(item.size // heads, groups=heads)
        yield from of_dense(self.event_search, item, searched)
        yield from of_dense(self.target_search, fields.target, searched)
        yield from of_dense(self.event_keys, item, compared)
        yield from of_dense(self.target_queries, fields.target, compared)
        yield from self.short_term.layouts(item)
        yield from self.search_dnn.layouts(item + fields.target)
        yield from self.dnn.layouts(fields.pair + item * (1 + heads))

    def encode_user(
        self, user: UserSide, *, training: bool = False, seed: tf.Tensor | None = None
    ) -> State:
        """See the base class."""
        del training, seed
        history_BLD, mask_BL = user.history_BLD, user.mask_BL
        count = self.config.recent_events
        recent_BSD = reverse_history(history_BLD, mask_BL)[:, :count]
        return State(
            user,
            history_BLD,
            search_BLD=self.event_search(history_BLD),
            keys_BLD=self.event_keys(history_BLD),
            recent_BSD=recent_BSD,
            recent_BSA=self.short_term.encode_events(recent_BSD),
            recent_mask_BS=mask_BL[:, :count],
        )

    def score(self, state: State, candidates: Candidates, *, training: bool = False) -> tf.Tensor:
        """Scores N candidates of each request. See the base class."""
        retrieved = self._retrieve(state, candidates)
        heads_BNHD = tf.matmul(retrieved.weights_BNHK, retrieved.events_BNKD)
        shape = tf.shape(heads_BNHD)
        long_BNX = tf.reshape(
            heads_BNHD, [shape[0], shape[1], self.config.heads * heads_BNHD.shape[3]]
        )
        weights_BNS = self._attend_recent(state, candidates, training)
        short_BND = tf.matmul(weights_BNS, state.recent_BSD)
        pairs = pair_fields(state.user.fields_BFd, candidates)
        return self.dnn(tf.concat([pairs, short_BND, long_BNX], -1))[..., 0]

    def auxiliary_logits(self, state: State, candidates: Candidates) -> dict[str, AuxiliaryLogits]:
        """The search as a separate ranking model. See the base class."""
        mask_BL = state.user.mask_BL
        relevance_BNL = tf.where(mask_BL[:, None], self._relevance(state, candidates), 0.0)
        pooled_BND = tf.matmul(relevance_BNL, state.history_BLD)
        logits_BN = self.search_dnn(tf.concat([pooled_BND, candidates.target_BND], -1))[..., 0]
        return {"search_loss": AuxiliaryLogits(logits_BN, self.config.auxiliary_weight)}

    def explain(self, state: State, candidates: Candidates) -> dict[str, tf.Tensor]:
        """Weights of the events in each head's long-term interest and in the short-term one.

        Events that were not retrieved, or are not recent, have weight 0. The network treats all
        interests equally, so their confidences are equal.
        """
        retrieved = self._retrieve(state, candidates)
        mask_BL = state.user.mask_BL
        length = tf.shape(mask_BL)[1]
        places_BNKL = tf.one_hot(retrieved.steps_BNK, length, dtype=retrieved.weights_BNHK.dtype)
        long_BNHL = tf.matmul(retrieved.weights_BNHK, places_BNKL)
        weights_BNS = self._attend_recent(state, candidates, training=False)
        missing = length - tf.shape(weights_BNS)[2]
        recent_BNL = tf.pad(weights_BNS, [[0, 0], [0, 0], [0, missing]])
        short_BNL = reverse_history(recent_BNL, mask_BL, axis=2)
        return equal_interests(tf.concat([long_BNHL, short_BNL[:, :, None]], 2))

    def _relevance(self, state: State, candidates: Candidates) -> tf.Tensor:
        """Relevance of every event to every candidate, [B, N, L]; meaningless at padding."""
        target_BND = self.target_search(candidates.target_BND)
        return tf.matmul(target_BND, state.search_BLD, transpose_b=True)

    def _retrieve(self, state: State, candidates: Candidates) -> _Retrieved:
        """The K most relevant events for each candidate, and the attention to them."""
        mask_BL = state.user.mask_BL
        relevance_BNL = self._relevance(state, candidates)
        # The lowest number, not 0: relevances may be negative, and padding must rank below them.
        relevance_BNL = tf.where(mask_BL[:, None], relevance_BNL, relevance_BNL.dtype.min)
        count = tf.minimum(self.config.retrieved_events, tf.shape(mask_BL)[1])
        steps_BNK = tf.math.top_k(relevance_BNL, count).indices
        mask_BNK = tf.gather(mask_BL, steps_BNK, batch_dims=1)
        events_BNKD = tf.gather(state.history_BLD, steps_BNK, batch_dims=1)

        keys_BNKHC = self._split_heads(tf.gather(state.keys_BLD, steps_BNK, batch_dims=1))
        queries_BNHC = self._split_heads(self.target_queries(candidates.target_BND))
        scores_BNHK = tf.einsum("bnhc,bnkhc->bnhk", queries_BNHC, keys_BNKHC)
        scores_BNHK /= math.sqrt(queries_BNHC.shape[-1])
        weights_BNHK = masked_softmax(scores_BNHK, mask_BNK[:, :, None])
        return _Retrieved(steps_BNK, events_BNKD, weights_BNHK)

    def _attend_recent(self, state: State, candidates: Candidates, training: bool) -> tf.Tensor:
        """Weight of each recent event for each candidate, [B, N, S], latest first."""
        return self.short_term(
            candidates.target_BND,
            state.recent_BSD,
            state.recent_BSA,
            candidates.mask_BN[:, :, None] & state.recent_mask_BS[:, None],
            training=training,
        )

    def _split_heads(self, values: tf.Tensor) -> tf.Tensor:
        """Reshapes [..., D] to [..., H, C]."""
        heads, width = self.config.heads, values.shape[-1]
        shape = tf.concat([tf.shape(values)[:-1], [heads, width // heads]], 0)
        return tf.reshape(values, shape)
