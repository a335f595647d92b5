import importlib.metadata
import json
import re
import shutil

import numpy as np
import pytest

from models.config import run_config
from models.core import run_directory
from models.core.factory import build_model
from models.keras import tf
from preprocessing.errors import UserError
from preprocessing.schema import Schema
from serving import export as exporting
from serving.export import ExportOptions
from serving.exporting import model_card, publishing, raw_requests, warmup
from serving.exporting.signatures import ServingModule
from serving.tfserving.models.servable import Servable
from serving.tfserving.protos import saved_model_pb2
from serving.tfserving.status import ServingError, invalid
from tests.helpers import toy_runs


def test_version_is_complete_and_nothing_else_is_left(toy_version, toy_data):
    assert toy_version.name == "1"
    assert {child.name for child in toy_version.parent.iterdir()} == {"1", "models.config"}
    assets = toy_version / "assets"
    assert {path.name for path in assets.iterdir()} == {
        "schema.json",
        "config.json",
        "digests.json",
        "model_card.md",
        "user_id.txt",
        "item_id.txt",
        "category_id.txt",
    }
    assert Schema.load(assets / "schema.json").hash() == toy_runs.SCHEMA.hash()
    assert json.loads((assets / "config.json").read_text())["model"]["name"] == "din"
    assert (assets / "item_id.txt").read_text().split("\n")[:-1] == sorted(toy_runs.ITEMS)
    card = (assets / "model_card.md").read_text()
    for expected in (toy_runs.SCHEMA.hash(), toy_data.fingerprint, "miss", "| test | 0.5000 |"):
        assert expected in card
    assert "candidate_price" in card


def test_nothing_tells_where_the_model_was_trained(toy_version, toy_data, toy_run):
    config = run_config.load(toy_version / "assets" / "config.json")
    resolved = run_config.resolve(config)
    assert resolved.data == ""
    trained = run_directory.open_run(toy_run).config
    assert (resolved.model, resolved.ssl, resolved.train) == (
        trained.model,
        trained.ssl,
        trained.train,
    )
    for file in toy_version.rglob("*"):
        if file.is_file():
            content = file.read_bytes()
            for path in (toy_data.path, toy_run):
                assert str(path).encode() not in content, file


def test_model_card_does_not_ask_for_a_distribution(toy_run, monkeypatch):
    """TensorFlow may be installed as tensorflow-cpu."""

    def no_such_distribution(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", no_such_distribution)
    assert f"* tensorflow {tf.__version__}\n" in model_card.write(
        run_directory.open_run(toy_run), {}
    )


def test_model_card_with_a_metric_that_is_undefined(toy_run, tmp_path):
    run = run_directory.open_run(shutil.copytree(toy_run, tmp_path / "run"))
    run_directory.write_metrics(run.path, {"test": {"auc": None, "logloss": 0.25}})
    assert "| test | n/a | 0.2500 |" in model_card.write(run, {})


def test_exported_weights_are_those_that_score(toy_version, toy_run):
    """No optimiser, no self-supervision."""
    model = run_directory.load_model(toy_run)
    stored = tf.train.list_variables(str(toy_version / "variables" / "variables"))
    sizes = sorted(np.prod(shape, dtype=int) for name, shape in stored if "weights" in name)
    wanted = [*model.embedder.variables, *model.backbone.variables]
    assert sizes == sorted(int(tf.size(variable)) for variable in wanted)
    assert len(model.ssl.variables) > 0
    others = [name for name, _ in stored if "weights" not in name]
    assert others == ["_CHECKPOINTABLE_OBJECT_GRAPH"]


# What scoring takes: encoding, parsing, and the arithmetic of the models.
SCORING = """
    AddN AddV2 All Any AsString Assert BatchMatMulV2 BiasAdd BroadcastTo Cast ConcatV2 Const Cumsum
    DivNoNan Einsum Equal Exp ExpandDims Fill GatherV2 Greater GreaterEqual Identity IdentityN IsNan
    LeakyRelu Less LessEqual LogicalAnd LogicalNot LookupTableFindV2 MatMul MatrixDiagV3 Max Maximum
    Minimum Mul Neg NoOp NotEqual OnesLike Pack Pad ParseSequenceExampleV2 Placeholder Prod
    RaggedTensorToTensor Range ReadVariableOp RealDiv Relu Reshape ResourceGather ReverseSequence
    Roll Rsqrt Select SelectV2 Shape Sigmoid Softmax Split SplitV Square Squeeze
    StatefulPartitionedCall StridedSlice StringToHashBucketFast Sub Sum TopKV2 Transpose Unpack
    UpperBound ZerosLike
"""
# What inputs take that may be left out.
ABSENT = {"PlaceholderWithDefault", "StatelessIf"}
# What loading takes: vocabularies and weights.
LOADING = """
    AssignVariableOp DisableCopyOnRead HashTableV2 InitializeTableFromTextFileV2 MergeV2Checkpoints
    RestoreV2 SaveV2 ShardedFilename StaticRegexFullMatch StringJoin VarHandleOp VarIsInitializedOp
"""


def operations(graph):
    nodes = [*graph.node, *(node for f in graph.library.function for node in f.node_def)]
    return {node.op for node in nodes}


def test_operations_of_an_exported_graph(toy_version):
    """None of training: no draw, no gradient, no update of a weight but by loading."""
    saved_model = saved_model_pb2.SavedModel()
    saved_model.ParseFromString((toy_version / "saved_model.pb").read_bytes())
    found = operations(saved_model.meta_graphs[0].graph_def)
    assert {"MatMul", "LookupTableFindV2", "ParseSequenceExampleV2"} <= found
    assert found - {*SCORING.split(), *LOADING.split()} == ABSENT


def test_operations_of_deminet(toy_data):
    content = {"data": str(toy_data.path), "model": {"name": "deminet"}}
    model = build_model(run_config.resolve(content), toy_data)
    graph = ServingModule(model, toy_data).trace("explain").graph.as_graph_def()
    # StopGradient is the identity outside of training.
    assert operations(graph) - {*SCORING.split()} == {"StopGradient", "StatelessIf"}


def test_B3_and_B5_requests_may_be_batched(toy_version, toy_servable, toy_data):
    """Every input and output has rank 1 at least, and dimension 0 is that of the requests."""
    rows = list(raw_requests.batches(toy_data, "test", 1))
    definitions = toy_servable.signature_defs.signature_def
    for name in ("serving_default", "serialized", "explain"):
        for tensors in (definitions[name].inputs, definitions[name].outputs):
            for info in tensors.values():
                assert info.tensor_shape.dim[0].size == -1
        for row in rows[:2]:
            inputs = {"examples": row.examples} if name == "serialized" else row.raw
            doubled = {key: np.repeat(value, 2, axis=0) for key, value in inputs.items()}
            alone, twice = (toy_servable.predict(name, i) for i in (inputs, doubled))
            for key, value in alone.items():
                np.testing.assert_allclose(twice[key], np.repeat(value, 2, axis=0), atol=1e-6)


def test_scores_are_float32_after_training_in_another_precision(toy_run, tmp_path):
    trained = shutil.copytree(toy_run, tmp_path / "run")
    config = json.loads((trained / run_directory.CONFIG).read_text())
    config["train"]["precision"] = "mixed_bfloat16"
    (trained / run_directory.CONFIG).write_text(json.dumps(config))
    module = ServingModule(run_directory.load_model(trained), run_directory.open_run(trained).data)
    function = module.trace("serialized")
    assert function.structured_outputs["scores"].dtype == tf.float32
    graph = function.graph.as_graph_def()
    nodes = [*graph.node, *(node for f in graph.library.function for node in f.node_def)]
    types = {value.type for node in nodes for value in node.attr.values()}
    assert tf.float32.as_datatype_enum in types
    assert not types & {tf.bfloat16.as_datatype_enum, tf.float16.as_datatype_enum}


def _structure(version):
    """Every node of every function of a graph, with its operation, inputs and attributes.

    Long numbers in names count what the process has made before; no size has so many digits.
    """
    saved_model = saved_model_pb2.SavedModel()
    saved_model.ParseFromString((version / "saved_model.pb").read_bytes())
    graph = saved_model.meta_graphs[0].graph_def
    nodes = [f"{node}" for node in graph.node]
    for function in graph.library.function:
        name = function.signature.name
        nodes += [f"{name}: {node}" for node in function.node_def]
        nodes += [f"{name}: {function.signature} {function.ret}"]
    return sorted(re.sub(r"\d{3,}", "#", node) for node in nodes)


def test_exported_graph_is_that_of_the_model_without_self_supervision(
    toy_version, toy_data, tmp_path
):
    bare = toy_runs.write_run(tmp_path / "run", toy_data, "din", "none")
    structure = _structure(exporting.export(bare, tmp_path / "model").path)
    assert len(structure) > 1000
    assert structure == _structure(toy_version)


def test_version_is_self_contained(toy_version, toy_data, tmp_path):
    moved = shutil.copytree(toy_version, tmp_path / "elsewhere" / "1")
    batch = next(raw_requests.batches(toy_data, "test", 4))
    vocabularies = toy_data.vocab_dir
    vocabularies.rename(tmp_path / "away")
    try:
        found = Servable(moved).predict("serving_default", batch.raw)["scores"]
    finally:
        (tmp_path / "away").rename(vocabularies)
    expected = Servable(toy_version).predict("serving_default", batch.raw)["scores"]
    np.testing.assert_array_equal(found, expected)


def test_warmup_covers_every_signature(toy_version):
    servable = Servable(toy_version)
    assert warmup.replay(servable) == 9
    content = (toy_version / warmup.WARMUP_FILE).read_bytes()
    for name in (b"serving_default", b"serialized", b"explain"):
        assert content.count(name) == 3


def test_version_that_exists_is_refused(toy_run, toy_version, tmp_path):
    (tmp_path / "7").mkdir()
    (tmp_path / "notes").mkdir()
    with pytest.raises(UserError, match="Expected a new version.*leave out --version"):
        exporting.export(toy_run, tmp_path, ExportOptions(version=7))
    assert exporting.latest_version(tmp_path) == tmp_path / "7"
    assert exporting.latest_version(toy_version.parent) == toy_version


def test_output_on_an_object_store_is_refused(toy_run, tmp_path, monkeypatch):
    """It would have become a directory named s3: under the current one."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="--output: expected a path of this machine, found s3://"):
        exporting.export(toy_run, "s3://bucket/model")
    with pytest.raises(UserError, match="--output: expected a path of this machine, found s3://"):
        publishing.rollback("s3://bucket/model")
    assert list(tmp_path.iterdir()) == []


def test_failing_warmup_publishes_nothing(toy_run, tmp_path, monkeypatch):
    def fail(servable):
        raise invalid("indices[0] = 99 is not in [0, 10)")

    monkeypatch.setattr(warmup, "replay", fail)
    with pytest.raises(UserError, match=r"indices\[0\] = 99.*Nothing was published"):
        exporting.export(toy_run, tmp_path / "new" / "model")
    assert list(tmp_path.iterdir()) == []


def test_failure_leaves_what_was_there(tmp_path):
    """Not a directory of the user's, and not the version of another export either."""

    def fail(*others):
        for other in others:
            other.mkdir()
        raise RuntimeError

    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    with pytest.raises(RuntimeError), exporting._directory(old):
        fail()
    assert old.is_dir()
    with pytest.raises(RuntimeError), exporting._directory(new / "a"):
        fail(new / "1")
    assert [path.name for path in new.iterdir()] == ["1"]


def test_interrupted_export_leaves_no_version(toy_run, tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(warmup, "write", interrupt)
    with pytest.raises(KeyboardInterrupt):
        exporting.export(toy_run, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_latest_version_of_nothing(tmp_path):
    for path in (tmp_path, tmp_path / "missing"):
        with pytest.raises(UserError, match="Expected an exported version"):
            exporting.latest_version(path)


def test_run_without_weights_is_refused(toy_run, tmp_path):
    untrained = shutil.copytree(toy_run, tmp_path / "run")
    shutil.rmtree(untrained / run_directory.BEST)
    with pytest.raises(UserError, match="Expected trained weights"):
        exporting.export(untrained, tmp_path / "model")


def test_data_with_another_schema_is_refused(toy_run, toy_data, tmp_path):
    changed = shutil.copytree(toy_run, tmp_path / "run")
    run_directory.open_run(toy_run).config.save(changed / run_directory.CONFIG)
    schema = (changed / run_directory.SCHEMA).read_text()
    (changed / run_directory.SCHEMA).write_text(schema.replace('"buckets": 5', '"buckets": 6'))
    with pytest.raises(UserError, match=r"features\[hour\].encoder.buckets: 6 here, 5 there"):
        exporting.export(changed, tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_missing_run_is_refused(tmp_path):
    with pytest.raises(UserError, match="Expected a run directory"):
        exporting.export(tmp_path / "none", tmp_path / "model")


def test_servable_refuses_what_is_no_saved_model(tmp_path):
    with pytest.raises(ServingError, match="Could not find SavedModel .pb"):
        Servable(tmp_path)
    (tmp_path / "saved_model.pb").write_bytes(b"\xff\xff\xff")
    with pytest.raises(ServingError, match="Could not parse"):
        Servable(tmp_path)
    (tmp_path / "saved_model.pb").write_bytes(b"")
    with pytest.raises(ServingError, match="Could not find meta graph def"):
        Servable(tmp_path)
