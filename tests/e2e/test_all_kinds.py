"""A log with every kind of feature at once, from files to scores: sets, vectors, events, times,
weights, missing values, a pretrained table."""

import json

import httpx
import numpy as np
import pytest

from models import registry, train
from models.config import run_config
from models.core import run_directory
from models.core.factory import build_model, compile_model
from models.evaluation import importance
from models.keras import tf
from models.reporting import run_report
from models.training import trainer
from models.training.warm_start import warm_start
from pipeline import audit, data_card, validate
from preprocessing import dataset
from serving import embedded_server, export
from serving.client import Client
from serving.explain import describe
from serving.exporting import raw_requests
from serving.exporting.sample_requests import sample_requests
from serving.exporting.signatures import SCORES, SERVING_DEFAULT
from serving.tfserving.grpc import tensors
from serving.tfserving.models.servable import Servable
from tests.helpers import all_kinds_logs
from tests.helpers.served_models import require_parity
from tests.helpers.small_data_sets import shard_bytes

FIELDS = {"languages", "profile", "genres", "text", "price", "action", "dwell", "tags"}
DEFAULTS = {"age": 40.0, "profile": [0.0] * 3, "genres": ["none"], "price": 9.0, "dwell": 1}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return all_kinds_logs.write_data(tmp_path_factory.mktemp("all_kinds"))


@pytest.fixture(scope="module")
def batch(data):
    options = {"batch_size": 16, "shuffle_seed": 1, "history_buckets": (5,)}
    return next(iter(dataset.read(data, "train", **options)))


def _settings(data, **content):
    vectors = data.path.parent / "vectors.parquet"
    if not vectors.exists():
        all_kinds_logs.write_vectors(vectors, data)
    record = {"file": str(vectors), "trainable": True, "learning_rate_factor": 0.5}
    return {
        "data": str(data.path),
        "train": {"batch_size": 16, "max_steps": 8},
        "pretrained": {"item_id": record},
        **content,
    }


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    path = tmp_path_factory.mktemp("all_kinds_run") / "run"
    content = _settings(data, model={"name": "deminet", "embedding_size": 4}, ssl={"name": "miss"})
    train.train(run_config.resolve(content), path, progress=False)
    return path


@pytest.fixture(scope="module")
def version(run, tmp_path_factory):
    return export.export(run, tmp_path_factory.mktemp("all_kinds_model") / "model").path


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_every_format_gives_the_same_bytes(data, tmp_path, suffix):
    other = all_kinds_logs.write_data(tmp_path, suffix, num_partitions=3)
    assert shard_bytes(other.path) == shard_bytes(data.path)
    assert other.stats == data.stats


def test_the_auditor_and_drift_find_nothing_and_the_card_shows_all(data):
    findings = audit.audit(data.path)
    assert not [finding for finding in findings.values() if finding.failures]
    drifts = {drift.name: drift for drift in validate.compare(data, data)}
    assert FIELDS | {"gap", "pause", "hour", "weekday"} <= drifts.keys()
    page = data_card.write_card(data.path).with_suffix(".md").read_text(encoding="utf-8")
    assert all(name in page for name in FIELDS)


@pytest.mark.slow
@pytest.mark.parametrize("name", registry.MODELS)
def test_every_model_trains_on_it(data, batch, name):
    _, settings = registry.load_model_class(name)
    size = 0 if settings.get("embedding_size") == 0 else 4
    _train(data, batch, _settings(data, model={"name": name, "embedding_size": size}))


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in registry.SSL if name != "none"])
def test_every_self_supervision_trains_on_it(data, batch, name):
    content = _settings(data, model={"name": "din", "embedding_size": 4}, ssl={"name": name})
    model = _train(data, batch, content)
    assert np.isfinite(model.ssl_step(batch)["loss"].numpy())


def _train(data, batch, content):
    config = run_config.resolve(content)
    model = build_model(config, data)
    compile_model(model, config)
    for _ in range(2):
        assert np.isfinite(model.main_step(batch)["loss"].numpy())
    scores = model(batch).numpy()
    assert scores.shape == batch["label"].shape
    assert np.isfinite(scores).all()
    return model


@pytest.mark.slow
def test_all_ways_to_a_score_agree(run, version):
    require_parity(run, version)


@pytest.mark.slow
def test_clients_and_pages_show_it(data, run, version):
    expected = next(raw_requests.batches(data, "test", 8))
    expected_BN = Servable(version).predict(SERVING_DEFAULT, expected.raw)[SCORES]
    with (
        embedded_server.running(version.parent, "ctr", explore=str(data.path)) as running,
        Client(running.url) as client,
    ):
        for row, request in enumerate(sample_requests(data, "test", 8)):
            scores = client.score(request)
            np.testing.assert_allclose(scores, expected_BN[row][: len(scores)], atol=1e-6)
        text = describe(request, client.explain(request))
        with httpx.Client(base_url=running.root, timeout=30) as http:
            shown = http.get("/explore/why", params={"request": 0}).json()
    assert "action=" in text
    assert "genres=" in text
    fields = set().union(*(side["fields"] for side in (shown["user"], shown["candidates"][0],
                                                       shown["history"][0])))  # fmt: skip
    assert fields >= FIELDS
    assert "worth" not in json.dumps(shown)  # the weight is no input


@pytest.mark.slow
def test_what_has_a_default_may_be_absent(data, version):
    """From a gRPC request, and from one of a client that knows no schema."""
    servable = Servable(version)
    signature = servable.signature_defs.signature_def[SERVING_DEFAULT]
    assert set(signature.defaults) == {
        "age", "profile", "history_dwell", "history_genres",
        "candidate_genres", "candidate_price",
    }  # fmt: skip
    batch = next(raw_requests.batches(data, "test", 8))
    sent = {name: tf.make_tensor_proto(values) for name, values in batch.raw.items()
            if name not in signature.defaults}  # fmt: skip
    expected_BN = servable.predict(SERVING_DEFAULT, tensors.inputs(sent, signature))[SCORES]
    with (
        embedded_server.running(version.parent, "ctr") as running,
        Client(running.url) as client,
    ):
        for row, request in enumerate(sample_requests(data, "test", 8)):
            left_out, filled = _with(request, {}), _with(request, DEFAULTS)
            scores = client.score(left_out)
            np.testing.assert_allclose(scores, expected_BN[row][: len(scores)], atol=1e-6)
            np.testing.assert_allclose(scores, client.score(filled), atol=1e-6)


def _with(request, defaults):
    """A request whose fields with a default are left out, or have it."""
    fields = {name: value for name, value in request.items() if name not in DEFAULTS}
    fields |= {name: value for name, value in defaults.items() if name in request}
    for side in ("history", "candidates"):
        if side in request:
            fields[side] = [_with(record, defaults) for record in request[side]]
    return fields


@pytest.mark.slow
def test_the_report_and_importance_name_it(data, run, tmp_path):
    report = run_report.write_report(run, tmp_path / "report.html").with_suffix(".md")
    text = report.read_text(encoding="utf-8")
    assert all(name in text for name in FIELDS)
    table = importance.measure(run_directory.load_model(run), data, "test")
    parts = set(zip(table["feature"], table["part"], strict=True))
    assert {("genres", "history"), ("tags", "history"), ("hour", "context")} <= parts


@pytest.mark.slow
def test_a_warm_start_matches_it_by_value(data, run, tmp_path):
    other = all_kinds_logs.write_data(tmp_path / "data", log=all_kinds_logs.rows(seed=4, items=19))
    content = _settings(other, model={"name": "deminet", "embedding_size": 4},
                        warm_start=str(run))  # fmt: skip
    config = run_config.resolve(content)
    model = trainer.build_model(config, other)
    lines = warm_start(model, other, config)
    before = run_directory.load_model(run).embedder
    for name in ("genres", "languages", "action"):
        assert any(line.startswith(f"{name}: ") and "taken over" in line for line in lines), lines
        encoders = [one.encoders[name] for one in (data, other)]
        common = set.intersection(*(set(one.vocabulary.to_pylist()) for one in encoders))
        assert common
        for word in common:
            ids = [encoder.encode([word])[0] for encoder in encoders]
            rows = [one.tables[name].numpy()[i]
                    for one, i in zip((before, model.embedder), ids, strict=True)]  # fmt: skip
            np.testing.assert_array_equal(*rows)
