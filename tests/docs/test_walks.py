"""The tutorial and the daily job, as their pages say: every command, in order, in a new directory.

The log is a smaller one, and training is cut short: what is compared with the pages is what the
commands print, numbers aside.
"""

import itertools
import re

import markdown_blocks
import pandas as pd
import pytest
from markdown_blocks import ROOT, Block
from page_shell import SMALLER, masked, run_blocks, write_files

pytestmark = pytest.mark.slow

TUTORIAL = ROOT / "docs" / "tutorial.md"
OPERATIONS = ROOT / "docs" / "operations.md"


@pytest.fixture(scope="module")
def toured(tmp_path_factory):
    """Where the tutorial was done, and what its blocks of shell printed."""
    shop = tmp_path_factory.mktemp("shop")
    write_files(TUTORIAL, shop)
    blocks = markdown_blocks.blocks(TUTORIAL)
    return shop, run_blocks(shop, [block for block in blocks if block.language == "sh"])


def test_tutorial(toured):
    shop, printed = toured[0], iter(toured[1])
    output, compared = "", 0
    for block in markdown_blocks.blocks(TUTORIAL):
        if block.language == "sh":
            output = next(printed)
        elif block.language == "text":
            found = iter(masked(output))
            for line in masked(block.text):  # each in its order, others between them
                assert line in found, f"line {block.line}: {line!r} is not in\n{output}"
            compared += 1
    assert compared >= 10
    assert (shop / "run-deminet" / "report.html").exists()
    assert (shop / "data" / "data_card.html").exists()


def test_daily_job(toured):
    """The first day, two days after it, and back to the version before."""
    shop, _ = toured
    write_files(OPERATIONS, shop)
    log = pd.read_csv(shop / "clicks.csv").sort_values("clicked_at", kind="stable")
    (shop / "logs").mkdir()
    parts = [0, int(0.9 * len(log)), int(0.95 * len(log)), len(log)]
    for number, (start, end) in enumerate(itertools.pairwise(parts), 1):
        log[start:end].to_csv(shop / "logs" / f"day{number}.csv", index=False)
    blocks = [
        block
        for block in markdown_blocks.blocks(OPERATIONS)
        if block.language == "sh" and not block.file and not re.search("server|8501", block.text)
    ]
    modules = [next(markdown_blocks.commands(block)).module for block in blocks]
    assert modules == [*3 * ["pipeline.daily"], "serving.rollback", "pipeline.build_examples"]
    *days, rolled_back, _ = run_blocks(shop, blocks)
    for number, printed in enumerate(days, 1):
        assert f"day{number} is done: version {number} is published, version {number} live" in (
            printed
        )
        assert f"on top of day{number - 1}" in printed or number == 1
    assert "day3 before training on it: " in days[2]
    work = shop / "work"
    assert "live version" in (work / "model" / "3" / "assets" / "model_card.md").read_text()
    assert len(pd.read_csv(work / "runs" / "day3" / "days.csv")) == 2
    assert rolled_back.strip() == "Version 2 of ctr is stable"


def test_the_same_stage_by_stage(toured):
    shop, _ = toured
    assert (shop / "work").exists(), "after test_daily_job"
    by_hand = shop / "by-hand"
    for name in ("sets", "runs"):
        (by_hand / name).mkdir(parents=True)
        (by_hand / name / "day1").symlink_to(shop / "work" / name / "day1")
    (by_hand / "logs").symlink_to(shop / "logs")
    write_files(OPERATIONS, by_hand)
    script = by_hand / "retrain.sh"
    for theirs, ours in SMALLER.items():
        script.write_text(script.read_text().replace(theirs, ours))
    run_blocks(by_hand, [Block("sh", "sh retrain.sh day2 day1", 1, "")])
    assert (by_hand / "runs" / "day2" / "report.html").exists()
    sets = [path / "sets" / "day2" for path in (by_hand, shop / "work")]
    shards = sorted(path.name for path in sets[0].glob("*.tfrecord.gz"))
    assert shards
    for name in shards:
        assert (sets[0] / name).read_bytes() == (sets[1] / name).read_bytes()
