"""Requests and programs of the page for other languages get the scores of our client."""

import json
import re
import shutil

import markdown_blocks
import numpy as np
import pytest
from markdown_blocks import ROOT
from page_shell import masked, run_blocks, write_files

from serving import embedded_server
from serving.client import Client

pytestmark = pytest.mark.slow

PAGE = ROOT / "docs" / "any_language.md"
TOOLS = ("java", "go")
PREDICTED = re.compile(r'\{"(?:outputs|predictions)":(.*?)\}', re.DOTALL)


def _can_run(block):
    """Whether this machine has the tool; those that lack one still test all others."""
    program = block.text.split()[0]
    return program not in TOOLS or shutil.which(program) is not None


@pytest.fixture(scope="module")
def walked(tmp_path_factory):
    """Directory in which the page was done, and what each of its blocks of shell printed."""
    directory = tmp_path_factory.mktemp("any_language")
    write_files(PAGE, directory)
    blocks = [b for b in markdown_blocks.blocks(PAGE) if b.language == "sh" and _can_run(b)]
    return directory, dict(zip(blocks, run_blocks(directory, blocks), strict=True))


def test_commands_print_what_the_page_says(walked):
    shell, compared = None, []
    for block in markdown_blocks.blocks(PAGE):
        if block.language == "sh":
            shell = block
        elif block.language == "text" and shell in walked[1]:
            assert masked(walked[1][shell]) == masked(block.text)
            compared.append(shell.text.split()[0])
    assert compared[:2] == ["curl", "curl"]
    assert compared[-1] == "curl"
    assert set(compared) == {"curl", *filter(shutil.which, TOOLS)}


def test_all_callers_get_the_scores_of_our_client(walked):
    directory, printed = walked
    columns = json.loads((directory / "columns.json").read_text())["inputs"]
    rows = json.loads((directory / "rows.json").read_text())["instances"]
    with (
        embedded_server.running(directory / "shop" / "model", "ctr") as server,
        Client(server.url) as client,
    ):
        expected = client.score(_request({name: value[0] for name, value in columns.items()}))
        of_rows = [client.score(_request(row)) for row in rows]
    assert of_rows[0] == expected
    answers = [_scores(text) for block, text in printed.items() if ":predict" not in block.text]
    first, second = [
        json.loads(PREDICTED.search(text)[1])
        for block, text in printed.items()
        if "@" in block.text and ":predict" in block.text
    ]
    answers += [first[0], second[0]]
    answers = [answer for answer in answers if answer]
    assert len(answers) == 2 + len(list(filter(shutil.which, TOOLS)))
    for answer in answers:
        np.testing.assert_allclose(answer, expected, rtol=0, atol=1e-6)
    np.testing.assert_allclose(second[1][: len(of_rows[1])], of_rows[1], rtol=0, atol=1e-6)


def _request(inputs):
    """A request as our client takes it, without padding."""
    sides = {
        side: [
            {"item_id": item, "category_id": category}
            for item, category in zip(
                inputs[f"{prefix}_item_id"], inputs[f"{prefix}_category_id"], strict=True
            )
            if item
        ]
        for side, prefix in (("history", "history"), ("candidates", "candidate"))
    }
    return {"user_id": inputs["user_id"]} | sides


def _scores(text):
    """Scores that a program printed: as JSON, or one line per candidate."""
    if predicted := PREDICTED.search(text):
        return json.loads(predicted[1])[0]
    lines = [line.split() for line in text.splitlines()]
    return [float(line[1]) for line in lines if len(line) == 2 and line[0].isdigit()]
