"""A gRPC client that knows a server by its reflection alone, as grpcurl does: no generated code."""

from collections.abc import Mapping
from typing import Any

import grpc
import numpy as np
from google.protobuf import message_factory
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

SERVICE = "tensorflow.serving.PredictionService"
_VALUES = {"DT_STRING": "string_val", "DT_FLOAT": "float_val", "DT_INT64": "int64_val"}


class ReflectedClient:
    """Calls the methods of a server's prediction service.

    Args:
        channel: Channel to the server.
        model: Name of the model.
    """

    def __init__(self, channel: grpc.Channel, model: str) -> None:
        self._channel, self._model = channel, model
        self._pool = DescriptorPool(ProtoReflectionDescriptorDatabase(channel))

    def types(self, signature: str = "serving_default") -> dict[str, str]:
        """The type of each input of a signature, as in "DT_STRING", by name."""
        request = self._message("GetModelMetadata", metadata_field=["signature_def"])
        packed = self._call("GetModelMetadata", request).metadata["signature_def"]
        kind = self._pool.FindMessageTypeByName(packed.TypeName())
        signatures = message_factory.GetMessageClass(kind).FromString(packed.value)
        inputs = signatures.signature_def[signature].inputs
        of_number = self._pool.FindEnumTypeByName("tensorflow.DataType").values_by_number
        return {name: of_number[tensor.dtype].name for name, tensor in inputs.items()}

    def predict(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Outputs of the default signature by name.

        Args:
            inputs: Arrays of texts or numbers by name.
        """
        request, types = self._message("Predict"), self.types()
        numbers = self._pool.FindEnumTypeByName("tensorflow.DataType").values_by_name
        for name, array in inputs.items():
            tensor = request.inputs[name]
            tensor.dtype = numbers[types[name]].number
            for size in array.shape:
                tensor.tensor_shape.dim.add(size=size)
            values = (v.encode() if isinstance(v, str) else v for v in array.ravel().tolist())
            getattr(tensor, _VALUES[types[name]]).extend(values)
        outputs = self._call("Predict", request).outputs
        return {
            name: np.reshape(tensor.float_val, [dim.size for dim in tensor.tensor_shape.dim])
            for name, tensor in outputs.items()
        }

    def _method(self, name: str) -> Any:
        return self._pool.FindServiceByName(SERVICE).FindMethodByName(name)

    def _message(self, method: str, **fields: Any) -> Any:
        request = message_factory.GetMessageClass(self._method(method).input_type)(**fields)
        request.model_spec.name = self._model
        return request

    def _call(self, method: str, request: Any) -> Any:
        answer = message_factory.GetMessageClass(self._method(method).output_type)
        call = self._channel.unary_unary(
            f"/{SERVICE}/{method}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=answer.FromString,
        )
        return call(request, timeout=60)
