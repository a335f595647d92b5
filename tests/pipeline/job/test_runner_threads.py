"""Worker threads of Beam: nothing sends what another thread is in the midst of writing."""

import threading

import apache_beam as beam
import pytest
from apache_beam.runners.portability.fn_api_runner import worker_handlers
from apache_beam.runners.worker.data_plane import (
    PeriodicThread,
    TimeBasedBufferingClosableOutputStream,
)

from pipeline.arguments import BuildArguments
from pipeline.job import manifest
from pipeline.job.pieces import Pieces
from pipeline.job.runner import run_stage
from pipeline.requests.events import Plan
from preprocessing.schema_inference import infer_schema

SENDER = TimeBasedBufferingClosableOutputStream.__name__
THREADS = ["--direct_num_workers=2", "--direct_running_mode=multi_threading"]


def _senders(piece, path):
    """Notes the threads that send from time to time; groups what it emits, so that it is sent."""
    repeated = [t._function for t in threading.enumerate() if isinstance(t, PeriodicThread)]
    senders = [one for one in repeated if one.__qualname__.startswith(SENDER)]
    (path / f"{piece}.{len(senders)}").touch()
    yield piece, piece


def _stage(path):
    def construct(pipeline):
        noted = pipeline | Pieces([1, 2, 3, 4]) | beam.FlatMap(_senders, path)
        _ = noted | beam.GroupByKey() | beam.Map(len)

    run_stage("Noting", construct, THREADS, path / "watch", 4)
    return {file.name.partition(".")[2] for file in path.glob("*.*")}


def test_no_thread_sends_what_another_writes(tmp_path, monkeypatch):
    assert _stage(tmp_path) == {"0"}
    monkeypatch.setattr(worker_handlers, "DATA_BUFFER_TIME_LIMIT_MS", 1000)  # as Beam has it
    (tmp_path / "beam").mkdir()
    assert "0" not in _stage(tmp_path / "beam")


def test_requests_that_got_lost_are_an_error(tmp_path):
    arguments = BuildArguments(input="", output=str(tmp_path))
    plan = Plan(arguments, infer_schema(["user_id", "item_id"]), num_partitions=1)
    (plan.work / "shards").mkdir(parents=True)
    with pytest.raises(AssertionError, match="requests are not conserved: encoded=3 written=0"):
        manifest.manifest(plan, [], {"train/requests": 3}, {})
