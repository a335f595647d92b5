"""Synchronous workers that evaluate together: each scores its share, metrics are those of one."""

import numpy as np
import pandas as pd
import pytest

from models.core import run_directory
from models.evaluation import dumped_scores, scoring
from tests.helpers import built_logs
from tests.helpers.clusters import train

pytestmark = pytest.mark.slow

WORKER = "tests.helpers.scoring_worker"
SETTINGS = (
    "train.batch_size=65",
    "train.max_steps=4",
    "train.pretrain_epochs=1",
    "model.embedding_size=8",
)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """300 requests of validation and as many of test."""
    return built_logs.of_300_users(tmp_path_factory.mktemp("data"), num_shards=8)


def _train(tmp_path, workers, batch_size, *flags, name="run"):
    """Trains on workers that score batches of so many requests, see `clusters.train`."""
    return train(tmp_path, workers, batch_size, *flags, module=WORKER, name=name)


def _flags(data, *settings):
    return (
        f"--data={data.path}",
        "--model=din",
        "--ssl=miss",
        *(f"--set={setting}" for setting in (*SETTINGS, *settings)),
    )


def _require_those_of_one_process(run, batch_size, monkeypatch):
    """Asserts that one process finds the same metrics and writes the same files of scores."""
    monkeypatch.setattr(scoring, "BATCH_SIZE", batch_size)
    shared = run_directory.read_metrics(run)
    for split in ("validation", "test"):
        written = dumped_scores.path(run, split).read_bytes()
        assert scoring.evaluate(run, split, progress=False) == shared[split]
        assert dumped_scores.path(run, split).read_bytes() == written
    history = pd.read_csv(run / run_directory.HISTORY)
    for name in ("auc", "gauc", "log_loss"):
        assert history[f"validation/{name}"].iloc[-1] == shared["validation"][name]


@pytest.mark.parametrize(
    ("workers", "sharding"), [(2, "files"), pytest.param(4, "batches", id="4-batches")]
)
def test_workers_share_evaluations(data, tmp_path, monkeypatch, workers, sharding):
    """Half, and a quarter, of the requests each."""
    flags = _flags(data, f"train.sharding={sharding}")
    codes, outputs, scored = _train(tmp_path, workers, 5, *flags)
    assert codes == [0] * workers, [output[-3000:] for output in outputs]
    # Validation after the last step and with the best weights, and test.
    assert [sum(sizes) for sizes in scored] == [3 * 300 // workers] * workers
    assert not (tmp_path / "run" / run_directory.SCORING).exists()
    _require_those_of_one_process(tmp_path / "run", 5, monkeypatch)

    # A day that goes on scores the whole new data set first.
    codes, outputs, scored = _train(
        tmp_path,
        workers,
        5,
        f"--data={data.path}",
        f"--continue={tmp_path / 'run'}",
        "--max_steps=1",
        name="next",
    )
    assert codes == [0] * workers, [output[-3000:] for output in outputs]
    everything = sum(data.num_requests(split) for split in ("train", "validation", "test"))
    per_worker = [sum(sizes) for sizes in scored]
    assert sum(per_worker) > everything
    assert max(per_worker) - min(per_worker) <= 5 * 5  # One batch of each split that was scored.
    days = pd.read_csv(tmp_path / "next" / run_directory.DAYS)
    assert days["requests"].item() == everything
    assert np.isfinite(days["auc"].item())


def test_fewer_batches_than_workers(data, tmp_path, monkeypatch):
    codes, outputs, scored = _train(tmp_path, 2, 512, *_flags(data))
    assert codes == [0, 0], [output[-3000:] for output in outputs]
    assert [sum(sizes) for sizes in scored] == [900, 0]
    _require_those_of_one_process(tmp_path / "run", 512, monkeypatch)
