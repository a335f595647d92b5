"""Blocks of shell of the pages, run in one shell as a reader would run them."""

import os
import pathlib
import re
import socket
import subprocess
import sys

import markdown_blocks
from markdown_blocks import ROOT, Block

SMALLER = {
    "--users=800": "--users=120",
    "ctr-train ": "ctr-train --max_steps=40 ",
    "ctr-daily ": "ctr-daily --max_steps=40 ",
}
"""What the pages' commands are replaced by, so that they end soon."""

_SECONDS = 3600  # of a busy machine
_NUMBER = re.compile(r"[-+]?\d+([.,]\d+)*(e-\d+)?")
_BLANK = re.compile(r"[ █]+")


def run_blocks(directory: pathlib.Path, blocks: list[Block]) -> list[str]:
    """Runs blocks of shell in one shell; returns what each printed."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    lines = ["set -e", "trap 'kill $(jobs -p) 2>/dev/null || true' EXIT"]
    for block in blocks:
        text = block.text.replace("8501/", f"{port}/")
        text = text.replace("ctr-server ", f"ctr-server --rest_api_port={port} ")
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
        timeout=_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    return re.split(r"^=== \d+\n", done.stdout, flags=re.MULTILINE)[1:]


def masked(text: str) -> list[str]:
    """Lines without numbers, bars and the width of blanks."""
    lines = re.split(r"[\r\n]+", text)
    return [_BLANK.sub(" ", _NUMBER.sub("#", line)).strip() for line in lines if line.strip()]


def write_files(page: pathlib.Path, directory: pathlib.Path) -> None:
    """Writes the blocks of a page that are files."""
    for name, text in markdown_blocks.files(page).items():
        (directory / name).write_text(text)
