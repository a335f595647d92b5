"""S3Rec's sequence-segment correlation (Zhou et al., CIKM 2020), a method to compare with MISS.

Shapes: B requests, V = 2 views, L history length, D item width.
"""

import dataclasses

from models.backbone_api import Candidates, Dims, UserSide
from models.keras import tf
from models.ssl import random_draws
from models.ssl.contrastive import Contrastive, ContrastiveConfig, Views
from models.ssl.info_nce import info_nce
from models.ssl.sequence_encoder import SequenceEncoder, SequenceViews
from preprocessing.values.limits import limited


@dataclasses.dataclass(frozen=True, kw_only=True)
class S3RecConfig(ContrastiveConfig):
    """Settings of S3Rec; the bilinear score needs no temperature, so `temperature` is 1.

    Attributes:
        heads: Number of heads of the encoder's attention.
    """

    temperature: float = 1.0
    heads: int = limited(2, at_least=1)


class S3Rec(Contrastive):
    """Contrasts a history without a segment with that segment and the segments of other users.

    The score of context c and segment s is c^T W s; the same transformer layer encodes both, with
    the mask vector in place of the missing events. The authors compare with one segment of other
    users' events; here all other segments of the batch are negatives, which is the mutual
    information bound of their paper.

    Args:
        config: Settings.
        dims: Static sizes.

    Example:
        >>> s3rec = S3Rec(S3RecConfig(), Dims(1, 2, 0, embedding_size=4, max_length=50))
        >>> views = s3rec.draw(tf.ones([3, 6], tf.bool), seed=tf.constant([1, 2]))
        >>> first, second = views.hidden_VBL  # Each hides what the other one shows.
        >>> bool(tf.reduce_all(first != second))
        True
    """

    Config = S3RecConfig

    def __init__(self, config: S3RecConfig, dims: Dims, name: str = "s3rec") -> None:
        super().__init__(config, name)
        self.encoder = SequenceEncoder(dims, config.heads)
        self.bilinear = self.add_weight(
            name="bilinear",
            shape=(dims.item_width, dims.item_width),
            initializer="glorot_uniform",
        )

    def views(self, user: UserSide, candidates: Candidates, seed: tf.Tensor) -> dict[str, Views]:
        """Views from newly drawn segments. See the base class."""
        del candidates
        return self.views_of(user, self.draw(user.mask_BL, seed))

    def draw(self, mask_BL: tf.Tensor, seed: tf.Tensor) -> SequenceViews:
        """Draws a segment: a length uniform in 1..len / 2, then a uniform start."""
        batch, length = tf.shape(mask_BL)[0], tf.shape(mask_BL)[1]
        lengths_B = tf.reduce_sum(tf.cast(mask_BL, tf.int32), -1)
        size_B = 1 + random_draws.scale(
            random_draws.uniform(seed, "s3rec/size", [], batch), lengths_B // 2
        )
        starts_B = random_draws.scale(
            random_draws.uniform(seed, "s3rec/start", [], batch), lengths_B - size_B + 1
        )
        place_L = tf.range(length)
        inside_BL = (place_L >= starts_B[:, None]) & (place_L < (starts_B + size_B)[:, None])
        return SequenceViews(
            sources_VBL=tf.broadcast_to(place_L, [2, batch, length]),
            lengths_VB=tf.stack([lengths_B, lengths_B]),
            hidden_VBL=tf.stack([inside_BL, ~inside_BL]),
        )

    def views_of(self, user: UserSide, drawn: SequenceViews) -> dict[str, Views]:
        """Encoded contexts times W, and encoded segments; not valid for fewer than 2 events."""
        encoded_VBD = self.encoder.encode(user, drawn)
        context_BD = tf.matmul(encoded_VBD[0], tf.cast(self.bilinear, encoded_VBD.dtype))
        valid_B = drawn.lengths_VB[0] >= 2
        views = Views(
            context_BD[None], encoded_VBD[1:], valid_B[None], user.key_B, self.config.alpha
        )
        return {"s3rec": views}

    def contrast(self, views: Views) -> tf.Tensor:
        """InfoNCE on the bilinear score. See the base class."""
        return info_nce(
            views.first_PBw,
            views.second_PBw,
            views.valid_PB,
            views.key_B,
            temperature=self.config.temperature,
            symmetric=self.config.symmetric,
            cosine=False,
        )
