"""Section 11 of the contract: PredictionService, ModelService and health over a real channel."""

import pathlib

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from models.keras import tf
from serving.tfserving.grpc import tensors
from serving.tfserving.grpc.server import GrpcServer
from serving.tfserving.grpc.services import ModelService, PredictionService
from serving.tfserving.metrics import Metrics
from serving.tfserving.models import model_config
from serving.tfserving.models.servable import Servable
from serving.tfserving.models.store import ModelStore
from serving.tfserving.protos import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_management_pb2,
    model_service_pb2_grpc,
    prediction_service_pb2_grpc,
    regression_pb2,
    types_pb2,
)
from serving.tfserving.status import ServingError
from tests.helpers import toy_runs
from tests.helpers.grpc_requests import X, ask, example, fill_spec, multi_inference, write_model

CONFIG = """model_config_list {{ config {{ name: "toy" base_path: "{base}"
  model_platform: "tensorflow" version_labels {{ key: "stable" value: 123 }} }} }}"""


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> pathlib.Path:
    return write_model(tmp_path_factory.mktemp("grpc"))


@pytest.fixture(scope="module")
def metrics():
    return Metrics()


@pytest.fixture(scope="module")
def channel(base, metrics):
    store = ModelStore(Servable)
    store.start(model_config.parse(CONFIG.format(base=base)), 0.05)
    running = GrpcServer(
        PredictionService(store, metrics), ModelService(store), enable_healthcheck=True
    )
    with grpc.insecure_channel(f"127.0.0.1:{running.port}") as channel:
        yield channel
    running.stop(1)
    store.stop()


@pytest.fixture(scope="module")
def stub(channel):
    return prediction_service_pb2_grpc.PredictionServiceStub(channel)


@pytest.fixture(scope="module")
def model_stub(channel):
    return model_service_pb2_grpc.ModelServiceStub(channel)


def refused(call, request):
    with pytest.raises(grpc.RpcError) as caught:
        call(request, timeout=30)
    return caught.value.code().name, caught.value.details()


@pytest.mark.parametrize(
    ("spec", "signature"),
    [
        pytest.param({}, "serving_default", id="G2-latest"),
        pytest.param({"version": 123}, "serving_default", id="G2-version"),
        pytest.param({"label": "stable"}, "serving_default", id="G2-label"),
        pytest.param({"signature": "serving_default"}, "serving_default", id="G2-signature"),
    ],
)
def test_predict(stub, spec, signature):
    reply = stub.Predict(ask(spec, x=X), timeout=30)
    assert list(reply.outputs["y"].float_val) == [2.5, 3.0, 4.5]
    assert reply.outputs["y"].tensor_content == b""
    assert [dim.size for dim in reply.outputs["y"].tensor_shape.dim] == [3]
    found = reply.model_spec
    assert (found.name, found.signature_name, found.version.value) == ("toy", signature, 123)


@pytest.mark.parametrize(
    "dtype",
    [
        pytest.param(dtype, id=f"G3-{dtype}")
        for dtype in ("float32", "float64", "int8", "uint8", "int16", "int32", "int64")
    ]
    + [pytest.param(dtype, id=f"G3-{dtype}") for dtype in ("uint32", "uint64", "bool", "string")],
)
@pytest.mark.parametrize("content", [True, False], ids=["tensor_content", "values"])
def test_tensors_of_both_forms_come_back_in_values(stub, dtype, content):
    array = np.array([[1, 0, 3], [4, 5, 6]]).astype(object if dtype == "string" else dtype)
    if dtype == "string":
        array = np.array([[b"a", b"\xff\x00"]], object)
    request = ask({"signature": f"echo_{dtype}"}, x=array)
    if not content:  # make_tensor_proto packs arrays of more than one number
        packed = request.inputs["x"]
        field = {"float32": "float_val", "float64": "double_val", "int64": "int64_val"}.get(dtype)
        field = field or {"uint32": "uint32_val", "uint64": "uint64_val"}.get(dtype)
        field = field or {"bool": "bool_val", "string": "string_val"}.get(dtype, "int_val")
        packed.ClearField("tensor_content")
        packed.ClearField(field)
        getattr(packed, field).extend(array.ravel().tolist())
    reply = stub.Predict(request, timeout=30).outputs["y"]
    assert reply.tensor_content == b""
    np.testing.assert_array_equal(tf.make_ndarray(reply), array)


def test_G3_half_precision(stub):
    request = ask({"signature": "half_precision"}, x=X)
    reply = stub.Predict(request, timeout=30).outputs["y"]
    np.testing.assert_array_equal(tf.make_ndarray(reply), X.astype(np.float16))


def test_G2_output_filter(stub):
    request = ask({"signature": "describe"}, ids=np.array([[1, 2]]), names=[b"a"])
    assert set(stub.Predict(request).outputs) == {"total", "upper", "raw_bytes"}
    request.output_filter.append("upper")
    assert set(stub.Predict(request).outputs) == {"upper"}
    request.output_filter.append("upper")
    assert refused(stub.Predict, request) == (
        "INVALID_ARGUMENT",
        "duplicate output tensor alias: upper",
    )
    request.output_filter[1] = "none"
    assert refused(stub.Predict, request) == (
        "INVALID_ARGUMENT",
        "output tensor alias not found in signature: none Outputs expected to be in the set "
        "{raw_bytes,total,upper}.",
    )


@pytest.mark.parametrize(
    ("request_", "code", "message"),
    [
        pytest.param(
            ask({}, x=X, y=X),
            "INVALID_ARGUMENT",
            "input size does not match signature: 2!=1 len({x,y}) != len({x}). Sent extra: {y}. "
            "Missing but required: {}.",
            id="G2-extra-input",
        ),
        pytest.param(
            ask({"signature": "describe"}, ids=[[1]]),
            "INVALID_ARGUMENT",
            "input size does not match signature: 1!=2 len({ids}) != len({ids,names}). "
            "Sent extra: {}. Missing but required: {names}.",
            id="G2-missing-input",
        ),
        pytest.param(
            ask({}, y=X),
            "INVALID_ARGUMENT",
            "Signature input alias: x(feed name: serving_default_x:0) not found in request and no "
            "default value provided. Inputs expected to be in the request {y}, or default input "
            "alias set: ",
            id="G2-other-input",
        ),
        pytest.param(
            ask({"signature": "none"}, x=X),
            "FAILED_PRECONDITION",
            'Serving signature key "none" not found.',
            id="G2-unknown-signature",
        ),
        pytest.param(
            ask({"name": "none"}, x=X),
            "NOT_FOUND",
            "Servable not found for request: Latest(none)",
            id="G4-unknown-model",
        ),
        pytest.param(
            ask({"version": 9}, x=X),
            "NOT_FOUND",
            "Servable not found for request: Specific(toy, 9)",
            id="G4-unknown-version",
        ),
        pytest.param(
            ask({"label": "none"}, x=X),
            "INVALID_ARGUMENT",
            "Unrecognized servable version label: none",
            id="G4-unknown-label",
        ),
        pytest.param(ask(x=X), "INVALID_ARGUMENT", "Missing ModelSpec", id="G4-no-spec"),
        pytest.param(
            ask({"signature": "gather"}, ids=np.array([99])),
            "INVALID_ARGUMENT",
            "99 is not in",
            id="G2-op",
        ),
        pytest.param(
            ask({"label": "n" * 2000}, x=X),
            "INVALID_ARGUMENT",
            ("Unrecognized servable version label: " + "n" * 2000)[:1024] + "...TRUNCATED",
            id="G4-message-is-cut",
        ),
    ],
)
def test_refusals(stub, request_, code, message):
    found_code, details = refused(stub.Predict, request_)
    assert found_code == code
    assert details == message or (len(message) < 20 and message in details)


def test_G2_values_that_do_not_fill_the_shape(stub):
    request = ask({}, x=X)
    request.inputs["x"].tensor_shape.dim[0].size = 7
    code, details = refused(stub.Predict, request)
    assert code == "INVALID_ARGUMENT"
    assert "tensor parsing error: x" in details


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ([2**40], "shape [1099511627776] of float needs more memory than the "),
        ([2**62, 2**62], "of float needs more memory than the 2147483647 bytes"),
        ([2**29], "shape [536870912] of float needs more memory"),
        ([-1], "unknown sizes in shape [-1]"),
        (None, "unknown sizes in shape <unknown>"),
    ],
)
def test_shapes_that_a_few_values_cannot_stand_for_are_refused_at_once(stub, sizes, message):
    request = ask({}, x=np.float32(1.0))
    request.inputs["x"].tensor_shape.unknown_rank = sizes is None
    for size in sizes or []:
        request.inputs["x"].tensor_shape.dim.add(size=size)
    code, details = refused(stub.Predict, request)
    assert code == "INVALID_ARGUMENT"
    assert details.startswith("tensor parsing error: x: ")
    assert message in details


def test_all_inputs_together_may_need_no_more_than_a_message_can_have():
    signature = get_model_metadata_pb2.SignatureDefMap().signature_def["two"]
    for name in ("a", "b"):
        signature.inputs[name].dtype = types_pb2.DT_STRING
    request = ask({}, a=b"x", b=b"x")
    request.inputs["a"].tensor_shape.dim.add(size=10)
    request.inputs["b"].tensor_shape.dim.add(size=2**28 - 10)
    with pytest.raises(ServingError, match="tensor parsing error: b: shape .268435446. of string"):
        tensors.inputs(request.inputs, signature)


def test_one_value_may_stand_for_many(stub):
    request = ask({}, x=np.float32(1.0))
    request.inputs["x"].tensor_shape.dim.add(size=3)
    assert list(stub.Predict(request).outputs["y"].float_val) == [2.5] * 3


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (np.array([1]), "int64"),
        (np.array([1.0]), "double"),
        (np.array([b"1"], object), "string"),
        (np.array([True]), "bool"),
    ],
)
def test_an_input_of_another_type_is_named(stub, value, found):
    expected = f"input x: expected a tensor of type float, found {found}"
    assert refused(stub.Predict, ask({}, x=value)) == ("INVALID_ARGUMENT", expected)
    request = ask({"signature": "describe"}, ids=np.array([[1.0]]), names=[b"a"])
    expected = "input ids: expected a tensor of type int64, found double"
    assert refused(stub.Predict, request) == ("INVALID_ARGUMENT", expected)


@pytest.mark.parametrize(
    ("number", "name"), [(0, "invalid"), (20, "resource"), (101, "float_ref"), (9999, "9999")]
)
def test_what_is_no_type_of_an_input_is_refused(stub, number, name):
    request = ask({}, x=X)
    request.inputs["x"].dtype = number
    expected = f"input x: expected a tensor of type float, found {name}"
    assert refused(stub.Predict, request) == ("INVALID_ARGUMENT", expected)


def test_shapes_that_do_not_belong_together_are_named(toy_version):
    store = ModelStore(Servable)
    store.start(model_config.single("ctr", toy_version.parent), 0.05)
    running = GrpcServer(PredictionService(store, Metrics()), ModelService(store))
    raw = toy_runs.raw_inputs(3)
    try:
        with grpc.insecure_channel(f"127.0.0.1:{running.port}") as channel:
            predict = prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict
            assert len(predict(ask({"name": "ctr"}, **raw)).outputs["scores"].float_val) == 3
            raw["user_id"] = np.repeat(raw["user_id"], 2)
            code, details = refused(predict, ask({"name": "ctr"}, **raw))
            assert code == "INVALID_ARGUMENT"
            assert "[user_id [B]:] [2]" in details
            assert "[history_item_id [B, L]:] [1 3]" in details
            del raw["hour"]
            code, details = refused(predict, ask({"name": "ctr"}, **raw))
            assert "alias: hour(feed name: serving_default_hour:0) not found in request" in details
    finally:
        running.stop(1)
        store.stop()


def test_G1_classify_and_regress(stub):
    classify = classification_pb2.ClassificationRequest()
    fill_spec(classify.model_spec, signature="classify")
    classify.input.example_list.examples.extend([example(x=1.0, label="a"), example(x=2.0)])
    reply = stub.Classify(classify, timeout=30)
    assert [
        [(entry.label, entry.score) for entry in row.classes]
        for row in reply.result.classifications
    ] == [[("a", 2.5), ("other", 1.0)], [("none", 3.0), ("other", 2.0)]]
    assert (reply.model_spec.signature_name, reply.model_spec.version.value) == ("classify", 123)

    regress = regression_pb2.RegressionRequest()
    fill_spec(regress.model_spec, signature="regress")
    regress.input.example_list_with_context.context.CopyFrom(example(x=1.0))
    regress.input.example_list_with_context.examples.extend([example(), example(x=5.0)])
    reply = stub.Regress(regress, timeout=30)
    assert [entry.value for entry in reply.result.regressions] == [2.5, 4.5]

    regress.input.Clear()
    assert refused(stub.Regress, regress) == ("INVALID_ARGUMENT", "Input is empty.")


def test_G1_multi_inference(stub):
    request = multi_inference(("classify", "classify"), ("regress", "regress"))
    reply = stub.MultiInference(request, timeout=30)
    assert reply.results[0].classification_result.classifications[0].classes[0].score == 2.5
    assert reply.results[1].regression_result.regressions[0].value == 2.5
    assert reply.results[1].model_spec.signature_name == "regress"


@pytest.mark.parametrize(
    ("request_", "code", "message"),
    [
        pytest.param(multi_inference(), "INVALID_ARGUMENT", "at least one task", id="G1-no-task"),
        pytest.param(
            multi_inference(("regress", "regress"), ("regress", "regress")),
            "INVALID_ARGUMENT",
            "Duplicate evaluation of signature: regress",
            id="G1-duplicate-task",
        ),
        pytest.param(
            multi_inference(("regress", "predict")),
            "UNIMPLEMENTED",
            "Unsupported signature method_name: tensorflow/serving/predict",
            id="G1-other-method",
        ),
    ],
)
def test_multi_inference_refusals(stub, request_, code, message):
    found_code, details = refused(stub.MultiInference, request_)
    assert found_code == code
    assert message in details


def test_G6_metadata(stub):
    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    fill_spec(request.model_spec)
    reply = stub.GetModelMetadata(request, timeout=30)
    found = get_model_metadata_pb2.SignatureDefMap()
    assert reply.metadata["signature_def"].Unpack(found)
    assert list(found.signature_def["serving_default"].inputs) == ["x"]
    assert (reply.model_spec.name, reply.model_spec.version.value) == ("toy", 123)
    request.ClearField("metadata_field")
    assert refused(stub.GetModelMetadata, request)[0] == "INVALID_ARGUMENT"
    request.metadata_field.append("else")
    assert refused(stub.GetModelMetadata, request) == (
        "INVALID_ARGUMENT",
        "Metadata field else is not supported",
    )


def test_G6_status(model_stub):
    request = get_model_status_pb2.GetModelStatusRequest()
    fill_spec(request.model_spec, version=123)
    reply = model_stub.GetModelStatus(request, timeout=30)
    (entry,) = reply.model_version_status
    state = get_model_status_pb2.ModelVersionStatus.State.Name(entry.state)
    assert (entry.version, state, entry.status.error_code) == (123, "AVAILABLE", 0)
    request.model_spec.version.value = 9
    assert refused(model_stub.GetModelStatus, request) == (
        "NOT_FOUND",
        "Could not find version 9 of model toy",
    )


def test_V8_reload_over_grpc(model_stub, stub, base):
    request = model_management_pb2.ReloadConfigRequest()
    assert refused(model_stub.HandleReloadConfigRequest, request)[0] == "INVALID_ARGUMENT"
    text = CONFIG.format(base=base)
    request.config.CopyFrom(model_config.parse(text.replace("123", "9")))
    code, details = refused(model_stub.HandleReloadConfigRequest, request)
    assert code == "FAILED_PRECONDITION"
    assert "assign label to version 9 of model toy" in details
    request.config.CopyFrom(model_config.parse(text.replace("stable", "other")))
    assert model_stub.HandleReloadConfigRequest(request, timeout=30).status.error_code == 0
    try:
        assert stub.Predict(ask({"label": "other"}, x=X)).model_spec.version.value == 123
    finally:
        request.config.CopyFrom(model_config.parse(text))
        model_stub.HandleReloadConfigRequest(request, timeout=30)


def test_G5_messages_longer_than_4_MiB_are_taken(stub):
    request = ask({"signature": "echo_string"}, x=np.array([b"x" * 5_000_000], object))
    request.output_filter.append("y")
    code, details = refused(stub.Predict, request)  # this client's own limit, on the reply
    assert code == "RESOURCE_EXHAUSTED"
    assert "larger than max (5" in details


def test_G5_deadline(stub):
    request = ask({"signature": "slow"}, x=X)
    with pytest.raises(grpc.RpcError) as caught:
        stub.Predict(request, timeout=0.05)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


def test_G5_health(channel):
    stub = health_pb2_grpc.HealthStub(channel)
    for service in ("", "ModelService", "PredictionService"):
        reply = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=30)
        assert reply.status == health_pb2.HealthCheckResponse.SERVING


def test_M3_calls_are_counted(stub, metrics):
    stub.Predict(ask({}, x=X), timeout=30)
    page = metrics.page()
    assert ':tensorflow:serving:request_count{model_name="toy",status="OK"}' in page
    assert 'API="Predict",entrypoint="GRPC"' in page
