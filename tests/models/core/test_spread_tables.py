"""Tables whose rows are spread: the same model, evenly divided over parameter servers."""

import types

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from models.core import run_directory, spread_tables
from models.core.checkpoints import Checkpoints, restore_best_state
from models.core.optimizer_pairs import slots_by_weight
from models.keras import tf
from models.ops.spread_rows import looked_up, places_of
from tests.helpers import small_models

SERVERS = 8


@given(st.integers(1, 5000))
@example(1)
@example(2)
@example(1 << 20)
def test_places_are_a_bijection(rows):
    places = places_of(np.arange(rows), rows)
    np.testing.assert_array_equal(np.sort(places), np.arange(rows))


def test_large_tables_do_not_overflow():
    rows = 3_000_000_000
    ids = np.array([0, 1, rows - 1])
    expected = [int(one) * places_of(1, rows) % rows for one in ids]
    assert places_of(ids, rows).tolist() == expected
    assert min(expected) >= 0


@pytest.mark.parametrize("exponent", [1.05, 1.3, 2.0])
@pytest.mark.parametrize("rows", [1 << 17, 100_003, 1_000_000])
def test_no_server_is_asked_for_more_than_its_share(exponent, rows):
    """Distinct ids of batches of 4,096 look-ups in a log of ranks by Zipf's law."""
    rng = np.random.default_rng(1)
    by_range, spread = np.zeros(SERVERS), np.zeros(SERVERS)
    for _ in range(50):
        ids = np.unique(rng.zipf(exponent, 4096) % rows)
        by_range += np.bincount(ids * SERVERS // rows, minlength=SERVERS)
        spread += np.bincount(places_of(ids, rows) * SERVERS // rows, minlength=SERVERS)
    assert by_range[0] / by_range.sum() > 0.3
    assert (spread / spread.sum()).max() < 0.15


def test_rows_are_looked_up_once_and_their_gradients_summed():
    table = tf.Variable(np.random.default_rng(0).normal(size=(10, 3)), dtype=tf.float32)
    ids = tf.constant([[7, 2, 7], [0, 7, 2]], tf.int64)
    with tf.GradientTape() as tape:
        rows = looked_up(table, ids)
        total = tf.reduce_sum(rows * [1.0, 2.0, 3.0])
    np.testing.assert_array_equal(rows, table.numpy()[places_of(ids.numpy(), 10)])
    gradient = tape.gradient(total, table)
    assert gradient.indices.numpy().tolist() == places_of(np.array([7, 2, 0]), 10).tolist()
    np.testing.assert_array_equal(gradient.values, np.outer([3, 2, 1], [1, 2, 3]))


def _model(spreads, ssl="miss"):
    settings = ["train.ssl_steps=1"] * (ssl != "none")
    settings += ['model.compressed_features=["brand"]', "model.compression=2"]
    built = small_models.model(small_models.config("din", ssl, *settings))
    built.embedder.spreads = spreads
    built.build_optimizers()
    spread_tables.state_read(built, is_spread=False)
    return built


def _trained(model, steps=4):
    """The losses of some steps of both kinds."""
    kinds = [tf.function(kind, autograph=False) for kind in (model.main_step, model.ssl_step)]
    batch = small_models.batch(requests=16)
    return [float(kind(batch)["loss"]) for _ in range(steps) for kind in kinds]


def _state(model):
    """Tables, and what optimisers remember of them."""
    values = [*model.embedder.tables.values(), *model.embedder.quotients.values()]
    for optimizer, weights in model.optimizers():
        values += [slot for slots in slots_by_weight(optimizer, weights) for slot in slots]
    return [value.numpy() for value in values]


def _require_close(found, expected):
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_the_model_trains_as_in_the_order_of_ids(tmp_path):
    plain, spread = _model(False), _model(True)
    batch = small_models.batch(requests=16)
    np.testing.assert_array_equal(spread(batch), plain(batch))
    np.testing.assert_allclose(_trained(spread), _trained(plain), rtol=1e-5)

    # A checkpoint says in which order its rows are.
    best = types.SimpleNamespace(best_updates=8)
    Checkpoints(spread, tmp_path / "spread").save(8, vars(best))
    Checkpoints(plain, tmp_path / "plain").save(8, vars(best))
    for spreads in (False, True):
        for written in ("plain", "spread"):
            restored, continued = _model(spreads), _model(spreads)
            assert Checkpoints(restored, tmp_path / written).restore() == vars(best)
            restore_best_state(continued, tmp_path / written)
            for found in (restored, continued):
                _require_close([found(batch).numpy()], [plain(batch).numpy()])
                _require_close(_state(found), _state(spread if spreads else plain))


@pytest.mark.parametrize("written", [False, True])
@pytest.mark.parametrize("read", [False, True])
def test_best_weights_say_in_which_order_they_are(tmp_path, written, read):
    source, target = _model(written, "none"), _model(read, "none")
    small_models.randomise(source)
    run_directory.save_best(run_directory.best_checkpoint(source, tmp_path))
    run_directory.restore_best(target, tmp_path)
    batch = small_models.batch()
    np.testing.assert_array_equal(target(batch), source(batch))
    for name, table in source.embedder.tables.items():
        ids = np.arange(table.shape[0])
        ours = places_of(ids, len(ids)) if read else ids
        theirs = places_of(ids, len(ids)) if written else ids
        found = target.embedder.tables[name].numpy()
        np.testing.assert_array_equal(found[ours], table.numpy()[theirs])
