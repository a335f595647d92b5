"""Synchronous workers that read shards of their own: half the reading, the losses of one process.

The reference is one process that trains on the parts of all workers, joined to one batch.
"""

import json

import numpy as np
import pytest

from models import train
from models.config import run_config
from models.keras import tf
from models.training import batches, pretraining, trainer
from models.training.updates import Updates
from preprocessing.reading import parts
from tests.helpers import built_logs, clusters

pytestmark = pytest.mark.slow

BATCH_SIZE = 16
STEPS = 19
"""Steps per pass."""

SETTINGS = (
    f"train.batch_size={BATCH_SIZE}",
    "train.learning_rate=0.001",
    "train.ssl_learning_rate=0.001",
    "train.ssl_steps=1",
    "model.embedding_size=8",
)
WORKER = "tests.helpers.counting_worker"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """300 training requests in 16 shards of different sizes."""
    return built_logs.of_300_users(tmp_path_factory.mktemp("data"), num_shards=16)


def _train(tmp_path, workers, *flags, name="run"):
    """Trains on workers that record what they read, see `clusters.train`."""
    return clusters.train(tmp_path, workers, *flags, module=WORKER, name=name)


def _flags(data, *settings):
    return (
        f"--data={data.path}",
        "--model=din",
        "--ssl=miss",
        "--set=train.sharding=files",
        *(f"--set={setting}" for setting in (*SETTINGS, *settings)),
    )


def _joined(data, count, reading):
    """`training_batches` of one process: the batches of `count` readers, joined to one."""

    def read(data_, train_, done, epochs, first_epoch=0, part=parts.WHOLE):
        assert part == parts.WHOLE
        streams = [
            reading(data_, train_, done, epochs, first_epoch, parts.Part(index, count))
            for index in range(count)
        ]

        def join(*together):
            joined = {}
            for name in together[0]:
                values = [one[name] for one in together]
                if values[0].shape.rank > 1:
                    width = tf.reduce_max([tf.shape(value)[1] for value in values])
                    values = [
                        tf.pad(
                            value,
                            [
                                [0, 0],
                                [0, width - tf.shape(value)[1]],
                                *[[0, 0]] * (value.shape.rank - 2),
                            ],
                        )
                        for value in values
                    ]
                joined[name] = tf.concat(values, 0)
            return joined

        return tf.data.Dataset.zip(tuple(streams)).map(join)

    return read


def _reference(data, path, count, steps, monkeypatch):
    """Losses of each step, by kind, of one process on the joined batches."""
    losses = {False: [], True: []}
    call = Updates.__call__

    def recording(updates, done, executed):
        logs = call(updates, done, executed)
        losses[updates.ssl].append({name: float(value) for name, value in logs.items()})
        return logs

    with monkeypatch.context() as patch:
        joined = _joined(data, count, batches.training_batches)
        patch.setattr(trainer, "training_batches", joined)
        patch.setattr(pretraining, "training_batches", joined)
        patch.setattr(Updates, "__call__", recording)
        content = {"model": {"name": "din"}, "ssl": {"name": "miss"}, "data": str(data.path)}
        config = run_config.resolve(content, (*SETTINGS, f"train.max_steps={steps}"))
        train.train(config, path, progress=False)
    return {"main": losses[False], "ssl": losses[True]}


def _require_shared(data, records, steps):
    """Each record was read by one process, once per stream, and trained on once per epoch."""
    requests = data.num_requests("train")
    counts = [record["read"] for record in records]
    assert sum(counts) == 2 * requests  # the main loss and self-supervision, each decoded once
    assert max(counts) < 1.2 * 2 * requests / len(records)
    for first in range(0, steps, STEPS):
        seen = [
            name
            for record in records
            for step in record["requests"][first : first + STEPS]
            for name in step
        ]
        assert len(seen) == len(set(seen)) == requests


@pytest.mark.parametrize("workers", [2, 4])
def test_each_worker_reads_its_part_and_losses_are_those_of_one_process(
    data, tmp_path, monkeypatch, workers
):
    steps = 2 * STEPS
    flags = _flags(data, f"train.max_steps={steps}")
    codes, outputs, records = _train(tmp_path, workers, *flags)
    assert codes == [0] * workers, [output[-3000:] for output in outputs]
    assert f"train.sharding=files: {workers} processes with" in outputs[0]
    _require_shared(data, records, steps)

    expected = _reference(data, tmp_path / "one", workers, steps, monkeypatch)
    for kind in ("main", "ssl"):
        assert len(expected[kind]) == steps
        for record in records:
            for step in range(STEPS):  # Rounding grows with the steps.
                one = pytest.approx(expected[kind][step], rel=1e-5, abs=2e-6)
                assert record[kind][step] == one, (kind, step)


def test_a_run_goes_on_with_as_many_workers_or_after_a_pass(data, tmp_path):
    """A pass at once, and after an interruption; three workers go on behind it, not within it."""
    assert _train(tmp_path, 2, *_flags(data, "train.max_steps=19"), name="whole")[0] == [
        0,
        0,
    ]
    whole = json.loads((tmp_path / "whole-2-0.json").read_text())

    assert _train(tmp_path, 2, *_flags(data, "train.max_steps=7"))[0] == [0, 0]
    codes, outputs, _ = _train(tmp_path, 3, "--resume", "--max_steps=19")
    assert codes == [1, 1, 1]
    for output in outputs:
        assert "Expected train.sharding=files with 2 processes, as for the first 7 of 19" in output
        assert "found train.sharding=files with 3 processes" in output
        assert "--max_steps=19" in output
        assert "Traceback" not in output
    codes, _, records = _train(tmp_path, 2, "--resume", "--max_steps=19")
    assert codes == [0, 0]
    assert records[0]["requests"] == whole["requests"][7:]
    for name, value in whole["main"][7].items():
        np.testing.assert_allclose(records[0]["main"][0][name], value, rtol=1e-5, err_msg=name)

    codes, outputs, records = _train(tmp_path, 3, "--resume", "--max_steps=38")
    assert codes == [0, 0, 0], outputs[0][-3000:]
    seen = [name for record in records for step in record["requests"] for name in step]
    assert len(seen) == len(set(seen)) == data.num_requests("train")


def test_too_few_requests_for_a_worker_are_refused_before_anything_is_written(data, tmp_path):
    codes, outputs, _ = _train(tmp_path, 2, *_flags(data, "train.batch_size=1"))
    assert codes == [1, 1]
    for output in outputs:
        assert "Expected a request for each of 300 batches of 'train'" in output
        assert "Traceback" not in output
    assert not (tmp_path / "run").exists()


def test_a_continued_run_replays_from_the_shards_of_each_worker(data, tmp_path):
    codes, outputs, _ = _train(tmp_path, 2, *_flags(data, "train.max_steps=3"))
    assert codes == [0, 0], outputs[0][-3000:]
    codes, outputs, records = _train(
        tmp_path,
        2,
        f"--data={data.path}",
        f"--continue={tmp_path / 'run'}",
        "--set=train.replay=0.5",
        "--max_steps=6",
        name="next",
    )
    assert codes == [0, 0], outputs[0][-3000:]
    seen = [{name for step in record["requests"] for name in step} for record in records]
    assert [len(record["requests"]) for record in records] == [6 + 3, 6 + 3]
    assert all(seen)
    assert not seen[0] & seen[1]
