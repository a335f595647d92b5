"""The model card of an exported version: origin, metrics, calibration, signatures."""

from collections.abc import Mapping, Sequence
from typing import Any

from models.core import provenance
from models.core.run_directory import Run
from models.evaluation import calibration_record
from models.evaluation.calibration_record import Record
from models.evaluation.metrics import shown
from models.reporting import model_card


def write(
    run: Run,
    signatures: Mapping[str, Any],
    checks: Sequence[str] = (),
    record: Record | None = None,
) -> str:
    """The model card of an export, in Markdown.

    Args:
        run: Run that the model was trained in.
        signatures: Concrete functions of the exported signatures by name.
        checks: Results of the checks before publishing, one line each.
        record: The calibration; None if there is none.
    """
    config, schema = run.config, run.data.schema
    lines = [
        f"# {config.model_name}, self-supervision: {config.ssl_name}",
        "",
        f"* Schema: `{schema.hash()}`",
        f"* Data set: `{run.data.fingerprint}` (SHA-256 of its manifest.json)",
        f"* Histories: the most recent {schema.history.max_length} events",
        *(f"* {name} {version}" for name, version in provenance.versions().items()),
        "",
        *(f"* {name}: {text}" for name, text in model_card.description(run)),
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
    if record is not None:
        lines += ["", "## Calibration", "", f"{record.method}: {record.how}.", ""]
        table = calibration_record.table(record)
        lines += [_table(tuple(table.columns), table.rows), "", *table.notes]
    if checks:
        lines += ["", "## Checks before publishing", "", *(f"* {line}" for line in checks)]
    for name, function in signatures.items():
        rows = [
            ("input", tensor, spec.dtype.name, _shape(spec))
            for tensor, spec in sorted(function.structured_input_signature[1].items())
        ]
        rows += [
            ("output", tensor, spec.dtype.name, _shape(spec))
            for tensor, spec in sorted(function.structured_outputs.items())
        ]
        header = ("", "tensor", "type", "shape")
        lines += ["", f"## Signature `{name}`", "", _table(header, rows)]
    return "\n".join(lines) + "\n"


def _metrics(metrics: Mapping[str, Mapping[str, float | None]]) -> str:
    names = sorted({name for split in metrics.values() for name in split})
    if not names:
        return "None were recorded."
    rows = [
        (split, *(shown(values[name]) if name in values else "" for name in names))
        for split, values in metrics.items()
    ]
    return _table(("split", *names), rows)


def _shape(spec: Any) -> str:
    return f"[{', '.join('?' if size is None else str(size) for size in spec.shape)}]"


def _table(header: tuple[str, ...], rows: list[Any]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(map(str, cells))} |" for cells in lines)
