"""The Python that docs/python_api.md shows runs, and names are loaded when they are asked for."""

import importlib
import pathlib
import re
import subprocess
import sys

import markdown_blocks
import pytest
from markdown_blocks import ROOT

from pipeline.arguments import BuildArguments
from pipeline.build_examples import build_examples
from pipeline.synthesize import synthesize, write
from pipeline.synthetic.truth import SynthesizeArguments

PAGE = ROOT / "docs" / "python_api.md"


def test_every_block_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(synthesize(SynthesizeArguments(users=300, items=200, interests=5)), pathlib.Path("l.csv"))
    build_examples(BuildArguments(input="l.csv", output="work/data", num_shards=2))
    names = {}
    found = [block for block in markdown_blocks.blocks(PAGE) if block.language == "python"]
    assert len(found) == 3
    for block in found:
        exec(compile("\n" * block.line + block.text, str(PAGE), "exec"), names)
    for exported in ("model", "fitted_model"):
        assert (tmp_path / exported / "1" / "saved_model.pb").exists()


def test_the_page_names_what_there_is():
    listed = set(re.findall(r"`((?:models|preprocessing|serving)\.\w+)`", PAGE.read_text()))
    offered = {
        f"{room}.{name}"
        for room in ("preprocessing", "models", "serving")
        for name in importlib.import_module(room)._NAMES
    }
    assert offered <= listed
    for name in offered:
        room, _, attribute = name.partition(".")
        assert callable(getattr(importlib.import_module(room), attribute))
        assert attribute in dir(importlib.import_module(room))


@pytest.mark.parametrize("room", ["preprocessing", "models", "serving"])
def test_a_name_that_is_none_is_refused(room):
    with pytest.raises(AttributeError, match=f"module '{room}' has no attribute 'nothing'"):
        importlib.import_module(room).nothing  # noqa: B018


def test_importing_loads_no_tensorflow():
    program = (
        "import sys, preprocessing, models, serving\n"
        "from models import configure\n"
        "from preprocessing import DataDir\n"
        "from serving import Client\n"
        "sys.exit('tensorflow' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False).returncode == 0
