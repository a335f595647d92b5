"""The first twenty losses of every model are those of tests/golden, on both version lanes."""

import numpy as np
import pytest

from tests.helpers import golden_runs


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name == "din" else pytest.mark.slow)
        for name in golden_runs.NAMES
    ],
)
def test_losses_are_golden(name):
    found, golden = golden_runs.losses(name), golden_runs.read(name)
    assert found.keys() == golden.keys()
    for key in golden:
        assert len(golden[key]) == golden_runs.STEPS
        tolerance = golden_runs.TOLERANCES[key.removeprefix("ssl_")]
        np.testing.assert_allclose(found[key], golden[key], rtol=tolerance, atol=1e-6, err_msg=key)


def test_every_name_has_a_file():
    assert {path.stem for path in golden_runs.FILES.glob("*.json")} == set(golden_runs.NAMES)
