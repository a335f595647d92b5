"""Queues in which requests form batches, and the threads that compute the batches.

There is a queue per signature of a version. The threads of one `BatchScheduler` take batches from
all queues in turn, as soon as they are complete or have waited long enough. The caller waits for
its rows of the result.
"""

import collections
import concurrent.futures
import dataclasses
import logging
import threading
import time
from collections.abc import Callable

import numpy as np

from serving.tfserving.batching import tensors
from serving.tfserving.batching.parameters import BatchingParameters
from serving.tfserving.batching.tensors import Tensors
from serving.tfserving.metrics import Metrics
from serving.tfserving.status import Code, ServingError, invalid

_LOG = logging.getLogger(__name__)


@dataclasses.dataclass
class _Task:
    """A request, or a part of one.

    Attributes:
        inputs: Arrays of equal dimension 0 by name.
        size: Number of rows, the dimension 0 of the arrays.
        since: Time of arrival on the clock of `time.perf_counter`.
        outputs: Future outputs by name.
    """

    inputs: Tensors
    size: int
    since: float
    outputs: concurrent.futures.Future[dict[str, np.ndarray]] = dataclasses.field(
        default_factory=concurrent.futures.Future
    )


class BatchQueue:
    """Waiting batches of requests, oldest first; the last one takes more. Not thread-safe.

    Args:
        run: Function that computes the outputs of a batch from its inputs.
        parameters: Sizes and times of batches, and limits of the queue.
    """

    def __init__(self, run: Callable[[Tensors], Tensors], parameters: BatchingParameters) -> None:
        self.run = run
        self.parameters = parameters
        self._batches: collections.deque[list[_Task]] = collections.deque([[]])

    def add(self, inputs: Tensors, size: int) -> list[_Task]:
        """Adds a request of `size` rows, in parts if it may be divided and does not fit.

        Raises:
            ServingError: INVALID_ARGUMENT if it is too large for a batch, UNAVAILABLE if the queue
                is full.
        """
        parameters = self.parameters
        self._require_space(size)
        limit, space = parameters.batch_size_limit, self._space()
        sizes = [size]
        if size > space and parameters.enable_large_batch_splitting:
            sizes = [space] if space else []
            sizes += [min(limit, size - start) for start in range(space, size, limit)]
        parts = tensors.divide(inputs, sizes) if len(sizes) > 1 else [inputs]
        now = time.perf_counter()
        tasks = [_Task(part, rows, now) for part, rows in zip(parts, sizes, strict=True)]
        for task in tasks:
            if task.size > self._space():
                self._batches.append([])
            self._batches[-1].append(task)
        return tasks

    def take(self, hurry: bool) -> list[_Task]:
        """Takes the next batch if it is due or there is a `hurry`; an empty list otherwise."""
        if self.seconds_until_due() > 0 and not hurry:
            return []
        batch = self._batches.popleft()
        if not self._batches:
            self._batches.append([])
        return batch

    def is_empty(self) -> bool:
        """Whether no request is waiting."""
        return not self._batches[0]

    def seconds_until_due(self) -> float:
        """Seconds until the first batch has to be computed; 0 or less if it is due."""
        if len(self._batches) > 1 or self._space() <= 0:
            return 0.0
        due = self._batches[0][0].since + self.parameters.batch_timeout_micros / 1e6
        return due - time.perf_counter()

    def _space(self) -> int:
        """Rows that still fit into the open batch."""
        return self.parameters.batch_size_limit - sum(task.size for task in self._batches[-1])

    def _require_space(self, size: int) -> None:
        parameters = self.parameters
        if size > parameters.max_batch_size:
            raise invalid(
                f"Task size {size} is larger than maximum input batch size "
                f"{parameters.max_batch_size}"
            )
        waiting, limit = len(self._batches), parameters.max_enqueued_batches
        full = "The batch scheduling queue to which this task was submitted is full; "
        if parameters.enable_large_batch_splitting:
            capacity = self._space() + (limit - waiting) * parameters.batch_size_limit
            if size > capacity:
                raise ServingError(
                    Code.UNAVAILABLE,
                    f"{full}task size is {size} but scheduling capacity is only {capacity} "
                    f"(num_enqueued_batches={waiting}, max_enqueued_batches={limit})",
                )
        elif size > self._space() and waiting >= limit:
            raise ServingError(
                Code.UNAVAILABLE,
                f"{full}currently {waiting} batches enqueued and max_enqueued_batches is {limit}",
            )


class BatchScheduler:
    """Threads that compute the batches of all queues, one batch of each queue after the other.

    Args:
        parameters: Parameters with the number of threads and their name.
        metrics: Metrics that record the batches and the waiting times of requests.
    """

    def __init__(self, parameters: BatchingParameters, metrics: Metrics) -> None:
        self._name = parameters.thread_pool_name
        self._metrics = metrics
        self._changed = threading.Condition()
        # Only queues with waiting requests, so that a version that is dropped leaves the memory.
        self._waiting: collections.deque[BatchQueue] = collections.deque()
        self._stopped = False
        self._threads = [
            threading.Thread(target=self._work, name=f"{self._name}_{i}", daemon=True)
            for i in range(parameters.num_batch_threads)
        ]
        for thread in self._threads:
            thread.start()

    def run(self, queue: BatchQueue, inputs: Tensors) -> dict[str, np.ndarray]:
        """Computes a request with others of its queue, and returns its rows of the outputs.

        Raises:
            ServingError: The request does not fit into a batch, the queue is full, or the batch
                failed, and with it all its requests.
        """
        size = tensors.common_size(inputs)
        with self._changed:
            if self._stopped:
                raise ServingError(Code.UNAVAILABLE, "The server is being stopped")
            was_empty = queue.is_empty()
            tasks = queue.add(inputs, size)
            if was_empty:
                self._waiting.append(queue)
            self._changed.notify()
        parts = [task.outputs.result() for task in tasks]
        return parts[0] if len(parts) == 1 else tensors.join(parts)

    def stop(self) -> None:
        """Refuses new requests, computes the waiting ones at once, then ends the threads."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        while (due_batch := self._next()) is not None:
            self._compute(*due_batch)
            del due_batch  # a thread that waits must not keep a version in memory

    def _next(self) -> tuple[BatchQueue, list[_Task]] | None:
        """Waits for the next batch and its queue; None once the scheduler is stopped."""
        with self._changed:
            while True:
                for _ in range(len(self._waiting)):
                    queue = self._waiting.popleft()
                    batch = queue.take(hurry=self._stopped)
                    if not queue.is_empty():
                        self._waiting.append(queue)
                    if batch:
                        if self._waiting:
                            self._changed.notify()  # another thread has to watch the other queues
                        return queue, batch
                if self._stopped:
                    return None
                due = [queue.seconds_until_due() for queue in self._waiting]
                self._changed.wait(min(due, default=None))

    def _compute(self, queue: BatchQueue, batch: list[_Task]) -> None:
        now = time.perf_counter()
        for task in batch:
            self._metrics.observe_queueing(self._name, (now - task.since) * 1e6)
        try:
            inputs = tensors.merge([task.inputs for task in batch], queue.parameters)
            self._metrics.count_batch()
            outputs = queue.run(inputs)
            rows = len(next(iter(inputs.values())))
            parts = tensors.split(outputs, [task.size for task in batch], rows)
        except ServingError as error:
            for task in batch:
                # An error for each task, as each thread that raises it adds its own traceback.
                task.outputs.set_exception(ServingError(error.code, error.message))
        except Exception as error:  # a bug, which fails these requests and no others
            _LOG.exception("A batch failed")
            for task in batch:
                message = f"{type(error).__name__}: {error}"
                task.outputs.set_exception(ServingError(Code.INTERNAL, message))
        else:
            for task, part in zip(batch, parts, strict=True):
                task.outputs.set_result(part)
