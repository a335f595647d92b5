"""What docs/scale.md is computed with: logs that can be continued, and builds of seconds."""

import hashlib
import json

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pytest

from tests.scale import generated, model, runs


def _digests(directory):
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in directory.iterdir()
    }


def test_a_log_is_continued_with_the_same_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(generated, "_FILE_EVENTS", 1000)
    generated.write(tmp_path / "whole", 3500)
    digests = _digests(tmp_path / "whole")
    assert list(sorted(digests)) == ["00000.csv", "00001.csv", "00002.csv", "00003.csv"]
    generated.write(tmp_path / "again", 3500)
    (tmp_path / "again" / "00002.csv").unlink()
    generated.write(tmp_path / "again", 3500)
    assert _digests(tmp_path / "again") == digests
    parts = [pa.csv.read_csv(path) for path in sorted((tmp_path / "whole").iterdir())]
    log = pa.concat_tables(parts)
    times = log["timestamp"].to_numpy()
    assert (len(times), bool((np.diff(times) >= 0).all())) == (3500, True)
    assert 25 < len(log["user_id"].unique()) <= 35
    categories = log.group_by("item_id").aggregate([("category_id", "count_distinct")])
    assert set(categories["category_id_count_distinct"].to_pylist()) == {1}


@pytest.fixture(scope="module")
def calibration(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("scale")
    measured = {
        "small": runs.run(workdir, 2000, "leave_last_out"),
        "large": runs.run(workdir, 20_000, "leave_last_out"),
        "few": runs.run(workdir, 20_000, "leave_last_out", 2),
        "buckets": runs.run(workdir, 20_000, "leave_last_out", 32),
        "every": runs.run(workdir, 20_000, "time_split"),
    }
    return workdir, model.Calibration(**measured, value_seconds=1e-6, value_bytes=100)


def test_a_run_is_measured_once(calibration, monkeypatch):
    workdir, found = calibration
    monkeypatch.setattr(runs, "_build", None)
    again = runs.run(workdir, 20_000, "leave_last_out", 32)
    assert again == found.buckets
    assert not list(workdir.glob("data-*"))
    stages = again.stages
    assert {"Driver", "Reading", "Cataloguing", "Ranking values", "Writing"} <= stages.keys()
    assert stages["Reading"]["references"] >= 32
    assert stages["Writing"]["references"] > 0
    assert again.requests == found.large.requests
    assert again.peak_bytes > 1e8
    assert json.loads((workdir / "20000-leave_last_out-32.json").read_text())["requests"] > 0


def test_the_model_knows_the_builds_that_it_was_made_of(calibration):
    _, found = calibration
    foresee = model.Model(found)
    for run in (found.small, found.large, found.every):
        predicted = foresee.predict(run.events, run.requests, run.num_partitions)
        workers = run.cpu_seconds - run.stages["Driver"]["cpu_seconds"]
        assert predicted.cpu_seconds == pytest.approx(workers, rel=0.2)
        assert predicted.table_bytes == pytest.approx(run.total("table_bytes"), rel=0.01)
    larger = foresee.predict(10**9, 10**9)
    assert larger.partitions > 700
    assert larger.buckets == 1 + (larger.partitions - 1) // 16
    assert larger.hours(16) > larger.hours(256) > larger.hours(10**6) == larger.hours(10**7)
