"""Compiled steps that train on several batches without returning to Python."""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

from models.keras import tf

Logs = Mapping[str, Any]
"""Losses by name: scalar tensors, or floats once they have been read."""


class StepRunner(Protocol):
    """Interface of `Steps`, also for steps that run on workers."""

    def __call__(self, batches: Iterator[Any], count: int) -> Logs:
        """Trains on the next `count` batches; returns the losses of the last one."""

    def waited(self) -> float:
        """Seconds of waiting for batches since the last call; NaN if not measured."""


class Steps:
    """Runs a step of the model on the next batches of a stream.

    The time that steps wait for their batch is summed up in a variable, so that steps need not
    synchronise until it is read. TensorFlow has no clock in deterministic mode.

    AutoGraph translates only the loop over batches: translating the sources of a model takes
    seconds at every start, and the layers use TensorFlow operations throughout.

    Args:
        step: Function that trains on a batch of one replica and returns the losses of the global
            batch.
        strategy: Strategy under which the model was built.
    """

    def __init__(
        self, step: Callable[[Mapping[str, tf.Tensor]], Logs], strategy: tf.distribute.Strategy
    ) -> None:
        self._timed = _has_clock()
        with tf.device("CPU:0"):
            self._waited = tf.Variable(0.0, dtype=tf.float64, trainable=False, name="waited")

        @tf.autograph.experimental.do_not_convert
        def one(batches: Iterator[Any]) -> dict[str, tf.Tensor]:
            batch = self._next_timed(batches) if self._timed else next(batches)
            # Every replica reports the values of the global batch.
            return {
                name: strategy.experimental_local_results(value)[0]
                for name, value in strategy.run(step, (batch,)).items()
            }

        def several(batches: Iterator[Any], count: tf.Tensor) -> dict[str, tf.Tensor]:
            for _ in tf.range(count):
                tf.autograph.experimental.set_loop_options(parallel_iterations=1)
                logs = one(batches)
            return logs

        self._one = tf.function(one, reduce_retracing=True, autograph=False)
        self._several = tf.function(several, reduce_retracing=True)

    def __call__(self, batches: Iterator[Any], count: int) -> Logs:
        """Trains on the next `count` batches; returns the losses of the last one."""
        if count == 1:
            return self._one(batches)
        return self._several(batches, tf.constant(count))

    def _next_timed(self, batches: Iterator[Any]) -> Any:
        """The next batch; adds the time it took to `_waited`."""
        requested = tf.timestamp()
        with tf.control_dependencies([requested]):
            batch = next(batches)
        with tf.control_dependencies(tf.nest.flatten(batch, expand_composites=True)):
            arrived = tf.timestamp()
        self._waited.assign_add(arrived - requested)

        def once_timed(tensor: tf.Tensor) -> tf.Tensor:
            with tf.device(tensor.device), tf.control_dependencies([arrived]):
                return tf.identity(tensor)

        # With few threads, the step might run before the clock is read and so count as a wait.
        return tf.nest.map_structure(once_timed, batch, expand_composites=True)

    def waited(self) -> float:
        """Seconds that steps have waited for batches since the last call; NaN if not measured."""
        if not self._timed:
            return math.nan
        seconds = float(self._waited.numpy())
        self._waited.assign(0.0)
        return seconds


class Speed:
    """Measures samples per second and the share of the time that steps wait for input.

    Args:
        samples_per_step: Average number of candidates of a batch.
    """

    def __init__(self, samples_per_step: float) -> None:
        self._samples_per_step = samples_per_step
        self._step, self._since = 0, time.monotonic()

    def restart(self, steps: StepRunner, step: int) -> None:
        """Restarts the measurement, for example after an evaluation.

        Args:
            steps: Steps whose waiting time to measure.
            step: Number of steps done.
        """
        steps.waited()
        self._step, self._since = step, time.monotonic()

    def measure(self, steps: StepRunner, step: int) -> dict[str, float]:
        """Speed and input wait since the last call; takes the arguments of `restart`."""
        seconds = max(time.monotonic() - self._since, 1e-9)
        measured = {"samples_per_second": (step - self._step) * self._samples_per_step / seconds}
        share = steps.waited() / seconds
        if not math.isnan(share):
            measured["input_wait"] = min(1.0, share)
        self._step, self._since = step, time.monotonic()
        return measured


def _has_clock() -> bool:
    """Whether TensorFlow can read the clock."""
    try:
        tf.timestamp()
    except tf.errors.FailedPreconditionError:
        return False
    return True
