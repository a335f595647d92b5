"""Every declared limit is checked where its value is set, and shown where it is described."""

import dataclasses
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import command_page
import pytest

from models import registry
from models.config import run_config
from models.config.training import TrainConfig
from pipeline.arguments import BuildArguments
from pipeline.synthetic.truth import SynthesizeArguments
from preprocessing.errors import UserError
from preprocessing.values import limits
from serving.tfserving.server_options import ServerOptions

ARGUMENTS = {
    "pipeline.build_examples": BuildArguments(input="log.csv", output="data"),
    "pipeline.synthesize": SynthesizeArguments(),
    "serving.server": ServerOptions(model_base_path="/models"),
}


class _Field(NamedTuple):
    """A field with a limit.

    Attributes:
        prefix: Prefix of its name in messages.
        name: Name.
        limit: Limit.
        default: Default.
        set: Sets and checks it.
    """

    prefix: str
    name: str
    limit: limits.Limit
    default: Any
    set: Callable[[str, Any], object]

    def __str__(self) -> str:
        return f"{self.prefix}{self.name}"

    def value(self, number: float) -> Any:
        """A value of the field's type that holds a number."""
        if isinstance(self.default, tuple):
            return (number,)
        return number if isinstance(self.default, int) else float(number)


def _fields(prefix: str, kind: type, set_: Callable[[str, Any], object]) -> Iterator[_Field]:
    for name, limit in limits.of(kind).items():
        yield _Field(prefix, name, limit, getattr(kind, name), set_)


def _setter(section: str, content: dict[str, Any]) -> Callable[[str, Any], object]:
    def set_(name: str, value: Any) -> object:
        return run_config.resolve(content | {section: content.get(section, {}) | {name: value}})

    return set_


def _every_field() -> Iterator[_Field]:
    yield from _fields("train.", TrainConfig, _setter("train", {}))
    for section, entries, load in (
        ("model", registry.MODELS, registry.load_model),
        ("ssl", registry.SSL, registry.load_ssl),
    ):
        names = {load(name)[0].Config: name for name in reversed(entries)}
        for kind, name in names.items():
            yield from _fields(f"{section}.", kind, _setter(section, {section: {"name": name}}))
    for arguments in ARGUMENTS.values():
        yield from _fields(
            "--",
            type(arguments),
            lambda name, value, arguments=arguments: dataclasses.replace(
                arguments, **{name: value}
            ).check(),
        )


FIELDS = list(_every_field())


@pytest.mark.parametrize("field", FIELDS, ids=str)
def test_a_limit_is_kept(field):
    limit = field.limit
    beyond = [limit.at_least - 1, limit.above, limit.at_most + 1, limit.below]
    for value in (field.value(number) for number in beyond if abs(number) < float("inf")):
        shown = list(value) if isinstance(value, tuple) else value
        message = f"Expected {field} {limit.condition(value)}, found {shown}."
        with pytest.raises(UserError, match=f"^{re.escape(message)}$"):
            field.set(field.name, value)
    for number in (limit.at_least, limit.at_most):
        if abs(number) < float("inf"):
            field.set(field.name, field.value(number))


@pytest.mark.parametrize("command", ARGUMENTS)
def test_help_shows_the_limits_of_flags(command):
    flags = command_page.flags_of(command)
    for name, limit in limits.of(type(ARGUMENTS[command])).items():
        assert flags[name].help.endswith(f" Must be {limit.condition(None)}.")


def test_many_fields_have_limits():
    assert len(FIELDS) > 100
