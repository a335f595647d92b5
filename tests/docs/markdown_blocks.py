"""The code blocks of Markdown pages, and the commands in them."""

import pathlib
import re
import shlex
from collections.abc import Iterator
from typing import NamedTuple

from markdown_it import MarkdownIt

from tests import command_page

SCRIPTS = command_page.scripts()
ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))

_FILE = re.compile(r"<!-- file: (\S+) -->")
_HEREDOC = re.compile(r"<<'?(\w+)'?")
_PROGRAM = re.compile(r"(?:^|[\s/=])ctr-[a-z-]+(?:\s|$)")
_END = {"|", "||", "&", "&&", ";", ">", ">>", "2>&1", "done"}


class Block(NamedTuple):
    """A code block; `file` is the name that an HTML comment right before it gives it."""

    language: str
    text: str
    line: int
    file: str


class Command(NamedTuple):
    """A call `python -m module arguments`, or of the program of a module, in a block."""

    module: str
    arguments: tuple[str, ...]
    line: int


def blocks(page: pathlib.Path) -> list[Block]:
    """Fenced and indented blocks in their order."""
    found, file = [], ""
    for token in MarkdownIt("commonmark").parse(page.read_text(encoding="utf-8")):
        if token.type == "html_block":
            named = _FILE.fullmatch(token.content.strip())
            file = named.group(1) if named else ""
        elif token.type in ("fence", "code_block"):
            found.append(Block(token.info.strip(), token.content, token.map[0] + 1, file))
            file = ""
    return found


def files(page: pathlib.Path) -> dict[str, str]:
    """The blocks that are files, by name."""
    return {block.file: block.text for block in blocks(page) if block.file}


def prose(page: pathlib.Path) -> Iterator[str]:
    """Code spans of the text."""
    for token in MarkdownIt("commonmark").enable("table").parse(page.read_text(encoding="utf-8")):
        for child in token.children or ():
            if child.type == "code_inline":
                yield child.content


def links(page: pathlib.Path) -> Iterator[str]:
    """Addresses of links and images."""
    for token in MarkdownIt("commonmark").enable("table").parse(page.read_text(encoding="utf-8")):
        for child in token.children or ():
            if address := child.attrGet("href") or child.attrGet("src"):
                yield str(address)


def statements(block: Block) -> Iterator[tuple[int, list[str]]]:
    """Words of each line of shell, continued lines as one, here-documents left out."""
    lines = iter(enumerate(block.text.splitlines(), block.line + 1))
    for number, line in lines:
        while line.endswith("\\"):
            line = line[:-1] + next(lines)[1]
        is_ours = _PROGRAM.search(line) or line.lstrip(" $").startswith("make ")
        if "python -m " not in line and not is_ours:
            continue
        if heredoc := _HEREDOC.search(line):
            while next(lines)[1] != heredoc.group(1):
                pass
        yield number, shlex.split(line.replace("`", ""), comments=True)


def commands(block: Block) -> Iterator[Command]:
    """The commands of a block."""
    for number, words in statements(block):
        for place, word in enumerate(words):
            module, rest = SCRIPTS.get(word.rpartition("/")[2], ""), words[place + 1 :]
            if word == "-m" and words[place - 1].endswith("python"):
                module, rest = rest[0].rstrip(";"), rest[1:]
            if module:
                end = next((i for i, one in enumerate(rest) if one in _END), len(rest))
                yield Command(module, tuple(_argument(one) for one in rest[:end]), number)


def _argument(word: str) -> str:
    """A word without what ends a command, and without the brackets of what may be left out."""
    word = word.rstrip(";)")
    return word[1:].rstrip("]") if word.startswith("[--") else word
