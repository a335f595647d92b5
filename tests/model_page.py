"""Writes docs/models.md from the registry and the docstrings of what it names.

python -m tests.model_page
"""

import dataclasses
import inspect
import pathlib
import re
import sys
from collections.abc import Mapping
from typing import Any

from models import registry
from models.backbone_api import SelfSupervision
from models.ops.choices import MANY_LABELS
from preprocessing.values import limits

PAGE = pathlib.Path(__file__).resolve().parents[1] / "docs" / "models.md"

_INTRODUCTION = """\
# Models

A model is chosen by name, and its settings by key:

    ctr-train --data=DATA --workdir=RUN --model=deminet --set model.interests=8

A model of your own needs no entry here: `--model=package.module:Class` names a subclass of
`models.backbone_api.Backbone`. `--model=miss` is short for `--model=din --ssl=miss`.

Where a model has no module for sequences (LR to Fi-GNN), a feature of the history is one more
field: the mean of its embeddings over the events, zero for an empty history. Readings of papers
that are silent or contradict themselves stand in BUILD_NOTES.md. This page is written from the
docstrings, by `python -m tests.model_page`.
"""


def page() -> str:
    """The content of docs/models.md."""
    parts = [
        _INTRODUCTION,
        "## Names\n",
        _names(registry.MODELS, registry.load_model_class, "--model"),
        "## Settings\n",
        *_settings(registry.MODELS, registry.load_model_class),
        "## Self-supervision\n",
        "Any model with embeddings trains with any of these; the exported model holds nothing of\n"
        "it. Settings are given as `--set ssl.key=value`. With any of them the\n"
        "[training](training.md#self-supervision) has other defaults:\n"
        f"{_schedule(SelfSupervision.schedule)};\n"
        f"from {MANY_LABELS:g} training requests per user on\n"
        f"{_schedule(SelfSupervision.schedule_of_many_labels)}.\n",
        _names(registry.SSL, registry.load_ssl_class, "--ssl"),
        *_settings(registry.SSL, registry.load_ssl_class),
    ]
    return "\n".join(parts).rstrip("\n") + "\n"


def _names(entries: Mapping[str, registry.Entry], load: Any, flag: str) -> str:
    """A table of names: paper, what the class does or how the variant differs, code."""
    rows = [f"| `{flag}` | paper | what it does | code |", "| --- | --- | --- | --- |"]
    first_names: dict[type, str] = {}
    for name in entries:
        found, settings = load(name)
        variant = ", ".join(f"`{key}={_literal(value)}`" for key, value in settings.items())
        file = found.__module__.replace(".", "/") + ".py"
        if found in first_names:
            paper, purpose = "", f"`{first_names[found]}` with {variant}"
        else:
            first_names[found] = name
            paper, purpose = _first(inspect.getmodule(found)), _first(found)
        cells = f"`{name}`", paper, purpose, f"[{found.__name__}](../{file})"
        rows.append(f"| {' | '.join(map(_cell, cells))} |")
    return "\n".join(rows) + "\n"


def _schedule(settings: Mapping[str, object]) -> str:
    return ", ".join(f"`train.{key}={_literal(value)}`" for key, value in settings.items())


def _settings(entries: Mapping[str, registry.Entry], load: Any) -> list[str]:
    """For each class of settings, a table of its keys."""
    users: dict[type, list[str]] = {}
    for name in entries:
        users.setdefault(load(name)[0].Config, []).append(name)
    tables = []
    for config, names in users.items():
        meanings, limit_by_key = _meanings(config), limits.of(config)
        rows = [f"### {', '.join(names)}\n", "| key | default | limit | meaning |"]
        rows.append("| --- | --- | --- | --- |")
        for field in dataclasses.fields(config):
            limit = limit_by_key.get(field.name)
            condition = limit.condition(field.default) if limit else ""
            cells = f"`{field.name}`", f"`{_literal(field.default)}`", condition
            rows.append(f"| {' | '.join(cells)} | {_cell(meanings[field.name])} |")
        tables.append("\n".join(rows) + "\n")
    return tables


def _meanings(config: type) -> dict[str, str]:
    """The Attributes of a class of settings and of those it derives from."""
    meanings = {}
    for base in reversed(config.__mro__):
        _, _, section = (inspect.cleandoc(base.__doc__ or "")).partition("Attributes:\n")
        for key, text in re.findall(r"^    (\w+): ((?:.|\n(?!    \w+: ))*)", section, re.MULTILINE):
            meanings[key] = text
    return meanings


def _first(documented: Any) -> str:
    """The first paragraph of a docstring."""
    return inspect.getdoc(documented).partition("\n\n")[0]


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _literal(value: Any) -> str:
    """As `--set` takes it."""
    if isinstance(value, tuple):
        return "[" + ", ".join(map(_literal, value)) + "]"
    return str(value).lower() if isinstance(value, bool) else str(value)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    sys.stdout.write(f"Wrote {PAGE}\n")
