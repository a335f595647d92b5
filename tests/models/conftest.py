"""A small data set and the compiled operations, made once per test process."""

import pytest

from models.ops.native import build, library
from tests.helpers import built_logs


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    """300 users of a synthesised log, leave-last-out."""
    return built_logs.of_300_users(tmp_path_factory.mktemp("data"), num_shards=2)


@pytest.fixture(scope="session")
def native_library(tmp_path_factory):
    """The compiled operations of this machine: from its cache, or compiled once."""
    if not library.compiler():
        pytest.skip("needs g++")
    if found := library.find():
        return found
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        return build.build()


@pytest.fixture(scope="session")
def native_operations(native_library):
    """What is in the library."""
    return library.load(native_library)
