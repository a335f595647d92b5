"""The record of a calibration: the map, what it was fitted to, and what it does on two splits.

An export keeps the record in assets/calibration.json, and the run keeps that of its last calibrated
export in RUN/calibration.json, which its report reads.

Shapes: C candidates.
"""

import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from models.evaluation import dumped_scores
from models.evaluation.calibration import Calibration
from models.evaluation.dumped_scores import Origin
from models.evaluation.metrics import (
    BINS,
    Scores,
    calibration_error,
    defined,
    overall_auc,
    shown,
    sigmoid,
)
from models.ops.choices import CALIBRATIONS
from preprocessing.data_dir import write_json
from preprocessing.json_checks import check_keys, read_json

PLATT, ISOTONIC, PRIOR = METHODS = CALIBRATIONS
FILE = "calibration.json"
FITTED_ON = "validation"
SPLITS = (FITTED_ON, "test")
METRICS = {"auc": "AUC", "calibration_error": "calibration error", "bias_ratio": "bias ratio"}
"""What is measured before and after, with the names for people."""


class Measured(NamedTuple):
    """A split before and after the calibration.

    Attributes:
        candidates: Number of candidates with a weight.
        negative_weight: Number of candidates that a sampled negative stands for; 1 if none.
        before: `METRICS` of the model's own probabilities; None where undefined.
        after: The same of the calibrated ones.
    """

    candidates: int
    negative_weight: float
    before: dict[str, float | None]
    after: dict[str, float | None]


class Record(NamedTuple):
    """A calibration, and what it does.

    Attributes:
        method: One of `METHODS`.
        how: What was fitted to what, in one sentence for people.
        calibration: The map.
        splits: Measurements by split, of `SPLITS` those that have requests.
    """

    method: str
    how: str
    calibration: Calibration
    splits: dict[str, Measured]

    def to_json(self) -> dict[str, Any]:
        """The record as JSON."""
        return {
            "method": self.method,
            "how": self.how,
            "bins": BINS,
            "map": self.calibration.to_json(),
            "splits": {name: measured._asdict() for name, measured in self.splits.items()},
        }


class OfExport(NamedTuple):
    """The record of a run's last calibrated export, and its version."""

    record: Record
    version: int


def measure(scores: Scores, calibration: Calibration, negative_weight: float = 1.0) -> Measured:
    """Measures scores before and after a calibration.

    Args:
        scores: Scores of a split. If candidates have weights, all metrics but the AUC are weighted.
        calibration: The map.
        negative_weight: Number of candidates that a sampled negative stands for.
    """
    weight_C = candidate_weights(scores, negative_weight)
    counts_C = np.ones(len(scores.label), bool) if weight_C is None else weight_C > 0
    label_C, logit_C = (
        values_C[counts_C].astype(np.float64) for values_C in (scores.label, scores.logit)
    )
    weight_C = None if weight_C is None else weight_C[counts_C]
    before, after = (
        _metrics(label_C, logits_C, weight_C) for logits_C in (logit_C, calibration.logits(logit_C))
    )
    return Measured(len(label_C), negative_weight, before, after)


def candidate_weights(scores: Scores, negative_weight: float) -> np.ndarray | None:
    """What each candidate counts, [C]; None if all count alike.

    Args:
        scores: Scores of a split.
        negative_weight: Number of candidates that a sampled negative stands for.
    """
    if negative_weight != 1.0:
        return np.where(scores.label > 0, 1.0, negative_weight)
    return None if scores.weight is None else scores.weight.astype(np.float64)


def describe(record: Record) -> list[str]:
    """The record for people, one line each: the fit, and each split before and after."""
    lines = [f"Calibrated ({record.method}): {record.how}"]
    for split, (candidates, _, before, after) in record.splits.items():
        numbers = "; ".join(
            f"{title} {shown(before[name], '.4g')} before, {shown(after[name], '.4g')} after"
            for name, title in METRICS.items()
        )
        lines.append(f"{split}: {numbers} ({candidates:,} candidates, {BINS} bins of equal mass)")
    return lines


class Table(NamedTuple):
    """A record as a table.

    Attributes:
        columns: Titles of the columns.
        rows: A row of cells per split.
        notes: Sentences below it.
    """

    columns: list[str]
    rows: list[list[str]]
    notes: list[str]


def table(record: Record) -> Table:
    """The splits of a record, before and after."""
    columns = ["split", "candidates"]
    for title in METRICS.values():
        columns += [f"{title}, before", "after"]
    rows = [
        [split, f"{measured.candidates:,}", *_cells(measured)]
        for split, measured in record.splits.items()
    ]
    notes = [f"Calibration error: expected, {BINS} bins of equal mass."]
    if record.method == PRIOR:
        counts = ", ".join(
            f"{measured.negative_weight:,.6g} ({split})"
            for split, measured in record.splits.items()
        )
        notes.append(f"Each sampled negative counts as the items that it stands for: {counts}.")
    return Table(columns, rows, notes)


def _cells(measured: Measured) -> list[str]:
    return [
        shown(side[name], _form(side[name]))
        for name in METRICS
        for side in (measured.before, measured.after)
    ]


def _form(value: float | None) -> str:
    """Four decimals as everywhere, or three digits of what these do not show: rates of `prior`."""
    return ".4f" if value is None or abs(value) >= 0.001 or value == 0.0 else ".3g"


def write(run_dir: pathlib.Path, record: Record, version: int, origin: Origin) -> None:
    """Writes RUN/calibration.json.

    Args:
        run_dir: Run directory.
        record: Record of a calibrated export.
        version: Version of the export.
        origin: Weights and data set that were exported.
    """
    content = record.to_json() | {"version": version} | origin._asdict()
    write_json(run_dir / FILE, content)


def read(path: pathlib.Path) -> Record | None:
    """The record in assets/calibration.json or RUN/calibration.json; None if there is no file.

    Raises:
        UserError: The file holds no record.
    """
    return _parsed(_content(path), str(path)) if path.exists() else None


def read_current(run_dir: pathlib.Path) -> OfExport | None:
    """The record of the last calibrated export of a run's current weights and data; None if none.

    Raises:
        UserError: The file holds no record.
    """
    path = run_dir / FILE
    if not path.exists():
        return None
    content = _content(path)
    if not dumped_scores.is_current(
        run_dir, {name: content.get(name, "") for name in Origin._fields}
    ):
        return None
    return OfExport(_parsed(content, str(path)), int(content["version"]))


def _content(path: pathlib.Path) -> dict[str, Any]:
    return read_json(path, "the record of a calibration", "export the run again.")


def _parsed(content: Mapping[str, Any], where: str) -> Record:
    keys = {"method", "how", "bins", "map", "splits"}
    check_keys(content, keys | {"version", *Origin._fields}, keys, where)
    splits = {s: Measured(**content["splits"][s]) for s in SPLITS if s in content["splits"]}
    calibration = Calibration.from_json(content["map"], where)
    return Record(content["method"], content["how"], calibration, splits)


def _metrics(
    label_C: np.ndarray, logit_C: np.ndarray, weight_C: np.ndarray | None
) -> dict[str, float | None]:
    """`METRICS` of logits; None where undefined."""
    if not len(label_C):
        return dict.fromkeys(METRICS)
    probability_C = sigmoid(logit_C)
    with np.errstate(divide="ignore", invalid="ignore"):
        rates = [np.average(values, weights=weight_C) for values in (probability_C, label_C)]
        values = {
            "auc": overall_auc(label_C, logit_C),
            "calibration_error": calibration_error(label_C, probability_C, weight_C),
            "bias_ratio": rates[0] / rates[1],
        }
    return {name: defined(value) for name, value in values.items()}
