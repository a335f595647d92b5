"""The configuration of a run: frozen dataclasses, JSON on disk, `--set` overrides.

    {"data": "DATA", "model": {"name": "deminet", "interests": 4}, "ssl": {"name": "none"},
     "train": {"batch_size": 128, "seed": 1}}

A key that is not understood is an error with the closest match, never ignored.
"""

import dataclasses
import json
import pathlib
import typing
from collections.abc import Iterable, Mapping
from typing import Any

from models import registry
from models.interfaces import ModelConfig
from models.precision import PRECISIONS
from preprocessing import files
from preprocessing.errors import UserError
from preprocessing.json_checks import did_you_mean


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How a model is trained.

    Attributes:
        batch_size: Requests per step, over all replicas.
        epochs: Passes over the training split, at most.
        max_steps: Steps, at most; 0 for no bound.
        learning_rate: Of Adam on the dense weights.
        embedding_learning_rate: Of the lazy Adam on the tables; 0 for the same.
        l2: Factor of the squared norm of the dense kernels in the loss.
        clip_norm: Bound on the gradient's global norm; 0 for none.
        oov_rate: Share of the known values that a step hides behind out-of-vocabulary ids, so that
            the rows of these ids are trained: values unseen in training are common in tests.
        evaluations_per_epoch: How often validation AUC is measured. CTR models overfit within a
            few epochs, so once per epoch is too seldom to catch the best weights. There are at
            least 40 steps from one evaluation to the next, however short the epoch.
        patience: Evaluations without a better validation AUC before training stops; likewise
            passes without a lower self-supervised loss on the histories of the validation split
            before pre-training stops.
        pretrain_epochs: Passes over the histories with the self-supervised loss alone, at most,
            before the main loss starts with fresh optimisers.
        ssl_steps: Steps with the self-supervised loss alone ahead of each step of the main loss.
        ssl_learning_rate: Of steps with the self-supervised loss alone; 0 for `learning_rate`.
        joint: Whether steps of the main loss also minimise the self-supervised loss.
        sampling_rate: Share of the training samples (candidates with their labels) that is kept.
        label_noise: Share of the training labels that is flipped.
        unlabelled_histories: Let self-supervision read the histories of training requests that
            `sampling_rate` leaves without any sample.
        seed: Of initial weights, order of the data and random draws.
        deterministic: Let TensorFlow use deterministic operations only (slower).
        distribute: auto, one_device or mirrored.
        precision: float32, mixed_bfloat16 or mixed_float16; of training only. Metrics of the best
            weights and exported models are those of float32.
    """

    batch_size: int = 128
    epochs: int = 20
    max_steps: int = 0
    learning_rate: float = 1e-3
    embedding_learning_rate: float = 0.0
    l2: float = 0.0
    clip_norm: float = 0.0
    oov_rate: float = 0.05
    evaluations_per_epoch: int = 4
    patience: int = 5
    pretrain_epochs: int = 0
    ssl_steps: int = 0
    ssl_learning_rate: float = 0.0
    joint: bool = True
    sampling_rate: float = 1.0
    label_noise: float = 0.0
    unlabelled_histories: bool = False
    seed: int = 1
    deterministic: bool = False
    distribute: str = "auto"
    precision: str = "float32"

    def __post_init__(self) -> None:
        """Raises `UserError` on values out of range."""
        for name in ("batch_size", "epochs", "evaluations_per_epoch", "patience"):
            if getattr(self, name) < 1:
                raise UserError(
                    f"Expected train.{name} of at least 1, found {getattr(self, name)}."
                )
        for name in (
            "max_steps",
            "embedding_learning_rate",
            "l2",
            "clip_norm",
            "pretrain_epochs",
            "ssl_steps",
            "ssl_learning_rate",
            "seed",
        ):
            if getattr(self, name) < 0:
                raise UserError(f"Expected train.{name} >= 0, found {getattr(self, name)}.")
        if self.learning_rate <= 0:
            raise UserError(f"Expected train.learning_rate > 0, found {self.learning_rate}.")
        if self.precision not in PRECISIONS:
            raise UserError(
                f"Expected train.precision to be one of {', '.join(PRECISIONS)}, "
                f"found {self.precision!r}.",
                did_you_mean(self.precision, PRECISIONS),
            )
        if not 0 < self.sampling_rate <= 1:
            raise UserError(f"Expected train.sampling_rate in (0, 1], found {self.sampling_rate}.")
        if not 0 <= self.oov_rate < 1:
            raise UserError(f"Expected train.oov_rate in [0, 1), found {self.oov_rate}.")
        if not 0 <= self.label_noise <= 1:
            raise UserError(f"Expected train.label_noise in [0, 1], found {self.label_noise}.")

    @property
    def has_ssl_steps(self) -> bool:
        """Whether there are steps with the self-supervised loss alone."""
        return self.pretrain_epochs > 0 or self.ssl_steps > 0


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
    """

    data: str
    model_name: str
    model: ModelConfig
    ssl_name: str
    ssl: Any
    train: TrainConfig

    def __post_init__(self) -> None:
        """Raises `UserError` if model, schedule and self-supervised loss do not go together."""
        if self.ssl_name == registry.NO_SSL and self.train.has_ssl_steps:
            raise UserError(
                "Expected no train.pretrain_epochs and no train.ssl_steps without "
                "self-supervision, found some.",
                "choose one with --ssl.",
            )
        if self.ssl_name != registry.NO_SSL and not (self.train.joint or self.train.has_ssl_steps):
            raise UserError(
                f"Expected steps that train with ssl {self.ssl_name!r}, found train.joint=false "
                "without train.pretrain_epochs and train.ssl_steps.",
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
        """The content of config.json, every default spelled out."""
        ssl = {} if self.ssl is None else dataclasses.asdict(self.ssl)
        return {
            "data": self.data,
            "model": {"name": self.model_name, **dataclasses.asdict(self.model)},
            "ssl": {"name": self.ssl_name, **ssl},
            "train": dataclasses.asdict(self.train),
        }

    def save(self, path: pathlib.Path) -> None:
        """Writes config.json; its data path is relative to it, so that both can move together."""
        content = self.to_json()
        content["data"] = files.relative(self.data, path.parent)
        path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def resolve(content: Mapping[str, Any], overrides: Iterable[str] = ()) -> RunConfig:
    """Turns JSON content and `--set` overrides into a checked configuration.

    Args:
        content: As in the module docstring; what is left out takes its default.
        overrides: "section.key=value", with the value in JSON or a bare string.

    Raises:
        UserError: Unknown section, key, model or ssl; a value of the wrong type.
    """
    sections = {
        "data": content.get("data", ""),
        **{name: dict(content.get(name, {})) for name in ("model", "ssl", "train")},
    }
    _check_known(content, sections, "configuration")
    for override in overrides:
        key, equals, text = override.partition("=")
        section, dot, name = key.partition(".")
        if not equals or not dot or not isinstance(sections.get(section), dict):
            raise UserError(
                f"Expected --set=section.key=value with section model, ssl or train, "
                f"found {override!r}.",
                "for example --set=train.learning_rate=0.01.",
            )
        sections[section][name] = _parse(text)

    model_name = sections["model"].pop("name", "din")
    ssl_name = sections["ssl"].pop("name", registry.NO_SSL)
    if model_name in registry.ALIASES:
        model_name, ssl_name = registry.ALIASES[model_name]
    model_class, model_settings = registry.load_model(model_name)
    ssl = None
    if ssl_name != registry.NO_SSL:
        ssl_class, ssl_settings = registry.load_ssl(ssl_name)
        ssl = _fill(ssl_class.Config, ssl_settings | sections["ssl"], "ssl")
    elif sections["ssl"]:
        raise UserError(
            f"Expected no settings of ssl without self-supervision, found {sections['ssl']}.",
            "choose one with --ssl.",
        )
    return RunConfig(
        data=sections["data"],
        model_name=model_name,
        model=_fill(model_class.Config, model_settings | sections["model"], "model"),
        ssl_name=ssl_name,
        ssl=ssl,
        train=_fill(TrainConfig, sections["train"], "train"),
    )


def load(path: str | pathlib.Path) -> dict[str, Any]:
    """Reads the content of a config.json for `resolve`, its data path made absolute.

    Raises:
        UserError: The file is missing or not a JSON object.
    """
    try:
        content = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"Expected a configuration file, found none at {path}.") from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UserError(f"Expected JSON in {path}, found a syntax error: {error}.") from None
    if not isinstance(content, dict):
        raise UserError(f"Expected an object in {path}, found {type(content).__name__}.")
    if content.get("data"):
        content["data"] = files.absolute(content["data"], pathlib.Path(path).parent)
    return content


def _parse(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _check_known(given: Mapping[str, Any], known: Iterable[str], where: str) -> None:
    known = list(known)
    for key in given:
        if key not in known:
            raise UserError(
                f"Unknown key {key!r} in {where}; known are {', '.join(known)}.",
                did_you_mean(key, known),
            )


def _fill(kind: type[Any], values: Mapping[str, Any], section: str) -> Any:
    """Builds a dataclass from JSON values, checking names and types."""
    types = typing.get_type_hints(kind)
    fields = {field.name for field in dataclasses.fields(kind) if field.init}
    _check_known(values, sorted(fields), f"section {section!r}")
    return kind(
        **{key: _cast(value, types[key], f"{section}.{key}") for key, value in values.items()}
    )


def _cast(value: Any, expected: Any, where: str) -> Any:
    origin = typing.get_origin(expected) or expected
    if origin is tuple and isinstance(value, (list, tuple)):
        item = typing.get_args(expected)[0]
        return tuple(_cast(element, item, where) for element in value)
    if origin is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    options = typing.get_args(expected) if origin not in (tuple, float, int, str, bool) else ()
    if options:
        for option in options:
            try:
                return _cast(value, option, where)
            except UserError:
                continue
    elif isinstance(value, origin) and not (origin is int and isinstance(value, bool)):
        return value
    name = getattr(expected, "__name__", str(expected))
    raise UserError(f"Expected {where} of type {name}, found {value!r}.")
