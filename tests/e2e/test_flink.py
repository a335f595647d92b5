"""The job on a Flink cluster with two task managers: the same bytes as in one process.

Also if workers and task managers are killed while they work. Left out of `make test`; run it with
`make test-flink`.
"""

import contextlib
import dataclasses
import os
import pathlib
import signal
import threading

import flink_cluster
import flink_worker
import java_processes
import pytest

from pipeline.arguments import BuildArguments
from pipeline.build_examples import build_examples
from pipeline.job.runner import check_options
from preprocessing.errors import UserError
from tests.helpers import beam_metrics
from tests.helpers.damaged_logs import damaged_parquet
from tests.helpers.small_data_sets import shard_bytes
from tests.helpers.small_logs import columns, random_events, write_log

pytestmark = [
    pytest.mark.flink,
    pytest.mark.skipif(bool(java_processes.missing()), reason=java_processes.missing() or "-"),
]
_STAGES = 3  # reading, counting values, writing


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with flink_cluster.running(tmp_path_factory.mktemp("flink")) as cluster:
        check_options(cluster.flags, [])
        yield cluster


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The arguments of a build, and its data set by the embedded runner."""
    directory = tmp_path_factory.mktemp("alone")
    events = random_events(seed=4, users=60, days=1000)
    third = len(events) // 3
    paths = []
    for n in range(3):
        log = columns(events[n * third : (n + 1) * third])
        log["user_id"][0] = ""  # a row to reject
        paths.append(write_log(directory / f"{n}.parquet", log))
    arguments = BuildArguments(
        input=",".join(paths),
        output=str(directory / "data"),
        num_shards=4,
        num_partitions=5,
        min_item_events=2,
        negatives=2,
        max_bad_fraction=0.5,
    )
    return arguments, build_examples(arguments)


def _on_flink(arguments, cluster, output, **more):
    return dataclasses.replace(arguments, output=str(output), beam_options=cluster.flags, **more)


def _files(data) -> list[str]:
    """Names of all files of a data set, hidden and temporary ones included."""
    return sorted(str(path.relative_to(data.path)) for path in pathlib.Path(data.path).rglob("*"))


def _assert_equal(found, expected):
    assert shard_bytes(found.path) == shard_bytes(expected.path)
    assert found.fingerprint == expected.fingerprint
    assert _files(found) == _files(expected)
    for part in sorted((pathlib.Path(expected.path) / "rejected").iterdir()):
        assert (pathlib.Path(found.path) / "rejected" / part.name).read_bytes() == part.read_bytes()


@contextlib.contextmanager
def _meanwhile(cluster, point, act):
    """Within it a worker is held at a point, where `act` gets it and its task manager."""
    errors = []

    def wait():
        try:
            act(*cluster.held())
        except Exception as error:
            errors.append(error)
        finally:
            cluster.release()

    cluster.hold(point)
    thread = threading.Thread(target=wait)
    thread.start()
    try:
        yield
    finally:
        thread.join()
    assert not errors


def test_flink_writes_the_bytes_of_the_embedded_runner(tmp_path, cluster, alone):
    arguments, expected = alone
    with beam_metrics.recorded() as found:
        data = build_examples(_on_flink(arguments, cluster, tmp_path / "data"))
    _assert_equal(data, expected)
    assert found.counters() == beam_metrics.of_manifest(expected.manifest)
    # Each of the stages ran in one process per task manager.
    workers = (cluster.scratch / flink_cluster.WORKER_LOG).read_text().split()
    assert len(set(workers)) >= _STAGES * flink_cluster.TASK_MANAGERS


def test_a_mistake_that_a_worker_finds_is_one_line(tmp_path, cluster, alone):
    log = damaged_parquet(tmp_path)
    with pytest.raises(UserError, match=r"^--input: expected parquet in .*, found it unreadable"):
        build_examples(_on_flink(alone[0], cluster, tmp_path / "data", input=log))
    assert cluster.last_state() == "FINISHED"  # nothing for Flink to try again


@pytest.mark.parametrize(
    ("point", "victim"),
    [(flink_worker.READING, "worker"), (flink_worker.WRITING, "task manager")],
)
def test_what_is_killed_while_it_works_changes_nothing(tmp_path, cluster, alone, point, victim):
    arguments, expected = alone
    if victim == "task manager":
        cluster.start_task_manager()  # the one that is left when one of three is killed

    def kill(worker: int, task_manager: int) -> None:
        os.kill(worker if victim == "worker" else task_manager, signal.SIGKILL)

    with beam_metrics.recorded() as found, _meanwhile(cluster, point, kill):
        data = build_examples(_on_flink(arguments, cluster, tmp_path / "data"))
    _assert_equal(data, expected)
    assert found.counters() == beam_metrics.of_manifest(expected.manifest)


def test_a_job_that_flink_gave_up_is_resumed(tmp_path, cluster, alone):
    arguments, expected = alone
    arguments = _on_flink(arguments, cluster, tmp_path / "data", resume=True)
    with (
        pytest.raises(UserError, match=r"workers of the stage 'Writing' .* --resume goes on"),
        _meanwhile(cluster, flink_worker.WRITING, lambda *_: cluster.cancel_jobs()),
    ):
        build_examples(arguments)
    with beam_metrics.recorded() as found:
        data = build_examples(arguments)
    _assert_equal(data, expected)
    counts = beam_metrics.of_manifest(expected.manifest)
    written = {name: count for name, count in counts.items() if name.endswith("_written")}
    assert found.counters() == written  # nothing is read a second time
