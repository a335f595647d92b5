"""A small data set, built once per test process."""

import pytest

from pipeline.arguments import BuildArguments
from pipeline.build_examples import build_examples
from pipeline.synthesize import synthesize, write
from pipeline.synthetic.truth import SynthesizeArguments


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    """300 users of a synthesised log, leave-last-out."""
    path = tmp_path_factory.mktemp("data")
    write(synthesize(SynthesizeArguments(users=300, items=200, interests=5)), path / "log.csv")
    return build_examples(
        BuildArguments(input=str(path / "log.csv"), output=str(path / "data"), num_shards=2)
    )
