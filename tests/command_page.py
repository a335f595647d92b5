"""Writes docs/commands.md from the commands' module docstrings and flags.

python -m tests.command_page
"""

import functools
import importlib
import inspect
import pathlib
import re
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from absl import flags

from preprocessing import cli

ROOT = pathlib.Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "commands.md"

_SCRIPT = re.compile(r'^(ctr-[\w-]+) = "([\w.]+):console_main"$', re.MULTILINE)
BY_MACHINE = ("rest_api_num_threads", "grpc_max_threads")  # their defaults count its cores
_INTRODUCTION = """\
# Commands

Every command is a program, in the `bin` of the environment that it is installed in. In a checkout
its module does the same: `python -m models.train` is `ctr-train`. `--help` prints what stands here,
`--debug` shows the stack trace of an error. A flag without a default in its line may be left out
unless it is marked as required. This page is written from the commands, by
`python -m tests.command_page`.

Programs work in any directory. `python -m` looks for modules in the current one first: where that
has a folder `models`, `pipeline`, `serving` or `preprocessing` of its own, `python -m models.train`
may find the wrong one.
"""


@functools.cache
def scripts() -> dict[str, str]:
    """Name of the program to module, of every command, in the order of pyproject.toml."""
    found = _SCRIPT.findall((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return dict(found)


@functools.cache
def command(module: str) -> ModuleType:
    """The module of a command."""
    return importlib.import_module(module)


@functools.cache
def flags_of(module: str) -> dict[str, Any]:
    """The flags of a command by name, as absl describes them."""
    before = set(flags.FLAGS)
    getattr(command(module), "define_flags", lambda: None)()
    found = {name: flags.FLAGS[name] for name in flags.FLAGS if name not in before}
    for name in found:
        delattr(flags.FLAGS, name)
    return found


def takes_argument(module: str) -> bool:
    """Whether one of the flags may be given as an argument without its name."""
    return "positional=" in inspect.getsource(command(module))


def page() -> str:
    """The content of docs/commands.md."""
    rows = [
        f"| [`{name}`](#{name}) | `python -m {module}` | {_purpose(module)} |"
        for name, module in scripts().items()
    ]
    head = "| program | as a module | what it does |\n| --- | --- | --- |"
    sections = ("\n".join(_section(name, module)) for name, module in scripts().items())
    return "\n".join([_INTRODUCTION, head, *rows, "", *sections]).rstrip("\n") + "\n"


def _section(name: str, module: str) -> Iterator[str]:
    """A command: its docstring with the names of programs, its flags in groups."""
    yield f"## {name}\n"
    yield f"As a module: `python -m {module}`.\n"
    yield f"```text\n{cli.with_programs(inspect.cleandoc(command(module).__doc__ or ''))}\n```\n"
    groups: dict[str, list[Any]] = {}
    for flag in flags_of(module).values():
        groups.setdefault(cli.title_of(flag), []).append(flag)
    for title, found in groups.items():
        yield f"{title}:\n\n| flag | default | meaning |\n| --- | --- | --- |"
        yield from map(_row, found)
        yield ""


def _row(flag: Any) -> str:
    """A line of a table of flags."""
    meaning = cli.meaning(flag, code="`").replace("|", "\\|")
    return f"| `--{flag.name}` | {_default(flag)} | {meaning} |"


def _default(flag: Any) -> str:
    """What a flag is if it is not given, as a cell."""
    if flag.name in BY_MACHINE:
        return "by machine"
    if cli.is_required(flag):
        return "required"
    return f"`{cli.default(flag)}`" if cli.default(flag) else ""


def _purpose(module: str) -> str:
    """The first sentence of a docstring, as a cell."""
    return " ".join(inspect.cleandoc(command(module).__doc__ or "").partition("\n\n")[0].split())


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    sys.stdout.write(f"Wrote {PAGE}\n")
