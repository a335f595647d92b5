"""Common options of the scoring networks, so that models can be compared with the same head.

Shapes: B requests, N candidates, L history length, D item width.
"""

import dataclasses

from models.backbone_api import Candidates, ModelConfig
from models.keras import tf
from models.ops.weight_layouts import Fields, Layout


@dataclasses.dataclass(frozen=True, kw_only=True)
class HeadConfig(ModelConfig):
    """Settings of models that support the head of DemiNet's tables.

    Attributes:
        batch_norm: Whether the scoring network standardises its input over the valid candidates of
            the batch (batch normalisation).
        history_sum: Whether the scoring network also reads the sum of the history and its product
            with the candidate, as the published code of DIN, DIEN, DMR and DMIN does.
    """

    batch_norm: bool = False
    history_sum: bool = False


def history_sum(config: HeadConfig, history_BLD: tf.Tensor) -> tf.Tensor | None:
    """The sum of the history, [B, D], for `read_sum`; None if disabled."""
    return tf.reduce_sum(history_BLD, 1) if config.history_sum else None


def read_sum(sum_BD: tf.Tensor | None, candidates: Candidates) -> list[tf.Tensor]:
    """The sum of the history and its product with the candidate, [B, N, D]; [] if disabled."""
    if sum_BD is None:
        return []
    target_BND = candidates.target_BND
    sum_BND = tf.broadcast_to(sum_BD[:, None], tf.shape(target_BND))
    return [sum_BND, target_BND * sum_BND]


def sum_layout(config: HeadConfig, fields: Fields) -> Layout:
    """Layout of the concatenated results of `read_sum`."""
    return fields.history * (2 if config.history_sum else 0)
