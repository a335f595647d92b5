"""Text-format config files of TensorFlow Serving whose messages its API package lacks.

Descriptors with the fields of TensorFlow Serving's own are made here; protobuf parses the text.
"""

import pathlib
from collections.abc import Mapping
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format

from preprocessing.errors import UserError

_PACKAGE = "sequence_ctr.serving"
_TYPES = {
    bool: descriptor_pb2.FieldDescriptorProto.TYPE_BOOL,
    str: descriptor_pb2.FieldDescriptorProto.TYPE_STRING,
}
Fields = Mapping[str, Any]
"""Fields of a message by name: `bool`, `str`, or the fields of a message within it."""


def read(path: str | pathlib.Path, flag: str, name: str, fields: Fields) -> Any:
    """Reads a config file.

    Args:
        path: The file.
        flag: Flag by which the user named it, for error messages.
        name: Name of the message.
        fields: Fields of the message.

    Returns:
        A message with an attribute per field; one that the file leaves out is empty.

    Raises:
        UserError: The file cannot be read or parsed.
    """
    expected = f"{flag}: expected a text-format {name} at {path}, found"
    try:
        text = pathlib.Path(path).read_text(encoding="utf-8")
        return text_format.Parse(text, _message_class(name, fields)())
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{expected}: {error}.", "name a file that can be read.") from None
    except text_format.ParseError as error:
        raise UserError(
            f"{expected} an error at {error}.", "correct the text at that place."
        ) from None


def _message_class(name: str, fields: Fields) -> Any:
    file = descriptor_pb2.FileDescriptorProto(
        name=f"sequence_ctr/serving/{name}.proto", package=_PACKAGE, syntax="proto3"
    )
    _describe(file.message_type.add(name=name), f".{_PACKAGE}.{name}", fields)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{name}"))


def _describe(message: Any, full_name: str, fields: Fields) -> None:
    """Adds fields; their numbers do not matter, because only the text form is read."""
    for number, (name, kind) in enumerate(fields.items(), start=1):
        field = message.field.add(
            name=name, number=number, label=descriptor_pb2.FieldDescriptorProto.LABEL_OPTIONAL
        )
        if isinstance(kind, Mapping):
            nested = f"{name}_fields"
            field.type = descriptor_pb2.FieldDescriptorProto.TYPE_MESSAGE
            field.type_name = f"{full_name}.{nested}"
            _describe(message.nested_type.add(name=nested), f"{full_name}.{nested}", kind)
        else:
            field.type = _TYPES[kind]
