"""Names on the command line -> classes. Adding a model is one file and one line here."""

import importlib
import inspect
from typing import Any, NamedTuple

from models.interfaces import Backbone, SelfSupervision
from preprocessing.errors import UserError
from preprocessing.json_checks import did_you_mean


class Entry(NamedTuple):
    """Where a class lives, and the settings that make up a named variant of it."""

    path: str
    settings: dict[str, Any] = {}


MODELS: dict[str, Entry] = {
    "din": Entry("models.backbones.din:DIN"),
    "deminet": Entry("models.backbones.deminet:DemiNet"),
    "deminet_wo_ssl": Entry("models.backbones.deminet:DemiNet", {"ssl_weight": 0.0}),
}

SSL: dict[str, Entry] = {
    "miss": Entry("models.ssl.miss:MISS"),
}

NO_SSL = "none"
ALIASES = {"miss": ("din", "miss")}
"""Names of a model together with its self-supervision."""


def load_model(name: str) -> tuple[type[Backbone], dict[str, Any]]:
    """The class of a model and the settings of the named variant.

    Args:
        name: A name of `MODELS`, or `package.module` or `package.module:Class` of your own.

    Raises:
        UserError: No such name or class.
    """
    return _load(name, MODELS, Backbone, "model")


def load_ssl(name: str) -> tuple[type[SelfSupervision], dict[str, Any]]:
    """The class of a self-supervised loss and the settings of the named variant.

    Raises:
        UserError: No such name or class.
    """
    return _load(name, SSL, SelfSupervision, "ssl")


def _load(name: str, known: dict[str, Entry], base: type, flag: str) -> tuple[Any, dict[str, Any]]:
    if name in known:
        entry = known[name]
    elif "." in name:
        entry = Entry(name)
    else:
        raise UserError(
            f"Expected --{flag} to be one of {', '.join(known)} or a dotted path, found {name!r}.",
            did_you_mean(name, known),
        )
    module_name, _, class_name = entry.path.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise UserError(
            f"Expected --{flag}={name} to name a module, but {error}.", "check PYTHONPATH."
        ) from None
    found = [
        member
        for _, member in inspect.getmembers(module, inspect.isclass)
        if issubclass(member, base)
        and member.__module__ == module_name
        and class_name in ("", member.__name__)
    ]
    if len(found) != 1:
        raise UserError(
            f"Expected one {base.__name__} in {entry.path}, found {len(found)}.",
            f"name it: --{flag}={module_name}:ClassName.",
        )
    return found[0], dict(entry.settings)
