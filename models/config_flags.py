"""The flags of commands that train, and the configuration that they make up."""

import json
import pathlib
from typing import Any, NamedTuple

from absl import flags

from models import config as config_module
from models import registry, runs
from models.config import RunConfig
from models.distribution import STRATEGIES
from models.interfaces import SelfSupervision
from models.precision import PRECISIONS
from preprocessing import files
from preprocessing.errors import UserError


class Resolved(NamedTuple):
    """A configuration and where each of its values comes from."""

    config: RunConfig
    origins: dict[str, str]


def define_config_flags() -> None:
    """Flags that make up a configuration; those left out keep the configuration's value."""
    flags.DEFINE_string("model", None, "Model name, or package.module[:Class] (default din).")
    brought = (f"train.{key}={value:g}" for key, value in SelfSupervision.schedule.items())
    flags.DEFINE_string(
        "ssl",
        None,
        f"Self-supervision: none, {', '.join(registry.SSL)} (default none). With any of them the "
        f"training has other defaults: {', '.join(brought)}.",
    )
    flags.DEFINE_string("config", None, "Configuration file to start from, e.g. a config.json.")
    flags.DEFINE_multi_string("set", [], "Override, as in train.learning_rate=0.01; repeatable.")
    flags.DEFINE_string("warm_start", None, "Run whose weights to begin with.")
    flags.DEFINE_string("distribute", None, f"{', '.join(STRATEGIES)} (default auto).")
    flags.DEFINE_integer(
        "pretrain_epochs", None, "Passes with the self-supervised loss alone, first (default 0)."
    )
    flags.DEFINE_integer("max_steps", None, "Steps at most (default: no bound).")
    flags.DEFINE_bool("deterministic", None, "Use deterministic operations only.")
    flags.DEFINE_string("precision", None, f"{', '.join(PRECISIONS)} (default float32).")


def resolve_flags(data: str | None, seed: int | None, run: pathlib.Path | None = None) -> Resolved:
    """The configuration: run or file, then flags, then --set.

    Args:
        data: Data set directory; None for that of the file.
        seed: Of the training; None for that of the file.
        run: Run directory whose configuration to start from where --config names none.

    Raises:
        UserError: No data set named, or anything that `config.resolve` refuses.
    """
    given = flags.FLAGS
    content: dict[str, Any] = {}
    layers, stored = [], {}
    if given.config:
        content = config_module.load(given.config)
    elif run is not None:
        content = config_module.load(run / runs.CONFIG)
        if (run / runs.ORIGINS).exists():
            stored = json.loads((run / runs.ORIGINS).read_text(encoding="utf-8"))
    names = {"model": given.model, "ssl": registry.ALIASES.get(given.model, ("", given.ssl))[1]}
    # Settings of another model or self-supervision mean nothing here.
    for section, name in names.items():
        if name not in (None, content.get(section, {}).get("name")):
            if section == "ssl":
                content["train"] = config_module.without_schedule(content)
            content.pop(section, None)
    if given.config:
        layers.append((given.config, dict(content)))
    settings = {
        "seed": seed,
        "distribute": given.distribute,
        "pretrain_epochs": given.pretrain_epochs,
        "max_steps": given.max_steps,
        "deterministic": given.deterministic,
        "precision": given.precision,
    }
    from_flags: dict[str, Any] = {
        "train": {name: value for name, value in settings.items() if value is not None}
    }
    for section, name in names.items():
        if name is not None:
            from_flags[section] = {"name": name}
            content[section] = content.get(section, {}) | {"name": name}
    for key, path in (("data", data), ("warm_start", given.warm_start)):
        if path is not None:
            content[key] = from_flags[key] = files.absolute(path, pathlib.Path())
    content["train"] = content.get("train", {}) | from_flags["train"]
    if not content.get("data"):
        raise UserError("Expected --data, found neither the flag nor a configuration with it.")
    overrides: dict[str, dict[str, Any]] = {}
    for override in given.set:
        section, name, value = config_module.parse_override(override)
        overrides.setdefault(section, {})[name] = value
    config = config_module.resolve(content, given.set)
    layers += [("flag", from_flags), ("--set", overrides)]
    return Resolved(config, config_module.origins(config, layers, stored))
