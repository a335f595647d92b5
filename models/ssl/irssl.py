"""IRSSL: complementary feature masks of items (Yao et al., CIKM 2021), to compare with MISS.

Shapes: B requests, N candidates, J item features shared with the history, d embedding width per
field, V = 2 views.
"""

import dataclasses
from typing import NamedTuple

from models.backbone_api import Candidates, Dims, UserSide
from models.keras import tf
from models.layers.mlp import MLP
from models.ssl import random_draws
from models.ssl.contrastive import Contrastive, ContrastiveConfig, Views
from preprocessing.errors import UserError
from preprocessing.values.limits import limited


@dataclasses.dataclass(frozen=True, kw_only=True)
class IRSSLConfig(ContrastiveConfig):
    """Settings of IRSSL.

    Attributes:
        encoder_units: Widths of the encoder's layers.
    """

    encoder_units: tuple[int, ...] = limited((20, 20), at_least=1)


class ItemViews(NamedTuple):
    """The drawn item of each request and the features of its views.

    Attributes:
        candidate_B: Index of the drawn candidate of each request.
        first_BJ: Boolean mask of the features in the first view; the second view has the others.
    """

    candidate_B: tf.Tensor
    first_BJ: tf.Tensor


class IRSSL(Contrastive):
    """Contrasts one half of an item's features with the other half, among the items of the batch.

    A step uses one candidate of each request, so that the cost does not grow quadratically with the
    number of candidates. Copies of an item are not negatives of each other. With two features the
    views are the item's id and its category; masks by mutual information, as in the original,
    would need more features than the paper's logs have.

    Args:
        config: Settings.
        dims: Static sizes.

    Raises:
        UserError: Items have a single feature.

    Example:
        >>> irssl = IRSSL(IRSSLConfig(), Dims(1, 4, 0, embedding_size=4, max_length=50))
        >>> drawn = irssl.draw(tf.ones([3, 7], tf.bool), seed=tf.constant([1, 2]))
        >>> tf.math.count_nonzero(drawn.first_BJ, 1).numpy()  # Two of four features each.
        array([2, 2, 2])
    """

    Config = IRSSLConfig

    def __init__(self, config: IRSSLConfig, dims: Dims, name: str = "irssl") -> None:
        super().__init__(config, name)
        if dims.history_features < 2:
            raise UserError(
                "Expected at least two item features in the history for ssl irssl, found "
                f"{dims.history_features}.",
                "add one to the schema's history.features, or choose another --ssl.",
            )
        self._fields, self._width = dims.history_features, dims.item_width
        self.encoder = MLP(config.encoder_units, name="encoder")

    def views(self, user: UserSide, candidates: Candidates, seed: tf.Tensor) -> dict[str, Views]:
        """Views from newly drawn items and halves. See the base class."""
        del user
        return self.views_of(candidates, self.draw(candidates.mask_BN, seed))

    def draw(self, mask_BN: tf.Tensor, seed: tf.Tensor) -> ItemViews:
        """Draws a candidate and half of its features, uniformly."""
        batch = tf.shape(mask_BN)[0]
        noise_BN = random_draws.per_event(seed, "irssl/candidate", [], mask_BN)
        noise_JB = random_draws.uniform(seed, "irssl/features", [self._fields], batch)
        return ItemViews(
            candidate_B=tf.argmin(tf.where(mask_BN, noise_BN, 2.0), -1, tf.int32),
            first_BJ=random_draws.ranks(tf.transpose(noise_JB)) < self._fields // 2,
        )

    def views_of(self, candidates: Candidates, drawn: ItemViews) -> dict[str, Views]:
        """Encoded halves, with zeros in place of the other features."""

        def pick(values_BN: tf.Tensor) -> tf.Tensor:
            return tf.gather(values_BN, drawn.candidate_B, batch_dims=1)

        items_BJd = pick(candidates.target_BNJd)
        halves_VBJ1 = tf.stack([drawn.first_BJ, ~drawn.first_BJ])[..., None]
        halves_VBJd = tf.where(halves_VBJ1, items_BJd, 0.0)
        encoded_VBw = self.encoder(tf.reshape(halves_VBJd, [2, -1, self._width]))
        views = Views(
            encoded_VBw[:1],
            encoded_VBw[1:],
            pick(candidates.mask_BN)[None],
            pick(candidates.key_BN),
            self.config.alpha,
        )
        return {"irssl": views}
