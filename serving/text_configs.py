"""Text-format config files whose messages the serving API package leaves out.

The descriptors below declare what TensorFlow Serving's own do; the text is parsed by protobuf.
"""

import dataclasses
import pathlib
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format

from preprocessing.errors import UserError

_PACKAGE = "sequence_ctr.serving"
_DEFAULT_PATH = "/monitoring/prometheus/metrics"


@dataclasses.dataclass(frozen=True)
class _Field:
    name: str
    number: int
    kind: str
    """"bool", "string" or the name of a message."""


_MESSAGES = {
    "PrometheusConfig": [_Field("enable", 1, "bool"), _Field("path", 2, "string")],
    "MonitoringConfig": [_Field("prometheus_config", 1, "PrometheusConfig")],
}


def prometheus_path(path: str | pathlib.Path) -> str | None:
    """Where a monitoring config file puts the metrics' page; None if it turns it off.

    Raises:
        UserError: The file cannot be read or parsed.
    """
    config = _read("--monitoring_config_file", path, "MonitoringConfig").prometheus_config
    return (config.path or _DEFAULT_PATH) if config.enable else None


def _read(flag: str, path: str | pathlib.Path, message: str) -> Any:
    try:
        text = pathlib.Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"{flag}: expected a text-format {message} at {path}, found: {error}.",
            "name a file that can be read.",
        ) from None
    try:
        return text_format.Parse(text, _classes()[message]())
    except text_format.ParseError as error:
        raise UserError(
            f"{flag}: expected a text-format {message} at {path}, found an error at {error}.",
            "correct the text at that place.",
        ) from None


def _classes() -> dict[str, Any]:
    file = descriptor_pb2.FileDescriptorProto(
        name="sequence_ctr/serving/text_configs.proto", package=_PACKAGE, syntax="proto3"
    )
    types = {
        "bool": descriptor_pb2.FieldDescriptorProto.TYPE_BOOL,
        "string": descriptor_pb2.FieldDescriptorProto.TYPE_STRING,
    }
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field in fields:
            added = message.field.add(
                name=field.name,
                number=field.number,
                label=descriptor_pb2.FieldDescriptorProto.LABEL_OPTIONAL,
            )
            if field.kind in types:
                added.type = types[field.kind]
            else:
                added.type = descriptor_pb2.FieldDescriptorProto.TYPE_MESSAGE
                added.type_name = f".{_PACKAGE}.{field.kind}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{name}"))
        for name in _MESSAGES
    }
