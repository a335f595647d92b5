"""Sections on the cost of a run, its configuration, and its reproduction."""

import json
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from models.config import run_config as config_module
from models.core import run_directory
from models.reporting.evidence import Evidence
from models.reporting.html_report import Grid, Section
from preprocessing import cli

_GIB, _MIB, _KIB = 1 << 30, 1 << 20, 1 << 10
_PARTS = {
    "tables": "embedding tables",
    "slots": "their optimiser",
    "dense": "other weights",
    "activations": "activations of a batch",
}


def cost(evidence: Evidence) -> Section | None:
    """Section of time and memory, as far as they were recorded; None if nothing was."""
    grids = [
        *_time(evidence.sessions),
        *_speed(evidence.history),
        *_memory(evidence.sessions),
    ]
    if not grids:
        return None
    paragraphs = []
    if evidence.kept is not None:
        paragraphs.append(
            f"The kept weights were reached after {_duration(evidence.kept['seconds'])} at step "
            f"{evidence.kept['step']:.0f} (epoch {evidence.kept['epoch']:.1f}); training ended "
            f"after {_duration(evidence.history['seconds'].iloc[-1])}, evaluations included."
        )
    return Section("Time and memory", grids, paragraphs=paragraphs)


def configuration(evidence: Evidence) -> Section:
    """Section of all settings with their origins; those that are not defaults come first."""
    values = config_module.flat(evidence.run.config.to_json())
    rows = [
        [key, json.dumps(value, ensure_ascii=False), evidence.origins.get(key, "")]
        for key, value in values.items()
    ]
    chosen = [row for row in rows if row[2] != "default"]
    columns = ("setting", "value", "from")
    return Section(
        "Configuration",
        [
            Grid("Chosen for this run", 3, columns, chosen),
            Grid(f"All {len(rows)} settings", 3, columns, rows, folded=True),
        ],
    )


def reproduction(evidence: Evidence) -> Section:
    """Section of commands, code, packages and machine."""
    run, sessions = evidence.run, evidence.sessions
    arguments = {
        name: value
        for name, value in run.data.manifest["arguments"].items()
        if value not in (None, [], "")
    }
    commands = [f"# This run was trained by\n{entry['command']}" for entry in sessions]
    commands += [
        "# The data set\n"
        + _command("pipeline.build_examples", arguments | {"output": "NEW_DATA"}),
        "# The training\n"
        + _command(
            "models.train",
            {"config": run.path / run_directory.CONFIG, "data": "NEW_DATA", "workdir": "NEW_RUN"},
        ),
    ]
    paragraphs = [
        "The data set comes out the same, byte for byte, if the log is the same; the training then "
        "has every setting of this run. On one machine with the same packages and "
        "train.deterministic=true all numbers repeat exactly; otherwise the order of additions "
        "varies."
    ]
    facts = [
        ("seed", str(run.config.train.seed)),
        ("data set", f"{run.data.fingerprint} (SHA-256 of manifest.json)"),
        ("schema", run.data.schema.hash()),
    ]
    if sessions:
        last = sessions[-1]
        facts += [("started", sessions[0]["started"]), ("code", _code(last["code"]))]
        facts += [(name, version) for name, version in last["versions"].items()]
        facts += _machine(last["machine"])
    grids = [Grid("", 2, ("what", "value"), [list(fact) for fact in facts])]
    taken_over = next((entry["warm_start"] for entry in sessions if "warm_start" in entry), None)
    filled = next((entry["pretrained"] for entry in sessions if "pretrained" in entry), None)
    if filled is not None:
        grids.append(Grid("Pretrained tables", 1, ("pretrained",), [[line] for line in filled]))
    if taken_over is not None:
        title = f"Weights to begin with, from {run.config.warm_start or run.config.continues}"
        grids.append(Grid(title, 1, ("taken over",), [[line] for line in taken_over]))
    return Section("Reproduce", grids, paragraphs=paragraphs, commands=commands)


def _time(sessions: Sequence[Mapping[str, Any]]) -> list[Grid]:
    """Table of the seconds of each phase, over all processes of the run."""
    seconds: dict[str, float] = {}
    for entry in sessions:
        for name, value in entry.get("seconds", {}).items():
            seconds[name] = seconds.get(name, 0.0) + value
    if not seconds:
        return []
    total = sum(seconds.values())
    rows = [[name, f"{value:,.1f}", f"{value / total:.0%}"] for name, value in seconds.items()]
    rows.append(["all", f"{total:,.1f}", ""])
    notes = ["Preparation: building the model, without the imports before it."]
    if len(sessions) > 1:
        notes.append(f"Over {len(sessions)} processes, each of which resumed the one before.")
    return [Grid("Time by phase", 1, ("phase", "seconds", "share"), rows, notes)]


def _speed(history: pd.DataFrame) -> list[Grid]:
    """Table of samples per second and input wait."""
    rows = []
    for column, name, form in (
        ("speed/samples_per_second", "samples (candidates) per second", ",.0f"),
        ("speed/input_wait", "share of the time that steps wait for input", ".1%"),
    ):
        if column in history and history[column].notna().any():
            values = history[column].quantile([0.5, 0.0, 1.0])
            rows.append([name, *(f"{value:{form}}" for value in values)])
    columns = ("speed of the training steps", "median", "least", "most")
    return [Grid("Speed", 1, columns, rows)] if rows else []


def _memory(sessions: Sequence[Mapping[str, Any]]) -> list[Grid]:
    """Table of the memory estimated before the first step and the peak memory."""
    measured = [
        entry for entry in sessions if "memory_peak" in entry and "memory_estimate" in entry
    ]
    if not measured:
        return []
    largest = max(measured, key=lambda entry: entry["memory_peak"])
    needed = largest["memory_estimate"]
    rows = [
        [f"estimate: {name}", _size(needed[part])] for part, name in _PARTS.items() if needed[part]
    ]
    bound = "" if needed["traced"] else " (upper bound)"
    rows += [
        [f"estimate: all{bound}", _size(needed["total"])],
        ["held before by Python and TensorFlow", _size(largest["memory_before"])],
        ["most held at once", _size(largest["memory_peak"])],
        ["of that, by training", _size(largest["memory_peak"] - largest["memory_before"])],
    ]
    note = (
        "The estimate is made before the first step, of training alone: not of a split that is "
        "held in memory, nor of what evaluation adds."
    )
    return [Grid("Main memory", 1, ("memory", "size"), rows, [note])]


def _code(code: Mapping[str, Any]) -> str:
    text = f"version {code['version']}"
    if "commit" in code:
        text += f", commit {code['commit']}"
        text += ", with uncommitted changes" if code["modified"] else ""
    return text


def _machine(machine: Mapping[str, Any]) -> list[tuple[str, str]]:
    rows = [
        ("system", machine["system"]),
        ("processor", f"{machine['processor']}, {machine['cores']} cores"),
        ("memory", _size(machine["memory"])),
    ]
    if machine["gpus"]:
        rows.append(("GPUs", ", ".join(machine["gpus"])))
    return rows + list(machine["environment"].items())


def _command(module: str, flags: Mapping[str, Any]) -> str:
    """A command line with one flag per line."""
    parts = [cli.as_started(f"python -m {module}")]
    for name, value in flags.items():
        text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
        parts.append(f"--{name}={shlex.quote(text)}")
    return " \\\n    ".join(parts)


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.1f} min"


def _size(count: float) -> str:
    if count < _MIB:
        return f"{count / _KIB:.0f} KiB"
    return f"{count / _GIB:.2f} GiB" if count >= _GIB else f"{count / _MIB:.1f} MiB"
