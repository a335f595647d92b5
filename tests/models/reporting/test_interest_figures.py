"""The figures of interests in a report."""

import re

import pytest

from models.config import run_config
from models.core import run_directory
from models.core.factory import build_model, compile_model
from models.reporting import interest_figures
from tests.helpers import small_models


def _run(data, path, model):
    """A run whose weights are not where they start."""
    config = run_config.resolve({"data": str(data.path), "model": {"name": model}})
    built = build_model(config, data)
    compile_model(built, config)
    small_models.randomise(built, scale=0.3)
    run_directory.begin(path, config, data)
    run_directory.best_checkpoint(built, path).save()
    return run_directory.open_run(path)


@pytest.mark.parametrize(
    ("model", "titles"),
    [
        ("deminet", ["Interests", "Confidence", "Relations of events"]),
        ("deminet_lgc", ["Interests", "Confidence"]),
        ("din", []),
    ],
)
def test_a_model_shows_what_it_has(data, tmp_path, model, titles):
    drawn = interest_figures.figures(_run(data, tmp_path / "run", model), "test")
    assert [figure.title for figure in drawn] == titles
    for figure in drawn:
        assert figure.caption
        assert figure.svg.startswith("<svg")
    if not titles:
        return
    colours = set(re.findall(r"fill: (var\(--\w+), #[0-9a-f]{6}\); fill-opacity", drawn[0].svg))
    assert len(colours) == 4  # one for each interest
    words = set(data.encoders["item_id"].decode(range(1, data.encoders["item_id"].cardinality)))
    labels = re.findall(r">([^<>]+ · [^<>]+)</text>", drawn[1].svg)
    assert 2 <= len(labels) <= 10
    assert {label.rpartition(" · ")[2] for label in labels} <= words
