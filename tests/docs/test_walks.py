"""The tutorial and the daily job, as their pages say: every command, in order, in a new directory.

The log is a smaller one, and training is cut short: what is compared with the pages is what the
commands print, numbers aside.
"""

import os
import pathlib
import re
import socket
import subprocess
import sys

import markdown_blocks
import pandas as pd
import pytest
from markdown_blocks import ROOT, Block

pytestmark = pytest.mark.slow

TUTORIAL = ROOT / "docs" / "tutorial.md"
OPERATIONS = ROOT / "docs" / "operations.md"
SECONDS = 3600  # of a busy machine
SMALLER = {
    "--users=800": "--users=120",
    "models.train ": "models.train --max_steps=40 ",
}
_NUMBER = re.compile(r"[-+]?\d+([.,]\d+)*(e-\d+)?")
_BLANK = re.compile(r"[ █]+")


def _run(directory: pathlib.Path, blocks: list[Block]) -> list[str]:
    """Runs blocks of shell in one shell; returns what each printed."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    lines = ["set -e", "trap 'kill $(jobs -p) 2>/dev/null || true' EXIT"]
    for block in blocks:
        text = block.text.replace("8501/", f"{port}/")
        text = text.replace("serving.server ", f"serving.server --rest_api_port={port} ")
        for theirs, ours in SMALLER.items():
            text = text.replace(theirs, ours)
        lines += [f"echo; echo '=== {block.line}'", text]
    path = f"{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", "\n".join(lines)],
        cwd=directory,
        env=os.environ | {"PATH": path, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    return re.split(r"^=== \d+\n", done.stdout, flags=re.MULTILINE)[1:]


def _masked(text: str) -> list[str]:
    """Lines without numbers, bars and the width of blanks."""
    lines = re.split(r"[\r\n]+", text)
    return [_BLANK.sub(" ", _NUMBER.sub("#", line)).strip() for line in lines if line.strip()]


def _write_files(page: pathlib.Path, directory: pathlib.Path) -> None:
    for name, text in markdown_blocks.files(page).items():
        (directory / name).write_text(text)


@pytest.fixture(scope="module")
def toured(tmp_path_factory):
    """Where the tutorial was done, and what its blocks of shell printed."""
    shop = tmp_path_factory.mktemp("shop")
    _write_files(TUTORIAL, shop)
    blocks = markdown_blocks.blocks(TUTORIAL)
    return shop, _run(shop, [block for block in blocks if block.language == "sh"])


def test_tutorial(toured):
    shop, printed = toured[0], iter(toured[1])
    output, compared = "", 0
    for block in markdown_blocks.blocks(TUTORIAL):
        if block.language == "sh":
            output = next(printed)
        elif block.language == "text":
            found = iter(_masked(output))
            for line in _masked(block.text):  # each in its order, others between them
                assert line in found, f"line {block.line}: {line!r} is not in\n{output}"
            compared += 1
    assert compared >= 10
    assert (shop / "run-deminet" / "report.html").exists()
    assert (shop / "data" / "data_card.html").exists()


def test_daily_retraining(toured):
    """The first day, the day after, and back to the first version."""
    shop, _ = toured
    _write_files(OPERATIONS, shop)
    for theirs, ours in SMALLER.items():
        script = shop / "retrain.sh"
        script.write_text(script.read_text().replace(theirs, ours))
    log = pd.read_csv(shop / "clicks.csv")
    (shop / "model").rename(shop / "tutorial-model")
    (shop / "logs").mkdir()
    late = int(0.95 * len(log))
    log[:late].to_csv(shop / "logs" / "day1.csv", index=False)
    blocks = [
        block
        for block in markdown_blocks.blocks(OPERATIONS)
        if block.language == "sh" and not block.file and not re.search("server|8501", block.text)
    ]
    assert ["retrain" in block.text for block in blocks] == [False, True, False]
    _run(shop, blocks[:1])
    log[late:].to_csv(shop / "logs" / "day2.csv", index=False)
    retrained, rolled_back = _run(shop, blocks[1:])
    assert "warm start: " in retrained
    assert "live version" in (shop / "model" / "2" / "assets" / "model_card.md").read_text()
    assert (shop / "runs" / "day2" / "report.html").exists()
    assert rolled_back.strip() == "Version 1 of ctr is stable"
