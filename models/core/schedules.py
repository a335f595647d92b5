"""Learning-rate schedules: warm-up, cosine decay, and reduction on plateau."""

import math
from collections.abc import Sequence
from typing import Any

from models.config.training import TrainConfig
from models.keras import keras, tf


@keras.saving.register_keras_serializable("sequence_ctr")
class Schedule(keras.optimizers.schedules.LearningRateSchedule):
    """Learning-rate schedule: base * warm-up * cosine * scale.

    Args:
        base: Base learning rate.
        warmup_steps: Number of steps in which the rate rises linearly; the first is above 0.
        decay_steps: Number of steps, warm-up included, until the cosine is 0; 0 for no decay.

    Attributes:
        scale: Factor set by `set_scale`; initially 1.
    """

    def __init__(self, base: float, warmup_steps: int, decay_steps: int) -> None:
        self._base, self._warmup_steps, self._decay_steps = base, warmup_steps, decay_steps
        self.scale = tf.Variable(1.0, trainable=False, name="learning_rate_scale")

    def __call__(self, step: tf.Tensor) -> tf.Tensor:
        """The rate of the step with this number, counted from 0; a float32 scalar."""
        step = tf.cast(step, tf.float32)
        rate = self._base * self.scale
        if self._warmup_steps:
            rate *= tf.minimum(1.0, (step + 1.0) / self._warmup_steps)
        if self._decay_steps:
            length = self._decay_steps - self._warmup_steps
            share = tf.clip_by_value((step - self._warmup_steps) / length, 0.0, 1.0)
            rate *= 0.5 * (1.0 + tf.cos(math.pi * share))
        return rate

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        return {
            "base": self._base,
            "warmup_steps": self._warmup_steps,
            "decay_steps": self._decay_steps,
        }


def learning_rate(train: TrainConfig, base: float) -> float | Schedule:
    """The learning rate of an optimiser: a number if it is constant, else a schedule.

    Args:
        train: Settings of the training.
        base: `train.learning_rate`, or the learning rate of the tables.
    """
    if train.schedule == "constant" and not train.warmup_steps:
        return base
    return Schedule(base, train.warmup_steps, train.decay_steps)


def plateau_scale(train: TrainConfig, scores: Sequence[float]) -> float:
    """The factor of the `plateau` schedule after a series of evaluations; 1 for other schedules.

    The factor depends on the series alone, so that a resumed run needs no further state.

    Args:
        train: Settings of the training.
        scores: Score of every evaluation, in order; see `selection.score`.
    """
    scale, best, waited = 1.0, -math.inf, 0
    for score in scores if train.schedule == "plateau" else ():
        waited = 0 if score > best else waited + 1
        best = max(best, score)
        if waited == train.plateau_patience:
            scale, waited = scale * train.plateau_factor, 0
    return scale


def set_scale(optimizers: Sequence[keras.optimizers.Optimizer], scale: float) -> None:
    """Sets the factor of the optimisers' schedules; ignores optimisers with a constant rate."""
    for optimizer in optimizers:
        schedule = optimizer._learning_rate
        if isinstance(schedule, Schedule):
            schedule.scale.assign(scale)
