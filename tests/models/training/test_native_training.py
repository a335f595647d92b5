"""Training with the compiled attention unit: when it is used, and that nothing else changes."""

import types

import numpy as np
import pandas as pd
import pytest

from models import train
from models.config import run_config
from models.config.training import TrainConfig
from models.core import run_directory
from models.keras import tf
from models.layers.attention.local_activation import LocalActivation
from models.ops.native import library
from models.training import native_operations, trainer
from preprocessing.errors import UserError
from serving import export
from serving.tfserving.protos import saved_model_pb2
from tests.helpers import small_models

_OPERATION = "SequenceCtrLocalActivation"
_ALONE = types.SimpleNamespace(cluster=None, replicas=1)


@pytest.fixture
def found(native_library, monkeypatch):
    """The library, which a training finds, whatever the cache of this machine holds."""
    monkeypatch.setattr(library, "find", lambda: native_library)
    return native_library


def _model(name="din", *settings):
    return small_models.model(small_models.config(name, "none", *settings))


def _used(model):
    units = [unit for unit in model.submodules if isinstance(unit, LocalActivation)]
    return [unit._operations is not None for unit in units]


def _operations(function, *arguments):
    graph = tf.function(function).get_concrete_function(*arguments).graph
    return {one.type for one in graph.get_operations()}


def test_steps_use_it_and_nothing_else_does(found):
    model, batch = _model(), small_models.batch()
    line = native_operations.use(model, TrainConfig(), _ALONE)
    assert line == f"attention unit: compiled operation ({found.name})"
    assert {_OPERATION, f"{_OPERATION}Grad"} <= _operations(model.main_step, batch)
    assert not [one for one in _operations(model, batch) if one.startswith("SequenceCtr")]
    assert not [one for one in _operations(model.explain, batch) if one.startswith("SequenceCtr")]


@pytest.mark.parametrize(
    ("settings", "distribution", "reason"),
    [
        ({"deterministic": True}, {}, "a deterministic run does not depend on what is compiled"),
        ({"precision": "mixed_bfloat16"}, {}, "float32, not mixed_bfloat16"),
        ({}, {"replicas": 2}, "a single replica"),
        ({}, {"cluster": object()}, "a single replica"),
        ({"native_ops": "off"}, {}, ""),
    ],
)
def test_plain_operations_and_why(found, settings, distribution, reason):
    model = _model()
    where = types.SimpleNamespace(**{"cluster": None, "replicas": 1} | distribution)
    line = native_operations.use(model, TrainConfig(**settings), where)
    assert reason in line
    assert line.startswith("attention unit: TensorFlow's operations, because ") == bool(reason)
    assert _used(model) == [False]


def test_plain_operations_on_a_gpu(found, monkeypatch):
    model = _model()
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind: ["one"])
    line = native_operations.use(model, TrainConfig(), _ALONE)
    assert line.endswith("because the compiled one is for CPUs")
    assert _used(model) == [False]


def test_plain_operations_without_a_library(monkeypatch):
    monkeypatch.setattr(library, "find", lambda: None)
    model = _model()
    line = native_operations.use(model, TrainConfig(), _ALONE)
    assert "`ctr-doctor --build_native` compiles a faster one" in line
    assert _used(model) == [False]


@pytest.mark.parametrize(
    ("name", "settings", "used"),
    [
        ("lr", (), []),
        ("dmr", (), [False, False]),
        ("sim", (), [True]),
        ("din", ("model.attention_activation=sigmoid",), [False]),
        ("din", ("model.attention_units=[20]",), [False]),
        ("din", ("model.normalize=true",), [True]),
    ],
)
def test_units_that_have_it(found, name, settings, used):
    model = _model(name, *settings)
    line = native_operations.use(model, TrainConfig(), _ALONE)
    assert _used(model) == used
    assert bool(line) == any(used)


def test_an_unknown_choice_is_an_error():
    with pytest.raises(
        UserError, match="train.native_ops to be one of auto, off, found 'of'.* did"
    ):
        TrainConfig(native_ops="of")


@pytest.mark.parametrize(
    ("name", "settings"), [("din", ()), ("din", ("model.normalize=true",)), ("sim", ())]
)
def test_twenty_steps_are_those_of_plain_operations(found, name, settings):
    models = [_model(name, "train.learning_rate=0.003", *settings) for _ in range(2)]
    native_operations.use(models[1], TrainConfig(), _ALONE)
    steps = [tf.function(model.main_step) for model in models]
    for seed in range(20):
        batch = small_models.batch(seed=seed)
        expected, logs = (step(batch) for step in steps)
        for key, value in expected.items():
            np.testing.assert_allclose(logs[key], value, rtol=1e-5, err_msg=key)
    for expected, weight in zip(*(model.weights for model in models), strict=True):
        np.testing.assert_allclose(weight, expected, rtol=1e-4, atol=1e-5, err_msg=weight.name)


def _padded(batch, steps, candidates):
    def pad(name, value):
        more = {"history": steps, "candidate": candidates, "label": candidates}
        extra = more.get(name.partition("/")[0], 0)
        return tf.pad(value, [[0, 0], [0, extra]]) if extra else value

    return {name: pad(name, value) for name, value in batch.items()}


def test_padding_never_changes_a_loss(found):
    results = []
    for steps, candidates in ((0, 0), (3, 0), (0, 2), (5, 4)):
        model = _model()
        native_operations.use(model, TrainConfig(), _ALONE)
        results.append(model.main_step(_padded(small_models.batch(), steps, candidates)))
    for logs in results[1:]:
        for key, value in results[0].items():
            np.testing.assert_allclose(logs[key], value, rtol=1e-5, err_msg=key)


def _config(data, **settings):
    plain = {"batch_size": 50, "max_steps": 12, "learning_rate": 0.01}
    return run_config.resolve(
        {
            "data": str(data.path),
            "model": {"name": "din", "embedding_size": 4},
            "train": plain | settings,
        }
    )


@pytest.fixture
def runs(found, data, tmp_path, monkeypatch):
    """Run directories with and without the compiled unit."""
    monkeypatch.setattr(trainer, "EVALUATION_INTERVAL", 4)
    for choice in ("auto", "off"):
        train.train(_config(data, native_ops=choice), tmp_path / choice, progress=False)
    return tmp_path / "auto", tmp_path / "off"


def test_a_run_is_that_of_plain_operations_and_so_is_its_export(runs, found, tmp_path):
    tables = [pd.read_csv(run / "metrics.csv") for run in runs]
    tables = [t.drop(columns=["seconds", *t.filter(like="speed/").columns]) for t in tables]
    pd.testing.assert_frame_equal(*tables, rtol=1e-4)
    lines = [run_directory.read_sessions(run)[0].get("operations") for run in runs]
    assert lines == [f"attention unit: compiled operation ({found.name})", None]

    version = export.export(runs[0], tmp_path / "model").path
    graph = saved_model_pb2.SavedModel.FromString((version / "saved_model.pb").read_bytes())
    definition = graph.meta_graphs[0].graph_def
    nodes = [*definition.node, *(n for f in definition.library.function for n in f.node_def)]
    assert "MatMul" in {node.op for node in nodes}
    assert not [node.op for node in nodes if node.op.startswith("SequenceCtr")]


def test_a_run_may_go_on_without_it(runs, data):
    more = _config(data, native_ops="off", max_steps=16)
    train.train(more, runs[0], resume=True, progress=False)
    assert len(run_directory.read_sessions(runs[0])) == 2
