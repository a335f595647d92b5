"""Learning rates that follow the step: warm-up, cosine, and a factor that the plateau lowers."""

import math
from collections.abc import Sequence
from typing import Any

from models.config.training import TrainConfig
from models.keras import keras, tf


class Schedule(keras.optimizers.schedules.LearningRateSchedule):
    """The rate at a step: base * warm-up * cosine * scale.

    Args:
        base: Rate without all of them.
        warmup_steps: Steps in which the rate rises in equal parts, the first of them above 0.
        decay_steps: Steps, the warm-up included, after which the cosine is 0; 0 for no cosine.

    Attributes:
        scale: Factor from outside, 1 at first.
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
        """What the constructor takes."""
        return {
            "base": self._base,
            "warmup_steps": self._warmup_steps,
            "decay_steps": self._decay_steps,
        }


def learning_rate(train: TrainConfig, base: float) -> float | Schedule:
    """The learning rate of an optimiser: a number if it never changes.

    Args:
        train: Settings of the training.
        base: `train.learning_rate` or that of the tables.
    """
    if train.schedule == "constant" and not train.warmup_steps:
        return base
    return Schedule(base, train.warmup_steps, train.decay_steps)


def plateau_scale(train: TrainConfig, scores: Sequence[float]) -> float:
    """The factor of the schedule `plateau` after a series of evaluations; 1 with any other.

    It follows from the series alone, so that a resumed run needs no further state.

    Args:
        train: Settings of the training.
        scores: Of every evaluation, in order; see `selection.score`.
    """
    scale, best, waited = 1.0, -math.inf, 0
    for score in scores if train.schedule == "plateau" else ():
        waited = 0 if score > best else waited + 1
        best = max(best, score)
        if waited == train.plateau_patience:
            scale, waited = scale * train.plateau_factor, 0
    return scale


def set_scale(optimizers: Sequence[keras.optimizers.Optimizer], scale: float) -> None:
    """Sets the factor of the schedules of optimisers; those with a constant rate have none."""
    for optimizer in optimizers:
        schedule = optimizer._learning_rate
        if isinstance(schedule, Schedule):
            schedule.scale.assign(scale)
