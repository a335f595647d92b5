"""The requests of docs/serving.md answer what the page prints below them."""

import re
import subprocess
import sys

import markdown_blocks
import pytest
from markdown_blocks import ROOT, Block

pytestmark = pytest.mark.slow

PAGE = ROOT / "docs" / "serving.md"
SERVER = "http://127.0.0.1:8501"
_COMMAND = re.compile(r"^\$ ((?:.*\\\n)*.*\n)", re.MULTILINE)


def test_curl_lines(tmp_path):
    page = next(one.text for one in markdown_blocks.blocks(PAGE) if "$ curl" in one.text)
    preparing, *parts = _COMMAND.split(page)
    preparing = preparing.replace("build/", f"{tmp_path}/")
    build, serve = (
        [sys.executable, "-m", command.module, *command.arguments]
        for command in markdown_blocks.commands(Block("", preparing, 0, ""))
    )
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    asked = list(zip(parts[::2], parts[1::2], strict=True))
    assert len(asked) == 10
    with subprocess.Popen(
        [*serve, "--rest_api_port=0"], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as server:
        try:
            address = server.stdout.readline().split()[-1].split("/v1/")[0]
            for command, printed in asked:
                answer = subprocess.run(
                    ["bash", "-c", command.replace(SERVER, address)],
                    check=True,
                    capture_output=True,
                    text=True,
                ).stdout
                assert answer.rstrip("\n") == printed.rstrip("\n"), command
        finally:
            server.terminate()
