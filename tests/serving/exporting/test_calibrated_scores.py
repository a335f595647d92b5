"""A calibration in the graph: the order of logits, bounds, and the numbers of its twin."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.evaluation.calibration import Calibration
from models.keras import tf
from serving.exporting import calibrated_scores
from tests.reference import calibrations

LINE = Calibration((0.0,), (-0.3,), 0.4)
BENT = Calibration((-2.0, -0.5, 1.0), (-3.0, -2.5, 0.25), 0.8)
FLAT = Calibration((-1.0, -0.999, 4.0), (-1.0, -0.9, -0.89), 0.03)
SHIFT = Calibration((0.0,), (float(np.log(1e-5)),), 1.0)
MAPS = {"line": LINE, "bent": BENT, "flat": FLAT, "shift": SHIFT}
FUNCTIONS = {
    name: tf.function(
        lambda logits, calibration=calibration: calibrated_scores.probabilities(
            calibration, logits
        ),
        input_signature=[tf.TensorSpec(None, tf.float32)],
    )
    for name, calibration in MAPS.items()
}


def scores(name, logit):
    return FUNCTIONS[name](tf.constant(logit, tf.float32)).numpy()


@pytest.mark.parametrize("name", MAPS)
@given(st.lists(st.floats(width=32, allow_nan=False), min_size=1))
def test_increases_and_is_never_0_or_1(name, logit):
    found = scores(name, np.sort(np.array(logit, np.float32)))
    assert found.dtype == np.float32
    assert (np.diff(found) >= 0).all()
    assert ((found > 0) & (found < 1)).all()


@pytest.mark.parametrize("name", MAPS)
@pytest.mark.parametrize("start", [-20.0, -2.0, -1.0, -0.5, 0.5, 1.0, 3.9, 8.0])
def test_neighbours_in_float32_are_never_reversed(name, start):
    """As TensorFlow's sigmoid of float32 does with some of them."""
    first = np.float32(start).view(np.int32)
    logit = np.sort(np.arange(first - 50_000, first + 50_000, dtype=np.int32).view(np.float32))
    assert (np.diff(scores(name, logit)) >= 0).all()


@pytest.mark.parametrize("name", MAPS)
@given(st.floats(-200.0, 200.0, width=32))
def test_is_its_twin(name, logit):
    calibration = MAPS[name]
    expected = calibrations.probability(
        logit, calibration.logit_K, calibration.value_K, calibration.slope
    )
    assert scores(name, [logit])[0] == pytest.approx(expected, rel=1e-6)


def test_any_shape_and_no_candidate():
    logit = np.linspace(-3, 3, 12, dtype=np.float32)
    grid = scores("bent", logit.reshape(3, 4))
    np.testing.assert_array_equal(grid.ravel(), scores("bent", logit))
    assert scores("bent", np.zeros([2, 0])).shape == (2, 0)


def test_what_is_no_number_stays_so():
    assert np.isnan(scores("bent", [np.nan])).all()
