"""The section of a calibrated export in a report, and its table."""

import types

import numpy as np
import pytest

from models.evaluation import calibration_fits, calibration_record
from models.evaluation.calibration import Calibration
from models.evaluation.calibration_record import OfExport, Record
from models.evaluation.metrics import Scores, reliability, sigmoid
from models.reporting import calibration_figures


@pytest.fixture(scope="module")
def scores():
    """Overconfident scores."""
    rng = np.random.default_rng(0)
    true = rng.normal(size=5000)
    label = (rng.random(5000) < sigmoid(true)).astype(np.float32)
    return Scores(*[np.zeros(5000)] * 2, label, (3.0 * true).astype(np.float32), label, {})


def evidence(scores, method="platt", calibration=None, negative_weight=1.0):
    ones = np.ones(len(scores.label))
    calibration = calibration or calibration_fits.platt(scores.logit, scores.label, ones)
    measured = calibration_record.measure(scores, calibration, negative_weight)
    record = Record(method, "a line", calibration, {"test": measured})
    return types.SimpleNamespace(calibration=OfExport(record, 7), scores=scores, split="test")


def test_says_how_far_off_scores_were_and_are(scores):
    shown = evidence(scores)
    section = calibration_figures.section(shown)
    assert section.paragraphs[0].startswith(
        "Version 7 was exported with --calibrate=platt: a line."
    )
    (grid,), (figure,) = section.grids, section.figures
    measured = shown.calibration.record.splits["test"]
    cells = dict(zip(grid.columns[2:], grid.rows[0][2:], strict=False))
    assert cells["calibration error, before"] == f"{measured.before['calibration_error']:.4g}"
    calibrated = shown.calibration.record.calibration.probabilities(scores.logit)
    before = reliability(scores.label, sigmoid(scores.logit.astype(float)))
    after = reliability(scores.label, calibrated)
    for name, (predicted, observed, _) in (("Before", before), ("After", after)):
        gap = np.abs(predicted - observed).argmax()
        assert f"{name}, the largest gap is at {predicted[gap]:.4g}" in figure.text
    assert np.abs(before[0] - before[1]).max() > 0.1 > 0.05 > np.abs(after[0] - after[1]).max()
    assert "var(--blue, #" in figure.svg
    assert "var(--orange, #" in figure.svg


def test_prior_counts_negatives_as_those_that_they_stand_for(scores):
    shift = Calibration((0.0,), (-5.0,), 1.0)
    shown = evidence(scores, "prior", shift, negative_weight=150.0)
    section = calibration_figures.section(shown)
    assert section.grids[0].notes[-1] == (
        "Each sampled negative counts as the items that it stands for: 150 (test)."
    )
    assert "Before, the largest gap" in section.figures[0].text


def test_without_a_calibrated_export_or_scores_there_is_less(scores):
    shown = evidence(scores)
    shown.scores = None
    assert not calibration_figures.section(shown).figures
    shown.calibration = None
    assert calibration_figures.section(shown) is None
