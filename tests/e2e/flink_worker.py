"""A Python worker that a Flink task manager starts (Beam's PROCESS environment).

Beam has a program for this in its container images only. Arguments are those that Beam's runner
passes; the file that WORKER_LOG names gets a line per worker.
"""

import argparse
import os

import grpc
from apache_beam.portability.api import beam_provision_api_pb2, beam_provision_api_pb2_grpc
from apache_beam.runners.worker.sdk_worker import SdkHarness


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--id", required=True)
    parser.add_argument("--provision_endpoint", required=True)
    given, _ = parser.parse_known_args()
    with open(os.environ["WORKER_LOG"], "a", encoding="utf-8") as log:
        log.write(f"{os.getpid()}\n")
    with grpc.insecure_channel(given.provision_endpoint) as channel:
        stub = beam_provision_api_pb2_grpc.ProvisionServiceStub(channel)
        reply = stub.GetProvisionInfo(
            beam_provision_api_pb2.GetProvisionInfoRequest(), metadata=[("worker_id", given.id)]
        )
    SdkHarness(reply.info.control_endpoint.url, worker_id=given.id).run()


if __name__ == "__main__":
    main()
