"""Runs on data sets with vectors: training, resume, warm start, reports, cards."""

import numpy as np
import pytest

from models import train
from models.config import run_config
from models.core import run_directory
from models.keras import tf
from models.reporting import run_report
from models.training import trainer
from models.training.warm_start import warm_start
from pipeline.data_card import write_card
from tests.helpers import small_models, vector_logs


@pytest.fixture(scope="module")
def days(tmp_path_factory):
    """Two data sets whose vectors have other norms."""
    path = tmp_path_factory.mktemp("vector_days")
    louder = vector_logs.rows(seed=5, items=20)
    for row in louder:
        row["text"] = [2.5 * number for number in row["text"]]
    return [vector_logs.write_data(path / "first"), vector_logs.write_data(path / "second", louder)]


def _config(data, **rest):
    return run_config.resolve(
        {"data": str(data.path), "model": {"name": "din", "embedding_size": 4},
         "train": {"batch_size": 16, "max_steps": 6}, **rest}
    )  # fmt: skip


def test_projections_are_taken_over_and_give_raw_vectors_what_they_gave(days, tmp_path):
    before, after = days
    run = _config(before)
    source = trainer.build_model(run, before)
    small_models.randomise(source)
    run_directory.begin(tmp_path, run, before)
    run_directory.best_checkpoint(source, tmp_path).save()
    model = trainer.build_model(_config(after), after)
    lines = warm_start(model, after, _config(after, warm_start=str(tmp_path)))
    assert lines[-1].endswith("0 new")
    raw = np.random.default_rng(0).normal(size=(7, 5)).astype(np.float32)
    projected = [
        tf.linalg.matmul(data.encoders["text"].encode(raw), built.embedder.projections["text"])
        for data, built in ((before, source), (after, model))
    ]
    assert before.encoders["text"].norm != after.encoders["text"].norm
    np.testing.assert_allclose(projected[1], projected[0], rtol=1e-5)


def test_a_run_resumes_exactly_and_its_report_names_vectors(days, tmp_path):
    config = {"train": {"batch_size": 16, "max_steps": 8, "deterministic": True}}
    train.train(_config(days[0], **config), tmp_path / "whole", progress=False)
    parts = tmp_path / "parts"
    config["train"]["max_steps"] = 3
    train.train(_config(days[0], **config), parts, progress=False)
    rest = run_config.resolve(run_config.load(parts / "config.json"), ["train.max_steps=8"])
    train.train(rest, parts, resume=True, progress=False)
    whole, resumed = (tf.train.load_checkpoint(str(tmp_path / name / "checkpoints" / "ckpt-8"))
                      for name in ("whole", "parts"))  # fmt: skip
    names = [n for n in whole.get_variable_to_shape_map() if n.startswith("model")]
    assert len(names) > 10
    for name in names:
        np.testing.assert_array_equal(whole.get_tensor(name), resumed.get_tensor(name), name)
    page = run_report.write_report(tmp_path / "whole", tmp_path / "report.html")
    assert "vector, 5 numbers" in page.with_suffix(".md").read_text(encoding="utf-8")


def test_a_data_card_tells_norms(days):
    card = write_card(days[0].path)
    assert "norm " in card.with_suffix(".md").read_text(encoding="utf-8")
