"""Runs on data sets with sets: training, warm start by value, reports, a user's own model."""

import numpy as np
import pytest

from models import train
from models.config import run_config
from models.core import run_directory
from models.reporting import run_report
from models.training import model_checks, trainer
from models.training.warm_start import warm_start
from tests.helpers import many_logs, many_models, small_models


@pytest.fixture(scope="module")
def days(tmp_path_factory):
    """Two data sets whose genres and languages have other ids, by other counts."""
    path = tmp_path_factory.mktemp("many_days")
    return [
        many_logs.write_data(path / "first"),
        many_logs.write_data(path / "second", many_logs.rows(seed=5, items=20)),
    ]


def _config(data, **rest):
    return run_config.resolve(
        {"data": str(data.path), "model": {"name": "din", "embedding_size": 4},
         "train": {"batch_size": 16, "max_steps": 6}, **rest}
    )  # fmt: skip


def test_values_of_sets_keep_their_rows(days, tmp_path):
    before, after = days
    run = _config(before)
    source = trainer.build_model(run, before)
    small_models.randomise(source)
    run_directory.begin(tmp_path, run, before)
    run_directory.best_checkpoint(source, tmp_path).save()
    model = trainer.build_model(_config(after), after)
    lines = warm_start(model, after, _config(after, warm_start=str(tmp_path)))
    assert any(line.startswith("genres: ") and "taken over" in line for line in lines)
    for name in ("genres", "languages"):
        words = set(before.encoders[name].vocabulary.to_pylist())
        for word in words & set(after.encoders[name].vocabulary.to_pylist()):
            rows = [
                table.numpy()[data.encoders[name].encode([word])[0]]
                for data, table in (
                    (before, source.embedder.tables[name]),
                    (after, model.embedder.tables[name]),
                )
            ]
            np.testing.assert_array_equal(*rows)


def test_a_run_trains_and_its_report_says_how_many_values(days, tmp_path):
    run = _config(days[0], model={"name": "deminet", "embedding_size": 4})
    train.train(run, tmp_path / "run")
    page = run_report.write_report(tmp_path / "run", tmp_path / "report.html")
    text = page.with_suffix(".md").read_text(encoding="utf-8")
    assert "vocabulary, up to 3 values" in text
    assert "hash, up to 4 values" in text
    assert f"{days[0].stats['cut']['genres']} of genres" in text


def test_a_model_of_ones_own_is_tried_on_sets():
    run = many_models.config("user_models:Good")
    model_checks.check_user_parts(run, many_models.schema())
