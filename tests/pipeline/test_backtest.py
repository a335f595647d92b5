"""Ways to train every day, on days that are past."""

import pandas as pd
import pytest

from models.config import run_config
from models.core import run_directory
from pipeline import backtest as command
from pipeline.arguments import BuildArguments
from pipeline.backtest import CONTINUED, LATEST, REPLAYED, SCRATCH, WARM, WAYS, Backtest
from pipeline.experiments.backtest_page import write_page
from preprocessing.data_dir import DataDir
from tests.helpers.daily_logs import write_day

pytestmark = pytest.mark.slow


def _resolve(data, seed):
    return run_config.resolve(
        {
            "data": data,
            "model": {"name": "fm", "embedding_size": 4},
            "train": {"max_steps": 6, "batch_size": 32, "seed": seed},
        }
    )


@pytest.fixture(scope="module")
def past(tmp_path_factory):
    """A backtest of four days and a past, one seed."""
    path = tmp_path_factory.mktemp("backtest")
    logs = [str(write_day(path, day, rows=200)) for day in range(4)]
    build = BuildArguments(input="", output="", protocol="day", num_shards=1)
    backtest = Backtest(path / "work", logs, build, _resolve, window=2, replay=0.5)
    return backtest, backtest.live_through(seeds=1)


def test_every_way_is_measured_on_the_day_after(past):
    backtest, rows = past
    assert [(row["day"], row["way"]) for row in rows] == [
        (day, way) for day in (1, 2) for way in WAYS
    ]
    for row in rows:
        following = DataDir.open(backtest._path(f"day-{row['day'] + 1}"))
        total = sum(following.num_requests(split) for split in ("train", "validation"))
        assert row["requests"] == total
        assert 0 < row["auc"] < 1
        assert row["steps"] == 6
        assert row["build_seconds"] > 0
        assert row["train_seconds"] > 0


def test_a_continued_run_is_measured_as_the_next_one_measures_it(past):
    """Also with other ids: the metrics are those of its own progressive validation."""
    backtest, rows = past
    row = next(row for row in rows if row["way"] == CONTINUED and row["day"] == 1)
    days = pd.read_csv(backtest.workdir / "runs" / "continued-2-1" / run_directory.DAYS)
    for name in ("auc", "gauc", "log_loss"):
        assert days[name].iloc[-1] == pytest.approx(row[name], abs=1e-6)


def test_the_ways_train_on_what_they_say(past):
    backtest, _ = past

    def run(way, day):
        return run_directory.open_run(
            backtest.workdir / "runs" / f"{way.replace(' ', '-')}-{day}-1"
        )

    assert run(CONTINUED, 2).data.path.name == "day-2"
    assert run(REPLAYED, 2).config.train.replay == 0.5
    assert run(REPLAYED, 2).config.continues.endswith("with-replay-1-1")
    assert run(WARM, 2).config.warm_start.endswith("warm-start-1-1")
    for way in (WARM, SCRATCH):
        assert run(way, 2).data.path.name == "days-0-2"
    assert run(SCRATCH, 2).config.warm_start == ""
    assert run(LATEST, 2).data.path.name == "days-1-2"
    # The whole log is validated with about the requests that the day's own set is.
    day, whole = (
        DataDir.open(backtest._path(name)).num_requests("validation")
        for name in ("day-2", "days-0-2")
    )
    assert abs(day - whole) <= 5


def test_nothing_is_repeated(past, monkeypatch):
    backtest, rows = past
    monkeypatch.setattr(command, "measure", None)
    again = backtest.live_through(seeds=1)
    assert [(row["day"], row["way"]) for row in again] == [(r["day"], r["way"]) for r in rows]
    assert [row["auc"] for row in again] == pytest.approx([row["auc"] for row in rows])


def test_page(past):
    backtest, rows = past
    again = [dict(row, seed=2, auc=row["auc"] + 0.01) for row in rows]
    path = write_page(backtest.workdir, [*rows, *again], WAYS, "window: 2", "the command")
    text = path.with_suffix(".md").read_text()
    mean = pd.DataFrame(rows).set_index("way").loc[CONTINUED]["auc"].mean() + 0.005
    assert f"| {CONTINUED} | {mean:.4f} ± 0.0071 |" in text
    assert "window: 2." in text
    assert "* command: `the command`" in text
    assert "<svg" in path.read_text()
