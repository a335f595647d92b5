"""Batching of a whole server: what clients get whose requests were computed together."""

import asyncio
import concurrent.futures
import contextlib
import gc
import shutil
import threading
import weakref

import grpc
import httpx
import numpy as np
import pytest

from models.keras import tf
from preprocessing.errors import UserError
from serving import embedded_server
from serving.client import AsyncClient
from serving.exporting import raw_requests
from serving.exporting.sample_requests import sample_requests
from serving.tfserving.batching import batched_model
from serving.tfserving.batching.batched_model import BatchedServable
from serving.tfserving.batching.parameters import MODEL_FILE
from serving.tfserving.batching.queues import BatchQueue
from serving.tfserving.grpc.server import GrpcServer
from serving.tfserving.grpc.services import ModelService, PredictionService
from serving.tfserving.metrics import Metrics
from serving.tfserving.models import model_config
from serving.tfserving.models.servable import Servable
from serving.tfserving.models.store import ModelStore
from serving.tfserving.protos import predict_pb2, prediction_service_pb2_grpc
from tests.helpers import toy_runs

TOLERANCE = 1e-6
PAIRS = "max_batch_size { value: 2 } batch_timeout_micros { value: 60000000 }"
"""The second request starts the batch: two requests are computed together for certain."""
PADDED = f"{PAIRS} pad_variable_length_inputs: true"


@contextlib.contextmanager
def batched(tmp_path, text, **options):
    file = tmp_path / "batching.config"
    file.write_text(text)
    with embedded_server.running(
        enable_batching=True,
        batching_parameters_file=str(file),
        enable_model_warmup=False,  # a pair would wait for its second request
        max_num_load_retries=0,
        rest_api_num_threads=32,
        **options,
    ) as running:
        yield running


def together(url, *documents):
    """The replies to requests that are sent at the same time."""

    def post(document):
        return httpx.post(f"{url}:predict", json=document, timeout=60)

    with concurrent.futures.ThreadPoolExecutor(len(documents)) as pool:
        return list(pool.map(post, documents))


def request(history, candidates=3):
    inputs = toy_runs.raw_inputs(candidates)
    inputs["history_item_id"] = np.array([[item.encode() for item in history]], object)
    inputs["history_category_id"] = np.array([[-1 if item == "" else 2 for item in history]])
    return inputs


@pytest.fixture(scope="module")
def pairing(toy_version, tmp_path_factory):
    """Asks our model for the scores of two histories, computed together and padded."""
    file = tmp_path_factory.mktemp("pairing") / "batching.config"
    file.write_text(PADDED)
    with (
        batched_model.opener(str(file), False, ["serve"], Metrics()) as load,
        concurrent.futures.ThreadPoolExecutor(2) as pool,
    ):
        servable = load(toy_version)

        def ask(*histories):
            outputs = pool.map(lambda history: servable.predict("", request(history)), histories)
            return [output["scores"][0] for output in outputs]

        yield ask


def alone(toy_servable, history):
    return toy_servable.predict("", request(history))["scores"][0]


def test_B2_scores_are_those_without_batching(toy_version, toy_data, toy_servable, tmp_path):
    """Of many clients at once, with histories and candidates of different numbers."""
    requests = sample_requests(toy_data, "test", 11)
    sizes = {(len(each["history"]), len(each["candidates"])) for each in requests}
    assert len(sizes) > 5
    monitoring = tmp_path / "monitoring.config"
    monitoring.write_text('prometheus_config { enable: true path: "/metrics" }')
    parameters = (
        "max_batch_size { value: 8 } batch_timeout_micros { value: 20000 } "
        "allowed_batch_sizes: 4 allowed_batch_sizes: 8 pad_variable_length_inputs: true"
    )

    async def ask_all(url):
        schema = toy_data.schema
        async with AsyncClient(url, schema=schema, equal_histories=True) as client:
            return await asyncio.gather(*(client.score(each) for each in requests * 3))

    with batched(
        tmp_path,
        parameters,
        model_base_path=toy_version.parent,
        model_name="ctr",
        monitoring_config_file=str(monitoring),
    ) as running:
        found = asyncio.run(ask_all(running.url))
        page = httpx.get(f"{running.root}/metrics").text
    batch = next(raw_requests.batches(toy_data, "test", 64))
    expected_BN = toy_servable.predict("", batch.raw)["scores"]
    for i, scores in enumerate(found):
        row = i % len(requests)
        assert len(scores) == len(requests[row]["candidates"])
        np.testing.assert_allclose(scores, expected_BN[row, : len(scores)], atol=TOLERANCE)
    batches = int(page.split("wrapped_run_count{} ")[1].split("\n")[0])
    assert batches < len(found)
    name = ':tensorflow:serving:batching_session:queuing_latency_count{thread_pool_name="'
    assert f'{name}batch_threads"}} {len(found)}\n' in page


def test_B4_other_lengths_are_refused_without_padding(exported, tmp_path):
    def describe(*ids):
        return {"signature_name": "describe", "inputs": {"ids": [ids], "names": ["a"]}}

    with batched(tmp_path, PAIRS, model_base_path=exported, model_name="toy") as running:
        for reply in together(running.url, describe(1, 2), describe(3)):
            assert reply.status_code == 400
            assert "have different shapes and padding is turned off" in reply.json()["error"]
        replies = together(running.url, describe(1, 2), describe(3, 4))
        assert [reply.json()["outputs"]["total"] for reply in replies] == [[3], [7]]


def test_B4_padding_adds_events_to_a_short_history(pairing, toy_servable):
    """What the official server's padding means for our models, and why it is not advised."""
    short, long = toy_runs.ITEMS[:2], toy_runs.ITEMS[4:9]
    found, found_long = pairing(short, long)
    lengthened = short + short[:1] * 3
    np.testing.assert_allclose(found, alone(toy_servable, lengthened), atol=TOLERANCE)
    assert np.abs(found - alone(toy_servable, short)).max() > 1e-4
    np.testing.assert_allclose(found_long, alone(toy_servable, long), atol=TOLERANCE)


def test_B4_a_history_that_begins_with_padding_keeps_its_scores(pairing, toy_servable):
    short, long = toy_runs.ITEMS[:2], toy_runs.ITEMS[4:9]
    found, found_long = pairing(["", *short], long)
    np.testing.assert_allclose(found, alone(toy_servable, short), atol=TOLERANCE)
    np.testing.assert_allclose(found_long, alone(toy_servable, long), atol=TOLERANCE)


def test_B6_a_file_that_contradicts_itself_stops_the_start(exported, tmp_path):
    message = (
        "--batching_parameters_file: expected BatchingParameters, found: Last entry in "
        "allowed_batch_sizes must match max_batch_size; last entry was 8; expected 1000"
    )
    with (
        pytest.raises(UserError, match=message),
        batched(tmp_path, "allowed_batch_sizes: 8", model_base_path=exported, model_name="toy"),
    ):
        pass


@pytest.fixture
def queued(monkeypatch):
    """An event that is set as soon as a request is in a queue."""
    event, add = threading.Event(), BatchQueue.add

    def noted(queue, *arguments):
        tasks = add(queue, *arguments)
        event.set()
        return tasks

    monkeypatch.setattr(BatchQueue, "add", noted)
    return event


def test_B6_a_full_queue_is_503(exported, tmp_path, queued):
    text = f"{PAIRS} max_enqueued_batches {{ value: 1 }}"
    with batched(tmp_path, text, model_base_path=exported, model_name="toy") as running:
        waiting = []
        first = threading.Thread(
            target=lambda: waiting.extend(together(running.url, {"instances": [1.0]}))
        )
        first.start()
        assert queued.wait(30)
        (reply,) = together(running.url, {"instances": [2.0, 3.0]})
        assert reply.status_code == 503
        assert "currently 1 batches enqueued and max_enqueued_batches is 1" in reply.json()["error"]
        (third,) = together(running.url, {"instances": [4.0]})
        first.join()
        assert [r.json()["predictions"] for r in (*waiting, third)] == [[2.5], [4.0]]


def test_failing_requests_of_a_batch_fail_and_others_go_on(exported, tmp_path):
    with batched(tmp_path, PAIRS, model_base_path=exported, model_name="toy") as running:
        gather = [{"signature_name": "gather", "instances": [i]} for i in (1, 99)]
        other = {"instances": [1.0, 2.0]}
        *failed, good = together(running.url, *gather, other)
        assert good.json() == {"predictions": [2.5, 3.0]}
        for reply in failed:
            assert reply.status_code == 400
            assert "= 99 is not in [0, 10)" in reply.json()["error"]
        good_pair = together(running.url, gather[0], gather[0])
        assert [reply.json() for reply in good_pair] == [{"predictions": [1.0]}] * 2


def test_a_stopping_server_answers_what_waits_for_a_batch(exported, tmp_path, queued):
    text = "batch_timeout_micros { value: 1000000 }"
    with batched(tmp_path, text, model_base_path=exported, model_name="toy") as running:
        replies = []
        asking = threading.Thread(
            target=lambda: replies.extend(together(running.url, {"instances": [1.0]}))
        )
        asking.start()
        assert queued.wait(30)
    asking.join()
    assert replies[0].json() == {"predictions": [2.5]}


@pytest.fixture
def versions(exported, tmp_path):
    """A version with parameters of its own, one without, one whose parameters are wrong."""
    for number, text in (("1", PAIRS), ("2", None), ("3", "max_batch_size: 2")):
        version = shutil.copytree(exported / "00000123", tmp_path / "model" / number)
        if text is not None:
            (version / MODEL_FILE).write_text(text)
    return tmp_path / "model"


def test_B1_parameters_in_the_version_directory(versions):
    config = f"""model_config_list {{ config {{ name: "toy" base_path: "{versions}"
      model_platform: "tensorflow" model_version_policy {{ all {{}} }} }} }}"""
    with batched_model.opener("", True, ["serve"], Metrics()) as load:
        store = ModelStore(load, max_num_load_retries=0)
        store.start(model_config.parse(config), 0.05)
        kinds = {version: type(store.get("toy", version)[1]) for version in (1, 2)}
        assert kinds == {1: BatchedServable, 2: Servable}
        (_, state, code, message), *_ = store.statuses("toy", 3)
        assert (state, code) == ("END", "INVALID_ARGUMENT")
        assert f"BatchingParameters in {versions / '3' / MODEL_FILE}: 1:" in message
        store.stop()


def test_B2_over_grpc(versions):
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "toy"
    request.inputs["x"].CopyFrom(tf.make_tensor_proto([1.0, 2.0]))
    other = predict_pb2.PredictRequest()
    other.CopyFrom(request)
    other.inputs["x"].CopyFrom(tf.make_tensor_proto([5.0]))
    scalar = predict_pb2.PredictRequest()
    scalar.CopyFrom(request)
    scalar.model_spec.signature_name = "mixed"
    scalar.inputs["x"].CopyFrom(tf.make_tensor_proto(1.0))
    integers = predict_pb2.PredictRequest()
    integers.CopyFrom(request)
    integers.inputs["x"].CopyFrom(tf.make_tensor_proto([1, 2]))
    parameters = versions.parent / "batching.config"
    parameters.write_text("max_batch_size { value: 3 } batch_timeout_micros { value: 60000000 }")
    with batched_model.opener(str(parameters), False, ["serve"], metrics := Metrics(True)) as load:
        store = ModelStore(load)
        store.start(model_config.single("toy", versions), 0.05)
        running = GrpcServer(PredictionService(store, metrics), ModelService(store))
        with grpc.insecure_channel(f"127.0.0.1:{running.port}") as channel:
            stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
            first = stub.Predict.future(request, timeout=60)
            with pytest.raises(grpc.RpcError, match="must have at least one dimension"):
                stub.Predict(scalar, timeout=60)
            # Of another type: refused by itself, without harm to the one that waits.
            with pytest.raises(grpc.RpcError, match="INVALID_ARGUMENT"):
                stub.Predict(integers, timeout=60)
            second = stub.Predict(other, timeout=60)
            assert list(first.result(60).outputs["y"].float_val) == [2.5, 3.0]
            assert list(second.outputs["y"].float_val) == [4.5]
        running.stop(1)
        store.stop()
    assert "wrapped_run_count{} 1\n" in metrics.page()


def test_a_version_that_is_dropped_leaves_the_memory(exported):
    with batched_model.opener("", False, ["serve"], Metrics()) as load:
        servable = load(exported / "00000123")
        inputs = {"x": np.array([1.0], np.float32)}
        assert servable.predict("", inputs)["y"].tolist() == [2.5]
        gone = weakref.ref(servable)
        del servable
        gc.collect()
        assert gone() is None
