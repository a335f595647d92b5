"""The batching parameters of TensorFlow Serving: reading and checking the parameters file.

    max_batch_size { value: 32 }
    batch_timeout_micros { value: 2000 }
    allowed_batch_sizes: 8
    allowed_batch_sizes: 32

The serving API package lacks the message. The descriptor below declares the same fields as
TensorFlow Serving's own; protobuf parses the text.
"""

import dataclasses
import functools
import os
import pathlib
from typing import Any

from google.protobuf import (
    descriptor_pb2,
    descriptor_pool,
    message_factory,
    text_format,
    wrappers_pb2,
)

from serving.tfserving.status import invalid

MODEL_FILE = "batching_params.pbtxt"
"""Name of the file in a version directory that holds the version's own parameters."""

_PACKAGE = "sequence_ctr.serving"
_WRAPPERS = {
    "max_batch_size": "Int64Value",
    "batch_timeout_micros": "Int64Value",
    "max_enqueued_batches": "Int64Value",
    "num_batch_threads": "Int64Value",
    "thread_pool_name": "StringValue",
    "enable_large_batch_splitting": "BoolValue",
    "max_execution_batch_size": "Int64Value",
}
"""Fields that may be absent, with the message type that wraps their value."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class BatchingParameters:
    """Parameters of one queue of requests; the defaults are TensorFlow Serving's.

    Sizes are numbers of rows: the dimension 0 of requests.

    Attributes:
        max_batch_size: Largest size of a request, and of a batch unless requests are divided.
        batch_timeout_micros: Microseconds that an incomplete batch waits for more requests.
        max_enqueued_batches: Number of batches that may wait, including the incomplete one.
        num_batch_threads: Number of batches that all models together compute at once.
        thread_pool_name: Name of the threads that compute batches.
        allowed_batch_sizes: Sizes of computed batches, which are filled up to the next of them;
            empty allows every size.
        pad_variable_length_inputs: Whether requests whose other dimensions differ are padded to
            equal shapes.
        enable_large_batch_splitting: Whether a request may be divided over several batches.
        max_execution_batch_size: Largest size of a batch if requests are divided; None for
            `max_batch_size`.

    Raises:
        ServingError: INVALID_ARGUMENT for a value out of range, or values that contradict each
            other.
    """

    max_batch_size: int = 1000
    batch_timeout_micros: int = 0
    max_enqueued_batches: int = 10
    num_batch_threads: int = os.cpu_count() or 1
    thread_pool_name: str = "batch_threads"
    allowed_batch_sizes: tuple[int, ...] = ()
    pad_variable_length_inputs: bool = False
    enable_large_batch_splitting: bool = False
    max_execution_batch_size: int | None = None

    def __post_init__(self) -> None:
        for name, lowest in (
            ("max_batch_size", 1),
            ("batch_timeout_micros", 0),
            ("max_enqueued_batches", 0),
            ("num_batch_threads", 1),
            ("batch_size_limit", 1),
        ):
            if getattr(self, name) < lowest:
                bound = "positive" if lowest else "non-negative"
                raise invalid(f"{name} must be {bound}; was {getattr(self, name)}")
        if self.batch_size_limit > self.max_batch_size:
            raise invalid(
                f"max_execution_batch_size must be at most max_batch_size; was "
                f"{self.batch_size_limit}, not at most {self.max_batch_size}"
            )
        self._check_allowed_batch_sizes()

    @property
    def batch_size_limit(self) -> int:
        """Largest number of rows in a batch before it is filled up."""
        if not self.enable_large_batch_splitting or self.max_execution_batch_size is None:
            return self.max_batch_size
        return self.max_execution_batch_size

    def filled_up(self, size: int) -> int:
        """The smallest allowed batch size that is not below `size`."""
        return next((allowed for allowed in self.allowed_batch_sizes if allowed >= size), size)

    def _check_allowed_batch_sizes(self) -> None:
        sizes = self.allowed_batch_sizes
        if any(next_ <= size for size, next_ in zip(sizes, sizes[1:], strict=False)):
            raise invalid("allowed_batch_sizes entries must be monotonically increasing")
        if sizes and sizes[-1] != self.batch_size_limit:
            limit = "max_batch_size"
            if self.enable_large_batch_splitting:
                limit = "max_execution_batch_size"
            raise invalid(
                f"Last entry in allowed_batch_sizes must match {limit}; last entry was "
                f"{sizes[-1]}; expected {self.batch_size_limit}"
            )


def read(path: pathlib.Path) -> BatchingParameters:
    """Reads a text-format BatchingParameters file.

    Raises:
        ServingError: INVALID_ARGUMENT if it cannot be read or parsed, or its values are wrong.
    """
    try:
        text = path.read_text(encoding="utf-8")
        message = text_format.Parse(text, _message_class()())
    except (OSError, UnicodeDecodeError) as error:
        raise invalid(f"Could not read {path}: {error}") from None
    except text_format.ParseError as error:
        raise invalid(
            f"Error parsing text-format tensorflow.serving.BatchingParameters in {path}: {error}"
        ) from None
    wrapped = {name: getattr(message, name).value for name in _WRAPPERS if message.HasField(name)}
    return BatchingParameters(
        allowed_batch_sizes=tuple(message.allowed_batch_sizes),
        pad_variable_length_inputs=message.pad_variable_length_inputs,
        **wrapped,
    )


def of_model(path: pathlib.Path) -> BatchingParameters | None:
    """The parameters in a version directory, or None if it holds none.

    Raises:
        ServingError: The errors of `read`.
    """
    file = path / MODEL_FILE
    return read(file) if file.exists() else None


@functools.cache
def _message_class() -> Any:
    """The class of BatchingParameters messages."""
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(
        name="sequence_ctr/serving/batching_parameters.proto",
        package=_PACKAGE,
        syntax="proto3",
        dependency=[wrappers_pb2.DESCRIPTOR.name],
    )
    fields = file.message_type.add(name="BatchingParameters").field
    for number, (name, wrapper) in enumerate(_WRAPPERS.items(), start=1):
        fields.add(
            name=name,
            number=number,
            label=field.LABEL_OPTIONAL,
            type=field.TYPE_MESSAGE,
            type_name=f".google.protobuf.{wrapper}",
        )
    # The numbers of the fields do not matter, because only the text form is read.
    fields.add(
        name="allowed_batch_sizes",
        number=len(fields) + 1,
        label=field.LABEL_REPEATED,
        type=field.TYPE_INT64,
    )
    fields.add(
        name="pad_variable_length_inputs",
        number=len(fields) + 1,
        label=field.LABEL_OPTIONAL,
        type=field.TYPE_BOOL,
    )
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(wrappers_pb2.DESCRIPTOR.serialized_pb)
    pool.Add(file)
    return message_factory.GetMessageClass(
        pool.FindMessageTypeByName(f"{_PACKAGE}.BatchingParameters")
    )
