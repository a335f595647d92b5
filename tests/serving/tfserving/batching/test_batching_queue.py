import concurrent.futures
import contextlib
import re
import threading
import time

import numpy as np
import pytest

from serving.tfserving.batching.parameters import BatchingParameters
from serving.tfserving.batching.queues import BatchQueue, BatchScheduler
from serving.tfserving.metrics import Metrics
from serving.tfserving.status import Code, ServingError

FOR_EVER = 3_600_000_000
"""A timeout that does not come, in microseconds."""


class Model:
    """Doubles x; waits for `go` first if told to, and notes every batch."""

    def __init__(self, *, waits: bool = False) -> None:
        self.batches: list[list[int]] = []
        self.entered = threading.Semaphore(0)
        self.go = threading.Event()
        if not waits:
            self.go.set()

    def __call__(self, inputs):
        self.batches.append(inputs["x"].tolist())
        self.entered.release()
        assert self.go.wait(30)
        if (inputs["x"] < 0).any():
            raise ServingError(Code.OUT_OF_RANGE, "negative")
        if (inputs["x"] == 13).any():
            raise KeyError("a bug")
        return {"y": inputs["x"] * 2}


@contextlib.contextmanager
def batching(*models, metrics=None, **parameters):
    """A function that asks a model, as a future, for some rows."""
    parameters = BatchingParameters(**({"num_batch_threads": 1} | parameters))
    scheduler = BatchScheduler(parameters, metrics or Metrics())
    queues = {id(model): BatchQueue(model, parameters) for model in models}
    with concurrent.futures.ThreadPoolExecutor(32) as pool:

        def ask(*rows, model=models[0]):
            return pool.submit(scheduler.run, queues[id(model)], {"x": np.array(rows)})

        ask.scheduler = scheduler
        ask.queues = queues
        try:
            yield ask
        finally:
            for model in models:
                model.go.set()
            scheduler.stop()


def wait_until_queued(ask, rows, model=None):
    """Until so many rows wait for a model, by default the first; it keeps the order of requests."""
    queue = ask.queues[id(model)] if model else next(iter(ask.queues.values()))
    deadline = time.monotonic() + 30
    while sum(task.size for batch in list(queue._batches) for task in list(batch)) < rows:
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.001)


def answer(future):
    return future.result(30)["y"].tolist()


def refused(future):
    with pytest.raises(ServingError) as caught:
        future.result(30)
    return caught.value.code, caught.value.message


def test_B1_a_complete_batch_does_not_wait():
    model = Model()
    with batching(model, max_batch_size=4, batch_timeout_micros=FOR_EVER) as ask:
        futures = [ask(1)]
        wait_until_queued(ask, 1)
        futures.append(ask(2, 3, 4))
        assert [answer(future) for future in futures] == [[2], [4, 6, 8]]
    assert model.batches == [[1, 2, 3, 4]]


def test_B1_a_request_that_does_not_fit_completes_the_batch_before_it():
    model = Model()
    with batching(model, max_batch_size=4, batch_timeout_micros=FOR_EVER) as ask:
        first = ask(1, 2, 3)
        wait_until_queued(ask, 3)
        second = ask(4, 5)
        assert answer(first) == [2, 4, 6]
        ask(6, 7)
        assert answer(second) == [8, 10]
    assert model.batches == [[1, 2, 3], [4, 5, 6, 7]]


def test_B1_an_incomplete_batch_waits_for_the_timeout():
    model = Model()
    with batching(model, batch_timeout_micros=1_000_000) as ask:
        start = time.perf_counter()
        first = ask(1)
        wait_until_queued(ask, 1)
        second = ask(2)
        assert answer(first) + answer(second) == [2, 4]
        assert time.perf_counter() - start >= 1.0
    assert model.batches == [[1, 2]]


def test_B1_without_a_timeout_batches_form_while_the_threads_are_busy():
    model = Model(waits=True)
    with batching(model) as ask:
        futures = [ask(0)]
        assert model.entered.acquire(timeout=30)
        for i in range(1, 6):
            futures.append(ask(i))
            wait_until_queued(ask, i)
        model.go.set()
        assert [answer(future) for future in futures] == [[2 * i] for i in range(6)]
    assert model.batches == [[0], [1, 2, 3, 4, 5]]


def test_B1_as_many_batches_at_once_as_there_are_threads():
    model = Model(waits=True)
    with batching(model, num_batch_threads=3, max_batch_size=1) as ask:
        futures = [ask(i) for i in range(4)]
        for _ in range(3):
            assert model.entered.acquire(timeout=30)
        assert not model.entered.acquire(timeout=0.05)
        model.go.set()
        assert sorted(answer(future)[0] for future in futures) == [0, 2, 4, 6]


def test_B2_queues_share_the_threads_and_take_turns():
    one, other = Model(waits=True), Model(waits=True)
    with batching(one, other, max_batch_size=1) as ask:
        futures = [ask(0, model=one)]
        assert one.entered.acquire(timeout=30)
        for i in range(1, 4):
            futures.append(ask(i, model=one))
            wait_until_queued(ask, i)
        futures.append(ask(9, model=other))
        wait_until_queued(ask, 1, other)
        one.go.set()
        assert other.entered.acquire(timeout=30)
        # It did not wait for all that had come to the first queue before.
        assert len(one.batches) <= 3
        other.go.set()
        assert [answer(future) for future in futures] == [[0], [2], [4], [6], [18]]


def test_a_timeout_is_watched_while_another_queue_is_computed():
    """The thread that saw a request come may be busy when its time is over."""
    one, other = Model(waits=True), Model()
    with batching(one, other, num_batch_threads=2, batch_timeout_micros=50_000) as ask:
        ask(1, model=one)
        ask(2, model=other)
        assert one.entered.acquire(timeout=30)
        assert other.entered.acquire(timeout=5)


def test_B6_a_request_larger_than_a_batch_is_refused():
    model = Model()
    with batching(model, max_batch_size=2) as ask:
        assert refused(ask(1, 2, 3)) == (
            Code.INVALID_ARGUMENT,
            "Task size 3 is larger than maximum input batch size 2",
        )
        assert answer(ask(1, 2)) == [2, 4]


def test_B6_a_full_queue_refuses_until_there_is_space():
    model = Model(waits=True)
    with batching(model, max_batch_size=2, max_enqueued_batches=2) as ask:
        futures = [ask(0, 0)]
        assert model.entered.acquire(timeout=30)
        for i in range(1, 3):
            futures.append(ask(i, i))
            wait_until_queued(ask, 2 * i)
        code, message = refused(ask(3))
        assert code == Code.UNAVAILABLE
        assert message == (
            "The batch scheduling queue to which this task was submitted is full; currently 2 "
            "batches enqueued and max_enqueued_batches is 2"
        )
        model.go.set()
        assert [answer(future) for future in futures] == [[0, 0], [2, 2], [4, 4]]
        assert answer(ask(3)) == [6]


def test_B6_splitting_divides_a_large_request_over_batches():
    model = Model()
    sizes = {"max_batch_size": 20, "max_execution_batch_size": 4}
    with batching(
        model, batch_timeout_micros=FOR_EVER, enable_large_batch_splitting=True, **sizes
    ) as ask:
        first = ask(1)
        wait_until_queued(ask, 1)
        large = ask(*range(2, 12))
        assert answer(first) == [2]
        wait_until_queued(ask, 3)
        last = ask(12)
        assert answer(large) == [2 * i for i in range(2, 12)]
        assert answer(last) == [24]
        assert refused(ask(*range(21)))[0] == Code.INVALID_ARGUMENT
    assert model.batches == [[1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12]]


def test_B6_splitting_refuses_what_the_queue_cannot_hold():
    model = Model(waits=True)
    with batching(
        model,
        max_batch_size=100,
        max_execution_batch_size=2,
        max_enqueued_batches=3,
        enable_large_batch_splitting=True,
    ) as ask:
        running = ask(0, 0)
        assert model.entered.acquire(timeout=30)
        code, message = refused(ask(*range(7)))
        assert code == Code.UNAVAILABLE
        assert "task size is 7 but scheduling capacity is only 6" in message
        fits = ask(*range(6))
        model.go.set()
        assert answer(running) + answer(fits) == [0, 0, 0, 2, 4, 6, 8, 10]


def test_a_batch_that_fails_fails_its_requests_and_no_others():
    model = Model()
    with batching(model, max_batch_size=2, batch_timeout_micros=FOR_EVER) as ask:
        futures = [ask(-1)]
        wait_until_queued(ask, 1)
        futures.append(ask(1))
        assert [refused(future) for future in futures] == [(Code.OUT_OF_RANGE, "negative")] * 2
        assert refused(ask(13, 0)) == (Code.INTERNAL, "KeyError: 'a bug'")
        assert answer(ask(1, 2)) == [2, 4]


def test_a_stop_computes_what_waits_and_accepts_no_more():
    model = Model()
    with batching(model, batch_timeout_micros=FOR_EVER) as ask:
        future = ask(1)
        wait_until_queued(ask, 1)
        ask.scheduler.stop()
        assert answer(future) == [2]
        assert refused(ask(2)) == (Code.UNAVAILABLE, "The server is being stopped")


def test_M3_batches_and_waiting_are_counted():
    metrics = Metrics(batching=True)
    with batching(Model(), metrics=metrics, max_batch_size=2, thread_pool_name="pool") as ask:
        answer(ask(1, 2))
        answer(ask(1, 2))
    page = metrics.page()
    family = ":tensorflow:serving:batching_session"
    assert f"{family}:wrapped_run_count{{}} 2\n" in page
    assert f'{family}:queuing_latency_count{{thread_pool_name="pool"}} 2\n' in page
    bounds = re.findall(r'queuing_latency_bucket\{.*le="([^"]*)"\}', page)
    assert bounds == [*(f"{100 * 1.2**k:.6g}" for k in range(52)), "+Inf"]
