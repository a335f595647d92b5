"""Asynchronous steps on the workers of a parameter-server cluster."""

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from models.distributed.distribution import Distribution
from models.keras import tf
from models.training.steps import Logs, StepRunner, Steps


class RemoteSteps:
    """Distributes the batches of a stream to workers; has the interface of `Steps`.

    The coordinator reads the data, so that each batch is trained on once, by any free worker. If a
    worker dies before it is done, another one repeats its batch.

    Args:
        step: Function that trains on a batch and returns its losses.
        distribution: Distribution with parameter servers.
    """

    def __init__(
        self, step: Callable[[Mapping[str, tf.Tensor]], Logs], distribution: Distribution
    ) -> None:
        self._step, self._distribution = step, distribution
        self._coordinator = distribution.coordinator()
        self._function: tf.types.experimental.PolymorphicFunction | None = None
        self._waited = 0.0

    def __call__(self, batches: Iterator[Any], count: int) -> Logs:
        """Schedules steps on the next `count` batches; returns the losses of the last one."""
        for _ in range(count):
            started = time.monotonic()
            batch = next(batches)
            self._waited += time.monotonic() - started
            if self._function is None:
                self._function = self._compiled(batch)
            with self._distribution.explained_losses():
                logs = self._coordinator.schedule(self._function, args=(batch,))
        return RemoteLogs(logs, self._distribution)

    def waited(self) -> float:
        """Seconds that the coordinator waited for batches since the last call."""
        seconds, self._waited = self._waited, 0.0
        return seconds

    def _compiled(self, batch: Mapping[str, tf.Tensor]) -> Any:
        """The step as a function of batches of any size."""
        strategy = self._distribution.strategy
        signature = {
            name: tf.TensorSpec([None] * value.shape.rank, value.dtype, name=name.replace("/", "_"))
            for name, value in batch.items()
        }

        def step(features: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
            return {
                name: strategy.experimental_local_results(value)[0]
                for name, value in strategy.run(self._step, (features,)).items()
            }

        return tf.function(step, input_signature=[signature], autograph=False)


class RemoteLogs(Mapping[str, Any]):
    """Losses of a step that may still be running; reading one waits for the step."""

    def __init__(self, value: Any, distribution: Distribution) -> None:
        self._value, self._distribution = value, distribution
        self._logs: dict[str, Any] | None = None

    def _fetched(self) -> dict[str, Any]:
        if self._logs is None:
            with self._distribution.explained_losses():
                self._logs = self._value.fetch()
        return self._logs

    def __getitem__(self, name: str) -> Any:
        return self._fetched()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._fetched())

    def __len__(self) -> int:
        return len(self._fetched())


def steps_of(
    step: Callable[[Mapping[str, tf.Tensor]], Logs], distribution: Distribution
) -> StepRunner:
    """The step runner for a distribution.

    Args:
        step: Function that trains on a batch of one replica and returns the losses of the global
            batch.
        distribution: Distribution under which the model was built.
    """
    if distribution.asynchronous:
        return RemoteSteps(step, distribution)
    return Steps(step, distribution.strategy)
