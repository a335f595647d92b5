"""Clusters of processes on loopback."""

import json
import os
import pathlib
import socket
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
SECONDS = 900  # Of a busy machine; seconds of an idle one.


def addresses(**counts):
    """A TF_CONFIG cluster on free ports: as many processes of each kind as asked for."""
    taken = [socket.create_server(("127.0.0.1", 0)) for _ in range(sum(counts.values()))]
    ports = iter([one.getsockname()[1] for one in taken])
    for one in taken:
        one.close()
    return {
        kind: [f"127.0.0.1:{next(ports)}" for _ in range(count)] for kind, count in counts.items()
    }


def start(logs, cluster, kind, index, *flags, module="models.train"):
    """Starts a module as one of the processes of a cluster; returns it and its output."""
    task = {"cluster": cluster, "task": {"type": kind, "index": index}}
    path = logs / f"{cluster[kind][index]}.log"  # A pipe that nobody reads would stop it.
    with path.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", module, *map(str, flags)],
            cwd=ROOT,
            env=os.environ | {"TF_CONFIG": json.dumps(task)},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    return process, path


def train(tmp_path, workers, *flags, module, name="run"):
    """Trains on synchronous workers; returns exit codes, outputs and their records.

    Args:
        tmp_path: Where the run directory is made, and a JSON file by each worker.
        workers: Number of workers.
        flags: Flags of `models.train`, after arguments of the module's own.
        module: Module that takes the path of its record first, and then those.
        name: Name of the run directory.
    """
    cluster = addresses(worker=workers)
    records = [tmp_path / f"{name}-{workers}-{index}.json" for index in range(workers)]
    common = (
        f"--workdir={tmp_path / name}",
        "--distribute=multi_worker",
        f"--set=train.peer_timeout={SECONDS}",
    )
    codes, outputs = end(
        *(
            start(tmp_path, cluster, "worker", index, record, *flags, *common, module=module)
            for index, record in enumerate(records)
        )
    )
    return codes, outputs, [json.loads(path.read_text()) for path in records if path.exists()]


def end(*started):
    """Waits for processes; returns their exit codes and what they wrote."""
    try:
        codes = [process.wait(timeout=SECONDS) for process, _ in started]
    finally:
        for process, _ in started:
            process.kill()
    return codes, [path.read_text() for _, path in started]
