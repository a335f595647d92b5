"""What a build of any size costs: constants from a few small builds, and how each quantity grows.

N events, R requests, P partitions, B buckets, M values (items and users), F files of the log,
S shards. Processor time of a stage is a + b N + c R, but that workers look values up in all items
and users once for each partition: Arrow builds a table of them every time, P M in all. References
in the first shuffle are F P, as a file has users of every partition, and in the last one P S, as a
partition has requests for every shard. Memory is what a process needs at all, what it needs for the
bytes of the partitions in it, and what it needs for each value.
"""

import time
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.job import build
from pipeline.log.raw_batch import InputFile
from pipeline.requests.events import PARTITIONS_PER_BUCKET
from pipeline.requests.shard_sizes import SHARD_BYTES

from . import generated
from .measured_build import DRIVER
from .runs import Run

LOOKUPS_OF_ITEMS = 3  # items of events, items of users, ids of items
LOOKUPS_OF_USERS = 1

_VALUES = 1_000_000


class Calibration(NamedTuple):
    """The builds from which constants follow.

    Attributes:
        small: Of few events, one request of each split per user.
        large: Of ten times as many.
        buckets: The same, in so many partitions that values are in buckets.
        every: The same log, with a request for every event.
        lookup_seconds: Processor time to build a table, per value.
    """

    small: Run
    large: Run
    buckets: Run
    every: Run
    lookup_seconds: float


class Prediction(NamedTuple):
    """What a build costs.

    Attributes:
        partitions: Partitions of users.
        buckets: Buckets of values.
        shards: Files of train.
        references: References to parts of files, in both shuffles.
        table_bytes: Bytes of the tables of counts in shuffles.
        driver_bytes: Bytes that the driver writes.
        store_requests: Files that are opened or written.
        worker_bytes: Highest memory of a process with two threads.
        cpu_seconds: Processor time of all workers.
        lookup_seconds: The part of it that looks values up.
        driver_seconds: Processor time of the driver, in which workers wait.
    """

    partitions: int
    buckets: int
    shards: int
    references: float
    table_bytes: float
    driver_bytes: float
    store_requests: float
    worker_bytes: float
    cpu_seconds: float
    lookup_seconds: float
    driver_seconds: float

    def hours(self, workers: int) -> float:
        """Time on so many workers of one core, all of which have something to do."""
        busy = min(workers, self.partitions)
        return (self.cpu_seconds / busy + self.driver_seconds) / 3600


def lookup_seconds() -> float:
    """Processor time in which Arrow builds the table to look values up in, per value."""
    values = pa.array(np.arange(_VALUES)).cast(pa.large_string())
    few = values.slice(0, 1000)
    start = time.process_time()
    pc.index_in(few, value_set=values)
    return (time.process_time() - start) / _VALUES


class Model:
    """Predicts builds like those of a calibration."""

    def __init__(self, calibration: Calibration) -> None:
        self._base = calibration
        large = calibration.large
        self._log_bytes = large.log_bytes / large.events
        self._shard_bytes = calibration.every.shard_bytes / calibration.every.requests
        self._memory = self._solved_memory()

    def predict(self, events: int, requests: int, num_partitions: int | None = None) -> Prediction:
        """What a build costs.

        Args:
            events: Events of its log.
            requests: Requests of all splits.
            num_partitions: Partitions of users, None for as many as a build chooses.
        """
        log_bytes = self._log_bytes * events
        partitions = num_partitions or _num_partitions(round(log_bytes))
        buckets = 1 + (partitions - 1) // PARTITIONS_PER_BUCKET
        shards = max(16, round(self._shard_bytes * requests / SHARD_BYTES))
        references = self._read_references(events, partitions)
        references += min(requests, 1.5 * shards * partitions)
        cpu = self._linear("cpu_seconds", events, requests, buckets)
        driver_seconds = cpu.pop(DRIVER)
        looked_up = self._lookups(events, partitions)
        table_bytes = self._linear("table_bytes", events, requests, buckets)
        driver_bytes = self._linear("written_bytes", events, requests, buckets)[DRIVER]
        many = self._base.buckets
        files = many.total("files_opened") + many.total("files_written")
        per_partition = (files - many.total("references")) / many.num_partitions
        partition_bytes = log_bytes / partitions
        return Prediction(
            partitions=partitions,
            buckets=buckets,
            shards=shards,
            references=references,
            table_bytes=sum(table_bytes.values()),
            driver_bytes=driver_bytes,
            store_requests=references + per_partition * partitions,
            worker_bytes=float(self._memory @ [1, partition_bytes, _num_values(events)]),
            cpu_seconds=sum(cpu.values()) + looked_up,
            lookup_seconds=looked_up,
            driver_seconds=driver_seconds,
        )

    def _linear(self, name: str, events: int, requests: int, buckets: int) -> dict[str, float]:
        """What stages noted as a + b N + c R by stage; those of buckets grow with N alone."""
        runs = [self._base.small, self._base.large, self._base.every]
        known = np.array([[1, run.events, run.requests] for run in runs], float)
        numbers = {}
        for stage in {stage for run in runs for stage in run.stages}:
            noted = [run.stages.get(stage, {}).get(name, 0.0) for run in runs]
            if name == "cpu_seconds" and stage == "Writing":
                noted = [
                    one - self._lookups(run.events, run.num_partitions)
                    for one, run in zip(noted, runs, strict=True)
                ]
            solved = np.linalg.solve(known, noted)
            numbers[stage] = max(0.0, float(solved @ [1, events, requests]))
        if buckets > 1:
            many = self._base.buckets
            for stage in many.stages.keys() - numbers.keys():
                numbers[stage] = many.stages[stage].get(name, 0.0) * events / many.events
        return numbers

    def _lookups(self, events: int, partitions: int) -> float:
        items, users = events / generated.EVENTS_PER_ITEM, events / generated.EVENTS_PER_USER
        looked_up = LOOKUPS_OF_ITEMS * items + LOOKUPS_OF_USERS * users
        return self._base.lookup_seconds * partitions * looked_up

    def _read_references(self, events: int, partitions: int) -> float:
        many = self._base.buckets
        in_file = many.stages["Reading"]["references"] / generated.num_files(many.events)
        return generated.num_files(events) * partitions * in_file / many.num_partitions

    def _solved_memory(self) -> np.ndarray:
        """Bytes of a process, per byte of a partition, and per value: [3]."""
        runs = [self._base.small, self._base.large, self._base.buckets]
        known = [[1, run.log_bytes / run.num_partitions, _num_values(run.events)] for run in runs]
        return np.linalg.solve(np.array(known, float), [run.peak_bytes for run in runs])


def _num_values(events: int) -> float:
    return events / generated.EVENTS_PER_ITEM + events / generated.EVENTS_PER_USER


def _num_partitions(log_bytes: int) -> int:
    return build._num_partitions([InputFile("log.csv", 0, "csv", log_bytes)])
