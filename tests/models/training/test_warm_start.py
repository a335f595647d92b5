"""Warm starts: rows go with their values, whatever ids these have in the new data set."""

import dataclasses

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from models import train
from models.config import run_config
from models.core import run_directory
from models.training import trainer
from models.training.warm_start import matching_ids, warm_start
from pipeline.arguments import BuildArguments
from pipeline.build_examples import build_examples
from preprocessing.encoders import fitting
from preprocessing.errors import UserError
from preprocessing.features.encoder_specs import Bucketised, Hash, Vocabulary
from tests.helpers import small_models, toy_runs


def _fit(name, values, encoder=None):
    feature = toy_runs.SCHEMA[name]
    if encoder is not None:
        feature = dataclasses.replace(feature, encoder=encoder)
    return fitting.fit(feature, pa.array(values), np.ones(len(values), np.int64))


def test_values_keep_their_rows():
    """Two buckets for unknown values, then the words in order: b c d before, a c d e after."""
    before, after = _fit("item_id", ["b", "c", "d"]), _fit("item_id", ["a", "c", "d", "e"])
    #                                            pad  unknown  a   c  d   e
    assert matching_ids(before, after).tolist() == [0, 1, 2, -1, 4, 5, -1]
    fewer = _fit("item_id", ["a", "c"], Vocabulary(oov_buckets=1))
    assert matching_ids(before, fewer).tolist() == [0, -1, -1, 4]
    numbers = _fit("category_id", [7, 5, 9]), _fit("category_id", [9, 5])
    assert matching_ids(*numbers).tolist() == [0, 1, 2, 4]


def test_ids_without_a_vocabulary_keep_their_rows_if_they_mean_the_same():
    same = _fit("hour", [1]), _fit("hour", [2, 3])
    assert matching_ids(*same).tolist() == [0, 1, 2, 3, 4, 5]
    other = _fit("hour", [1], Hash(buckets=4))
    assert (matching_ids(same[0], other) == -1).all()
    prices = _fit("price", [1.0]), _fit("price", [5.0])
    assert matching_ids(*prices).tolist() == [0, 1, 2, 3, 4]
    other = _fit("price", [1.0], Bucketised(boundaries=(1.0, 11.0)))
    assert (matching_ids(prices[0], other) == -1).all()
    assert (matching_ids(prices[0], same[0]) == -1).all()


@pytest.fixture(scope="module")
def days(tmp_path_factory):
    """A log until a day, and the same log a day later: more users, items and events."""
    path = tmp_path_factory.mktemp("days")
    rng = np.random.default_rng(3)
    # A few items are in favour; the second day has new users and new items.
    rows = []
    for time in range(4000):
        late = time >= 2500
        user = rng.integers(0, 150 if late else 100)
        item = int((80 if late else 60) * rng.random() ** 3)
        rows.append((f"u{user}", f"i{item}", 1_700_000_000 + 60 * time))
    log = pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"])
    built = []
    for name, part in (("monday", log[:2500]), ("tuesday", log)):
        part.to_csv(path / f"{name}.csv", index=False)
        arguments = BuildArguments(
            input=str(path / f"{name}.csv"), output=str(path / name), protocol="time_split"
        )
        built.append(build_examples(arguments))
    return built


def _config(data, model="dmr", **rest):
    return run_config.resolve(
        {
            "data": str(data.path),
            "model": {"name": model, "embedding_size": 4},
            "train": {"batch_size": 64, "max_steps": 40, "learning_rate": 0.03},
            **rest,
        }
    )


def _untrained(path, run, data):
    """A run whose best weights are random."""
    model = trainer.build_model(run, data)
    small_models.randomise(model)
    run_directory.begin(path, run, data)
    run_directory.best_checkpoint(model, path).save()
    return path


@pytest.fixture(scope="module")
def monday(days, tmp_path_factory):
    return _untrained(tmp_path_factory.mktemp("runs") / "monday", _config(days[0]), days[0])


def _rows(model, data):
    """Embedding of every value by feature, and the vectors of items that DMR has beside them."""
    found = {}
    tables = {**model.embedder.tables, "item_vectors": model.backbone.tables[0]}
    for name, table in tables.items():
        encoder = data.encoders["item_id" if name == "item_vectors" else name]
        rows = table.numpy()
        words = encoder.vocabulary.to_pylist()
        found[name] = dict(zip(words, rows[1 + encoder.num_oov :], strict=True))
        found[name] |= {id: rows[id] for id in range(1 + encoder.num_oov)}
    return found


def test_known_values_begin_with_their_rows_and_new_ones_with_those_of_a_new_run(days, monday):
    run = _config(days[1], warm_start=str(monday))
    before = _rows(run_directory.load_model(monday), days[0])
    fresh = trainer.build_model(run, days[1])
    initial, model = _rows(fresh, days[1]), trainer.build_model(run, days[1])
    lines = warm_start(model, days[1], run)
    found = _rows(model, days[1])
    for name, rows in found.items():
        taken = 0
        for value, row in rows.items():
            source = before[name] if value in before[name] else initial[name]
            np.testing.assert_array_equal(row, source[value], err_msg=f"{name} {value}")
            taken += value in before[name]
        new = len(rows) - taken
        assert new > 5
        assert taken > 20
        assert any(
            line.endswith(f"{name}: {taken} rows taken over, {new} new, 0 of the run left behind")
            for line in lines
        )
    source = run_directory.load_model(monday)
    for ours, theirs in zip(model.backbone.weights, source.backbone.weights, strict=True):
        if ours.shape == theirs.shape:
            np.testing.assert_array_equal(ours, theirs)
    assert lines[-1].endswith("other weights taken over, 0 new")


@pytest.mark.slow
def test_incremental_training_goes_on_from_what_was_learnt(days, tmp_path, capsys):
    """The command of docs/training.md: new days of data, weights of the day before."""
    monday = tmp_path / "monday"
    train.train(_config(days[0]), monday, progress=False)
    cold, warm = _config(days[1]), _config(days[1], warm_start=str(monday))
    aucs = []
    for name, run in (("cold", cold), ("warm", warm)):
        it = train.begin(run, tmp_path / name, progress=False)
        aucs.append(it.measuring.validation()["auc"])
    assert aucs[0] < 0.6 < aucs[1]
    assert "warm start: item_id: " in capsys.readouterr().out
    # Killed before its first checkpoint, the run begins with the same weights again.
    again = train.begin(warm, tmp_path / "warm", resume=True, progress=False)
    for name, table in again.model.embedder.tables.items():
        np.testing.assert_array_equal(table, it.model.embedder.tables[name])
    assert again.progress.step == 0
    again.run()
    assert run_directory.open_run(tmp_path / "warm").config == warm


def test_runs_of_another_model_or_none_are_refused(days, monday, tmp_path):
    other = _config(days[1], model="din", warm_start=str(monday))
    with pytest.raises(UserError, match="model.name is 'dmr' there, 'din' here.*--config="):
        train.begin(other, tmp_path / "other", progress=False)
    missing = _config(days[1], warm_start=str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match="Expected a run directory"):
        train.begin(missing, tmp_path / "missing", progress=False)


def test_compressed_tables_begin_anew(days, tmp_path):
    content = _config(days[0], model="lr").to_json()
    content["model"] |= {"compressed_features": ["item_id"], "compression": 4}
    first = run_config.resolve(content)
    _untrained(tmp_path / "first", first, days[0])
    second = dataclasses.replace(first, data=str(days[1].path), warm_start=str(tmp_path / "first"))
    model = trainer.build_model(second, days[1])
    lines = warm_start(model, days[1], second)
    assert "item_id: all rows are new: compressed tables" in "\n".join(lines)
