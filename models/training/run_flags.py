"""The flags of commands that train, and the configuration that they make up."""

import difflib
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

from absl import flags

from models import registry
from models.config import pretrained
from models.config import run_config as config_module
from models.config.json_values import ALIASES
from models.config.run_config import RunConfig
from models.config.setting_names import setting_names
from models.config.training import TrainConfig
from models.core import run_directory
from models.ops.choices import (
    MANY_LABELS,
    PRECISIONS,
    SSL_SCHEDULE,
    SSL_SCHEDULE_OF_MANY_LABELS,
    STRATEGIES,
)
from preprocessing import cli
from preprocessing.data_dir import DataDir
from preprocessing.errors import UserError
from preprocessing.json_checks import read_json
from preprocessing.storage import files
from preprocessing.values.limits import with_limit


class Resolved(NamedTuple):
    """A configuration and the origin of each of its values."""

    config: RunConfig
    origins: dict[str, str]


def define_config_flags() -> None:
    """Defines the flags that set a configuration; a flag left out keeps the current value."""
    scarce, many = (
        ", ".join(f"train.{key}={value:g}" for key, value in schedule.items())
        for schedule in (SSL_SCHEDULE, SSL_SCHEDULE_OF_MANY_LABELS)
    )
    with cli.flag_group("The model"):
        names = ", ".join([*registry.MODELS, *registry.ALIASES])
        flags.DEFINE_string("model", None, f"{names}; or package.module[:Class] (default din).")
        flags.DEFINE_string(
            "ssl",
            None,
            f"Self-supervision: none, {', '.join(registry.SSL)} (default none). With any of them "
            f"the training has other defaults: {scarce}; from {MANY_LABELS:g} training requests "
            f"per user on {many}.",
        )
        flags.DEFINE_string("config", None, "Configuration file to start from, e.g. a config.json.")
        flags.DEFINE_multi_string(
            "set", [], "Override, as in train.learning_rate=0.01; repeatable (docs/models.md)."
        )
    with cli.flag_group("The training"):
        flags.DEFINE_string(
            "warm_start", None, "Run directory whose weights the model begins with."
        )
        flags.DEFINE_enum("distribute", None, STRATEGIES, "Devices and processes (default auto).")
        define_integer(
            "pretrain_epochs",
            "Passes with the self-supervised loss alone before the training (default 0).",
        )
        define_integer("max_steps", "Largest number of steps (default: no limit).")
        flags.DEFINE_bool(
            "deterministic",
            None,
            "Use deterministic operations, one after another: a run repeats bit for bit on a CPU.",
        )
        flags.DEFINE_enum("precision", None, PRECISIONS, "Precision of training (default float32).")


def define_integer(name: str, meaning: str) -> None:
    """Defines the flag of an integer of `TrainConfig`."""
    flags.DEFINE_integer(name, None, with_limit(meaning, TrainConfig, name))


def check_paths(data: str | None, continued: str | None = None) -> None:
    """Raises `UserError` unless the data set and the run to begin with are there.

    Whoever reads them later would say so as well, but only after TensorFlow is loaded.

    Args:
        data: Data set directory, if a flag names one.
        continued: Run directory to go on with, if a flag names one.
    """
    if data:
        DataDir.open(data, verify=False)
    for path in filter(None, (flags.FLAGS.warm_start, continued)):
        run_directory.require_run(path)


def resolve_flags(
    data: str | None,
    seed: int | None,
    run: pathlib.Path | None = None,
    continued: str | None = None,
) -> Resolved:
    """Resolves the configuration: the run or file, overridden by flags, then by --set.

    Args:
        data: Data set directory; None for that of the configuration.
        seed: Seed of the training; None for that of the configuration.
        run: Run directory whose configuration is the start if --config names none.
        continued: Run directory to go on with, whose configuration is the start.

    Raises:
        UserError: No data set is named, or `run_config.resolve` rejects the configuration.
    """
    flag_values = flags.FLAGS
    content: dict[str, Any] = {}
    layers, stored = [], {}
    if continued:
        if flag_values.config:
            raise UserError(
                f"Expected the settings of one run, found --config={flag_values.config} and "
                f"--continue={continued}.",
                "leave --config out; --set changes single settings.",
            )
        content = config_module.load_to_continue(pathlib.Path(continued) / run_directory.CONFIG)
        layers.append((f"--continue={continued}", dict(content)))
    elif flag_values.config:
        content = config_module.load(flag_values.config)
    elif run is not None:
        content = config_module.load(run / run_directory.CONFIG)
        if (run / run_directory.ORIGINS).exists():
            description = "the origins of a configuration"
            stored = read_json(run / run_directory.ORIGINS, description, "remove it.")
    names = {
        "model": flag_values.model,
        "ssl": registry.ALIASES.get(flag_values.model, ("", flag_values.ssl))[1],
    }
    # Settings of another model or self-supervision do not apply.
    for section, name in names.items():
        if name not in (None, content.get(section, {}).get("name")):
            if section == "ssl":
                content["train"] = config_module.without_schedule(content)
            content.pop(section, None)
    if flag_values.config:
        layers.append((flag_values.config, dict(content)))
    settings = {
        "seed": seed,
        "distribute": flag_values.distribute,
        "pretrain_epochs": flag_values.pretrain_epochs,
        "max_steps": flag_values.max_steps,
        "deterministic": flag_values.deterministic,
        "precision": flag_values.precision,
    }
    from_flags: dict[str, Any] = {
        "train": {name: value for name, value in settings.items() if value is not None}
    }
    for section, name in names.items():
        if name is not None:
            from_flags[section] = {"name": name}
            content[section] = content.get(section, {}) | {"name": name}
    paths = {"data": data, "warm_start": flag_values.warm_start, "continues": continued}
    for key, path in paths.items():
        if path is not None:
            content[key] = from_flags[key] = files.absolute(path, pathlib.Path())
    content["train"] = content.get("train", {}) | from_flags["train"]
    if not content.get("data"):
        raise UserError("Expected --data, found neither the flag nor a configuration with it.")
    overrides: dict[str, dict[str, Any]] = {}
    for override in flag_values.set:
        section, name, value = config_module.parse_override(override)
        overrides.setdefault(section, {})[name] = value
    config = config_module.resolve(content, flag_values.set)
    layers += [("flag", from_flags), ("--set", overrides)]
    return Resolved(config, config_module.origins(config, layers, stored))


def setting_hint(flag: str, arguments: Sequence[str]) -> str:
    """A hint on how to write a setting that was mistaken for a flag.

    Args:
        flag: Name of the unknown flag, without dashes.
        arguments: Command line, with the model, the self-supervision and the flag's value.

    Returns:
        The right spelling, for example `write --set=train.epochs=5.`; "" if no setting of the model
        has a similar name.
    """
    name = flag.replace("-", "_").rpartition(".")[2]
    if flag.partition(".")[0] == pretrained.SECTION:
        return f"write --set={pretrained.SECTION}.FEATURE=FILE."
    settings = _known_settings(arguments)
    by_name: dict[str, list[str]] = {}
    for setting in settings:
        by_name.setdefault(setting.partition(".")[2], []).append(setting)
    name = name if name in by_name else ALIASES.get(name, name)
    close = [name] if name in by_name else difflib.get_close_matches(name, by_name, 1, 0.75)
    if not close:
        return ""
    value = _value(flag, arguments) or "VALUE"
    if close[0] in flags.FLAGS:  # Some settings have a flag.
        return f"write --{close[0]}={value}."
    spellings = [f"--set={setting}={value}" for setting in by_name[close[0]]]
    return f"write {' or '.join(spellings)}."


def _known_settings(arguments: Sequence[str]) -> list[str]:
    """The settings of the model that a command line names, or of the default model."""
    model, ssl = (_value(flag, arguments) for flag in ("model", "ssl"))
    model, implied = registry.ALIASES.get(model, (model or "din", registry.NO_SSL))
    return setting_names(model, ssl or implied)


def _value(flag: str, arguments: Sequence[str]) -> str:
    """The value of a flag on a command line; "" if it is not there."""
    for index, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if argument.startswith("-") and name.lstrip("-") == flag:
            following = arguments[index + 1 : index + 2]
            return value if equals else next((v for v in following if v[:1] != "-"), "")
    return ""
