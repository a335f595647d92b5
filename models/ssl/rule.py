"""Sub-sequences of one category (the rule-based method in table V of MISS, Guo et al., 2022).

Shapes: B requests, S = 1 slot, V = 2 views, L history length, J item features of the history, d
embedding width per field.
"""

import dataclasses

import numpy as np

from models.backbone_api import Candidates, Dims, UserSide
from models.keras import tf
from models.layers.mlp import MLP
from models.ssl import random_draws
from models.ssl.contrastive import Contrastive, ContrastiveConfig, Views
from models.ssl.extractors import SampleViews
from preprocessing.errors import UserError
from preprocessing.values.limits import limited


@dataclasses.dataclass(frozen=True, kw_only=True)
class RuleConfig(ContrastiveConfig):
    """Settings of the rule.

    Attributes:
        feature: Index of the category among the history's features, counted from 0.
        keep: Probability with which a view keeps an event.
        encoder_units: Widths of the encoder's layers.
    """

    feature: int = 1
    keep: float = limited(0.5, at_least=0, at_most=1)
    encoder_units: tuple[int, ...] = limited((20, 20), at_least=1)


class Rule(Contrastive):
    """Contrasts two sparser copies of the events of one category.

    The category is drawn from those with at least two events; if there is no such category, all
    events are used. Each copy keeps every event with probability `keep`, at least one, and is the
    mean of the kept events.

    Args:
        config: Settings.
        dims: Static sizes.

    Raises:
        UserError: The history has no such feature.

    Example:
        >>> rule = Rule(RuleConfig(keep=1.0), Dims(1, 2, 0, embedding_size=4, max_length=50))
        >>> items, categories = tf.constant([[1, 2, 3]]), tf.constant([[7, 8, 7]])
        >>> ids, fields, history = (items, categories), tf.ones([1, 1, 4]), tf.ones([1, 3, 2, 4])
        >>> user = UserSide(fields, history, items > 0, items[:, 0], items, tf.zeros([1]), ids)
        >>> rule.draw(user, seed=tf.constant([1, 2]))[0].numpy()  # One category has two events.
        array([[ True, False,  True]])
    """

    Config = RuleConfig

    def __init__(self, config: RuleConfig, dims: Dims, name: str = "rule") -> None:
        super().__init__(config, name)
        if not 0 <= config.feature < dims.history_features:
            raise UserError(
                f"Expected ssl.feature to be one of the history's features 0 to "
                f"{dims.history_features - 1}, found {config.feature}.",
                "the rule needs a category beside the item in the schema's history.features.",
            )
        self._width = dims.item_width
        self.extractor = SampleViews(dims)
        self.encoder = MLP(config.encoder_units, name="encoder")

    def views(self, user: UserSide, candidates: Candidates, seed: tf.Tensor) -> dict[str, Views]:
        """Views from newly drawn copies. See the base class."""
        del candidates
        return self.views_of(user, self.draw(user, seed))

    def draw(self, user: UserSide, seed: tf.Tensor) -> tf.Tensor:
        """Draws a category and the events that each copy keeps, boolean [V, B, L]."""
        category_BL, mask_BL = user.history_ids[self.config.feature], user.mask_BL
        if category_BL is None:
            raise UserError(
                f"Expected ssl.feature to be a category of the history's events, found feature "
                f"{self.config.feature}, whose values are vectors.",
                "choose another one of the schema's history.features, counted from 0.",
            )
        same_BLL = category_BL[:, :, None] == category_BL[:, None]
        same_BLL &= mask_BL[:, :, None] & mask_BL[:, None]
        count_BL = tf.reduce_sum(tf.cast(same_BLL, tf.int32), -1)
        earlier_BLL = tf.linalg.band_part(same_BLL, -1, 0) & ~tf.linalg.band_part(same_BLL, 0, 0)
        # The first event of each category that can be chosen.
        choice_BL = (count_BL >= 2) & ~tf.reduce_any(earlier_BLL, -1)
        rank_BL = tf.cumsum(tf.cast(choice_BL, tf.int32), axis=-1) - 1
        chosen_B = random_draws.scale(
            random_draws.uniform(seed, "rule/category", [], tf.shape(mask_BL)[0]),
            rank_BL[:, -1] + 1,
        )
        chosen_BL = choice_BL & (rank_BL == chosen_B[:, None])
        group_BL = tf.reduce_any(same_BLL & chosen_BL[:, None], -1)
        group_BL = tf.where(tf.reduce_any(choice_BL, -1, keepdims=True), group_BL, mask_BL)
        noise_VBL = random_draws.per_event(seed, "rule/keep", [2], mask_BL)
        return random_draws.kept_events(noise_VBL, group_BL, self.config.keep)

    def views_of(self, user: UserSide, kept_VBL: tf.Tensor) -> dict[str, Views]:
        """Encoded means of the events that each copy keeps."""
        means_VBJd = self.extractor.interests(user, kept_VBL[None], np.zeros(1, np.int32))[0]
        encoded_VBw = self.encoder(tf.reshape(means_VBJd, [2, -1, self._width]))
        valid_B = tf.reduce_any(user.mask_BL, -1)
        views = Views(
            encoded_VBw[:1], encoded_VBw[1:], valid_B[None], user.key_B, self.config.alpha
        )
        return {"rule": views}
