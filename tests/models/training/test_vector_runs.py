"""Runs on data sets with vectors: training, resume, warm start, reports, cards."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from models import train
from models.config import run_config
from models.core import run_directory
from models.keras import tf
from models.reporting import run_report
from models.training import trainer
from models.training.replay import Replay
from models.training.warm_start import warm_start
from pipeline.data_card import write_card
from preprocessing.errors import UserError
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
    np.testing.assert_allclose(projected[1], projected[0], rtol=1e-5, atol=1e-7)


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


def _vectors(path, items, seed):
    """A file with a vector for each of some items, the same for the same item."""
    rng = np.random.default_rng(0)
    rows = {f"i{i}": rng.normal(size=6).astype(np.float32) for i in range(40)}
    chosen = [f"i{i}" for i in np.random.default_rng(seed).permutation(items)]
    pq.write_table(pa.table({"value": chosen, "vector": [rows[item] for item in chosen]}), path)
    return {"item_id": {"file": str(path), "trainable": seed == 2}}, rows


@pytest.mark.parametrize("seed", [1, 2])  # 2 trains the vectors
def test_a_day_goes_on_with_vectors_and_a_file_that_has_grown(days, tmp_path, seed):
    """What the run before knew is scored as it did; new items have the vectors of the new file."""
    train_settings = {"batch_size": 16, "max_steps": 4, "learning_rate": 0.01}
    before = _config(days[0], train=train_settings,
                     pretrained=_vectors(tmp_path / "a.parquet", 15, seed)[0])  # fmt: skip
    train.train(before, tmp_path / "monday", progress=False)
    grown, rows = _vectors(tmp_path / "b.parquet", 20, seed)
    after = _config(days[1], train=train_settings, pretrained=grown,
                    continues=str(tmp_path / "monday"))  # fmt: skip
    begun = train.begin(after, tmp_path / "tuesday", progress=False)
    source = run_directory.load_model(tmp_path / "monday")
    encoders = [data.encoders["item_id"] for data in days]
    new = set(encoders[1].vocabulary.to_pylist()) - set(encoders[0].vocabulary.to_pylist())
    assert new
    tables = [model.embedder.tables["item_id"].numpy() for model in (source, begun.model)]
    for item in encoders[1].vocabulary.to_pylist():
        row = tables[1][encoders[1].encode([item])[0]]
        expected = rows[item] if item in new else tables[0][encoders[0].encode([item])[0]]
        np.testing.assert_array_equal(row, expected)
    raw = np.random.default_rng(0).normal(size=(7, 5)).astype(np.float32)
    projected = [
        data.encoders["text"].encode(raw) @ model.embedder.projections["text"].numpy()
        for data, model in zip(days, (source, begun.model), strict=True)
    ]
    np.testing.assert_allclose(projected[1], projected[0], rtol=1e-5, atol=1e-7)
    with pytest.raises(UserError, match="pretrained tables of .* to go on .* found none"):
        train.begin(_config(days[1], train=train_settings, continues=str(tmp_path / "monday")),
                    tmp_path / "other", progress=False)  # fmt: skip


def test_replayed_vectors_have_the_norm_of_now(days, tmp_path):
    train.train(_config(days[0]), tmp_path / "monday", progress=False)
    after = _config(days[1], continues=str(tmp_path / "monday"),
                    train={"batch_size": 16, "max_steps": 6, "replay": 1})  # fmt: skip
    (batch,) = Replay(after, days[1]).dataset(0).take(1)
    known = {text.tobytes() for text in np.float32([row["text"] for row in vector_logs.rows()])}
    raw = days[1].encoders["text"].decode(batch["candidate/text"].numpy()).reshape(-1, 5)
    texts = np.float32([np.frombuffer(text, np.float32) for text in known])
    distance = np.abs(raw[:, None] - texts[None]).max(axis=-1).min(axis=1)
    assert distance.max() < 1e-4


def test_a_data_card_tells_norms(days):
    card = write_card(days[0].path)
    assert "norm " in card.with_suffix(".md").read_text(encoding="utf-8")
