"""Steps of a build that are finished, so that `--resume` goes on with the one that was cut off.

WORK/build.json says which build WORK belongs to; WORK/finished/<step>.json marks a finished step
and holds what the driver has to know of it. All else that a step gives to later ones lies in files
of WORK and of the output. A step that was cut off is done again from its start: it writes the same
files once more.
"""

import hashlib
import json
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pipeline
import preprocessing
from pipeline.arguments import DEFAULT_SHARDS, BuildArguments
from pipeline.job.output import OtherBuildError
from pipeline.log.input_files import list_inputs
from pipeline.log.raw_batch import InputFile
from pipeline.requests.events import Plan
from preprocessing import data_dir
from preprocessing.data_dir import DataDir
from preprocessing.json_checks import read_json
from preprocessing.storage import files
from preprocessing.storage.files import AnyPath

BUILD = "build.json"
"""Name of the file in WORK that says which build it belongs to."""


class FinishedSteps:
    """Steps of one build, each of which is done once.

    Args:
        work: Directory of the intermediate files of the build.
    """

    def __init__(self, work: AnyPath) -> None:
        self._work = work
        self._build = work / BUILD

    def is_begun(self) -> bool:
        """Whether a build was begun that did not come to its end."""
        return self._build.exists()

    def begin(self, plan: Plan, log: list[InputFile]) -> None:
        """Notes in an empty work directory which build it belongs to."""
        self._work.mkdir(parents=True, exist_ok=True)
        data_dir.write_json(self._build, _identity(plan, log))

    def require_same(self, plan: Plan, log: list[InputFile]) -> None:
        """Raises `OtherBuildError` unless the unfinished build was that of this plan and log."""
        begun = read_json(self._build, "an unfinished build", "build without --resume.")
        changed = [
            f"{name} was {begun.get(name)!r}, is {value!r}"
            for name, value in _identity(plan, log).items()
            if begun.get(name) != value
        ]
        if changed:
            raise OtherBuildError(self._work, "; ".join(changed))

    def once(self, step: str, work: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
        """Does a step unless it is finished.

        Args:
            step: Name of the step; each name is used once in a build.
            work: Function that does the step and returns what the driver has to know of it.

        Returns:
            What `work` returned, now or in the process that finished the step.
        """
        marker = self._work / "finished" / f"{step}.json"
        if marker.exists():
            return dict(read_json(marker, "a finished step", "build without --resume."))
        result = dict(work())
        data_dir.write_json(marker, result)
        return result


def is_complete(plan: Plan, log: list[InputFile]) -> bool:
    """Whether the output is the complete data set of this plan and log already."""
    output = plan.arguments.output_path
    if not (output / data_dir.COMPLETED).exists():
        return False
    manifest = DataDir.open(output, verify=False).manifest
    completed = (output / data_dir.COMPLETED).stat().st_mtime_ns
    return (
        manifest["arguments"] == _as_built(plan.arguments, manifest["arguments"])
        and manifest.get("base", {}).get("sha256") == _fingerprint(plan)
        and manifest["schema_hash"] == plan.schema.hash()
        and _same_inputs(manifest["inputs"], log)
        and all(
            _modified(file) <= completed for file in _inputs(plan, log) if file.messages is None
        )
    )


def _as_built(arguments: BuildArguments, built: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments as the manifest of a complete data set has them."""
    stored = _as_stored(arguments.to_json())
    if arguments.num_shards is None and built["num_shards"] >= DEFAULT_SHARDS:
        stored["num_shards"] = built["num_shards"]  # which a build chooses by size
    return stored


def _same_inputs(accounts: Sequence[Mapping[str, Any]], log: list[InputFile]) -> bool:
    """Whether accounts of a manifest are those of the files of a log, as far as they tell."""
    return len(accounts) == len(log) and all(
        file.identity.items() <= account.items()
        for account, file in zip(accounts, log, strict=True)
    )


def _identity(plan: Plan, log: list[InputFile]) -> dict[str, Any]:
    """All that the intermediate files of a build depend on."""
    facts = {
        **plan.arguments.to_json(),
        "schema.json": plan.schema.hash(),
        "log": {file.path: _state(file) for file in _inputs(plan, log)},
        "num_partitions": plan.num_partitions,
        "base's manifest": _fingerprint(plan),
        "program": _program(),
    }
    return _as_stored(facts)


def _fingerprint(plan: Plan) -> str | None:
    """SHA-256 of the manifest of the base, None without one."""
    return None if plan.base is None else plan.base.fingerprint


def _as_stored(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The facts as they are read from a file: JSON turns tuples into lists."""
    return dict(json.loads(json.dumps(facts)))


def _inputs(plan: Plan, log: list[InputFile]) -> list[InputFile]:
    """The files of the log, and those that describe its items."""
    metadata = plan.arguments.metadata
    return log if metadata is None else [*log, *list_inputs(metadata, "--metadata")]


def _state(file: InputFile) -> list[Any]:
    """What tells whether a file of the log is still the same, or which messages are read."""
    if file.messages is None:
        return [file.size, _modified(file)]
    return [file.messages.begin, file.messages.end, file.messages.topic.id]


def _modified(file: InputFile) -> int:
    """Time when a file of the log was last written, in nanoseconds."""
    return files.path(file.path).stat().st_mtime_ns


def _program() -> str:
    """SHA-256 of the source files that write the intermediate files."""
    digest = hashlib.sha256()
    for package in (pipeline, preprocessing):
        for file in sorted(pathlib.Path(package.__path__[0]).rglob("*.py")):
            digest.update(file.read_bytes())
    return digest.hexdigest()
