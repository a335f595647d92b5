"""The model config file of TensorFlow Serving: models, their base paths, versions and labels.

    model_config_list {
      config {
        name: "ctr"
        base_path: "/models/ctr"
        model_platform: "tensorflow"
        model_version_policy { specific { versions: 3 versions: 4 } }
        version_labels { key: "stable" value: 3 }
        version_labels { key: "canary" value: 4 }
      }
    }

The text is protobuf's text format of `tensorflow.serving.ModelServerConfig`.
"""

import dataclasses
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

from google.protobuf import text_format

from preprocessing.errors import UserError
from serving.tfserving.protos import model_server_config_pb2
from serving.tfserving.status import Code, ServingError, invalid

_PLATFORM = "tensorflow"


@dataclasses.dataclass(frozen=True)
class VersionPolicy:
    """Rule that selects the versions to serve from those on disk.

    Attributes:
        kind: Kind of rule: "latest", "all" or "specific".
        num_versions: Number of highest versions that "latest" selects.
        versions: Versions that "specific" selects.
    """

    kind: str = "latest"
    num_versions: int = 1
    versions: frozenset[int] = frozenset()

    def select(self, found: Iterable[int]) -> set[int]:
        """The versions to serve of those that were found on disk."""
        if self.kind == "all":
            return set(found)
        if self.kind == "specific":
            return set(found) & self.versions
        return set(sorted(found)[-self.num_versions :])


@dataclasses.dataclass(frozen=True)
class ServedModelConfig:
    """Configuration of one model.

    Attributes:
        name: Name of the model in requests.
        base_path: Absolute path of the directory whose numeric children are versions.
        policy: Rule that selects the versions to serve.
        labels: Version by label.
    """

    name: str
    base_path: pathlib.Path
    policy: VersionPolicy
    labels: Mapping[str, int]


def parse(text: str) -> Any:
    """Parses the text form of a `ModelServerConfig` message.

    Raises:
        ServingError: INVALID_ARGUMENT, with the place of the syntax error.
    """
    try:
        return text_format.Parse(text, model_server_config_pb2.ModelServerConfig())
    except text_format.ParseError as error:
        raise invalid(
            f"Error parsing text-format tensorflow.serving.ModelServerConfig: {error}"
        ) from None


def read(path: str | pathlib.Path) -> Any:
    """Reads a `ModelServerConfig` message from a file in text form.

    Raises:
        UserError: The file cannot be read or parsed.
    """
    try:
        return parse(pathlib.Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"--model_config_file: expected a model config file at {path}, found: {error}.",
            "name a file that can be read.",
        ) from None
    except ServingError as error:
        raise UserError(f"{path}: {error.message}", "correct the text at that place.") from None


def single(name: str, base_path: str | pathlib.Path) -> Any:
    """A `ModelServerConfig` message with one model, of which the latest version is served."""
    config = model_server_config_pb2.ModelServerConfig()
    config.model_config_list.config.add(
        name=name, base_path=str(pathlib.Path(base_path).absolute()), model_platform=_PLATFORM
    )
    return config


def models(config: Any) -> dict[str, ServedModelConfig] | None:
    """The models of a `ModelServerConfig` message by name; None if it is empty.

    Raises:
        ServingError: INVALID_ARGUMENT or UNIMPLEMENTED; no part of the config may be applied then.
    """
    kind = config.WhichOneof("config")
    if kind is None:
        return None
    if kind != "model_config_list":
        raise ServingError(
            Code.UNIMPLEMENTED, f"This server takes a model_config_list, found {kind}."
        )
    configs: dict[str, ServedModelConfig] = {}
    for entry in config.model_config_list.config:
        if entry.name in configs:
            raise invalid(f"Illegal to list model {entry.name} multiple times in config list")
        configs[entry.name] = _model(entry)
    return configs


def _model(entry: Any) -> ServedModelConfig:
    if not entry.model_platform:
        raise invalid(
            f"Illegal setting of model {entry.name}: neither "
            "ModelServerConfig::model_type (deprecated) nor ModelServerConfig::model_platform."
        )
    if entry.model_platform != _PLATFORM:
        raise invalid(
            f"Model {entry.name} has the platform {entry.model_platform!r}; this server runs "
            f"{_PLATFORM!r} only"
        )
    if "://" in entry.base_path:
        raise ServingError(
            Code.UNIMPLEMENTED,
            f"Model {entry.name} is at {entry.base_path}; this server reads local directories "
            "only: copy the model to one, or mount what it is in",
        )
    if not entry.base_path.startswith("/"):
        raise invalid(
            f"Expected model {entry.name} to have an absolute path or URI; got "
            f"base_path()={entry.base_path}"
        )
    return ServedModelConfig(
        name=entry.name,
        base_path=pathlib.Path(entry.base_path),
        policy=_policy(entry.model_version_policy),
        labels=dict(entry.version_labels),
    )


def _policy(policy: Any) -> VersionPolicy:
    kind = policy.WhichOneof("policy_choice")
    if kind == "all":
        return VersionPolicy("all")
    if kind == "specific":
        return VersionPolicy("specific", versions=frozenset(policy.specific.versions))
    # TensorFlow Serving treats 0, which is also the value of an empty `latest {}`, as 1.
    return VersionPolicy("latest", num_versions=policy.latest.num_versions or 1)
