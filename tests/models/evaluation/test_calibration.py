"""The map of a calibration: increasing, bounded, and the same as its twin."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.evaluation.calibration import HIGHEST, LOWEST, Calibration
from preprocessing.errors import UserError
from tests.reference import calibrations

BENT = Calibration((-2.0, -0.5, 1.0), (-3.0, -2.5, 0.25), 0.8)
FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False)


def rising(numbers):
    return tuple(float(number) for number in np.cumsum(numbers))


@st.composite
def maps(draw):
    steps = st.floats(0.01, 10.0)
    count = draw(st.integers(1, 5))
    start = draw(st.floats(-20.0, 20.0))
    logits, values = (
        rising([start, *draw(st.lists(steps, min_size=count - 1, max_size=count - 1))])
        for _ in range(2)
    )
    return Calibration(logits, values, draw(st.floats(0.01, 10.0)))


@given(maps(), st.lists(st.floats(width=32, allow_nan=False), min_size=1))
def test_increases_and_never_reaches_0_or_1(calibration, logit):
    logit = np.sort(np.array(logit, np.float32))
    value = calibration.logits(logit)
    probability = calibration.probabilities(logit).astype(np.float32)
    assert np.isfinite(value).all()
    assert (np.diff(value) >= 0).all()
    assert (np.diff(probability) >= 0).all()
    assert ((probability > 0) & (probability < 1)).all()


@given(maps(), st.floats(-30.0, 30.0), st.floats(1e-6, 1.0))
def test_logits_apart_stay_apart(calibration, logit, step):
    low, high = calibration.logits(np.array([logit, logit + step]))
    assert low < high or high == LOWEST or low == HIGHEST


@given(maps(), FINITE)
def test_is_its_twin(calibration, logit):
    expected = calibrations.probability(
        logit, calibration.logit_K, calibration.value_K, calibration.slope
    )
    assert calibration.probabilities(np.float32(logit)) == pytest.approx(expected, rel=1e-9)


def test_known_values():
    found = BENT.logits(np.array([-3.0, -2.0, -1.25, -0.5, 0.25, 1.0, 2.0]))
    np.testing.assert_allclose(found, [-3.8, -3.0, -2.75, -2.5, -1.125, 0.25, 1.05])


def test_what_is_no_number_stays_so():
    assert np.isnan(BENT.logits(np.array([np.nan]))).all()


def test_json_keeps_the_map():
    assert Calibration.from_json(BENT.to_json(), "a file") == BENT


@pytest.mark.parametrize(
    "change",
    [
        {"slope": 0.0},
        {"slope": None},
        {"logits": [0.0, 0.0, 1.0]},
        {"calibrated": [0.0, 1.0]},
        {"calibrated": [2.0, 1.0, 3.0]},
        {"calibrated": [0.0, 1.0, float("nan")]},
        {"logits": [], "calibrated": []},
    ],
)
def test_another_map_is_refused(change):
    with pytest.raises(UserError, match="Expected an increasing map of logits in a file"):
        Calibration.from_json(BENT.to_json() | change, "a file")
