"""A toy SavedModel and a server that answers for it."""

import pathlib

import httpx
import pytest

from preprocessing.data_dir import DataDir
from serving import embedded_server
from serving import export as exporting
from serving.conformance.models import export
from serving.tfserving.models.servable import Servable
from tests.helpers import toy_runs


@pytest.fixture(scope="session")
def exported(tmp_path_factory) -> pathlib.Path:
    """A base path with version 123, y = x / 2 + 2. Tests leave it as it is."""
    base = tmp_path_factory.mktemp("half_plus")
    export(base, "00000123", 2.0)
    return base


@pytest.fixture(scope="session")
def served(exported):
    with embedded_server.running(exported, "toy") as running:
        yield running


@pytest.fixture(scope="session")
def http(served):
    """A client of the server; relative URLs start at its root."""
    with httpx.Client(base_url=served.url.split("/v1/")[0], timeout=30) as client:
        yield client


@pytest.fixture(scope="session")
def toy_data(tmp_path_factory) -> DataDir:
    return toy_runs.write_data(tmp_path_factory.mktemp("toy") / "data")


@pytest.fixture(scope="session")
def toy_run(tmp_path_factory, toy_data) -> pathlib.Path:
    """A run of DIN with self-supervision, so that there is something to leave out."""
    return toy_runs.write_run(tmp_path_factory.mktemp("toy") / "run", toy_data, "din", "miss")


@pytest.fixture(scope="session")
def toy_version(tmp_path_factory, toy_run) -> pathlib.Path:
    """The run, exported. Tests leave it as it is."""
    return exporting.export(toy_run, tmp_path_factory.mktemp("toy") / "model").path


@pytest.fixture(scope="session")
def toy_servable(toy_version) -> Servable:
    return Servable(toy_version)


@pytest.fixture(scope="session")
def toy_url(toy_version):
    """Address of the exported run."""
    with embedded_server.running(toy_version.parent, "ctr") as running:
        yield running.url


# Of a module with a fixture `data`: a small model that is trained on it, exported and served.


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    return toy_runs.write_run(tmp_path_factory.mktemp("served_run") / "run", data, "deminet")


@pytest.fixture(scope="module")
def version(run, tmp_path_factory):
    return exporting.export(run, tmp_path_factory.mktemp("served_model") / "model").path


@pytest.fixture(scope="module")
def servable(version):
    return Servable(version)


@pytest.fixture(scope="module")
def running(version, data):
    with embedded_server.running(version.parent, "ctr", explore=str(data.path)) as started:
        yield started
