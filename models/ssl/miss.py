"""MISS: multi-interest self-supervised learning (Guo et al., ICDE 2022).

Shapes: B requests, L history length, J item features of the history, d embedding width per field,
w width of an encoded view, M horizontal filters, N vertical filters of each, H distances, P slots
of pairs of interests, Q slots of pairs of features, S = P + Q, V = 2 views of a slot.
"""

import dataclasses
from typing import NamedTuple

import numpy as np

from models.backbone_api import Candidates, Dims, UserSide
from models.keras import tf
from models.layers.mlp import MLP
from models.ssl import extractors, random_draws
from models.ssl.contrastive import Contrastive, ContrastiveConfig, Views, weighted_mean
from models.ssl.info_nce import unit_vectors
from preprocessing.errors import UserError
from preprocessing.values.limits import limited

_DISTRIBUTIONS = ("uniform", "gaussian")
_KEEP = 0.5
"""Probability with which a sample-level view keeps an event."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class MISSConfig(ContrastiveConfig):
    """Settings of MISS.

    The variants of table VI: without F is `heights` 0, without U `widths` 1, without L `distances`
    1, without M `extractor` "sample".

    Attributes:
        extractor: Interest extractor: "cnn" of the paper; "sa" or "lstm", which have one filter
            (table VII); "sample" for two sparser copies of the whole history instead of interests.
        widths: Number M of horizontal filters, which span 1..M events.
        heights: Number N of vertical filters, which span 1..N item features (at most as many as
            there are). 0 for no feature-level loss.
        distances: Largest distance H; the two interests of a pair start 1..H events apart.
        distance_distribution: Distribution of the distance: "uniform", or "gaussian" for
            exp(-h^2 / (2 s^2)) cut off at H, which prefers near interests.
        distance_scale: Scale s of the gaussian distribution.
        pairs_per_filter: Number of interest pairs drawn from each horizontal filter.
        feature_pairs_per_filter: Number of feature pairs drawn from each vertical filter.
        alpha: Weight alpha_1 of the interest-level loss.
        alpha_feature: Weight alpha_2 of the feature-level loss; None for alpha_1.
        encoder_units: Widths of the layers of the encoder of interests.
        feature_encoder_units: Widths of the layers of the encoder of features.
    """

    extractor: str = "cnn"
    widths: int = limited(3, at_least=1)
    heights: int = limited(2, at_least=0)
    distances: int = limited(3, at_least=1)
    distance_distribution: str = "uniform"
    distance_scale: float = limited(1.5, above=0)
    pairs_per_filter: int = limited(4, at_least=1)
    feature_pairs_per_filter: int = limited(1, at_least=1)
    alpha_feature: float | None = limited(None, at_least=0)
    encoder_units: tuple[int, ...] = limited((20, 20), at_least=1)
    feature_encoder_units: tuple[int, ...] = limited((10, 10), at_least=1)

    def __post_init__(self) -> None:
        """Raises `UserError` on an unknown extractor or distribution. See the base class."""
        super().__post_init__()
        for name, options in (
            ("extractor", extractors.EXTRACTORS),
            ("distance_distribution", _DISTRIBUTIONS),
        ):
            if getattr(self, name) not in options:
                raise UserError(
                    f"Expected ssl.{name} to be one of {', '.join(options)}, "
                    f"found {getattr(self, name)!r}."
                )


class Pairs(NamedTuple):
    """Positions of the two views of each slot and request.

    Attributes:
        events: First event of each view, [S, V, B]; for sample-level views the mask of kept events,
            boolean [S, V, B, L].
        rows_QVB: First item feature of each view, in the slots of features.
        valid_SB: Whether the history is long enough for a pair.
    """

    events: tf.Tensor
    rows_QVB: tf.Tensor
    valid_SB: tf.Tensor


class MISS(Contrastive):
    """Contrasts interests in a history, as a whole and by feature.

    An interest is a window of m adjacent events, merged by a filter of m scalars. Two windows a few
    events apart are a positive pair, windows of other users are negatives. The same holds for
    features merged by a filter of n scalars within a window.

    All slots share one encoder call and one contrastive product per level. Windows never overlap
    padding: a history of `len` events has len - m + 1 windows of filter m.

    Args:
        config: Settings.
        dims: Static sizes; the history length of a batch must be at least 1.

    Example:
        >>> miss = MISS(MISSConfig(), Dims(2, 2, 0, embedding_size=4, max_length=50))
        >>> items, history = tf.ones([3, 5], tf.int32), tf.ones([3, 5, 2, 4])
        >>> user = UserSide(history[:, 0], history, items > 0, tf.range(3), items, tf.zeros([3]))
        >>> views = miss.views_of(user, miss.draw(user.mask_BL, seed=tf.constant([1, 2])))
        >>> loss_PB = miss.contrast(views["miss_interest"])
        >>> round(float(loss_PB[0, 0]), 4)  # ln 3, as the three histories are the same.
        1.0986
    """

    Config = MISSConfig
    mixed_precision = True

    def __init__(self, config: MISSConfig, dims: Dims, name: str = "miss") -> None:
        super().__init__(config, name)
        self._fields = dims.history_features
        self.extractor = extractors.build(config.extractor, dims, config.widths)
        widths, heights = self.extractor.widths, min(config.heights, self._fields)
        filters = np.arange(widths, dtype=np.int32)
        verticals = np.repeat(
            np.arange(widths * heights, dtype=np.int32), config.feature_pairs_per_filter
        )
        self._interest_slots = widths * config.pairs_per_filter
        # Slot -> index of its filters. Index 0 spans one event (or feature), index 1 two, ...
        self._horizontal_S = np.concatenate(
            [np.repeat(filters, config.pairs_per_filter), verticals // max(heights, 1)]
        )
        self._vertical_Q = verticals
        self._rows_Q = self._fields - verticals % max(heights, 1)
        # Pairs of interests are apart in time. So are pairs of features if a filter yields only one
        # feature; otherwise a pair consists of two features of the same window.
        self._over_time_S = np.concatenate([np.ones(self._interest_slots, bool), self._rows_Q == 1])
        self._cumulative_H = _cumulative_weights(config)
        self.encoder = MLP(config.encoder_units, name="encoder")
        if heights:
            self._of_vertical = extractors.triangle(heights)
            self.vertical = self.add_weight(
                name="vertical",
                shape=(widths, len(self._of_vertical)),
                initializer=extractors.averages,
            )
            self.feature_encoder = MLP(config.feature_encoder_units, name="feature_encoder")

    def views(self, user: UserSide, candidates: Candidates, seed: tf.Tensor) -> dict[str, Views]:
        """Encoded views of newly drawn pairs (eqs. 13-14). See the base class."""
        del candidates
        return self.views_of(user, self.draw(user.mask_BL, seed))

    def draw(self, mask_BL: tf.Tensor, seed: tf.Tensor) -> Pairs:
        """Draws the pairs of each request (RS of eqs. 21 and 24).

        The distance is drawn from 1..min(H, windows - 1), then the first start uniformly among the
        possible ones; two distinct features are drawn uniformly.
        """
        over_time_S1 = self._over_time_S[:, None]
        batch, slots = tf.shape(mask_BL)[0], len(self._over_time_S)
        length_B = tf.reduce_sum(tf.cast(mask_BL, tf.int32), -1)
        windows_SB = length_B - self._horizontal_S[:, None]
        if self.config.extractor == "sample":
            noise_SVBL = random_draws.per_event(seed, "miss/keep", [slots, 2], mask_BL)
            kept_SVBL = random_draws.kept_events(noise_SVBL, mask_BL, _KEEP)
            again_SBL = tf.where(over_time_S1[..., None], kept_SVBL[:, 1], kept_SVBL[:, 0])
            events = tf.stack([kept_SVBL[:, 0], again_SBL], 1)
        else:
            furthest_SB = tf.minimum(windows_SB - 1, self.config.distances)
            noise_SB = random_draws.uniform(seed, "miss/distance", [slots], batch)
            distance_SB = tf.where(over_time_S1, self._distance(noise_SB, furthest_SB), 0)
            noise_SB = random_draws.uniform(seed, "miss/start", [slots], batch)
            start_SB = random_draws.scale(noise_SB, windows_SB - distance_SB)
            events = tf.stack([start_SB, start_SB + distance_SB], 1)

        rows_Q1 = self._rows_Q[:, None]
        row_QB = random_draws.scale(
            random_draws.uniform(seed, "miss/row", rows_Q1.shape[:1], batch), rows_Q1
        )
        noise_QB = random_draws.uniform(seed, "miss/step", rows_Q1.shape[:1], batch)
        other_QB = (row_QB + 1 + random_draws.scale(noise_QB, rows_Q1 - 1)) % rows_Q1
        return Pairs(
            events=events,
            rows_QVB=tf.stack([row_QB, other_QB], 1),
            valid_SB=windows_SB > tf.cast(over_time_S1, tf.int32),
        )

    def views_of(self, user: UserSide, pairs: Pairs) -> dict[str, Views]:
        """Encoded views of given pairs (eqs. 13-14)."""
        config, num_interest_slots = self.config, self._interest_slots
        interests_SVBJd = self.extractor.interests(user, pairs.events, self._horizontal_S)
        # Split and unstacked instead of sliced: the gradient of a slice fills a tensor with zeros.
        interests_PVBJd, interests_QVBJd = tf.split(
            interests_SVBJd, [num_interest_slots, len(self._vertical_Q)]
        )
        width = self._fields * user.history_BLJd.shape[3]
        interests_PVBD = tf.reshape(
            interests_PVBJd, [num_interest_slots, 2, tf.shape(interests_PVBJd)[2], width]
        )
        first_PBw, second_PBw = tf.unstack(self.encoder(interests_PVBD), axis=1)
        views = {
            "miss_interest": Views(
                first_PBw,
                second_PBw,
                pairs.valid_SB[:num_interest_slots],
                user.key_B,
                config.alpha,
            )
        }
        if len(self._vertical_Q):
            features_QVBd = self._merge_features(interests_QVBJd, pairs.rows_QVB)
            first_QBw, second_QBw = tf.unstack(self.feature_encoder(features_QVBd), axis=1)
            views["miss_feature"] = Views(
                first_QBw,
                second_QBw,
                pairs.valid_SB[num_interest_slots:],
                user.key_B,
                config.alpha if config.alpha_feature is None else config.alpha_feature,
            )
        return views

    def diagnostics(
        self, user: UserSide, candidates: Candidates, *, seed: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        """Diagnostics of the base class, distances of pairs and similarity of interests (figure 5).

        Returns:
            Scalars of the base class; `interest_similarity`, mean cosine of the interests of a pair
            before encoding; with windows also `distance`, mean number of events between them, and
            `distance_1_share` to `distance_H_share`.
        """
        values = super().diagnostics(user, candidates, seed=seed)
        pairs, num_interest_slots = self.draw(user.mask_BL, seed), self._interest_slots
        interests = self.extractor.interests(user, pairs.events, self._horizontal_S)[
            :num_interest_slots
        ]
        width = self._fields * user.history_BLJd.shape[3]
        interests = unit_vectors(tf.reshape(interests, [num_interest_slots, 2, -1, width]))
        cosine_PB = tf.reduce_sum(interests[:, 0] * interests[:, 1], -1)
        valid_PB = tf.cast(pairs.valid_SB[:num_interest_slots], tf.float32)
        values["miss_interest/interest_similarity"] = weighted_mean(cosine_PB, valid_PB)
        if self.config.extractor != "sample":
            distance_PB = (
                pairs.events[:num_interest_slots, 1] - pairs.events[:num_interest_slots, 0]
            )
            mean = weighted_mean(tf.cast(distance_PB, tf.float32), valid_PB)
            values["miss_interest/distance"] = mean
            for h in range(1, self.config.distances + 1):
                share = weighted_mean(tf.cast(distance_PB == h, tf.float32), valid_PB)
                values[f"miss_interest/distance_{h}_share"] = share
        return values

    def _distance(self, noise_SB: tf.Tensor, furthest_SB: tf.Tensor) -> tf.Tensor:
        """A distance from 1 to `furthest_SB` by inversion of its distribution."""
        last_SB = tf.maximum(furthest_SB, 1) - 1
        ticket_SB = noise_SB * tf.gather(self._cumulative_H, last_SB)
        passed_SBH = ticket_SB[..., None] >= self._cumulative_H
        return 1 + tf.minimum(tf.reduce_sum(tf.cast(passed_SBH, tf.int32), -1), last_SB)

    def _merge_features(self, interests_QVBJd: tf.Tensor, rows_QVB: tf.Tensor) -> tf.Tensor:
        """The vertical convolution at the drawn rows (eqs. 22-23), [Q, V, B, d].

        relu(sum_{i < n} g_mn[i] G_m[j + i, :]) for n features from row j of an interest.
        """
        heights = self._of_vertical.shape[-1]
        weights = tf.tensordot(self.vertical, self._of_vertical, 1)
        weights = tf.reshape(tf.cast(weights, interests_QVBJd.dtype), [-1, heights])
        weights_QN = tf.gather(weights, self._vertical_Q)
        fields_QVBN = tf.minimum(rows_QVB[..., None] + tf.range(heights), self._fields - 1)
        fields = tf.gather(interests_QVBJd, fields_QVBN, batch_dims=3)
        return tf.nn.relu(tf.reduce_sum(fields * weights_QN[:, None, None, :, None], 3))


def _cumulative_weights(config: MISSConfig) -> np.ndarray:
    """Sums of the weights of the distances up to 1, 2, ..., H."""
    distances = np.arange(1, config.distances + 1)
    if config.distance_distribution == "uniform":
        weights = np.ones(len(distances))
    else:
        weights = np.exp(-0.5 * np.square(distances / config.distance_scale))
    return np.cumsum(weights).astype(np.float32)
