"""The record of a calibration: its numbers, its files, its lines and table."""

import json

import numpy as np
import pytest

from models.core import run_directory
from models.evaluation import calibration_record, dumped_scores
from models.evaluation.calibration import Calibration
from models.evaluation.calibration_record import Measured, Record
from models.evaluation.metrics import Scores, sigmoid
from preprocessing.errors import UserError

BEFORE = {"auc": 0.75, "calibration_error": 0.125, "bias_ratio": 1.5}
AFTER = {"auc": 0.75, "calibration_error": 0.01, "bias_ratio": None}
RECORD = Record(
    "prior",
    "a shift",
    Calibration((0.0,), (-2.0,), 1.0),
    {
        "validation": Measured(2000, 12.5, BEFORE, AFTER),
        "test": Measured(30, 14.0, BEFORE, BEFORE),
    },
)


def scores_of(label, logit, weight=None):
    nothing = np.zeros(len(label))
    return Scores(nothing, nothing, np.array(label), np.array(logit), nothing, {}, weight)


def test_measures_by_brute_force_with_negatives_that_stand_for_many():
    label = np.array([1.0, 0.0, 0.0])
    logit = np.array([0.0, -1.0, 1.0])
    shift = Calibration((0.0,), (-1.0,), 1.0)
    measured = calibration_record.measure(scores_of(label, logit), shift, negative_weight=4.0)
    expected = (sigmoid(logit - 1.0) @ [1.0, 4.0, 4.0]) / 1.0
    assert measured.after["bias_ratio"] == pytest.approx(expected)
    assert measured.before["auc"] == measured.after["auc"] == 0.5


def test_what_cannot_be_measured_is_none():
    shift = Calibration((0.0,), (-1.0,), 1.0)
    negatives = calibration_record.measure(scores_of([0.0, 0.0], [1.0, 2.0]), shift)
    assert negatives.after["auc"] is negatives.after["bias_ratio"] is None
    assert negatives.after["calibration_error"] > 0
    weightless = scores_of([0.0, 1.0], [1.0, 2.0], np.zeros(2))
    assert set(calibration_record.measure(weightless, shift).before.values()) == {None}


def test_a_run_keeps_the_record_as_long_as_its_weights_and_data(tmp_path):
    assert calibration_record.read_current(tmp_path) is None
    (tmp_path / run_directory.FINGERPRINT).write_text("a build")
    calibration_record.write(tmp_path, RECORD, 3, dumped_scores.origin(tmp_path))
    assert calibration_record.read_current(tmp_path) == (RECORD, 3)
    (tmp_path / run_directory.FINGERPRINT).write_text("another build")
    assert calibration_record.read_current(tmp_path) is None


def test_file_of_an_export(tmp_path):
    file = tmp_path / calibration_record.FILE
    assert calibration_record.read(file) is None
    file.write_text(json.dumps(RECORD.to_json(), sort_keys=True))
    found = calibration_record.read(file)
    assert found == RECORD
    assert list(found.splits) == ["validation", "test"]
    content = RECORD.to_json()
    del content["how"]
    file.write_text(json.dumps(content))
    with pytest.raises(UserError, match="calibration.json: expected the key 'how'"):
        calibration_record.read(file)


def test_lines_for_people():
    assert calibration_record.describe(RECORD)[:2] == [
        "Calibrated (prior): a shift",
        "validation: AUC 0.75 before, 0.75 after; calibration error 0.125 before, 0.01 after; "
        "bias ratio 1.5 before, n/a after (2,000 candidates, 10 bins of equal mass)",
    ]


def test_table_for_people():
    columns, rows, notes = calibration_record.table(RECORD)
    assert len(columns) == len(rows[0]) == 8
    assert rows[0] == [
        *("validation", "2,000", "0.7500", "0.7500", "0.1250", "0.0100", "1.5000", "n/a"),
    ]
    assert notes[-1].endswith("that it stands for: 12.5 (validation), 14 (test).")
    assert len(calibration_record.table(RECORD._replace(method="platt")).notes) == 1
