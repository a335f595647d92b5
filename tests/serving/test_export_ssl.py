"""What is exported knows nothing of self-supervision: the graph is that of the bare model."""

import re

import pytest
import toy_runs

from serving.export import export
from serving.protos import saved_model_pb2


@pytest.fixture(scope="module")
def graph(tmp_path_factory):
    """A function that exports DIN, trained with a self-supervised loss, and returns its graph."""
    path = tmp_path_factory.mktemp("ssl")
    data = toy_runs.write_data(path / "data")

    def exported(ssl):
        run = toy_runs.write_run(path / f"run-{ssl}", data, "din", ssl)
        version = export(run, path / f"model-{ssl}")
        saved_model = saved_model_pb2.SavedModel()
        saved_model.ParseFromString((version / "saved_model.pb").read_bytes())
        return saved_model.meta_graphs[0].graph_def

    return exported


def _structure(graph):
    """Every node of every function with its operation, inputs and attributes.

    Functions are numbered by what was traced before them in the process.
    """
    nodes = []
    for function in graph.library.function:
        nodes += [f"{function.signature.name}: {node}" for node in function.node_def]
        nodes += [f"{function.signature.name}: {function.signature} {function.ret}"]
    nodes += [f"graph: {node}" for node in graph.node]
    return sorted(re.sub(r"(__inference_\w+?|__forward_\w+?)_\d+", r"\1", node) for node in nodes)


def test_the_exported_graph_is_that_of_the_bare_model(graph):
    bare, trained = _structure(graph("none")), _structure(graph("miss"))
    assert len(bare) > 200
    assert trained == bare
