"""Builds of generated logs, each measured once: results are kept, and what was begun goes on."""

import json
import pathlib
import shutil
import subprocess
import sys
from collections.abc import Mapping
from typing import Any, NamedTuple

from preprocessing.schema_inference import infer_schema

from . import generated


class Run(NamedTuple):
    """A measured build.

    Attributes:
        events: Events of its log.
        protocol: How events were split into requests.
        num_partitions: Partitions of users.
        log_bytes: Size of the log.
        requests: Requests of all splits.
        shard_bytes: Size of all shards.
        stages: What `measured_build` noted, added up by stage.
    """

    events: int
    protocol: str
    num_partitions: int
    log_bytes: int
    requests: int
    shard_bytes: int
    stages: Mapping[str, Mapping[str, float]]

    @property
    def peak_bytes(self) -> float:
        """Highest memory of the process."""
        return max(stage["peak_bytes"] for stage in self.stages.values())

    @property
    def cpu_seconds(self) -> float:
        """Processor time of all stages."""
        return self.total("cpu_seconds")

    def total(self, name: str) -> float:
        """A number that stages noted, added up."""
        return sum(stage.get(name, 0) for stage in self.stages.values())


def run(
    workdir: pathlib.Path, events: int, protocol: str, num_partitions: int | None = None
) -> Run:
    """Generates a log, builds a data set of it, and measures that, unless it was done before.

    Args:
        workdir: Directory of logs and results; the data set is removed, the log is kept.
        events: Events of the log.
        protocol: How events are split into requests.
        num_partitions: Partitions of users, None for as many as the build chooses.
    """
    name = f"{events}-{protocol}-{num_partitions or 'auto'}"
    result = workdir / f"{name}.json"
    if not result.exists():
        log = workdir / f"log-{events}"
        generated.write(log, events)
        output, notes = workdir / f"data-{name}", workdir / f"{name}.notes.jsonl"
        _build(workdir, name, output, notes, input=str(log / "*.csv"), protocol=protocol,
               num_partitions=num_partitions)  # fmt: skip
        result.write_text(json.dumps(_measured(log, output, notes)))
        shutil.rmtree(output)
    measured = json.loads(result.read_text())
    num_tails = measured.pop("num_tails")
    return Run(events, protocol, num_partitions or num_tails, **measured)


def _build(
    workdir: pathlib.Path, name: str, output: pathlib.Path, notes: pathlib.Path, **arguments: Any
) -> None:
    schema = workdir / "schema.json"
    infer_schema(["user_id", "item_id", "category_id", "timestamp"]).save(schema)
    given = workdir / f"{name}.arguments.json"
    given.write_text(json.dumps({"output": str(output), "schema": str(schema), **arguments}))
    program = [sys.executable, "-m", "tests.scale.measured_build", str(given), str(notes)]
    subprocess.run(program, check=True)


def _measured(log: pathlib.Path, output: pathlib.Path, notes: pathlib.Path) -> dict[str, Any]:
    stages: dict[str, dict[str, float]] = {}
    for line in notes.read_text().splitlines():
        note = json.loads(line)
        stage = stages.setdefault(note.pop("stage"), {"peak_bytes": 0})
        peak = max(stage["peak_bytes"], note.pop("peak_bytes"))
        for key, number in note.items():
            stage[key] = stage.get(key, 0) + number
        stage["peak_bytes"] = peak
    manifest = json.loads((output / "manifest.json").read_text())
    shards = [shard for split in manifest["splits"].values() for shard in split["shards"]]
    return {
        "num_tails": manifest["tails"]["num_files"],
        "log_bytes": sum(path.stat().st_size for path in log.glob("*.csv")),
        "requests": sum(shard["requests"] for shard in shards),
        "shard_bytes": sum(shard["bytes"] for shard in shards),
        "stages": stages,
    }
