"""A worker or a runner that dies ends the job with one line: the cause, and what is left."""

import os
import pathlib
import signal
import socket
import subprocess
import sys

import apache_beam as beam
import pytest

from pipeline.arguments import BuildArguments
from pipeline.build_examples import build_examples
from pipeline.job import pipelines, worker_errors
from pipeline.job.runner import check_options, require_reachable, run_stage
from pipeline.job.worker_errors import StageError
from preprocessing.errors import UserError
from tests.helpers.small_logs import columns, random_events, write_log

ROOT = pathlib.Path(__file__).parents[3]


class _Ends(beam.DoFn):
    """Ends a worker as told."""

    def __init__(self, error):
        self._error = error

    def process(self, element):
        if self._error is None:
            os.kill(os.getpid(), signal.SIGKILL)
        raise self._error


def _run(tmp_path, error, *options):
    run_stage(
        "Reading",
        lambda pipeline: pipeline | beam.Create([1, 2, 3]) | "end" >> beam.ParDo(_Ends(error)),
        options,
        watch=tmp_path / "watch",
        total=1,
        parallelism=2,
    )


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (ValueError("a text\nof lines"), "Reading: ValueError: a text of lines."),
        (MemoryError(), "Reading: MemoryError."),
        (FileNotFoundError(2, "gone", "x"), "Reading: FileNotFoundError: [Errno 2] gone: 'x'."),
    ],
)
def test_an_exception_in_a_worker_is_its_line_alone(tmp_path, capfd, error, cause):
    with pytest.raises(StageError) as failed:
        _run(tmp_path, error)
    assert str(failed.value) == cause
    # Beam prints a stack from each worker; none of it reaches the terminal.
    assert "Traceback" not in capfd.readouterr().err


def test_what_a_worker_refuses_stays_as_it_is(tmp_path, capfd):
    with pytest.raises(UserError, match="^a mistake$"):
        _run(tmp_path, UserError("a mistake"))
    assert capfd.readouterr().err == ""


def test_a_build_says_what_a_dead_worker_left_behind(tmp_path, monkeypatch):
    def broken(*args):
        raise ArithmeticError("overflow")

    monkeypatch.setattr(pipelines, "ingest", broken)
    log = write_log(tmp_path / "log.csv", columns(random_events(users=15)))
    data = tmp_path / "data"
    arguments = BuildArguments(input=log, output=str(data), num_shards=1)
    with pytest.raises(UserError) as failed:
        build_examples(arguments)
    assert str(failed.value) == (
        f"Expected the workers of the stage 'Reading' to finish, found: ArithmeticError: overflow. "
        f"{data} holds no data set now, only parts of one, with which --resume goes on "
        "(ctr-run does so by itself). "
        "Fix: mend the cause (--debug shows where it arose), then run the same command again."
    )
    assert not (data / "_COMPLETED").exists()
    monkeypatch.undo()
    build_examples(arguments)
    assert (data / "_COMPLETED").exists()


_KILLED = """
import pathlib
from test_worker_errors import _run
try:
    _run(pathlib.Path({scratch!r}), None, "--direct_num_workers=2",
         "--direct_running_mode=multi_processing")
except Exception as error:
    print(type(error).__name__, error, error.fix)
"""


@pytest.mark.slow
def test_a_killed_worker_process_ends_the_job(tmp_path):
    """Beam itself would wait for it for ever."""
    program = _KILLED.format(scratch=str(tmp_path))
    path = f"{ROOT}:{pathlib.Path(__file__).parent}"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False,
        timeout=300, env=os.environ | {"PYTHONPATH": path},
    )  # fmt: skip
    assert done.stdout == (
        "StageError Reading: a worker process was ended by the signal SIGKILL. give it more "
        "memory, or take fewer workers (--direct_num_workers)\n"
    )
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("Worker subprocess exited with return code 137", "ended by the signal SIGKILL"),
        ("Worker subprocess exited with return code -11", "ended by the signal SIGSEGV"),
        ("Worker subprocess exited with return code 3", "ended by itself, with status 3"),
        (
            "Pipeline job-1 failed in state FAILED: java.lang.RuntimeException: Error received "
            "from SDK harness for instruction 4: Traceback (most recent call last):\n"
            "  File \"jobs.py\", line 3, in process\nKeyError: 'age'\n\nDuring handling\n\n"
            "Traceback (most recent call last):\n"
            '  File "jobs.py", line 9, in process\n'
            "RuntimeError: MemoryError: too much [while running 'Writing/ParDo']\n\n"
            "\tat org.apache.beam.runners.Fn.run(Fn.java:180)\n"
            "Caused by: java.lang.RuntimeException: it\n\tat org.apache.beam.Fn.run(Fn.java:1)\n",
            "MemoryError: too much.",
        ),
        (
            "Pipeline job-1 failed in state FAILED: java.util.concurrent.TimeoutException: The "
            "heartbeat of TaskManager with id 4 timed out.",
            "a worker or its machine was lost: RuntimeError: Pipeline job-1 failed in",
        ),
        (
            "Pipeline job-1 failed in state FAILED: org.apache.beam.vendor.grpc.v1p60p1.io.grpc."
            "StatusRuntimeException: CANCELLED: client cancelled",
            "a worker or its machine was lost: RuntimeError: Pipeline job-1 failed in",
        ),
        (
            "Pipeline job-1 failed in state FAILED: org.apache.flink.runtime.jobmanager.scheduler."
            "NoResourceAvailableException: Could not acquire the minimum required resources.",
            "no free slots in the cluster: RuntimeError: Pipeline job-1",
        ),
    ],
)
def test_causes_are_found_in_what_runners_say(text, cause):
    found = worker_errors.explained("Writing", RuntimeError(text))
    assert isinstance(found, StageError)
    assert cause in found.cause
    assert "\n" not in found.cause


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--direct_num_workers=many", "argument --direct_num_workers: invalid int value: 'many'"),
        ("--direct_num_workers=-2", "--direct_num_workers: expected at least 0, found -2"),
        ("--direct_running_mode=threads", "argument --direct_running_mode: invalid choice"),
    ],
)
def test_options_that_beam_cannot_read_are_one_line(option, message):
    with pytest.raises(UserError, match=message):
        check_options([option], [])


@pytest.mark.parametrize("runner", ["Nonsense", "my_package.Runner"])
def test_a_runner_that_cannot_start_is_one_line(tmp_path, runner):
    with pytest.raises(StageError) as failed:
        _run(tmp_path, UserError("never"), f"--runner={runner}")
    assert "\n" not in str(failed.value)


def test_a_runner_that_does_not_answer_is_named_at_once():
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    for options in (
        ["--runner=PortableRunner", f"--job_endpoint={address}"],
        ["--runner=FlinkRunner", f"--flink_master=http://{address}/"],
    ):
        with pytest.raises(UserError, match=r"expected a runner that answers .* Connection refus"):
            require_reachable(options)
    with pytest.raises(UserError, match="--job_endpoint: expected a runner that answers at HOST"):
        require_reachable(["--runner=PortableRunner", "--job_endpoint=nowhere"])
    require_reachable(["--runner=FlinkRunner"])
    require_reachable(["--runner=PortableRunner", "--job_endpoint=embed"])
    with socket.create_server(("localhost", 0)) as server:
        port = server.getsockname()[1]
        require_reachable(["--runner=PortableRunner", f"--job_endpoint=localhost:{port}"])
