"""Mixed precision: policies for building a model, and loss scaling for float16.

Under a mixed policy the large layers of a model compute in half precision, with float32 weights;
their inputs and outputs, softmax, losses and statistics stay in float32.
"""

import contextlib
from collections.abc import Iterator

from models.keras import keras, tf

_FIRST_SCALE = 2.0**15
_STEPS_TO_DOUBLE = 2000


@contextlib.contextmanager
def policy(precision: str) -> Iterator[None]:
    """Context manager that sets the precision of the layers created in it.

    Args:
        precision: One of `choices.PRECISIONS`.
    """
    previous_policy = keras.mixed_precision.global_policy()
    keras.mixed_precision.set_global_policy(precision)
    try:
        yield
    finally:
        keras.mixed_precision.set_global_policy(previous_policy)


class LossScale(tf.Module):
    """A factor that keeps gradients within the range of float16 (Micikevicius et al., 2018).

    The factor is halved when a gradient overflows, in which case the step is skipped, and doubled
    after 2,000 steps without overflow.
    """

    def __init__(self) -> None:
        super().__init__(name="loss_scale")
        self.value = tf.Variable(_FIRST_SCALE, trainable=False, name="value")
        self.steps = tf.Variable(0, trainable=False, name="steps")

    def update(self, finite: tf.Tensor) -> None:
        """Adapts the factor after a step; called in a cross-replica context.

        Args:
            finite: Whether all gradients of the step were finite.
        """
        steps = tf.where(finite, self.steps + 1, 0)
        doubles = steps >= _STEPS_TO_DOUBLE
        grown = tf.where(doubles, self.value * 2.0, self.value)
        self.value.assign(tf.where(finite, grown, tf.maximum(self.value / 2.0, 1.0)))
        self.steps.assign(tf.where(doubles, 0, steps))
