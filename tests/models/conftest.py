"""A small data set, built once per test process."""

import pytest

from tests.helpers import built_logs


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    """300 users of a synthesised log, leave-last-out."""
    return built_logs.of_300_users(tmp_path_factory.mktemp("data"), num_shards=2)
