"""MISS: multi-interest self-supervised learning (Guo et al., ICDE 2022).

Shapes: B requests, L history length, J item features of the history, d embedding width per field,
w width of an encoded view, M horizontal filters, N vertical filters of each, P slots of pairs of
interests, Q slots of pairs of features, S = P + Q, V = 2 views of a slot.
"""

import dataclasses
from typing import NamedTuple

import numpy as np

from models import randomness, replicas
from models.interfaces import Candidates, Dims, LossTerm, SelfSupervision, UserSide
from models.keras import tf
from models.layers.mlp import MLP
from models.ssl.info_nce import info_nce
from preprocessing.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class MISSConfig:
    """Settings of MISS.

    Attributes:
        widths: M; horizontal filters span 1..M events.
        heights: N; vertical filters span 1..N item features (at most as many as there are).
        distances: H; the two interests of a pair start 1..H events apart.
        pairs_per_filter: Interest pairs drawn from each horizontal filter.
        feature_pairs_per_filter: Feature pairs drawn from each vertical filter.
        temperature: tau of the contrastive losses.
        alpha: Weight of the interest-level loss.
        alpha_feature: Weight of the feature-level loss; None for that of the interest level.
        encoder_units: Widths of the encoder of interests.
        feature_encoder_units: Widths of the encoder of features.
        symmetric: Contrast in both directions; the paper's equations contrast in one.
    """

    widths: int = 3
    heights: int = 2
    distances: int = 3
    pairs_per_filter: int = 1
    feature_pairs_per_filter: int = 1
    temperature: float = 0.1
    alpha: float = 0.1
    alpha_feature: float | None = None
    encoder_units: tuple[int, ...] = (20, 20)
    feature_encoder_units: tuple[int, ...] = (10, 10)
    symmetric: bool = False

    def __post_init__(self) -> None:
        """Raises `UserError` on values out of range."""
        for name in (
            "widths",
            "heights",
            "distances",
            "pairs_per_filter",
            "feature_pairs_per_filter",
        ):
            if getattr(self, name) < 1:
                raise UserError(f"Expected ssl.{name} of at least 1, found {getattr(self, name)}.")
        if self.temperature <= 0:
            raise UserError(f"Expected ssl.temperature > 0, found {self.temperature}.")


class Pairs(NamedTuple):
    """Where the two views of each slot and request start.

    Attributes:
        starts_SVB: First event of the window.
        rows_QVB: First item feature, in the slots of features.
        valid_SB: Whether the history is long enough for a pair.
    """

    starts_SVB: tf.Tensor
    rows_QVB: tf.Tensor
    valid_SB: tf.Tensor


class MISS(SelfSupervision):
    """Contrasts interests found in a history, as a whole and feature by feature.

    A window of m neighbouring events, merged by a filter of m scalars, is an interest; two windows
    a few events apart show the same interest and attract each other, those of other users repel.
    Likewise for features merged by a filter of n scalars within a window.

    Only the windows that were drawn are merged, and all slots go through one encoder call and one
    contrastive product per level, so the cost hardly depends on the length of the history.

    Windows never touch padding: a history of `len` events has len - m + 1 of them for filter m.

    Args:
        config: Settings.
        dims: Static sizes; the history length of a batch must be at least 1.
    """

    Config = MISSConfig

    def __init__(self, config: MISSConfig, dims: Dims, name: str = "miss") -> None:
        super().__init__(name=name)
        self.config = config
        self._fields = dims.history_features
        heights = min(config.heights, self._fields)
        filters = np.arange(config.widths, dtype=np.int32)
        verticals = np.repeat(
            np.arange(config.widths * heights, dtype=np.int32), config.feature_pairs_per_filter
        )
        self._interest_slots = config.widths * config.pairs_per_filter
        # Slot -> index of its filters. Index 0 spans one event (or feature), index 1 two, ...
        self._horizontal_S = np.concatenate(
            [np.repeat(filters, config.pairs_per_filter), verticals // heights]
        )
        self._vertical_Q = verticals
        self._rows_Q = self._fields - verticals % heights
        # Interests pair up over time, and so do features where a filter yields a single one of
        # them; else two features of the same window do.
        self._over_time_S = np.concatenate([np.ones(self._interest_slots, bool), self._rows_Q == 1])
        self._of_horizontal = _triangle(config.widths)
        self._of_vertical = _triangle(heights)
        self.horizontal = self.add_weight(
            name="horizontal", shape=(len(self._of_horizontal),), initializer=_averages
        )
        self.vertical = self.add_weight(
            name="vertical",
            shape=(config.widths, len(self._of_vertical)),
            initializer=_averages,
        )
        self.encoder = MLP(config.encoder_units, name="encoder")
        self.feature_encoder = MLP(config.feature_encoder_units, name="feature_encoder")

    def losses(
        self, user: UserSide, candidates: Candidates, *, seed: tf.Tensor
    ) -> dict[str, LossTerm]:
        """The contrastive losses of pairs drawn afresh (eqs. 15-16). See the base class."""
        del candidates
        pairs = self.draw(user.mask_BL, seed)
        return self.losses_of(user, pairs)

    def draw(self, mask_BL: tf.Tensor, seed: tf.Tensor) -> Pairs:
        """Draws the pairs of each request (RS of eqs. 21 and 24).

        The distance is uniform in 1..min(H, windows - 1), then the first start uniform among those
        that leave room for it; two features are distinct and uniform.
        """
        # The rows of a replica are not those of another, and neither are its draws.
        seed = tf.random.experimental.stateless_fold_in(seed, replicas.index())
        over_time_S1 = self._over_time_S[:, None]
        length_B = tf.reduce_sum(tf.cast(mask_BL, tf.int32), -1)
        windows_SB = length_B - self._horizontal_S[:, None]
        furthest_SB = tf.minimum(windows_SB - 1, self.config.distances)
        distance_SB = 1 + randomness.integers(
            randomness.for_place(seed, "miss/distance"), furthest_SB
        )
        distance_SB = tf.where(over_time_S1, distance_SB, 0)
        start_SB = randomness.integers(
            randomness.for_place(seed, "miss/start"), windows_SB - distance_SB
        )

        batch = tf.shape(mask_BL)[0]
        rows_QB = tf.broadcast_to(self._rows_Q[:, None], [len(self._rows_Q), batch])
        row_QB = randomness.integers(randomness.for_place(seed, "miss/row"), rows_QB)
        step_QB = 1 + randomness.integers(randomness.for_place(seed, "miss/step"), rows_QB - 1)
        return Pairs(
            starts_SVB=tf.stack([start_SB, start_SB + distance_SB], 1),
            rows_QVB=tf.stack([row_QB, (row_QB + step_QB) % rows_QB], 1),
            valid_SB=windows_SB > tf.cast(over_time_S1, tf.int32),
        )

    def losses_of(self, user: UserSide, pairs: Pairs) -> dict[str, LossTerm]:
        """The contrastive losses of given pairs (eqs. 13-16)."""
        cut = self._interest_slots
        windows_SVBJd = self._merge_events(user, pairs.starts_SVB)
        shape = tf.shape(windows_SVBJd)
        width = self._fields * user.history_BLJd.shape[3]
        interests = tf.reshape(windows_SVBJd[:cut], [cut, 2, shape[2], width])
        features = self._merge_features(windows_SVBJd[cut:], pairs.rows_QVB)
        config = self.config
        alpha_feature = config.alpha if config.alpha_feature is None else config.alpha_feature
        return {
            "miss_interest": self._contrast(
                self.encoder(interests), pairs.valid_SB[:cut], user.key_B, config.alpha
            ),
            "miss_feature": self._contrast(
                self.feature_encoder(features), pairs.valid_SB[cut:], user.key_B, alpha_feature
            ),
        }

    def _merge_events(self, user: UserSide, starts_SVB: tf.Tensor) -> tf.Tensor:
        """The horizontal convolution at the drawn starts (eqs. 19-20), [S, V, B, J, d].

        relu(sum_{i < m} g_m[i] C[:, l + i, :]) for a window of m events from l.
        """
        history_BLJd = tf.where(user.mask_BL[..., None, None], user.history_BLJd, 0.0)
        shape = tf.shape(history_BLJd)
        batch, length = shape[0], shape[1]
        weights_MM = tf.tensordot(self.horizontal, self._of_horizontal, 1)
        weights_SM = tf.gather(tf.cast(weights_MM, history_BLJd.dtype), self._horizontal_S)
        # Shorter filters weigh the events past their end with 0.
        events_SVBM = starts_SVB[..., None] + tf.range(self.config.widths)
        places = tf.range(batch)[:, None] * length + tf.minimum(events_SVBM, length - 1)
        events = tf.gather(tf.reshape(history_BLJd, tf.concat([[-1], shape[2:]], 0)), places)
        return tf.nn.relu(tf.reduce_sum(events * weights_SM[:, None, None, :, None, None], 3))

    def _merge_features(self, windows_QVBJd: tf.Tensor, rows_QVB: tf.Tensor) -> tf.Tensor:
        """The vertical convolution at the drawn rows (eqs. 22-23), [Q, V, B, d].

        relu(sum_{i < n} g_mn[i] G_m[j + i, :]) for n features from row j of a window of m events.
        """
        heights = self._of_vertical.shape[-1]
        weights = tf.tensordot(self.vertical, self._of_vertical, 1)
        weights = tf.reshape(tf.cast(weights, windows_QVBJd.dtype), [-1, heights])
        weights_QN = tf.gather(weights, self._vertical_Q)
        fields_QVBN = tf.minimum(rows_QVB[..., None] + tf.range(heights), self._fields - 1)
        fields = tf.gather(windows_QVBJd, fields_QVBN, batch_dims=3)
        return tf.nn.relu(tf.reduce_sum(fields * weights_QN[:, None, None, :, None], 3))

    def _contrast(
        self, views_PVBw: tf.Tensor, valid_PB: tf.Tensor, key_B: tf.Tensor, weight: float
    ) -> LossTerm:
        """InfoNCE between the two views of each slot."""
        values_PB = info_nce(
            views_PVBw[:, 0],
            views_PVBw[:, 1],
            valid_PB,
            key_B,
            temperature=self.config.temperature,
            symmetric=self.config.symmetric,
        )
        return LossTerm(values_PB, tf.cast(valid_PB, tf.float32), weight)


def _triangle(size: int) -> np.ndarray:
    """Places the weights of filters of 1..size scalars, end to end, into rows padded with zeros.

    Returns:
        float32 [size (size + 1) / 2, size, size]; a product with it sums over the first axis.
    """
    rows, columns = np.tril_indices(size)
    placement = np.zeros((len(rows), size, size), np.float32)
    placement[np.arange(len(rows)), rows, columns] = 1.0
    return placement


def _averages(shape: tf.TensorShape, dtype: tf.DType | None = None) -> tf.Tensor:
    """Initialises filters of 1, 2, ... scalars, end to end in the last axis, to averages.

    A filter of few scalars in front of a rectifier dies if they start out negative, so they do not
    start at random.
    """
    size = int(np.sqrt(2 * shape[-1]))
    rows, _ = np.tril_indices(size)
    return tf.broadcast_to(tf.constant(1.0 / (rows + 1), dtype), shape)
