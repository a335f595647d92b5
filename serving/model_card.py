"""The page that travels with an exported model: what it is, how it was measured, how to ask it."""

import importlib.metadata
from collections.abc import Mapping
from typing import Any

from models.runs import Run

_PACKAGES = ("tensorflow", "tf-keras", "numpy")


def write(run: Run, signatures: Mapping[str, Any]) -> str:
    """Markdown about a run and the signatures that it is exported with."""
    config, schema = run.config, run.data.schema
    lines = [
        f"# {config.model_name}, self-supervision: {config.ssl_name}",
        "",
        f"* Schema: `{schema.hash()}`",
        f"* Histories: the most recent {schema.history.max_length} events",
        *(f"* {name} {importlib.metadata.version(name)}" for name in _PACKAGES),
        "",
        "## Data",
        "",
        _table(
            ("split", "requests"),
            [(split, run.data.num_requests(split)) for split in run.data.manifest["splits"]],
        ),
        "",
        "## Metrics",
        "",
        _metrics(run.metrics),
    ]
    for name, function in signatures.items():
        described = [
            ("input", key, spec.dtype.name, _shape(spec))
            for key, spec in sorted(function.structured_input_signature[1].items())
        ]
        described += [
            ("output", key, spec.dtype.name, _shape(spec))
            for key, spec in sorted(function.structured_outputs.items())
        ]
        header = ("", "tensor", "type", "shape")
        lines += ["", f"## Signature `{name}`", "", _table(header, described)]
    return "\n".join(lines) + "\n"


def _metrics(metrics: Mapping[str, Mapping[str, float]]) -> str:
    names = sorted({name for split in metrics.values() for name in split})
    if not names:
        return "None were recorded."
    rows = [
        (split, *(f"{values[name]:.4f}" if name in values else "" for name in names))
        for split, values in metrics.items()
    ]
    return _table(("split", *names), rows)


def _shape(spec: Any) -> str:
    return f"[{', '.join('?' if size is None else str(size) for size in spec.shape)}]"


def _table(header: tuple[str, ...], rows: list[Any]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(map(str, cells))} |" for cells in lines)
