"""Trainings of several processes on loopback: workers in step, and parameter servers."""

import json
import re
import time

import numpy as np
import pandas as pd
import pytest

from models import train
from models.config import run_config
from models.core import run_directory
from models.evaluation import scoring
from models.keras import tf
from serving import export as exporting
from tests.helpers import built_logs
from tests.helpers.clusters import SECONDS, addresses, end, start

pytestmark = pytest.mark.slow

SETTINGS = (
    "train.batch_size=65",
    # At .002 and .003 a process whose weights begin 1e-7 larger is 4e-4 from itself in step 60.
    "train.learning_rate=0.001",
    "train.ssl_learning_rate=0.001",
    "train.ssl_steps=1",  # so that a checkpoint has twice the number of its step
    "model.embedding_size=16",
    "train.histograms=true",
)
SCHEMA = {
    "features": [
        # Large enough for a part on each of two servers.
        {
            "name": "user_id",
            "role": "user",
            "dtype": "string",
            "encoder": {"kind": "hash", "buckets": 20_000},
        },
        {
            "name": "item_id",
            "role": "item",
            "dtype": "string",
            "encoder": {"kind": "vocabulary"},
        },
        {"name": "timestamp", "role": "timestamp", "dtype": "int64"},
    ],
    "history": {"max_length": 20, "features": ["item_id"]},
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """One shard: the number of shards does not matter to the number of workers."""
    path = tmp_path_factory.mktemp("data")
    (path / "schema.json").write_text(json.dumps(SCHEMA))
    return built_logs.of_300_users(path, schema=str(path / "schema.json"), num_shards=1)


def _flags(data, workdir, strategy, *settings):
    return (
        f"--data={data.path}",
        f"--workdir={workdir}",
        "--model=din",
        "--ssl=miss",
        f"--distribute={strategy}",
        f"--set=train.peer_timeout={SECONDS}",
        *(f"--set={setting}" for setting in (*SETTINGS, *settings)),
    )


def _wait_for(path, process, log):
    deadline = time.monotonic() + SECONDS
    while not path.exists():
        assert process.poll() is None, log.read_text()[-3000:]
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_workers_train_as_one_process_does_even_if_one_dies(data, tmp_path):
    """A worker is killed after the first checkpoint; resumed, the run ends as if nothing was."""
    alone = {"model": {"name": "din"}, "ssl": {"name": "miss"}, "data": str(data.path)}
    train.train(
        run_config.resolve(alone, (*SETTINGS, "train.max_steps=60")),
        tmp_path / "one",
        progress=False,
    )

    workdir = tmp_path / "two"
    cluster = addresses(worker=2)
    flags = _flags(data, workdir, "multi_worker", "train.max_steps=5000", "train.epochs=1000")
    workers = [start(tmp_path, cluster, "worker", index, *flags) for index in range(2)]
    _wait_for(workdir / "checkpoints" / "ckpt-80.index", *workers[0])
    workers[1][0].kill()
    (code, _), (error, _) = end(*workers)
    assert code == 1
    assert "lost worker 1" in error
    assert "--resume" in error
    assert "Traceback" not in error

    for path in (workdir / "checkpoints").glob("ckpt-*"):
        if not path.name.startswith("ckpt-80."):
            path.unlink()
    cluster = addresses(worker=2)
    flags = (f"--workdir={workdir}", "--resume", "--max_steps=60", "--set=train.epochs=20")
    codes, errors = end(*[start(tmp_path, cluster, "worker", index, *flags) for index in range(2)])
    assert codes == [0, 0], errors
    assert len(list(workdir.glob("events.*"))) == 2  # of the chief alone, before and after

    tables = [pd.read_csv(tmp_path / run / "metrics.csv") for run in ("one", "two")]
    assert tables[0]["step"].tolist() == tables[1]["step"].tolist() == [40, 60]
    for name in tables[0].filter(like="train/"):
        np.testing.assert_allclose(tables[1][name], tables[0][name], rtol=1e-4, err_msg=name)
    metrics = [run_directory.read_metrics(tmp_path / run)["test"] for run in ("one", "two")]
    assert metrics[1]["auc"] == pytest.approx(metrics[0]["auc"], abs=1e-3)
    one, two = (
        tf.train.load_checkpoint(str(tmp_path / run / "checkpoints" / "ckpt-120"))
        for run in ("one", "two")
    )
    # Rounding grows with the steps; after 20 of them test_distribution compares to 1e-5.
    names = [name for name in one.get_variable_to_shape_map() if "embedding" in name]
    assert len(names) > 2
    for name in names:
        np.testing.assert_allclose(
            two.get_tensor(name), one.get_tensor(name), atol=5e-4, err_msg=name
        )


def test_sigterm_to_one_worker_stops_all_after_the_same_step(data, tmp_path):
    cluster = addresses(worker=2)
    flags = _flags(data, tmp_path / "run", "multi_worker", "train.epochs=1000")
    workers = [start(tmp_path, cluster, "worker", index, *flags) for index in range(2)]
    _wait_for(tmp_path / "run" / "checkpoints" / "ckpt-80.index", *workers[0])
    workers[1][0].terminate()
    codes, outputs = end(*workers)
    assert codes == [0, 0], outputs
    steps = [re.search(r"stopped by SIGTERM at step (\d+)", output)[1] for output in outputs]
    assert steps[0] == steps[1]
    assert (tmp_path / "run" / "checkpoints" / f"ckpt-{2 * int(steps[0])}.index").exists()


def test_unequal_workers_are_refused(data, tmp_path):
    cluster = addresses(worker=2)
    flags = _flags(data, tmp_path / "run", "multi_worker")
    codes, errors = end(
        start(tmp_path, cluster, "worker", 0, *flags),
        start(tmp_path, cluster, "worker", 1, *flags, "--set=train.l2=0.5"),
    )
    assert codes == [1, 1]
    for error in errors:
        assert "Expected the same train.l2 in every process of the cluster" in error
        assert "Traceback" not in error


def test_a_missing_worker_is_named(data, tmp_path):
    cluster = addresses(worker=2)
    flags = _flags(data, tmp_path / "run", "multi_worker", "train.peer_timeout=1")
    (code,), (error,) = end(start(tmp_path, cluster, "worker", 0, *flags))
    assert code == 1
    assert f"no answer from worker 1 ({cluster['worker'][1]}) within 1 s" in error
    assert "Traceback" not in error
    assert not (tmp_path / "run").exists()


def test_parameter_servers_train_a_model_that_can_be_exported(data, tmp_path):
    cluster = addresses(chief=1, worker=1, ps=2)
    workdir = tmp_path / "run"
    flags = _flags(data, workdir, "parameter_server", "train.max_steps=60")
    servers = [
        start(tmp_path, cluster, kind, index, *flags)
        for kind in ("worker", "ps")
        for index in range(2)
        if index < len(cluster[kind])
    ]
    codes, errors = end(start(tmp_path, cluster, "chief", 0, *flags), *servers)
    assert codes == [0] * 4, [error[-2000:] for error in errors]
    history = pd.read_csv(workdir / "metrics.csv")
    assert history["step"].tolist() == [40, 60]
    assert np.isfinite(history["train/loss"]).all()
    assert run_directory.read_metrics(workdir)["test"]["auc"] > 0.5

    # The table of users is a part on each server, and one table on disk.
    reader = tf.train.load_checkpoint(str(workdir / "checkpoints" / "ckpt-120"))
    shapes = reader.get_variable_to_shape_map()
    assert [20_001, 16] in [shape for name, shape in shapes.items() if "user_id" in name]
    # Rows are spread there, and stand in the order of ids for everyone else.
    measured = run_directory.read_metrics(workdir)["test"]
    alone = scoring.evaluate(workdir, "test", progress=False)
    for name in ("auc", "gauc", "log_loss"):
        assert alone[name] == pytest.approx(measured[name], abs=1e-6)
    assert exporting.export(workdir, tmp_path / "model").path.is_dir()

    cluster = addresses(chief=1, worker=1, ps=1)
    flags = (f"--workdir={workdir}", "--resume", "--max_steps=80")
    codes, errors = end(
        *[start(tmp_path, cluster, kind, 0, *flags) for kind in ("chief", "worker", "ps")]
    )
    assert codes == [0, 0, 0], [error[-2000:] for error in errors]
    one = run_config.resolve(
        run_config.load(workdir / "config.json"),
        ("train.distribute=one_device", "train.max_steps=81"),
    )
    train.train(one, workdir, resume=True, progress=False)
    assert pd.read_csv(workdir / "metrics.csv")["step"].tolist() == [40, 60, 80, 81]
