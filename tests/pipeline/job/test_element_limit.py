"""No element of a pipeline grows with the log: builds with a small limit give the same bytes."""

import numpy as np
import pytest

from pipeline.arguments import BuildArguments
from pipeline.build_examples import build_examples
from pipeline.requests import time_bins
from tests.helpers.inline_runner import LargeElementError, inline
from tests.helpers.small_logs import write_log

MOST_BYTES = 1 << 16
EVENTS = 12_000


def _log(path, seed=0):
    """As many distinct times as events, far apart and close together."""
    rng = np.random.default_rng(seed)
    times = np.where(np.arange(EVENTS) % 2, 10**9, 1) + np.arange(EVENTS) * 7
    times[0] = -(10**15)
    return write_log(
        path,
        {
            "user_id": [f"u{n}" for n in rng.integers(0, 50, EVENTS)],
            "item_id": [f"i{n}" for n in rng.integers(0, 300, EVENTS)],
            "timestamp": rng.permutation(times).tolist(),
        },
    )


def _build(tmp_path, output, most_bytes, **arguments):
    path = _log(tmp_path / "log.parquet")
    with inline(0, most_bytes):
        return build_examples(
            BuildArguments(input=path, output=str(tmp_path / output), num_shards=2, **arguments)
        )


def _content(data):
    return {
        str(path.relative_to(data.path)): path.read_bytes()
        for path in data.path.rglob("*")
        if path.is_file() and path.suffix not in (".html", ".md")
    }


@pytest.mark.parametrize("arguments", [{"protocol": "time_split"}, {"protocol": "day"}])
def test_times_pass_a_small_limit(tmp_path, monkeypatch, arguments):
    arguments = {"num_partitions": 3, **arguments}
    whole = _build(tmp_path, "whole", None, **arguments)
    with pytest.raises(LargeElementError):
        _build(tmp_path, "refused", MOST_BYTES, **arguments)
    monkeypatch.setattr(time_bins, "MAX_BINS", 1000)
    assert _content(_build(tmp_path, "small", MOST_BYTES, **arguments)) == _content(whole)
