"""The configuration of a run: frozen dataclasses, JSON on disk, `--set` overrides.

    {"data": "DATA", "model": {"name": "deminet", "interests": 4}, "ssl": {"name": "none"},
     "train": {"batch_size": 128, "seed": 1}}

An unknown key is an error that names the closest match; it is never ignored.
"""

import dataclasses
import json
import pathlib
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from models import registry
from models.config import pretrained, setting_names
from models.config.json_values import ALIASES, cast, check_known, fill
from models.config.pretrained import Pretrained
from models.config.training import TrainConfig
from models.ops.choices import MANY_LABELS
from preprocessing.data_dir import DataDir
from preprocessing.errors import UserError
from preprocessing.json_checks import read_json
from preprocessing.storage import files
from preprocessing.values import limits

if TYPE_CHECKING:
    from models.backbone_api import ModelConfig

SECTIONS = ("model", "ssl", "train")
_PATHS = ("data", "warm_start", "continues")
DEFAULT = "default"
"""Origin of a value that nothing has set."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Everything that determines a run.

    Attributes:
        data: Absolute path of the data set.
        model_name: A name of `models.registry.MODELS` or a dotted path.
        model: Settings of the model.
        ssl_name: A name of `models.registry.SSL`, "none" or a dotted path.
        ssl: Settings of the self-supervised loss; None with "none".
        train: Settings of the training.
        warm_start: Absolute path of the run whose weights this one begins with; "" for none.
        continues: Absolute path of the run that this one goes on with on newer data; "" for none.
        pretrained: Vectors that tables begin with, by name of a feature.
    """

    data: str
    model_name: str
    model: "ModelConfig"
    ssl_name: str
    ssl: Any
    train: TrainConfig
    warm_start: str = ""
    continues: str = ""
    pretrained: Mapping[str, Pretrained] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raises `UserError` on values beyond limits and on parts that are incompatible."""
        for section in SECTIONS:
            limits.check(getattr(self, section), f"{section}.")
        if self.warm_start and self.continues:
            raise UserError(
                f"Expected one run to begin with, found --warm_start={self.warm_start} and "
                f"--continue={self.continues}.",
                "--continue takes over weights, optimisers and step; --warm_start weights alone.",
            )
        if self.train.replay and not self.continues:
            raise UserError(
                f"Expected train.replay with --continue only, found {self.train.replay}: without "
                "it there are no earlier days to replay."
            )
        if self.ssl_name == registry.NO_SSL and self.train.has_ssl_steps:
            raise UserError(
                "Expected no train.pretrain_epochs and no train.ssl_steps without "
                "self-supervision, found some.",
                "choose one with --ssl.",
            )
        if self.ssl_name != registry.NO_SSL and not (self.train.joint or self.train.has_ssl_steps):
            raise UserError(
                f"Expected steps that train with ssl {self.ssl_name!r}, found train.joint=false "
                "without train.ssl_steps and train.pretrain_epochs.",
                "set one of them.",
            )
        # A model without embeddings (LR) has nothing that self-supervision could train.
        least = 1 if self.ssl else min(1, type(self.model).embedding_size)
        if self.model.embedding_size < least:
            raise UserError(
                f"Expected model.embedding_size of at least {least} for model "
                f"{self.model_name!r} with ssl {self.ssl_name!r}, "
                f"found {self.model.embedding_size}."
            )

    def to_json(self) -> dict[str, Any]:
        """The content of config.json, with every default written out."""
        ssl = {} if self.ssl is None else dataclasses.asdict(self.ssl)
        return {
            "data": self.data,
            "model": {"name": self.model_name, **dataclasses.asdict(self.model)},
            "ssl": {"name": self.ssl_name, **ssl},
            "train": dataclasses.asdict(self.train),
            "warm_start": self.warm_start,
            "continues": self.continues,
            pretrained.SECTION: {n: dataclasses.asdict(p) for n, p in self.pretrained.items()},
        }

    def save(self, path: pathlib.Path) -> None:
        """Writes config.json, with paths relative to it, so that all can be moved together."""
        content = self.to_json()
        for name in _PATHS:
            if content[name]:
                content[name] = files.relative(content[name], path.parent)
        for record in content[pretrained.SECTION].values():
            record["file"] = files.relative(record["file"], path.parent)
        files.write_bytes(path, f"{json.dumps(content, indent=2)}\n".encode())


def resolve(content: Mapping[str, Any], overrides: Iterable[str] = ()) -> RunConfig:
    """Turns JSON content and `--set` overrides into a checked configuration.

    Args:
        content: JSON content as in the module docstring. Missing values take their default, which
            the schedule of the self-supervision may set (see `schedule`).
        overrides: Overrides "section.key=value", with the value in JSON or a bare string.

    Raises:
        UserError: A section, key, model or ssl is unknown, or a value has the wrong type.
    """
    sections = {
        **{name: cast(content.get(name, ""), str, name) for name in _PATHS},
        **{name: _section(content, name) for name in (*SECTIONS, pretrained.SECTION)},
    }
    check_known(content, sections, "configuration")
    for override in overrides:
        section, name, value = parse_override(override)
        sections[section][name] = value

    model_name = cast(sections["model"].pop("name", "din"), str, "model.name")
    ssl_name = cast(sections["ssl"].pop("name", registry.NO_SSL), str, "ssl.name")
    if model_name in registry.ALIASES:
        model_name, ssl_name = registry.ALIASES[model_name]
    _check_names(model_name, ssl_name, sections)
    model_class, model_settings = registry.load_model_class(model_name)
    ssl = None
    if ssl_name != registry.NO_SSL:
        ssl_class, ssl_settings = registry.load_ssl_class(ssl_name)
        ssl = fill(ssl_class.Config, ssl_settings | sections["ssl"], "ssl")
    elif sections["ssl"]:
        raise UserError(
            f"Expected no settings of ssl without self-supervision, found {sections['ssl']}.",
            "choose one with --ssl.",
        )
    return RunConfig(
        data=sections["data"],
        model_name=model_name,
        model=fill(model_class.Config, model_settings | sections["model"], "model"),
        ssl_name=ssl_name,
        ssl=ssl,
        train=fill(TrainConfig, schedule(ssl_name, sections["data"]) | sections["train"], "train"),
        warm_start=sections["warm_start"],
        continues=sections["continues"],
        pretrained={n: pretrained.parse(r, n) for n, r in sections[pretrained.SECTION].items()},
    )


def _check_names(model_name: str, ssl_name: str, sections: Mapping[str, Any]) -> None:
    """Raises `UserError` on the first name that is unknown; the classes would load TensorFlow."""
    entries = {"model": registry.model_entry(model_name)}
    if ssl_name != registry.NO_SSL:
        entries["ssl"] = registry.ssl_entry(ssl_name)
    fill(TrainConfig, sections["train"], "train")
    for section, entry in entries.items():
        if entry in (*registry.MODELS.values(), *registry.SSL.values()):
            names = sorted(setting_names.of_class(entry.path))
            check_known(sections[section], names, f"section {section!r}")


def schedule(ssl_name: str, data: str) -> dict[str, Any]:
    """The defaults of the section "train" that a self-supervised loss sets.

    Args:
        ssl_name: As in `RunConfig`.
        data: Data set directory, whose number of training requests per user decides; where there is
            no data set, labels count as scarce.
    """
    scarce, many = _schedules(ssl_name)
    if ssl_name == registry.NO_SSL or not data:
        return dict(scarce)
    requests_per_user = DataDir.requests_per_user(data) or 0.0
    return dict(many if requests_per_user >= MANY_LABELS else scarce)


def _schedules(ssl_name: str) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """The schedules of a self-supervised loss for scarce and for many labels."""
    if ssl_name == registry.NO_SSL:
        return {}, {}
    ssl_class = registry.load_ssl_class(ssl_name)[0]
    return ssl_class.schedule, ssl_class.schedule_of_many_labels


def without_schedule(content: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of the section "train" without the defaults that the self-supervision sets.

    Args:
        content: Content of a configuration, as `load` returns it.

    Returns:
        The settings to keep if another self-supervision is chosen: those that differ from their
        default under the current self-supervision, for scarce labels and for many.
    """
    train = content.get("train", {})
    ssl_name = content.get("ssl", {}).get("name", registry.NO_SSL)
    defaults = [fill(TrainConfig, settings, "") for settings in _schedules(ssl_name)]
    return {
        key: value
        for key, value in train.items()
        if all(value != getattr(default, key, None) for default in defaults)
    }


def origins(
    config: RunConfig,
    layers: Iterable[tuple[str, Mapping[str, Any]]],
    stored: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Origin of each value of a configuration.

    Args:
        config: The resolved configuration.
        layers: Layers of the configuration in the order of application: a name of the layer, and
            content as `resolve` takes it.
        stored: Origins of the values that no layer names, if they come from an earlier run.

    Returns:
        Origin by `section.key`: the name of a layer, the name of the model or the
        self-supervision whose variant or schedule sets it, or `DEFAULT`.
    """
    origin_by_key: dict[str, str] = {}
    for section, name, load in (
        ("model", config.model_name, registry.load_model_class),
        ("ssl", config.ssl_name, registry.load_ssl_class),
    ):
        settings = {} if name == registry.NO_SSL else load(name)[1]
        origin_by_key |= {f"{section}.{key}": f"{section} {name}" for key in settings}
    scheduled = schedule(config.ssl_name, config.data)
    origin_by_key |= {f"train.{key}": f"ssl {config.ssl_name}" for key in scheduled}
    origin_by_key |= stored or {}
    for layer, content in layers:
        origin_by_key |= dict.fromkeys(flat(content), layer)
    return {key: origin_by_key.get(key, DEFAULT) for key in flat(config.to_json())}


def changed(config: RunConfig) -> dict[str, Any]:
    """The names of model and self-supervision, and the values that are not those of their classes.

    What a variant or the schedule of a self-supervision sets counts as changed.

    Args:
        config: The resolved configuration.

    Returns:
        Value by `section.key`.
    """
    values = flat(config.to_json())
    kept = set()
    for section in SECTIONS:
        settings = getattr(config, section)
        for field in dataclasses.fields(settings) if settings is not None else ():
            made = field.default_factory
            default = field.default if made is dataclasses.MISSING else made()
            if getattr(settings, field.name) == default:
                kept.add(f"{section}.{field.name}")
    return {
        key: value
        for key, value in values.items()
        if value != "" and ".".join(key.split(".")[:2]) not in kept
    }


def describe(config: RunConfig, found: Mapping[str, str]) -> str:
    """A line per value that is no default, with its origin, as `origins` returns it."""
    values = {key: v for key, v in flat(config.to_json()).items() if found[key] != DEFAULT}
    width = max(map(len, values))
    return "".join(
        f"{key:{width}s} = {json.dumps(value)}  ({found[key]})\n" for key, value in values.items()
    )


def parse_override(override: str) -> tuple[str, str, Any]:
    """Section, key and value of a `--set`.

    Raises:
        UserError: The override has another form.
    """
    key, equals, text = override.partition("=")
    section, dot, name = key.partition(".")
    if equals and dot and section == pretrained.SECTION:
        return section, name, pretrained.located(_parse(text), pathlib.Path())
    if not equals or not dot or section not in SECTIONS:
        setting = ALIASES.get(key, key)
        is_known = setting in {field.name for field in dataclasses.fields(TrainConfig)}
        raise UserError(
            f"Expected --set=section.key=value with section model, ssl, train "
            f"or {pretrained.SECTION}, "
            f"found {override!r}.",
            f"write --set=train.{setting}={text or 'VALUE'}."
            if is_known
            else "for example --set=train.learning_rate=0.01.",
        )
    return section, name, _parse(text)


def load(path: str | pathlib.Path) -> dict[str, Any]:
    """Reads the content of a config.json for `resolve`, with absolute paths.

    Raises:
        UserError: The file cannot be read or is not a JSON object.
    """
    content = read_json(pathlib.Path(path), "a configuration")
    for name in _PATHS:
        if content.get(name):
            location = cast(content[name], str, f"{path}: {name}")
            content[name] = files.absolute(location, pathlib.Path(path).parent)
    for name, record in content.get(pretrained.SECTION, {}).items():
        content[pretrained.SECTION][name] = pretrained.located(record, pathlib.Path(path).parent)
    return content


def load_to_continue(path: str | pathlib.Path) -> dict[str, Any]:
    """The content of a config.json for `resolve`, for a run that continues the one it is from.

    What the earlier run began with is not done again: passes ahead, and weights to start from.

    Args:
        path: As in `load`.

    Raises:
        UserError: The conditions of `load`.
    """
    content = load(path)
    return content | {"warm_start": "", "train": content["train"] | {"pretrain_epochs": 0}}


def flat(content: Mapping[str, Any]) -> dict[str, Any]:
    """The values of sections by `section.key`, and values outside of sections by their key."""
    values: dict[str, Any] = {}
    for key, value in content.items():
        if isinstance(value, Mapping):
            values |= {f"{key}.{name}": setting for name, setting in flat(value).items()}
        else:
            values[key] = value
    return values


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """A text for each value that differs, with its key, the old value and the new one."""
    keys = dict.fromkeys([*after, *before])
    return [
        f"{key} was {before.get(key)!r}, is {after.get(key)!r}"
        for key in keys
        if before.get(key) != after.get(key)
    ]


def _parse(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _section(content: Mapping[str, Any], name: str) -> dict[str, Any]:
    section = content.get(name, {})
    if not isinstance(section, Mapping):
        raise UserError(f"Expected an object as section {name!r}, found {section!r}.")
    return dict(section)
