"""Every declared limit is checked where its value is used, and shown where it is described."""

import dataclasses
import functools
import math
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from models import registry
from models.config import run_config
from models.config.run_config import RunConfig
from pipeline.arguments import BuildArguments
from pipeline.synthetic.days import DailyArguments
from pipeline.synthetic.truth import SynthesizeArguments
from preprocessing.errors import UserError
from preprocessing.values import limits
from serving.tfserving.server_options import ServerOptions
from tests import command_page

ARGUMENTS = (
    BuildArguments(input="log.csv", output="data"),
    SynthesizeArguments(),
    DailyArguments(),
    ServerOptions(model_base_path="/models"),
)


def _use(run: RunConfig, section: str, settings: Any) -> None:
    dataclasses.replace(run, **{section: settings})


def _settings() -> Iterator[tuple[str, Any, Callable[[Any], None]]]:
    """Every kind of settings: how messages name it, one of its kind, and what uses it."""
    run = run_config.resolve({})
    yield "train.", run.train, functools.partial(_use, run, "train")
    for section, entries in (("model", registry.MODELS), ("ssl", registry.SSL)):
        runs = [run_config.resolve({section: {"name": name}}) for name in entries]
        for run in {type(getattr(run, section)): run for run in runs}.values():
            yield f"{section}.", getattr(run, section), functools.partial(_use, run, section)
    for arguments in ARGUMENTS:
        yield "--", arguments, type(arguments).check


CASES = [
    pytest.param(f"{prefix}{name}", settings, use, id=f"{type(settings).__name__}.{name}")
    for prefix, settings, use in _settings()
    for name in limits.of(type(settings))
]


@pytest.mark.parametrize(("shown", "settings", "use"), CASES)
def test_a_limit_is_kept(shown, settings, use):
    name = re.split(r"\.|--", shown)[1]
    limit = limits.of(type(settings))[name]
    is_tuple = isinstance(getattr(settings, name), tuple)
    beyond = limit.at_least - 1, limit.above, limit.at_most + 1, limit.below
    for number in filter(math.isfinite, beyond):
        value = (number,) if is_tuple else number
        refused = [number] if is_tuple else number
        message = f"Expected {shown} {limit.condition(value)}, found {refused}."
        with pytest.raises(UserError, match=f"^{re.escape(message)}$"):
            use(dataclasses.replace(settings, **{name: value}))
    for number in filter(math.isfinite, (limit.at_least, limit.at_most)):
        use(dataclasses.replace(settings, **{name: (number,) if is_tuple else number}))


def test_help_shows_the_limits_of_flags():
    page = command_page.PAGE.read_text(encoding="utf-8")  # which is what --help prints
    for arguments in ARGUMENTS:
        for name, limit in limits.of(type(arguments)).items():
            condition = re.escape(limit.condition(None))
            assert re.search(rf"^\| `--{name}` \|.* Must be {condition}\. \|$", page, re.MULTILINE)


def test_many_fields_have_limits():
    assert len(CASES) > 100
