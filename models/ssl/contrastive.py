"""The common part of contrastive losses: pairs of views, InfoNCE, and diagnostics.

Shapes: P slots (view pairs of a request), B requests, w width of a view.
"""

import dataclasses
from typing import Any, NamedTuple

from models.backbone_api import Candidates, LossTerm, SelfSupervision, UserSide
from models.keras import tf
from models.ssl.info_nce import info_nce, unit_vectors
from preprocessing.errors import UserError
from preprocessing.values.limits import limited


@dataclasses.dataclass(frozen=True, kw_only=True)
class ContrastiveConfig:
    """Settings that every contrastive loss has.

    Attributes:
        alpha: Weight of the loss.
        temperature: Temperature tau, by which scores are divided.
        symmetric: Whether to contrast in both directions; the equations of MISS contrast in one.
    """

    alpha: float = limited(0.1, at_least=0)
    temperature: float = limited(0.1, above=0)
    symmetric: bool = False

    def __post_init__(self) -> None:
        """Raises `UserError` on an encoder without layers."""
        for name, value in dataclasses.asdict(self).items():
            if name.endswith("encoder_units") and not value:
                raise UserError(
                    f"Expected ssl.{name} to be one width or more, found none.",
                    f"leave it out, or write for example --set=ssl.{name}=[20,20].",
                )


class Views(NamedTuple):
    """Pairs of encoded views.

    Attributes:
        first_PBw: First view of each pair.
        second_PBw: Second view of each pair.
        valid_PB: Whether the pair exists.
        key_B: Key of each request; views with the same key are not negatives of each other.
        weight: Weight of the loss of these pairs.
    """

    first_PBw: tf.Tensor
    second_PBw: tf.Tensor
    valid_PB: tf.Tensor
    key_B: tf.Tensor
    weight: float


class Contrastive(SelfSupervision):
    """Contrasts two views of each request with the views of the batch.

    Subclasses implement `views`.

    Args:
        config: Settings.
    """

    def __init__(self, config: Any, name: str) -> None:
        super().__init__(name=name)
        self.config = config

    def views(self, user: UserSide, candidates: Candidates, seed: tf.Tensor) -> dict[str, Views]:
        """Pairs of views by the name of their loss.

        Args:
            user: The user side of the batch.
            candidates: The candidates of the batch.
            seed: Seed int32 [2] of the draws.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement views")

    def contrast(self, views: Views) -> tf.Tensor:
        """The loss of each pair, [P, B]; 0 where no pair exists."""
        return info_nce(
            views.first_PBw,
            views.second_PBw,
            views.valid_PB,
            views.key_B,
            temperature=self.config.temperature,
            symmetric=self.config.symmetric,
        )

    def losses(
        self, user: UserSide, candidates: Candidates, *, seed: tf.Tensor
    ) -> dict[str, LossTerm]:
        """The contrastive losses of newly drawn views. See the base class."""
        return {
            name: LossTerm(self.contrast(views), tf.cast(views.valid_PB, tf.float32), views.weight)
            for name, views in self.views(user, candidates, seed).items()
        }

    def diagnostics(
        self, user: UserSide, candidates: Candidates, *, seed: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        """Alignment and uniformity of the encoded views. See the base class and `measure`."""
        return {
            f"{name}/{metric}": value
            for name, views in self.views(user, candidates, seed).items()
            for metric, value in measure(views).items()
        }


def measure(views: Views) -> dict[str, tf.Tensor]:
    """Alignment and uniformity of views (Wang and Isola, 2020).

    Returns:
        Scalars: `similarity`, mean cosine of the pairs; `alignment`, mean squared distance of their
        unit vectors, smaller is better; `uniformity`, the logarithm of the mean of
        exp(-2 |x - y|^2) over first views of different keys, smaller is better (0 if all coincide,
        or if there is only one view); `valid_share`, share of slots with a pair.
    """
    first_PBw, second_PBw = unit_vectors(views.first_PBw), unit_vectors(views.second_PBw)
    valid_PB = tf.cast(views.valid_PB, tf.float32)
    cosine_PB = tf.reduce_sum(first_PBw * second_PBw, -1)
    distance_PB = tf.reduce_sum(tf.square(first_PBw - second_PBw), -1)
    cosine_PBB = tf.matmul(first_PBw, first_PBw, transpose_b=True)
    other_BB = tf.cast(views.key_B[:, None] != views.key_B, tf.float32)
    other_PBB = valid_PB[:, :, None] * valid_PB[:, None] * other_BB
    potential = weighted_mean(tf.exp(-2.0 * (2.0 - 2.0 * cosine_PBB)), other_PBB)
    return {
        "similarity": weighted_mean(cosine_PB, valid_PB),
        "alignment": weighted_mean(distance_PB, valid_PB),
        "uniformity": tf.math.log(tf.where(potential > 0.0, potential, 1.0)),
        "valid_share": tf.reduce_mean(valid_PB),
    }


def weighted_mean(values: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    """Weighted mean of all `values`; 0 if the weights are 0."""
    return tf.math.divide_no_nan(tf.reduce_sum(values * weights), tf.reduce_sum(weights))
