"""What a build of any size costs: constants from a few small builds, and how each number grows.

N events, R requests, P partitions, B buckets, F files of the log, S shards, M values (users and
items). Processor time of a stage, bytes of counts and what the driver writes are a + b N + c R;
with more than one bucket they grow as in a build that has two. References are F P in the first
shuffle, as a file has users of every partition, and P S in the last one, as a partition has
requests for every shard, which are written in blocks. Memory of a worker is what it needs at all,
for the bytes and the requests of its partitions, and for each value. Each worker spends the time to
load the values once.
"""

import json
import subprocess
import sys
from typing import NamedTuple

import numpy as np

from pipeline.job import build
from pipeline.log.raw_batch import InputFile
from pipeline.requests.encoding import BLOCK_REQUESTS
from pipeline.requests.events import PARTITIONS_PER_BUCKET
from pipeline.requests.shard_sizes import SHARD_BYTES

from . import generated
from .measured_build import DRIVER
from .runs import Run

_ITEMS = 2_000_000  # of the worker whose memory is measured


class Calibration(NamedTuple):
    """The builds from which constants follow.

    Attributes:
        small: Of few events, one request of each split per user.
        large: Of ten times as many.
        few: The same, in few partitions.
        buckets: The same, in so many partitions that values are in two buckets.
        every: The same log, with a request for every event.
        value_seconds: Processor time in which a worker loads a value.
        value_bytes: Memory of a worker for each value.
    """

    small: Run
    large: Run
    few: Run
    buckets: Run
    every: Run
    value_seconds: float
    value_bytes: float


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
        worker_bytes: Highest memory of a worker with two threads.
        process_bytes: That of a process that is the runner, too, and holds the counts of a shuffle.
        value_bytes: The part of it for users and items.
        cpu_seconds: Processor time of one worker that does everything.
        loading_seconds: The part of it that every worker spends.
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
    process_bytes: float
    value_bytes: float
    cpu_seconds: float
    loading_seconds: float
    driver_seconds: float

    def hours(self, workers: int) -> float:
        """Time on so many workers of one core, all of which have something to do."""
        busy = min(workers, self.partitions)
        shared_seconds = (self.cpu_seconds - self.loading_seconds) / busy
        return (shared_seconds + self.loading_seconds + self.driver_seconds) / 3600


def measure_loading() -> tuple[float, float]:
    """Processor time and memory that a worker needs for each value, see `worker_setup`."""
    program = [sys.executable, "-m", "tests.scale.worker_setup", str(_ITEMS)]
    seconds, size = json.loads(subprocess.check_output(program))
    return seconds, size


class Model:
    """Predicts builds like those of a calibration."""

    def __init__(self, calibration: Calibration) -> None:
        self._base = calibration
        large = calibration.large
        self._log_bytes = large.log_bytes / large.events
        self._shard_bytes = calibration.every.shard_bytes / calibration.every.requests
        self._memory = self._solved_memory()

    def predict(
        self,
        events: int,
        requests: int,
        num_partitions: int | None = None,
        num_files: int | None = None,
    ) -> Prediction:
        """What a build costs.

        Args:
            events: Events of its log.
            requests: Requests of all splits.
            num_partitions: Partitions of users, None for as many as a build chooses.
            num_files: Files of the log, None for as many as are generated.
        """
        log_bytes = self._log_bytes * events
        partitions = num_partitions or _num_partitions(round(log_bytes))
        buckets = 1 + (partitions - 1) // PARTITIONS_PER_BUCKET
        shards = max(16, round(self._shard_bytes * requests / SHARD_BYTES))
        references = (num_files or generated.num_files(events)) * partitions
        blocks = requests / BLOCK_REQUESTS
        references += min(requests, round(1.5 * shards) * partitions + blocks)
        many = self._base.buckets
        files = many.total("files_opened") + many.total("files_written")
        per_partition = (files - many.total("references")) / many.num_partitions
        cpu = self._grown("cpu_seconds", events, requests, buckets)
        driver_seconds = cpu.pop(DRIVER)
        value_bytes = self._base.value_bytes * _num_values(events)
        of_partition = [1, log_bytes / partitions, requests / partitions]
        worker_bytes = value_bytes + float(self._memory @ of_partition)
        table_bytes = self._grown("table_bytes", events, requests, buckets)
        return Prediction(
            partitions=partitions,
            buckets=buckets,
            shards=shards,
            references=references,
            table_bytes=sum(table_bytes.values()),
            driver_bytes=self._grown("written_bytes", events, requests, buckets)[DRIVER],
            store_requests=references + blocks + per_partition * partitions,
            worker_bytes=worker_bytes,
            process_bytes=worker_bytes + max(table_bytes.values()),
            value_bytes=value_bytes,
            cpu_seconds=sum(cpu.values()),
            loading_seconds=self._base.value_seconds * _num_values(events),
            driver_seconds=driver_seconds,
        )

    def _grown(self, name: str, events: int, requests: int, buckets: int) -> dict[str, float]:
        """What stages noted, by stage."""
        runs = [self._base.small, self._base.large, self._base.every]
        known = np.array([[1, run.events, run.requests] for run in runs], float)
        numbers = {}
        for stage in {stage for run in runs for stage in run.stages}:
            noted = [run.stages.get(stage, {}).get(name, 0.0) for run in runs]
            solved = np.linalg.solve(known, noted)
            numbers[stage] = max(0.0, float(solved @ [1, events, requests]))
        if buckets > 1:
            large, many = self._base.large, self._base.buckets
            for stage, noted in many.stages.items():
                more = noted.get(name, 0.0) - large.stages.get(stage, {}).get(name, 0.0)
                grown = numbers.get(stage, 0.0) + more * events / many.events
                numbers[stage] = max(0.0, grown)
        return numbers

    def _solved_memory(self) -> np.ndarray:
        """Bytes of a process without values, per byte of a partition, per request of it: [3]."""
        runs = [self._base.large, self._base.few, self._base.every]
        known = [
            [1, run.log_bytes / run.num_partitions, run.requests / run.num_partitions]
            for run in runs
        ]
        value_bytes = self._base.value_bytes * _num_values(self._base.large.events)
        shuffled = [
            max(stage.get("table_bytes", 0) for stage in run.stages.values()) for run in runs
        ]
        peaks = [run.peak_bytes - value_bytes for run in runs]
        return np.linalg.solve(np.array(known), np.subtract(peaks, shuffled))


def _num_values(events: int) -> float:
    return events / generated.EVENTS_PER_ITEM + events / generated.EVENTS_PER_USER


def _num_partitions(log_bytes: int) -> int:
    return build._num_partitions([InputFile("log.csv", 0, "csv", log_bytes)])
