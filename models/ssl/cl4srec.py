"""CL4SRec: crop, mask and reorder (Xie et al., ICDE 2022), a method to compare with MISS.

Shapes: B requests, V = 2 views, L history length, D item width, C = 2 B views of the batch.
"""

import dataclasses

from models.backbone_api import Candidates, Dims, UserSide
from models.keras import tf
from models.ssl import random_draws
from models.ssl.contrastive import Contrastive, ContrastiveConfig, Views
from models.ssl.sequence_encoder import SequenceEncoder, SequenceViews
from preprocessing.values.limits import limited

_CROP, _MASK, _REORDER = range(3)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CL4SRecConfig(ContrastiveConfig):
    """Settings of CL4SRec.

    Attributes:
        crop: Share of the history that cropping keeps.
        mask: Share of the events that masking replaces.
        reorder: Share of the history that reordering shuffles.
        heads: Number of heads of the encoder's attention.
    """

    crop: float = limited(0.6, at_least=0, at_most=1)
    mask: float = limited(0.5, at_least=0, at_most=1)
    reorder: float = limited(0.2, at_least=0, at_most=1)
    heads: int = limited(2, at_least=1)


class CL4SRec(Contrastive):
    """Contrasts two augmented copies of each history with all copies of the batch.

    Each copy has its own operator, drawn from crop (keep a contiguous part of max(1, floor(crop
    len)) events), mask (replace floor(mask len) events by a learned vector) and reorder (shuffle a
    contiguous part of floor(reorder len) events). The loss is NT-Xent: the positive of a copy is
    the other copy, its negatives are the 2 (B - 1) copies of other users' histories.

    Args:
        config: Settings.
        dims: Static sizes.

    Example:
        >>> config = CL4SRecConfig(crop=0.5, mask=0.5, reorder=0.5)
        >>> cl4srec = CL4SRec(config, Dims(1, 2, 0, embedding_size=4, max_length=50))
        >>> views = cl4srec.draw(tf.ones([3, 6], tf.bool), seed=tf.constant([1, 2]))
        >>> views.sources_VBL.shape  # Two copies of three histories.
        TensorShape([2, 3, 6])
    """

    Config = CL4SRecConfig

    def __init__(self, config: CL4SRecConfig, dims: Dims, name: str = "cl4srec") -> None:
        super().__init__(config, name)
        self.encoder = SequenceEncoder(dims, config.heads)

    def views(self, user: UserSide, candidates: Candidates, seed: tf.Tensor) -> dict[str, Views]:
        """Views from newly drawn augmentations. See the base class."""
        del candidates
        return self.views_of(user, self.draw(user.mask_BL, seed))

    def draw(self, mask_BL: tf.Tensor, seed: tf.Tensor) -> SequenceViews:
        """Draws an operator for each copy and its parameters."""
        batch, length = tf.shape(mask_BL)[0], tf.shape(mask_BL)[1]
        lengths_B = tf.reduce_sum(tf.cast(mask_BL, tf.int32), -1)
        operator_VB = random_draws.scale(
            random_draws.uniform(seed, "cl4srec/operator", [2], batch), tf.fill([2, batch], 3)
        )
        # Number of events that the operator keeps, hides or shuffles.
        shares_VB = tf.gather(
            [self.config.crop, self.config.mask, self.config.reorder], operator_VB
        )
        # 0.6 is slightly less in binary, but a share of 0.6 of 5 events should be 3 events.
        size_VB = tf.cast(shares_VB * tf.cast(lengths_B, tf.float32) + 1e-4, tf.int32)
        is_crop_VB = operator_VB == _CROP
        size_VB = tf.where(is_crop_VB, tf.maximum(size_VB, 1), size_VB)
        starts_VB = random_draws.scale(
            random_draws.uniform(seed, "cl4srec/start", [2], batch), lengths_B - size_VB + 1
        )
        noise_VBL = random_draws.per_event(seed, "cl4srec/event", [2], mask_BL)

        place_L = tf.range(length)
        first_VB1, size_VB1 = starts_VB[..., None], size_VB[..., None]
        inside_VBL = (place_L >= first_VB1) & (place_L < first_VB1 + size_VB1)
        # Events inside the part get random sort keys between those of the events around it.
        order_VBL = tf.where(
            inside_VBL,
            tf.cast(first_VB1, tf.float32) + noise_VBL * tf.cast(size_VB1, tf.float32) * 0.999,
            tf.cast(place_L, tf.float32),
        )
        sources_VBL = tf.where(
            (operator_VB == _REORDER)[..., None],
            tf.argsort(order_VBL, axis=-1, stable=True),
            place_L + tf.where(is_crop_VB, starts_VB, 0)[..., None],
        )
        hidden_VBL = random_draws.ranks(tf.where(mask_BL, noise_VBL, 2.0)) < size_VB1
        return SequenceViews(
            sources_VBL=tf.minimum(sources_VBL, length - 1),
            lengths_VB=tf.minimum(tf.where(is_crop_VB, size_VB, lengths_B), lengths_B),
            hidden_VBL=hidden_VBL & (operator_VB == _MASK)[..., None],
        )

    def views_of(self, user: UserSide, drawn: SequenceViews) -> dict[str, Views]:
        """Encoded copies: (first, second) contrasted with (second, first)."""
        first_BD, second_BD = tf.unstack(self.encoder.encode(user, drawn))
        valid_B = drawn.lengths_VB[0] > 0
        views = Views(
            first_PBw=tf.concat([first_BD, second_BD], 0)[None],
            second_PBw=tf.concat([second_BD, first_BD], 0)[None],
            valid_PB=tf.concat([valid_B, valid_B], 0)[None],
            key_B=tf.concat([user.key_B, user.key_B], 0),
            weight=self.config.alpha,
        )
        return {"cl4srec": views}
