"""The names of all settings, read from the sources: hints on flags do not wait for TensorFlow."""

import ast
import dataclasses
import functools
import pathlib
from collections.abc import Iterator

from models import registry
from models.config.training import TrainConfig

_ROOT = pathlib.Path(__file__).resolve().parents[2]
_ANY_MODEL = "models.backbone_api:ModelConfig"


def setting_names(model_name: str, ssl_name: str) -> list[str]:
    """All names that `--set` accepts for a model and a self-supervision, as `section.key`.

    Args:
        model_name: A name of `registry.MODELS`. Of a model that is not there only the settings are
            known that all models have.
        ssl_name: A name of `registry.SSL`; of others no setting is known.
    """
    names = {"train": [field.name for field in dataclasses.fields(TrainConfig)]}
    names["model"] = of_class(registry.MODELS.get(model_name, registry.Entry(_ANY_MODEL)).path)
    if ssl_name in registry.SSL:
        names["ssl"] = of_class(registry.SSL[ssl_name].path)
    return [f"{section}.{name}" for section, found in names.items() for name in found]


def of_class(path: str) -> list[str]:
    """The names of the settings of a model or a self-supervision.

    Args:
        path: Path of a class of ours, as entries of the registry have it.
    """
    return list(dict.fromkeys(_fields(*path.split(":"))))


def _fields(module: str, name: str) -> Iterator[str]:
    """The settings of a class of settings, or of a class that has one; those of bases first."""
    classes, origins = _names_of(module)
    if name not in classes:
        if origins.get(name, "").startswith("models."):
            yield from _fields(origins[name], name)
        return
    node = classes[name]
    if config := _config_of(node):
        yield from _fields(module, config)
        return
    for base in node.bases:
        yield from _fields(module, ast.unparse(base))
    for statement in node.body:
        if isinstance(statement, ast.AnnAssign) and not _is_of_class(statement):
            yield ast.unparse(statement.target)


def _config_of(node: ast.ClassDef) -> str:
    """The name of the class of settings that a class names as its own; "" if it names none."""
    for statement in node.body:
        if isinstance(statement, ast.Assign):
            target = statement.targets[0]
        elif isinstance(statement, ast.AnnAssign):
            target = statement.target
        else:
            continue
        if ast.unparse(target) == "Config" and statement.value:
            return ast.unparse(statement.value)
    return ""


def _is_of_class(statement: ast.AnnAssign) -> bool:
    return "ClassVar" in ast.unparse(statement.annotation)


@functools.cache
def _names_of(module: str) -> tuple[dict[str, ast.ClassDef], dict[str, str]]:
    """The classes of a module by name, and the modules that its other names come from."""
    path = _ROOT.joinpath(*module.split(".")).with_suffix(".py")
    body = ast.parse(path.read_text(encoding="utf-8")).body
    classes = {node.name: node for node in body if isinstance(node, ast.ClassDef)}
    origins = {
        alias.name: node.module
        for node in body
        if isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names
    }
    return classes, origins
