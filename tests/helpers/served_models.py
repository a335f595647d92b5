"""Checks of models that are exported and served."""

from serving import parity


def require_parity(run, version, split="test"):
    """Asserts that all ways to a score agree within 1e-6."""
    result = parity.parity(run, version, split=split)
    assert result["ok"], parity.describe(result)
    assert max(result["max_difference"].values()) <= 1e-6
