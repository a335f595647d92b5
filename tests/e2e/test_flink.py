"""The job on a Flink cluster with two task managers: the same bytes as in one process.

Left out of `make test`; run it with `make test-flink`.
"""

import dataclasses

import flink_cluster
import pytest

from pipeline.arguments import BuildArguments
from pipeline.build_examples import build_examples
from pipeline.job.runner import check_options
from preprocessing.errors import UserError
from tests.helpers.small_data_sets import shard_bytes
from tests.helpers.small_logs import columns, random_events, write_log

pytestmark = [
    pytest.mark.flink,
    pytest.mark.skipif(bool(flink_cluster.missing()), reason=flink_cluster.missing() or "-"),
]


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("flink")


@pytest.fixture(scope="module")
def flags(scratch):
    with flink_cluster.running(scratch) as flags:
        check_options(flags, [])
        yield tuple(flags)


def _arguments(tmp_path, **more) -> BuildArguments:
    events = random_events(seed=4, users=60, days=1000)
    third = len(events) // 3
    paths = [
        write_log(tmp_path / f"{n}.parquet", columns(events[n * third : (n + 1) * third]))
        for n in range(3)
    ]
    return BuildArguments(
        input=",".join(paths),
        output=str(tmp_path / "alone"),
        num_shards=4,
        num_partitions=5,
        **more,
    )


def test_flink_writes_the_bytes_of_the_embedded_runner(tmp_path, scratch, flags):
    arguments = _arguments(tmp_path, protocol="time_split", min_item_events=2, negatives=2)
    alone = build_examples(arguments)
    flink = build_examples(
        dataclasses.replace(arguments, output=str(tmp_path / "flink"), beam_options=flags)
    )
    assert shard_bytes(flink.path) == shard_bytes(alone.path)
    assert flink.fingerprint == alone.fingerprint
    # Each of the four stages ran in one process per task manager.
    workers = (scratch / flink_cluster.WORKER_LOG).read_text().split()
    assert len(set(workers)) >= 4 * flink_cluster.TASK_MANAGERS


def test_a_mistake_that_a_worker_finds_is_one_line(tmp_path, flags):
    arguments = _arguments(tmp_path)
    log = tmp_path / "log.csv"
    log.write_bytes(b'user_id,item_id,timestamp\nu,i,1\nu,"j,2\n')
    with pytest.raises(UserError, match=r"record that begins in line 3 .* Fix: mend that line"):
        build_examples(dataclasses.replace(arguments, input=str(log), beam_options=flags))
