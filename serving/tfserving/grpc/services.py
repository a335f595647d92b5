"""The gRPC interface of TensorFlow Serving: PredictionService and ModelService.

The stubs are those of the tensorflow-serving-api package; the module `server` runs the services.
"""

import contextlib
import logging
import time
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np

from serving.tfserving import inference
from serving.tfserving.grpc import tensors
from serving.tfserving.metrics import Metrics
from serving.tfserving.models.servable import DEFAULT_SIGNATURE, Servable
from serving.tfserving.models.store import ModelStore
from serving.tfserving.protos import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
    regression_pb2,
)
from serving.tfserving.status import Code, ServingError, invalid

_LOG = logging.getLogger(__name__)
_MAX_MESSAGE = 1024
_STATUS_CODES = {code.value[0]: code for code in grpc.StatusCode}
_SIGNATURE_DEF = "signature_def"


class PredictionService(prediction_service_pb2_grpc.PredictionServiceServicer):
    """Predictions of the models of a store.

    Args:
        store: Store of the loaded versions.
        metrics: Metrics that count the requests.
        check_method: Whether Classify and Regress insist on the method name of a signature.
    """

    def __init__(
        self, store: ModelStore[Servable], metrics: Metrics, check_method: bool = False
    ) -> None:
        self._store = store
        self._metrics = metrics
        self._check_method = check_method

    def Predict(self, request: Any, context: grpc.ServicerContext) -> Any:
        """Runs a signature on tensors by alias; `output_filter` selects outputs."""
        with self._call("Predict", request.model_spec, context):
            version, servable = _find(self._store, request)
            signature_name = request.model_spec.signature_name or DEFAULT_SIGNATURE
            signature = servable.signature_defs.signature_def.get(signature_name)
            if signature is None:
                raise ServingError(
                    Code.FAILED_PRECONDITION,
                    f'Serving signature key "{signature_name}" not found.',
                )
            servable.input_types(signature_name)  # refuses a signature without inputs
            inputs = tensors.inputs(request.inputs, signature)
            aliases = _wanted_outputs(request.output_filter, list(signature.outputs))
            # Not a default of the signature: those know nothing of the number of examples.
            first_input = inputs[min(request.inputs or inputs)]
            number = len(first_input) if first_input.ndim else 1
            with self._computing("Predict", request.model_spec.name, number):
                outputs = servable.predict(signature_name, inputs)
            reply = predict_pb2.PredictResponse()
            _fill_spec(reply.model_spec, request.model_spec.name, version, signature_name)
            for alias in aliases:
                tensors.fill(reply.outputs[alias], outputs[alias])
            return reply

    def Classify(self, request: Any, context: grpc.ServicerContext) -> Any:
        """Returns the labels and scores of examples."""
        with self._call("Classify", request.model_spec, context):
            version, servable = _find(self._store, request)
            reply = classification_pb2.ClassificationResponse()
            self._classify(
                servable, request.model_spec, inference.examples(request.input), reply.result
            )
            _fill_inference_spec(reply.model_spec, request.model_spec, version)
            return reply

    def Regress(self, request: Any, context: grpc.ServicerContext) -> Any:
        """Returns one number per example."""
        with self._call("Regress", request.model_spec, context):
            version, servable = _find(self._store, request)
            reply = regression_pb2.RegressionResponse()
            self._regress(
                servable, request.model_spec, inference.examples(request.input), reply.result
            )
            _fill_inference_spec(reply.model_spec, request.model_spec, version)
            return reply

    def MultiInference(self, request: Any, context: grpc.ServicerContext) -> Any:
        """Runs several Classify and Regress calls on the same examples and version."""
        specs = [task.model_spec for task in request.tasks]
        with self._call("MultiInference", specs[0] if specs else None, context):
            if not specs:
                raise invalid("Inference request must have at least one task.")
            if len({spec.name for spec in specs}) > 1:
                raise invalid(
                    "All ModelSpecs in a MultiInferenceRequest must access the same model name."
                )
            signatures = [spec.signature_name or DEFAULT_SIGNATURE for spec in specs]
            for signature_name in signatures:
                if signatures.count(signature_name) > 1:
                    raise invalid(f"Duplicate evaluation of signature: {signature_name}")
            version, servable = _find(self._store, request.tasks[0])
            examples = inference.examples(request.input)
            reply = inference_pb2.MultiInferenceResponse()
            for task in request.tasks:
                result = reply.results.add()
                if inference.call(task.method_name) is inference.classify:
                    filled = result.classification_result
                    self._classify(servable, task.model_spec, examples, filled)
                else:
                    filled = result.regression_result
                    self._regress(servable, task.model_spec, examples, filled)
                _fill_inference_spec(result.model_spec, task.model_spec, version)
            return reply

    def GetModelMetadata(self, request: Any, context: grpc.ServicerContext) -> Any:
        """Returns the signatures of a model."""
        with self._call("GetModelMetadata", request.model_spec, context):
            if not request.metadata_field:
                raise invalid("GetModelMetadataRequest must specify at least one metadata_field")
            for field in request.metadata_field:
                if field != _SIGNATURE_DEF:
                    raise invalid(f"Metadata field {field} is not supported")
            version, servable = _find(self._store, request)
            reply = get_model_metadata_pb2.GetModelMetadataResponse()
            _fill_spec(reply.model_spec, request.model_spec.name, version, "")
            reply.metadata[_SIGNATURE_DEF].Pack(servable.signature_defs)
            return reply

    def _classify(self, servable: Servable, spec: Any, examples: list[bytes], result: Any) -> None:
        name = spec.signature_name
        with self._computing("Classify", spec.name, len(examples)):
            rows = inference.classify(servable, name, examples, self._check_method)
        for row in rows:
            classification = result.classifications.add()
            for label, score in row:
                classification.classes.add(label=label, score=score)

    def _regress(self, servable: Servable, spec: Any, examples: list[bytes], result: Any) -> None:
        name = spec.signature_name
        with self._computing("Regress", spec.name, len(examples)):
            values = inference.regress(servable, name, examples, self._check_method)
        for value in np.asarray(values).tolist():
            result.regressions.add(value=value)

    @contextlib.contextmanager
    def _call(self, api: str, spec: Any, context: grpc.ServicerContext) -> Iterator[None]:
        """Counts a call, and replies with the status of an error raised in the context."""
        model = spec.name if spec is not None else ""
        start = time.perf_counter()
        code = Code.OK
        try:
            with _answering(context):
                try:
                    yield
                except ServingError as error:
                    code = error.code
                    raise
                except Exception:
                    code = Code.INTERNAL
                    raise
                microseconds = (time.perf_counter() - start) * 1e6
                self._metrics.observe_latency(model, api, "GRPC", microseconds)
        finally:
            self._metrics.count_request(model, code)

    @contextlib.contextmanager
    def _computing(self, api: str, model: str, examples: int) -> Iterator[None]:
        self._metrics.count_examples(model, examples)
        start = time.perf_counter()
        yield
        self._metrics.observe_runtime(model, api, (time.perf_counter() - start) * 1e6)


class ModelService(model_service_pb2_grpc.ModelServiceServicer):
    """Status of the models of a store, and their replacement.

    Args:
        store: Store of the loaded versions.
    """

    def __init__(self, store: ModelStore[Servable]) -> None:
        self._store = store

    def GetModelStatus(self, request: Any, context: grpc.ServicerContext) -> Any:
        """Returns the states of all versions of a model, or of one version."""
        with _answering(context):
            _require_spec(request)
            spec = request.model_spec
            version = spec.version.value if spec.HasField("version") else None
            reply = get_model_status_pb2.GetModelStatusResponse()
            for number, state, code, message in self._store.statuses(spec.name, version):
                entry = reply.model_version_status.add(version=number, state=state)
                entry.status.error_code = Code[code]
                entry.status.error_message = message
            return reply

    def HandleReloadConfigRequest(self, request: Any, context: grpc.ServicerContext) -> Any:
        """Replaces the set of models; answers when new ones are available and labels assigned."""
        with _answering(context):
            if request.config.WhichOneof("config") != "model_config_list":
                raise invalid(
                    "ServerModelConfig type not supported by HandleReloadConfigRequest. Only "
                    "ModelConfigList is currently supported"
                )
            self._store.reload(request.config, context.time_remaining())
            reply = model_management_pb2.ReloadConfigResponse()
            reply.status.SetInParent()
            return reply


@contextlib.contextmanager
def _answering(context: grpc.ServicerContext) -> Iterator[None]:
    """Converts exceptions to statuses; other than `ServingError` they are bugs, and logged."""
    try:
        yield
    except ServingError as error:
        context.abort(_STATUS_CODES[error.code], _cut(error.message))
    except Exception as error:  # the server outlives every request
        _LOG.exception("A gRPC call failed")
        context.abort(grpc.StatusCode.INTERNAL, _cut(f"{type(error).__name__}: {error}"))


def _cut(message: str) -> str:
    return message if len(message) <= _MAX_MESSAGE else message[:_MAX_MESSAGE] + "...TRUNCATED"


def _require_spec(request: Any) -> None:
    if not request.HasField("model_spec"):
        raise invalid("Missing ModelSpec")


def _find(store: ModelStore[Servable], request: Any) -> tuple[int, Servable]:
    """The number and the loaded version of the model that a request asks for."""
    _require_spec(request)
    spec = request.model_spec
    choice = spec.WhichOneof("version_choice")
    return store.get(
        spec.name,
        spec.version.value if choice == "version" else None,
        spec.version_label if choice == "version_label" else None,
    )


def _wanted_outputs(output_filter: list[str], outputs: list[str]) -> list[str]:
    for i, alias in enumerate(output_filter):
        if alias not in outputs:
            raise invalid(
                f"output tensor alias not found in signature: {alias} Outputs expected to be in "
                f"the set {tensors.braces(set(outputs))}."
            )
        if alias in output_filter[:i]:
            raise invalid(f"duplicate output tensor alias: {alias}")
    return list(output_filter) or outputs


def _fill_inference_spec(reply_spec: Any, spec: Any, version: int) -> None:
    _fill_spec(reply_spec, spec.name, version, spec.signature_name or DEFAULT_SIGNATURE)


def _fill_spec(reply_spec: Any, name: str, version: int, signature_name: str) -> None:
    reply_spec.name = name
    reply_spec.version.value = version
    reply_spec.signature_name = signature_name
