"""Every command, flag and setting that the pages show exists, and the page of commands is true."""

import importlib
import importlib.util
import json
import pathlib
import re

import markdown_blocks
import pytest
from markdown_blocks import PAGES, ROOT, SCRIPTS

from models import registry
from models.config import run_config
from pipeline.job.runner import check_options
from preprocessing.errors import UserError
from tests import command_page

BEAM_TOO = ("pipeline.build_examples", "pipeline.run")
OTHERS = {
    *("help", "debug"),  # which every command has
    *("only",),  # tests.bench
    *("profile", "rm", "file", "detach", "wait"),  # Docker
    *("enable_batching", "allow_version_labels_for_unavailable_models"),  # the official server
    "worker_pool",  # Beam's image
}
_OURS = re.compile(r"\bpython3? -m (models|pipeline|serving)\b")
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def _name(page: pathlib.Path) -> str:
    return str(page.relative_to(ROOT))


def _module_of(command: markdown_blocks.Command) -> str:
    """A command of ours, or "" for a module of others, which must exist."""
    if command.module in SCRIPTS.values():
        return command.module
    assert not command.module.startswith(("pipeline.", "models.", "serving.", "preprocessing."))
    assert importlib.util.find_spec(command.module), command
    return ""


def _check_flags(module: str, arguments: tuple[str, ...]) -> None:
    known = command_page.flags_of(module)
    unknown, takes_value = [], False
    for argument in filter(lambda one: one != "...", arguments):
        name, equals, _ = argument.removeprefix("--").partition("=")
        if not argument.startswith("--"):
            assert takes_value or command_page.takes_argument(module), argument
            takes_value = False
        elif name in known or name.removeprefix("no") in known or name in ("help", "debug"):
            takes_value = not equals
        else:
            unknown.append(argument)
    if module in BEAM_TOO:
        check_options(unknown, known)
    else:
        assert not unknown, f"{module} has no {unknown}"


def _check_settings(arguments: tuple[str, ...]) -> None:
    """That `--set`s are settings of the command's model and self-supervision."""
    text = " ".join(arguments)
    overrides = re.findall(r"--set[= ](\S+\[[^\]]*\]|\S+)", text)
    # These name files of the reader.
    overrides = [one for one in overrides if not one.startswith("pretrained.")]
    named = {section: re.search(rf"--{section}=([\w.:]+)", text) for section in ("model", "ssl")}
    content = {}
    for section, found in named.items():
        name = found.group(1) if found else ""
        if name in {*registry.MODELS, *registry.SSL, *registry.ALIASES}:
            content[section] = {"name": name}
        else:  # a placeholder, or an example of the page itself: tests of that page try it
            overrides = [one for one in overrides if name == "" or not one.startswith(section)]
    if "--ssl=" not in text and any(one.startswith("ssl.") for one in overrides):
        content["ssl"] = {"name": "miss"}
    run_config.resolve(content, overrides)


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_commands_of_a_page_exist(page):
    for block in markdown_blocks.blocks(page):
        for command in markdown_blocks.commands(block):
            where = f"{_name(page)}:{command.line}"
            module = _module_of(command)
            if not module:
                continue
            try:
                _check_flags(module, command.arguments)
                _check_settings(command.arguments)
            except (AssertionError, UserError) as error:
                pytest.fail(f"{where}: {error}")
        for number, words in markdown_blocks.statements(block):
            if words[0] == "make":
                assert words[1] in TARGETS, f"{_name(page)}:{number}"
            programs = [one for one in words if re.fullmatch(r"(?:.*/)?ctr-[a-z-]+", one)]
            assert {one.rpartition("/")[2] for one in programs} <= set(SCRIPTS), number


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_flags_and_commands_in_the_text_exist(page):
    known = {flag for module in SCRIPTS.values() for flag in command_page.flags_of(module)}
    for span in markdown_blocks.prose(page):
        for name in re.findall(r"^--(\w+)", span):
            if name not in known | OTHERS:
                check_options([f"--{name}=value"], known)
        for name in re.findall(r"^ctr-[a-z-]+", span):
            assert name in SCRIPTS, name
            _check_flags(SCRIPTS[name], tuple(re.findall(r"(?<=\s)--\w+", span)))
        for name in re.findall(r"^(?:python -m )?((?:pipeline|models|serving)\.\w+)$", span):
            package, _, offered = name.partition(".")
            is_name = " " not in span and offered in dir(importlib.import_module(package))
            assert importlib.util.find_spec(name) or is_name or name == "models.config", name


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_pages_show_programs(page):
    """Pages of results are records of what was run; where modules are introduced they are named."""
    if page.parent.name == "results":
        return
    texts = [block.text for block in markdown_blocks.blocks(page)]
    if page != command_page.PAGE:
        texts += markdown_blocks.prose(page)
    shown = [text for text in texts if _OURS.search(text)]
    assert not shown, "write the program instead, as `ctr-train`"


def test_examples_of_schemas_are_json():
    for page in PAGES:
        for block in markdown_blocks.blocks(page):
            if block.language == "json" and block.text.startswith("{\n"):
                json.loads(block.text)


def test_the_page_of_commands_is_up_to_date():
    current = command_page.PAGE.read_text(encoding="utf-8")
    assert current == command_page.page(), "run python -m tests.command_page"
