"""Reflection: a gRPC client without .proto files, such as grpcurl, can ask what the server offers.

tensorflow-serving-api declares its services in modules that cannot be imported with the protobuf of
TensorFlow, so their descriptors are made here. Those of the messages are the package's own.
"""

import functools
from collections.abc import Iterable

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool
from grpc_reflection.v1alpha import reflection

from serving.tfserving.protos import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    predict_pb2,
    regression_pb2,
)

_PACKAGE = predict_pb2.DESCRIPTOR.package
_SERVICES = {
    "PredictionService": {
        "Classify": (classification_pb2, "Classification"),
        "Regress": (regression_pb2, "Regression"),
        "Predict": (predict_pb2, "Predict"),
        "MultiInference": (inference_pb2, "MultiInference"),
        "GetModelMetadata": (get_model_metadata_pb2, "GetModelMetadata"),
    },
    "ModelService": {
        "GetModelStatus": (get_model_status_pb2, "GetModelStatus"),
        "HandleReloadConfigRequest": (model_management_pb2, "ReloadConfig"),
    },
}
"""Methods of each service: the module of its messages, and their names less Request, Response."""


def add_to(server: grpc.Server, others: Iterable[str]) -> None:
    """Lets clients ask a server for its services.

    Args:
        server: Server that offers both services of TensorFlow Serving; it is not started yet.
        others: Names of further services that it offers.
    """
    _describe_services()
    names = [f"{_PACKAGE}.{service}" for service in _SERVICES]
    reflection.enable_server_reflection([*names, *others, reflection.SERVICE_NAME], server)


@functools.cache
def _describe_services() -> None:
    """Adds the descriptors of the services to the pool that reflection reads."""
    file = descriptor_pb2.FileDescriptorProto(
        name="sequence_ctr/serving/services.proto", package=_PACKAGE, syntax="proto3"
    )
    for service_name, methods in _SERVICES.items():
        service = file.service.add(name=service_name)
        for method, (module, message) in methods.items():
            service.method.add(
                name=method,
                input_type=f".{_PACKAGE}.{message}Request",
                output_type=f".{_PACKAGE}.{message}Response",
            )
            file.dependency.append(module.DESCRIPTOR.name)
    descriptor_pool.Default().Add(file)
