"""A build in a notebook is the build of the command."""

import sys
import types

import apache_beam as beam
import pytest

from pipeline.arguments import BuildArguments
from pipeline.build_examples import build_examples
from tests.helpers.small_data_sets import shard_bytes
from tests.helpers.small_logs import columns, random_events, write_log


@pytest.fixture
def kernel(monkeypatch):
    """What Beam takes for the sign of a notebook."""
    module = types.ModuleType("IPython")
    shell = types.SimpleNamespace(execution_count=3, config={"IPKernelApp": {}})
    module.get_ipython = lambda: shell
    monkeypatch.setitem(sys.modules, "IPython", module)


def _build(log, output):
    return build_examples(BuildArguments(input=log, output=str(output), num_shards=2))


def test_a_notebook_builds_the_same_bytes(tmp_path, request):
    log = write_log(tmp_path / "log.csv", columns(random_events()))
    in_program = _build(log, tmp_path / "program")
    request.getfixturevalue("kernel")
    in_notebook = _build(log, tmp_path / "notebook")
    assert shard_bytes(in_notebook.path) == shard_bytes(in_program.path)
    assert not [name for name in sys.modules if name.startswith("apache_beam.runners.interactive.")]


def test_pipelines_of_others_are_left_to_beam(tmp_path, kernel):
    _build(write_log(tmp_path / "log.csv", columns(random_events())), tmp_path / "data")
    module = sys.modules[beam.Pipeline.__module__]
    assert module.is_in_ipython()
    assert module.alter_label_if_ipython.__name__ == "alter_label_if_ipython"
