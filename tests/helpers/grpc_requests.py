"""Requests of the gRPC interface, and the model that they are for."""

import pathlib

import numpy as np

from models.keras import tf
from serving.conformance import models
from serving.tfserving.protos import example_pb2, inference_pb2, predict_pb2

X = np.array([1.0, 2.0, 5.0], np.float32)


def write_model(directory: pathlib.Path) -> pathlib.Path:
    """Version 123 of the model toy; returns its base path."""
    base = directory / "toy"
    base.mkdir()
    models.export(base, "123", 2.0)
    return base


def ask(spec=None, **inputs):
    request = predict_pb2.PredictRequest()
    if spec is not None:
        fill_spec(request.model_spec, **spec)
    for name, value in inputs.items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
    return request


def fill_spec(filled, name="toy", signature="", version=None, label=""):
    filled.name, filled.signature_name = name, signature
    if version is not None:
        filled.version.value = version
    if label:
        filled.version_label = label


def example(**features):
    example = example_pb2.Example()
    for name, value in features.items():
        if isinstance(value, str):
            example.features.feature[name].bytes_list.value.append(value.encode())
        else:
            example.features.feature[name].float_list.value.append(value)
    return example


def multi_inference(*tasks):
    request = inference_pb2.MultiInferenceRequest()
    request.input.example_list.examples.append(example(x=1.0))
    for signature, method in tasks:
        task = request.tasks.add(method_name=f"tensorflow/serving/{method}")
        fill_spec(task.model_spec, signature=signature)
    return request
