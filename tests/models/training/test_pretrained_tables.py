"""Tables that begin with vectors from a file: what they hold, how they train, what is refused."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from models import train
from models.config import run_config
from models.core import run_directory
from models.keras import tf
from models.reporting import run_report
from models.training import memory, trainer
from models.training.pretrained_tables import fill
from models.training.warm_start import warm_start
from preprocessing.errors import UserError
from tests.helpers import small_models

WIDTH = 6


@pytest.fixture(scope="module")
def vectors(data, tmp_path_factory):
    """Vectors of most items of the data set, in another order, and of items that it lacks."""
    words = data.encoders["item_id"].vocabulary.to_pylist()[5:][::-1] + ["new 1", "new 2", "new 3"]
    rows = np.random.default_rng(3).normal(2.0, 3.0, [len(words), WIDTH]).astype(np.float32)
    path = tmp_path_factory.mktemp("vectors") / "items.parquet"
    pq.write_table(pa.table({"value": words, "vector": list(rows)}), path)
    return path, dict(zip(words, rows, strict=True))


def _config(data, vectors, *overrides, embedding_size=4, **record):
    content = {
        "data": str(data.path),
        "model": {"name": "din", "embedding_size": embedding_size},
        "train": {"batch_size": 64, "max_steps": 12, "learning_rate": 0.01},
        "pretrained": {"item_id": {"file": str(vectors[0]), **record}},
    }
    return run_config.resolve(content, overrides)


def _rows(model, data):
    encoder = data.encoders["item_id"]
    return model.embedder.tables["item_id"].numpy(), encoder.vocabulary.to_pylist()


def test_the_table_is_a_lookup_of_the_file(data, vectors):
    """A NumPy twin of the embedder: look the value up in the file, scale, project."""
    run = _config(data, vectors)
    model = trainer.build_model(run, data)
    lines = fill(model, data, run)
    rows, words = _rows(model, data)
    mean = np.mean(list(vectors[1].values()), axis=0)
    twin = np.stack([np.zeros(WIDTH), mean, *(vectors[1].get(word, mean) for word in words)])
    np.testing.assert_allclose(rows, twin, rtol=1e-6)
    embedder = model.embedder
    ids = np.array([[1, 2, 9], [5, 0, 30]])
    norm = np.sqrt(np.mean([np.sum(np.square(row)) for row in vectors[1].values()]))
    expected = (twin[ids] / norm) @ embedder.projections["item_id"].numpy()
    np.testing.assert_allclose(embedder._rows("item_id", ids), expected, rtol=1e-5, atol=1e-7)
    assert lines == [
        f"item_id: vectors of {vectors[0]} (width 6, fixed, projected to 4): {len(words) - 5} of "
        f"{len(words)} values have one, 5 and unknown values get their mean; 3 vectors are of "
        "values that the vocabulary lacks"
    ]


def test_projected_rows_are_as_large_as_plain_ones(data, vectors):
    run = _config(data, vectors, embedding_size=32)
    model = trainer.build_model(run, data)
    fill(model, data, run)
    plain = trainer.build_model(run_config.resolve({"data": str(data.path), "model": {
        "name": "din", "embedding_size": 32}}), data)  # fmt: skip
    ids = np.arange(7, 100)
    sizes = [one.embedder._rows("item_id", ids).numpy().std() for one in (model, plain)]
    assert 0.7 < sizes[0] / sizes[1] < 1.4


@pytest.mark.slow
def test_fixed_rows_stay_through_training_and_resume_bit_for_bit(data, vectors, tmp_path):
    run = _config(data, vectors, "train.deterministic=true")
    expected = trainer.build_model(run, data)
    fill(expected, data, run)
    whole = tmp_path / "whole"
    train.train(run, whole, progress=False)
    found = run_directory.load_model(whole)
    np.testing.assert_array_equal(_rows(found, data)[0], _rows(expected, data)[0])
    kernel = found.embedder.projections["item_id"].numpy()
    assert (kernel != expected.embedder.projections["item_id"].numpy()).all()

    parts = tmp_path / "parts"
    train.train(_config(data, vectors, "train.deterministic=true", "train.max_steps=5"), parts,
                progress=False)  # fmt: skip
    moved = vectors[0].with_name("moved")
    vectors[0].rename(moved)  # A run that goes on needs the file no more.
    try:
        stored = run_config.load(parts / "config.json")
        rest = run_config.resolve(stored, ["train.max_steps=12"])
        train.train(rest, parts, resume=True, progress=False)
    finally:
        moved.rename(vectors[0])
    once, resumed = (tf.train.load_checkpoint(str(path / "checkpoints" / "ckpt-12"))
                     for path in (whole, parts))  # fmt: skip
    names = [n for n in once.get_variable_to_shape_map() if n.startswith("model")]
    assert any("item_id" in name for name in names)
    for name in names:
        np.testing.assert_array_equal(once.get_tensor(name), resumed.get_tensor(name), name)
    stored = json.loads((parts / "config.json").read_text())["pretrained"]["item_id"]
    assert (stored["width"], stored["trainable"]) == (WIDTH, False)
    report = run_report.write_report(whole, tmp_path / "report.html").with_suffix(".md")
    assert "fixed, projected to 4" in report.read_text()


@pytest.mark.parametrize(("size", "is_projected"), [(4, True), (WIDTH, False)])
def test_trained_rows_move_and_need_no_projection_of_one_width(data, vectors, size, is_projected):
    run = _config(data, vectors, embedding_size=size, trainable=True)
    model = trainer.build_model(run, data)
    fill(model, data, run)
    before, words = _rows(model, data)
    assert ("item_id" in model.embedder.projections) == is_projected
    np.testing.assert_array_equal(before[2 + words.index("i7")], vectors[1]["i7"])
    trainer.compile_model(model, run)
    features = small_models.batch()
    model.main_step(features)
    changed = np.flatnonzero((_rows(model, data)[0] != before).any(axis=1))
    assert len(changed) > 2
    sides = [features[f"{side}/item_id"].numpy().ravel() for side in ("candidate", "history")]
    assert set(changed) <= {1, *np.concatenate(sides)}


def test_trained_rows_may_learn_at_a_share_of_the_rate(data, vectors):
    """In both pairs of optimisers; one step of Adam moves a weight by the rate."""
    moved = {}
    for factor in (1.0, 0.125):
        run = _config(data, vectors, "train.ssl_steps=1", "ssl.name=miss", embedding_size=WIDTH,
                      trainable=True, learning_rate_factor=factor)  # fmt: skip
        model = trainer.build_model(run, data)
        fill(model, data, run)
        trainer.compile_model(model, run)
        features = small_models.batch()
        for step in (model.main_step, model.ssl_step):
            before, _ = _rows(model, data)
            step(features)
            moved[step.__name__, factor] = np.abs(_rows(model, data)[0] - before).max()
    for name in ("main_step", "ssl_step"):
        np.testing.assert_allclose(moved[name, 1.0], 8 * moved[name, 0.125], rtol=0.02)


@pytest.mark.parametrize("name", ["lr", "fm", "xdeepfm"])
@pytest.mark.parametrize("trainable", [True, False])
def test_scalar_weights_begin_at_zero(data, vectors, name, trainable):
    size = 0 if name == "lr" else WIDTH
    overrides = [f"model.name={name}", f"model.embedding_size={size}"]
    run = _config(data, vectors, *overrides, trainable=trainable)
    model = trainer.build_model(run, data)
    fill(model, data, run)
    assert not model.embedder._rows("item_id", np.arange(20)).numpy()[:, -1].any()


def test_self_supervision_trains_projections_of_fixed_tables(data, vectors):
    run = _config(data, vectors, "ssl.name=miss", "train.joint=true", "train.ssl_steps=1.0")
    model = trainer.build_model(run, data)
    fill(model, data, run)
    trainer.compile_model(model, run)
    tables, dense = model._ssl_weights()
    assert model.embedder.tables["item_id"] is not tables[0]
    assert any(weight is model.embedder.projections["item_id"] for weight in dense)


def test_memory_counts_fixed_tables_without_slots(data, vectors):
    distribution = trainer.Distribution("one_device")
    fixed, trained = (
        memory.estimate(_config(data, vectors, trainable=kind), data, distribution)
        for kind in (False, True)
    )
    assert fixed.tables == trained.tables
    rows = data.encoders["item_id"].cardinality
    assert trained.slots - fixed.slots == 2 * 4 * rows * WIDTH


def test_a_warm_start_takes_projections_and_leaves_fixed_rows(data, vectors, tmp_path):
    run = _config(data, vectors)
    source = trainer.build_model(run, data)
    fill(source, data, run)
    small_models.randomise(source)
    run_directory.begin(tmp_path / "run", run, data)
    run_directory.best_checkpoint(source, tmp_path / "run").save()

    next_day = run_config.resolve(run.to_json() | {"warm_start": str(tmp_path / "run")})
    model = trainer.build_model(next_day, data)
    fill(model, data, next_day)
    lines = warm_start(model, data, next_day)
    assert "item_id: all rows stay the vectors of its file" in lines
    for ours, theirs in zip(model.embedder.weights, source.embedder.weights, strict=True):
        np.testing.assert_array_equal(ours, theirs, err_msg=ours.name)

    plain = run_config.resolve(
        run.to_json() | {"pretrained": {}, "warm_start": next_day.warm_start}
    )
    model = trainer.build_model(plain, data)
    lines = warm_start(model, data, plain)
    assert any("item_id: all rows are new: its rows are projected" in line for line in lines)


def test_what_cannot_begin_with_vectors_is_refused(data, vectors, tmp_path):
    def begin(run):
        return train.begin(run, tmp_path / "run", progress=False)

    with pytest.raises(UserError, match=r"with a vocabulary \(.*\), found 'items'"):
        begin(run_config.resolve({"data": str(data.path)}, [f"pretrained.items={vectors[0]}"]))
    with pytest.raises(UserError, match="found both"):
        begin(_config(data, vectors, 'model.compressed_features=["item_id"]'))
    with pytest.raises(UserError, match="another one at"):
        begin(_config(data, vectors, width=WIDTH, sha256="0"))
    strange = tmp_path / "strange.parquet"
    pq.write_table(pa.table({"value": ["x"], "vector": [[1.0]]}), strange)
    with pytest.raises(UserError, match="found none of its .* such as 'x'; the vocabulary has"):
        begin(_config(data, (strange, {})))
    with pytest.raises(UserError, match="trainable: expected true or false, found 'no'"):
        _config(data, vectors, trainable="no")
    with pytest.raises(UserError, match="learning_rate_factor: expected a number above 0, found 0"):
        _config(data, vectors, trainable=True, learning_rate_factor=0)
    with pytest.raises(UserError, match="expected learning_rate_factor for vectors that training"):
        _config(data, vectors, learning_rate_factor=0.5)
    with pytest.raises(UserError, match=r"pretrained.item_id: unknown key 'trainabel'.*trainable"):
        _config(data, vectors, trainabel=False)
    with pytest.raises(UserError, match="pretrained.item_id: expected a Parquet file"):
        _config(data, (tmp_path / "absent", {}))
