"""A toy SavedModel and a server that answers for it."""

import pathlib

import httpx
import pytest
from toy_models import export

from serving import server


@pytest.fixture(scope="session")
def exported(tmp_path_factory) -> pathlib.Path:
    """A base path with version 123, y = x / 2 + 2. Tests leave it as it is."""
    base = tmp_path_factory.mktemp("half_plus")
    export(base, "00000123", 2.0)
    return base


@pytest.fixture(scope="session")
def served(exported):
    with server.running(exported, "toy") as running:
        yield running


@pytest.fixture(scope="session")
def http(served):
    """A client of the server; relative URLs start at its root."""
    with httpx.Client(base_url=served.url.split("/v1/")[0], timeout=30) as client:
        yield client
