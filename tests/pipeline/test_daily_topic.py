"""The daily job on a topic: each day goes on where the one before it ended, without a flag."""

import pytest

from models.config import run_config
from models.core import run_directory
from models.training.run_flags import Resolved
from pipeline import daily
from pipeline.arguments import BuildArguments
from pipeline.job import log_schema
from preprocessing.data_dir import DataDir
from preprocessing.errors import UserError
from serving import export as exporting
from tests.helpers import topics
from tests.helpers.small_logs import random_events

EVENTS = sorted(random_events(seed=8, users=60, days=60), key=lambda event: event[2])
DAYS = [
    topics.messages([event for event in EVENTS if first < event[2] <= first + 30])
    for first in (0, 30)
]


def _resolve(data, continued):
    content = {"data": data, "model": {"name": "lr"}, "train": {}}
    if continued:
        content = run_config.load_to_continue(f"{continued}/{run_directory.CONFIG}")
        content |= {"data": data, "continues": continued}
    content["train"] |= {"max_steps": 4, "batch_size": 32}
    return Resolved(run_config.resolve(content), {})


def _run(work, url, name):
    """The job of a day as its command does it."""
    build = BuildArguments(input=url, output="", protocol="day", num_shards=2, num_partitions=2)
    arguments = daily.DayArguments(build, _resolve, None, exporting.ExportOptions(max_auc_drop=1.0))
    days = daily.Days.load(work)
    day = days.begin(name)
    log = log_schema.check(daily.build_arguments(days, day, build))
    daily.run_day(days, day, arguments, log)
    return DataDir.open(days.set_of(day), verify=False)


@pytest.mark.slow
def test_days_of_a_topic_follow_each_other(tmp_path):
    with topics.broker() as broker:
        url = broker.url("clicks")
        for number, messages in enumerate(DAYS):
            broker.send("clicks", messages)
            data = _run(tmp_path / "work", url, f"day{number + 1}")
            assert data.manifest["conservation"]["read"] == sum(map(len, messages.values()))
        with pytest.raises(UserError, match=r"expected messages in .*, found none up to its end"):
            _run(tmp_path / "work", url, "day3")
    # A day without messages has not begun: the same name can be given to it later.
    assert [day.name for day in daily.Days.load(tmp_path / "work").days] == ["day1", "day2"]
