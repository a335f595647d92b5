"""What the networks that score have in common, so that a table can give all its rows the same head.

Shapes: B requests, N candidates, L history length, D item width.
"""

import dataclasses

from models.backbone_api import Candidates, ModelConfig, State
from models.keras import tf
from models.ops.weight_layouts import Fields, Layout


@dataclasses.dataclass(frozen=True, kw_only=True)
class HeadConfig(ModelConfig):
    """Settings of models that may have the head of DemiNet's tables.

    Attributes:
        batch_norm: Whether the network that scores standardises its input over the valid candidates
            of the batch (batch normalisation).
        history_sum: Whether that network also reads the sum of the history and its product with
            the candidate, as the published code of DIN, DIEN, DMR and DMIN does.
    """

    batch_norm: bool = False
    history_sum: bool = False


def sum_state(config: HeadConfig, history_BLD: tf.Tensor) -> State:
    """What `read_sum` reads, to be kept with the state of the user side; {} if it reads nothing.

    Args:
        config: Settings of the model.
        history_BLD: Zero at padding.
    """
    return {"sum_BD": tf.reduce_sum(history_BLD, 1)} if config.history_sum else {}


def read_sum(state: State, candidates: Candidates) -> list[tf.Tensor]:
    """The sum of the history and its product with the candidate, [B, N, D] each; [] if not read."""
    if "sum_BD" not in state:
        return []
    target_BND = candidates.target_BND
    sum_BND = tf.broadcast_to(state["sum_BD"][:, None], tf.shape(target_BND))
    return [sum_BND, target_BND * sum_BND]


def sum_layout(config: HeadConfig, fields: Fields) -> Layout:
    """Of what `read_sum` returns, side by side."""
    return fields.history * (2 if config.history_sum else 0)
