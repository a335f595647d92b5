"""Models whose requests are computed together: --enable_batching of tensorflow_model_server."""

import contextlib
import functools
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping

import numpy as np

from models.keras import tf
from preprocessing.errors import UserError
from serving.tfserving.batching import parameters as batching_parameters
from serving.tfserving.batching.parameters import BatchingParameters
from serving.tfserving.batching.queues import BatchQueue, BatchScheduler
from serving.tfserving.metrics import Metrics
from serving.tfserving.models.servable import DEFAULT_SIGNATURE, Servable
from serving.tfserving.status import ServingError

_DEFAULT_POOL = "model_server_batch_threads"


class BatchedServable(Servable):
    """A SavedModel whose requests are computed together with others for the same signature."""

    def __init__(
        self,
        path: pathlib.Path,
        tags: Iterable[str],
        scheduler: BatchScheduler,
        parameters: BatchingParameters,
    ) -> None:
        """Loads a version, as `Servable` does, with a queue for each of its signatures."""
        super().__init__(path, tags)
        self._scheduler = scheduler
        definitions = self.signature_defs.signature_def
        self._dtypes = {
            name: {
                alias: np.dtype(tf.as_dtype(info.dtype).as_numpy_dtype)
                for alias, info in definition.inputs.items()
            }
            for name, definition in definitions.items()
        }
        run = super().predict
        self._queues = {
            name: BatchQueue(functools.partial(run, name), parameters) for name in definitions
        }

    def predict(
        self, signature_name: str, inputs: Mapping[str, np.ndarray | tf.Tensor]
    ) -> dict[str, np.ndarray]:
        """Runs a signature in a batch; a request with wrong inputs or types fails on its own."""
        name = signature_name or DEFAULT_SIGNATURE
        arrays = {alias: np.asarray(value) for alias, value in inputs.items()}
        if not arrays or {alias: a.dtype for alias, a in arrays.items()} != self._dtypes[name]:
            return super().predict(name, inputs)
        return self._scheduler.run(self._queues[name], arrays)


@contextlib.contextmanager
def opener(
    parameters_file: str, per_model: bool, tags: Iterable[str], metrics: Metrics
) -> Iterator[Callable[[pathlib.Path], Servable]]:
    """A function that loads versions for batching, usable while the context is open.

    Args:
        parameters_file: File of text-format BatchingParameters; "" for the defaults.
        per_model: Whether a version is batched only if it has parameters of its own. The number of
            threads is that of `parameters_file` even then.
        tags: Tags of the meta graphs to load.
        metrics: Metrics that count the batches.

    Raises:
        UserError: The parameters file is wrong.
    """
    shared = BatchingParameters(thread_pool_name=_DEFAULT_POOL)
    if parameters_file:
        try:
            shared = batching_parameters.read(pathlib.Path(parameters_file))
        except ServingError as error:
            raise UserError(
                f"--batching_parameters_file: expected BatchingParameters, found: {error}.",
                "correct the file.",
            ) from None
    scheduler = BatchScheduler(shared, metrics)

    def load(path: pathlib.Path) -> Servable:
        parameters = batching_parameters.of_model(path) if per_model else shared
        if parameters is None:
            return Servable(path, tags)
        return BatchedServable(path, tags, scheduler, parameters)

    try:
        yield load
    finally:
        scheduler.stop()
