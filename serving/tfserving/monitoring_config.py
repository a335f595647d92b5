"""The monitoring config file of TensorFlow Serving: whether and where metrics have a page.

The serving API package lacks its messages. The descriptors below declare the same fields as
TensorFlow Serving's own; protobuf parses the text.
"""

import pathlib
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format

from preprocessing.errors import UserError

_PACKAGE = "sequence_ctr.serving"
_DEFAULT_PATH = "/monitoring/prometheus/metrics"


def prometheus_path(path: str | pathlib.Path) -> str | None:
    """URL path of the metrics' page in a monitoring config file; None if the page is off.

    Raises:
        UserError: The file cannot be read or parsed.
    """
    expected = f"--monitoring_config_file: expected a text-format MonitoringConfig at {path}, found"
    try:
        text = pathlib.Path(path).read_text(encoding="utf-8")
        config = text_format.Parse(text, _message_class()()).prometheus_config
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{expected}: {error}.", "name a file that can be read.") from None
    except text_format.ParseError as error:
        raise UserError(
            f"{expected} an error at {error}.", "correct the text at that place."
        ) from None
    return (config.path or _DEFAULT_PATH) if config.enable else None


def _message_class() -> Any:
    """The class of MonitoringConfig messages."""
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(
        name="sequence_ctr/serving/monitoring_config.proto", package=_PACKAGE, syntax="proto3"
    )
    prometheus = file.message_type.add(name="PrometheusConfig").field
    optional = field.LABEL_OPTIONAL
    prometheus.add(name="enable", number=1, label=optional, type=field.TYPE_BOOL)
    prometheus.add(name="path", number=2, label=optional, type=field.TYPE_STRING)
    file.message_type.add(name="MonitoringConfig").field.add(
        name="prometheus_config",
        number=1,
        label=optional,
        type=field.TYPE_MESSAGE,
        type_name=f".{_PACKAGE}.PrometheusConfig",
    )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(
        pool.FindMessageTypeByName(f"{_PACKAGE}.MonitoringConfig")
    )
