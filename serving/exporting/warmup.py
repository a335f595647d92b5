"""Warm-up requests that travel with a SavedModel: written by the export, replayed by every server.

`<version>/assets.extra/tf_serving_warmup_requests` is a TFRecord file of PredictionLog messages. A
server replays it before the version takes traffic, so that the first real request does not pay for
whatever TensorFlow sets up lazily.
"""

import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from google.protobuf import message

from models.keras import tf
from serving.tfserving import inference
from serving.tfserving.grpc import tensors
from serving.tfserving.models.servable import DEFAULT_SIGNATURE, Servable
from serving.tfserving.protos import prediction_log_pb2
from serving.tfserving.status import Code, ServingError, invalid

WARMUP_FILE = pathlib.PurePath("assets.extra", "tf_serving_warmup_requests")
MAX_RECORDS = 1000
"""Largest number of requests in a file that TensorFlow Serving accepts."""


def write(version: pathlib.Path, requests: Iterable[tuple[str, Mapping[str, np.ndarray]]]) -> None:
    """Writes the warm-up file of an exported version.

    Args:
        version: Directory that holds saved_model.pb.
        requests: Signature name and inputs of each request; strings are objects of type bytes.
    """
    path = version / WARMUP_FILE
    path.parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for signature_name, inputs in requests:
            log = prediction_log_pb2.PredictionLog()
            request = log.predict_log.request
            request.model_spec.signature_name = signature_name
            for name, value in inputs.items():
                request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
            writer.write(log.SerializeToString(deterministic=True))


def replay(servable: Servable, iterations: int = 1) -> int:
    """Runs the warm-up requests of a version and returns their number.

    A version need not have a warm-up file. The model name and version in a request are ignored.

    Args:
        servable: Loaded version.
        iterations: Number of times that each request is run.

    Raises:
        ServingError: The file is damaged or too long, or one of its requests fails: the version
            must not take traffic.
    """
    path = servable.path / WARMUP_FILE
    if not path.exists():
        return 0
    replayed = 0
    for i, record in enumerate(_records(path)):
        if i == MAX_RECORDS:
            raise invalid(f"Number of warmup records exceeds the maximum ({MAX_RECORDS}) in {path}")
        log = prediction_log_pb2.PredictionLog()
        try:
            log.ParseFromString(record)
        except message.DecodeError as error:
            raise invalid(f"Failed to parse warmup record {i} of {path}: {error}") from None
        kind = log.WhichOneof("log_type")
        if kind is None:
            continue
        if kind not in _CALLS:
            raise ServingError(
                Code.UNIMPLEMENTED, f"Unsupported log_type for warmup: {kind} in {path}"
            )
        for _ in range(iterations):
            _CALLS[kind](servable, getattr(log, kind).request)
        replayed += 1
    return replayed


def _predict(servable: Servable, request: Any) -> None:
    signature_name = request.model_spec.signature_name
    servable.input_types(signature_name)  # refuses an unknown signature by name
    signature = servable.signature_defs.signature_def[signature_name or DEFAULT_SIGNATURE]
    servable.predict(signature_name, tensors.inputs(request.inputs, signature))


def _classify(servable: Servable, request: Any) -> None:
    examples = inference.examples(request.input)
    inference.classify(servable, request.model_spec.signature_name, examples)


def _regress(servable: Servable, request: Any) -> None:
    examples = inference.examples(request.input)
    inference.regress(servable, request.model_spec.signature_name, examples)


def _multi_inference(servable: Servable, request: Any) -> None:
    examples = inference.examples(request.input)
    for task in request.tasks:
        call = inference.call(task.method_name)
        call(servable, task.model_spec.signature_name, examples)


_CALLS = {
    "predict_log": _predict,
    "classify_log": _classify,
    "regress_log": _regress,
    "multi_inference_log": _multi_inference,
}


def _records(path: pathlib.Path) -> Iterable[bytes]:
    try:
        yield from tf.data.TFRecordDataset(str(path)).as_numpy_iterator()
    except tf.errors.DataLossError as error:
        raise ServingError(
            Code.DATA_LOSS,
            f"{error.message}. Please verify your warmup data is in TFRecord format.",
        ) from None
