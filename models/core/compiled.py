"""What the model keeps of a `compile` beside its optimisers, and the means of an epoch."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from models.keras import keras, tf
from preprocessing.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Compiled:
    """The settings of `CTRModel.compile` beside optimisers and metrics; see there."""

    joint: bool = False
    l2: float = 0.0
    clip_norm: float = 0.0
    embedding_clip_norm: float = 0.0
    positive_weight: float = 1.0
    sample_weight: str = ""


class Means:
    """Means over an epoch by name.

    A plain class: as attributes of the model the metrics would become part of its checkpoints.
    """

    def __init__(self) -> None:
        self.by_name: dict[str, keras.metrics.Mean] = {}

    def update(self, values: Mapping[str, tf.Tensor], weight: tf.Tensor) -> dict[str, tf.Tensor]:
        """Adds values with their weight; returns the means of these names so far."""
        for name, value in values.items():
            if name not in self.by_name:
                self.by_name[name] = keras.metrics.Mean(name=name)
            self.by_name[name].update_state(value, sample_weight=weight)
        return {name: self.by_name[name].result() for name in values}


@dataclasses.dataclass(frozen=True)
class ClassWeight:
    """Weights of the labels 0 and 1; in a class of its own, as Keras wraps tuples."""

    values: tuple[float, float] | None


def require_probabilities(metric: Any) -> None:
    """Raises `UserError` for a metric that expects logits."""
    if not isinstance(metric, keras.metrics.Metric):
        return
    if metric.get_config().get("from_logits"):
        raise UserError(
            f"Expected metrics of probabilities, found {metric.name} with from_logits=True.",
            "leave from_logits out.",
        )
