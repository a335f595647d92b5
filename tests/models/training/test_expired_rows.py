"""A run that continues another one where values expire and come back."""

import itertools

import numpy as np
import pyarrow as pa
import pytest

from models import train
from models.config import run_config
from models.core import run_directory
from models.core.checkpoints import restore_best_state
from models.core.factory import build_model, compile_model
from models.keras import tf
from models.training import trainer
from models.training.row_growth import Growth, translation
from preprocessing import dataset
from preprocessing.example_keys import candidate_key, history_key
from tests.helpers import expiring


@pytest.fixture(scope="module")
def days(tmp_path_factory):
    """Two days in a row, of which both have expired items, others each."""
    sets = expiring.chain(tmp_path_factory.mktemp("expired_days"), range(7))[-2:]
    before, after = (data.encoders["item_id"] for data in sets)
    known = len(before.vocabulary)
    assert (before.is_expired & ~after.is_expired[:known]).any()
    assert (~before.is_expired & after.is_expired[:known]).any()
    return sets


def _config(data, **rest):
    return run_config.resolve(
        {
            "data": str(data.path),
            "model": {"name": "din", "embedding_size": 4},
            "train": {"batch_size": 16, "max_steps": 8, "learning_rate": 0.03},
            **rest,
        }
    )


@pytest.fixture(scope="module")
def first(days, tmp_path_factory):
    path = tmp_path_factory.mktemp("expired_runs") / "first"
    train.train(_config(days[0]), path, progress=False)
    return path


@pytest.fixture
def begun(days, first, tmp_path):
    return train.begin(_config(days[1], continues=str(first)), tmp_path / "run", progress=False)


def _by_value(there, here, batch):
    """A batch of one data set with the ids that its values have in another one."""
    converted = dict(batch)
    for feature in there.schema.encoded_features:
        if not feature.is_categorical:
            continue
        for key in (feature.name, candidate_key(feature.name), history_key(feature.name)):
            if key in batch:
                ids = batch[key].numpy()
                values = there.encoders[feature.name].decode(ids).ravel()
                flat = here.encoders[feature.name].encode(pa.array(values))
                converted[key] = tf.constant(flat.reshape(ids.shape))
    return converted


def test_before_its_first_step_it_scores_as_the_run_before(days, first, begun):
    source = run_directory.load_model(first)
    batches = trainer.training_batches(days[1], begun.config.train, 0, 1)
    for batch in itertools.islice(batches, 4):
        translated = _by_value(days[1], days[0], batch)
        np.testing.assert_array_equal(begun.model(batch), source(translated))


def test_a_value_that_is_back_begins_as_an_unknown_one(days, first, begun):
    run = run_directory.open_run(first)
    source = build_model(run.config, run.data)
    compile_model(source, run.config)
    source.build_optimizers()
    restore_best_state(source, run.path / run_directory.CHECKPOINTS)
    before, after = (data.encoders["item_id"] for data in days)
    known = len(before.vocabulary)
    back = 2 + np.flatnonzero(before.is_expired & ~after.is_expired[:known])
    stay = 2 + np.flatnonzero(~before.is_expired & ~after.is_expired[:known])
    theirs, ours = (model.embedder.tables["item_id"].numpy() for model in (source, begun.model))
    np.testing.assert_array_equal(ours[back], np.repeat(theirs[1:2], len(back), axis=0))
    np.testing.assert_array_equal(ours[stay], theirs[stay])
    growth = Growth.between(before, after)
    assert growth.is_new[back].all()
    assert not growth.is_new[stay].any()
    table = begun.model.embedder.tables["item_id"]
    for optimizer, weights in begun.model.optimizers():
        for place, weight in enumerate(weights):
            if weight is table:
                slots = optimizer.variables[1:]
                count = len(slots) // len(weights)
                for slot in slots[place * count : (place + 1) * count]:
                    np.testing.assert_array_equal(slot.numpy()[back], 0.0)


def test_training_leaves_reserved_rows_alone(days, begun):
    encoder = days[1].encoders["item_id"]
    reserved = 2 + np.flatnonzero(encoder.is_expired)
    table = begun.model.embedder.tables["item_id"]
    before = table.numpy()[reserved].copy()
    unknown = table.numpy()[1].copy()
    begun.run()
    np.testing.assert_array_equal(table.numpy()[reserved], before)
    assert (table.numpy()[1] != unknown).any()


def test_requests_of_an_earlier_day_lose_what_is_expired_now(days):
    """As replay and backtests see them."""
    translate = translation(days[0].encoders, days[1].encoders)
    lost = 0
    for batch in dataset.read(days[0], "train", batch_size=16, shuffle_seed=None):
        expected, found = _by_value(*days, batch), translate(batch)
        for key, values in expected.items():
            np.testing.assert_array_equal(found[key], values, err_msg=key)
        now, then = (one["history/item_id"].numpy() for one in (found, batch))
        lost += ((now == 1) & (then > 1)).sum()
    assert lost
