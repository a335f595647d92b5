"""A Flink cluster on this machine, with Beam's job server. Task managers start Python workers.

It restarts jobs by the rules that docs/running_on_clusters.md gives to any cluster. Workers can be
held in the middle of a piece of work, so that a test may kill them there.

Jars come from Maven and are kept in build/flink. All processes listen on the loopback address and
end with the block that started them, or with the test process however that ends.
"""

import contextlib
import dataclasses
import itertools
import json
import pathlib
import re
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence

import java_processes

TASK_MANAGERS = 2
WORKER_LOG = "workers.txt"
HOLD = "hold"
_PATIENCE = 100  # seconds, for each process
_HELD_PATIENCE = 300  # seconds, until a worker comes to the place where it is to be held
_JAVA_OPTIONS = [
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS",
    *("-Xmx512m", "-XX:MaxDirectMemorySize=512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"),
    # Flink 1.19 looks into private parts of Java 17.
    *(
        f"--add-opens=java.base/{package}=ALL-UNNAMED"
        for package in (
            *("java.io", "java.lang", "java.lang.reflect", "java.net", "java.nio", "java.text"),
            *("java.time", "java.util", "java.util.concurrent", "java.util.concurrent.atomic"),
            *("java.util.concurrent.locks", "sun.net.util"),
        )
    ),
]
# Flink's own classes that look for the class loader which loaded them.
_UPLOADED = (
    *("beam-runners-flink", "flink-clients", "flink-java", "flink-optimizer"),
    "flink-streaming-java",
)
_CONFIG = """\
jobmanager.rpc.address: 127.0.0.1
jobmanager.rpc.port: {rpc}
jobmanager.bind-host: 127.0.0.1
rest.address: 127.0.0.1
rest.bind-address: 127.0.0.1
rest.port: {rest}
taskmanager.host: 127.0.0.1
taskmanager.bind-host: 127.0.0.1
taskmanager.numberOfTaskSlots: 1
taskmanager.cpu.cores: 1.0
taskmanager.memory.framework.heap.size: 128m
taskmanager.memory.framework.off-heap.size: 64m
taskmanager.memory.task.heap.size: 256m
taskmanager.memory.task.off-heap.size: 64m
taskmanager.memory.network.min: 64m
taskmanager.memory.network.max: 64m
taskmanager.memory.managed.size: 64m
taskmanager.memory.jvm-metaspace.size: 256m
taskmanager.memory.jvm-overhead.min: 64m
taskmanager.memory.jvm-overhead.max: 64m
classloader.resolve-order: parent-first
pekko.startup-timeout: 60s
pekko.ask.timeout: 60s
heartbeat.interval: 5000
heartbeat.timeout: 120000
{restarts}io.tmp.dirs: {scratch}
"""
_DOCUMENTED = java_processes.ROOT / "docs" / "running_on_clusters.md"


@dataclasses.dataclass
class Cluster:
    """A cluster that runs.

    Attributes:
        flags: Flags of a Beam command that sends its pipelines there.
        scratch: Directory of its configuration, logs and temporary files.
        start_task_manager: Function that adds a task manager; the thread that calls it has to
            outlive the cluster.
        rest: Port of the job manager's REST interface.
    """

    flags: tuple[str, ...]
    scratch: pathlib.Path
    start_task_manager: Callable[[], None]
    rest: int

    def hold(self, point: str) -> None:
        """Lets one worker stop at a point of `flink_worker` from now on."""
        (self.scratch / HOLD).write_text(point, encoding="utf-8")

    def held(self) -> tuple[int, int]:
        """Waits for the worker; returns its process and that of its task manager."""
        deadline = time.monotonic() + _HELD_PATIENCE
        while True:
            for path in self.scratch.glob(f"{HOLD}-*-*"):
                worker, task_manager = map(int, path.name.split("-")[1:])
                return worker, task_manager
            if time.monotonic() > deadline:
                raise RuntimeError(f"no worker was held within {_HELD_PATIENCE} s")
            time.sleep(0.1)

    def release(self) -> None:
        """Lets the worker go on, if it lives, and holds no other one."""
        (self.scratch / HOLD).unlink()
        for path in self.scratch.glob(f"{HOLD}-*"):
            path.unlink()

    def cancel_jobs(self) -> None:
        """Ends all jobs for good, as Flink does after the last attempt."""
        for job in self._jobs():
            if job["state"] == "RUNNING":
                address = f"http://127.0.0.1:{self.rest}/jobs/{job['jid']}"
                cancel = urllib.request.Request(address, method="PATCH")
                urllib.request.urlopen(cancel, timeout=20).close()

    def last_state(self) -> str:
        """What has become of the last job that was sent."""
        return max(self._jobs(), key=lambda job: job["start-time"])["state"]

    def _jobs(self) -> list[dict]:
        address = f"http://127.0.0.1:{self.rest}/jobs/overview"
        with urllib.request.urlopen(address, timeout=20) as reply:
            return json.load(reply)["jobs"]


@contextlib.contextmanager
def running(scratch: pathlib.Path) -> Iterator[Cluster]:
    """Starts job manager, task managers and job server.

    Args:
        scratch: Directory for configuration, logs and temporary files.

    Yields:
        The cluster.
    """
    jars = java_processes.jars("flink")
    rpc, rest, job, artifacts, expansion = java_processes.free_ports(5)
    config = scratch / "conf"
    config.mkdir()
    (config / "flink-conf.yaml").write_text(
        _CONFIG.format(rpc=rpc, rest=rest, scratch=scratch, restarts=_restarts()), encoding="utf-8"
    )
    worker = scratch / "worker.sh"
    worker.write_text(
        f"#!/bin/sh\nexport WORKER_LOG='{scratch / WORKER_LOG}' HOLD='{scratch / HOLD}' "
        f"PYTHONPATH='{java_processes.ROOT}'\n"
        f"exec '{sys.executable}' '{pathlib.Path(__file__).with_name('flink_worker.py')}' \"$@\"\n",
        encoding="utf-8",
    )
    worker.chmod(0o755)
    flink = "org.apache.flink.runtime"
    job_manager = [f"{flink}.entrypoint.StandaloneSessionClusterEntrypoint", "--configDir", config]
    task_manager = [f"{flink}.taskexecutor.TaskManagerRunner", "--configDir", config]
    job_server = [
        "org.apache.beam.runners.flink.FlinkJobServerDriver",
        f"--flink-master=127.0.0.1:{rest}",
        "--job-host=127.0.0.1",
        f"--job-port={job}",
        f"--artifact-port={artifacts}",
        f"--expansion-port={expansion}",
        f"--artifacts-dir={scratch / 'artifacts'}",
    ]
    java = ["java", *_JAVA_OPTIONS, f"-Djava.io.tmpdir={scratch}"]
    in_cluster = [*java, "-cp", f"{jars}/*"]
    with contextlib.ExitStack() as stack:

        def start(name: str, command: Sequence[object], is_up: Callable[[], bool]) -> None:
            log = scratch / f"{name}.log"
            started = java_processes.process(list(map(str, command)), log, is_up, _PATIENCE)
            stack.enter_context(started)

        numbers = itertools.count()

        def start_task_manager() -> None:
            known = _task_managers(rest) or set()
            start(
                f"task-manager-{next(numbers)}",
                [*in_cluster, *task_manager],
                lambda: bool((_task_managers(rest) or set()) - known),
            )

        start("job-manager", [*in_cluster, *job_manager], lambda: _task_managers(rest) is not None)
        for _ in range(TASK_MANAGERS):
            start_task_manager()
        start(
            "job-server",
            [*java, *_job_server_path(jars), *job_server],
            lambda: java_processes.listens(job),
        )
        flags = (
            "--runner=FlinkRunner",
            f"--job_endpoint=127.0.0.1:{job}",
            "--environment_type=PROCESS",
            f"--environment_config={json.dumps({'command': str(worker)})}",
            f"--parallelism={TASK_MANAGERS}",
            "--experiments=disable_logging_submission_environment",
        )
        yield Cluster(flags, scratch, start_task_manager, rest)


def _restarts() -> str:
    """The lines of the documentation that let a cluster restart jobs."""
    lines = re.findall(r"^    (restart-strategy\..*\n)", _DOCUMENTED.read_text(), re.MULTILINE)
    assert lines
    return "".join(lines)


def _job_server_path(jars: pathlib.Path) -> list[str]:
    """The class path of the job server, as options of Java.

    The server uploads with every job all that is on its application class path: 150 MB, which takes
    some 20 s. The cluster has the same jars, so most are loaded another way.
    """
    uploaded, others = [], []
    for jar in sorted(jars.iterdir()):
        (uploaded if jar.name.startswith(_UPLOADED) else others).append(str(jar))
    return [f"-Xbootclasspath/a:{':'.join(others)}", "-cp", ":".join(uploaded)]


def _task_managers(port: int) -> set[str] | None:
    """Their names; None if the job manager does not answer."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/taskmanagers", timeout=5) as reply:
            return {manager["id"] for manager in json.load(reply)["taskmanagers"]}
    except (OSError, ValueError):
        return None
