"""A Python worker that a Flink task manager starts (Beam's PROCESS environment).

Beam has a program for this in its container images only. Arguments are those that Beam's runner
passes; the file that WORKER_LOG names gets a line per worker. If the file that HOLD names is there,
the first worker that comes to the point which the file names waits until it is gone.
"""

import argparse
import os
import pathlib
import time

import grpc
from apache_beam.portability.api import beam_provision_api_pb2, beam_provision_api_pb2_grpc
from apache_beam.runners.worker.sdk_worker import SdkHarness

from pipeline.job import runner, sink

READING = "reading"
"""A block of the log is read and dealt out, its range is not done."""

WRITING = "writing"
"""The temporary file of a shard is open."""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--id", required=True)
    parser.add_argument("--provision_endpoint", required=True)
    given, _ = parser.parse_known_args()
    with open(os.environ["WORKER_LOG"], "a", encoding="utf-8") as log:
        log.write(f"{os.getpid()}\n")
    _add_points()
    with grpc.insecure_channel(given.provision_endpoint) as channel:
        stub = beam_provision_api_pb2_grpc.ProvisionServiceStub(channel)
        reply = stub.GetProvisionInfo(
            beam_provision_api_pb2.GetProvisionInfoRequest(), metadata=[("worker_id", given.id)]
        )
    SdkHarness(reply.info.control_endpoint.url, worker_id=given.id).run()


def _add_points() -> None:
    """Puts the points into the job; its modules have to be imported after the first."""
    mark_done = runner.mark_done

    def held_mark_done(watch: pathlib.Path, piece: str) -> None:
        mark_done(watch, piece)
        if watch.name == "read":
            _hold(READING)

    runner.mark_done = held_mark_done
    binary_buffers = sink.binary_buffers

    def held_buffers(records):
        _hold(WRITING)
        return binary_buffers(records)

    sink.binary_buffers = held_buffers


def _hold(point: str) -> None:
    hold = pathlib.Path(os.environ["HOLD"])
    if not hold.exists() or hold.read_text(encoding="utf-8") != point:
        return
    try:
        hold.with_name(f"{hold.name}-taken").touch(exist_ok=False)
    except FileExistsError:
        return
    hold.with_name(f"{hold.name}-{os.getpid()}-{os.getppid()}").touch()
    while hold.exists():
        time.sleep(0.1)


if __name__ == "__main__":
    main()
