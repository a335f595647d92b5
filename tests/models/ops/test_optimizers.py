"""The optimisers of the embedding tables, and the bounds on their gradients."""

import time

import numpy as np
import pytest

from models.keras import keras, tf
from models.ops.optimizers import TABLE_OPTIMIZERS, LazyAdam, sum_duplicates, table_optimizer
from preprocessing.errors import UserError
from tests.helpers import small_models
from tests.reference import optimizers as twins


def _sparse(ids, values, rows):
    values = np.asarray(values, np.float32).reshape(len(ids), -1)
    return tf.IndexedSlices(tf.constant(values), tf.constant(ids), tf.constant([rows, 1]))


def test_repeated_ids_are_summed_before_they_are_squared():
    """The example of the specification, section 9.4: ids [1, 1, 2], gradients 1, 3, 2, lr .1."""
    table = tf.Variable(tf.zeros([3, 1]))
    optimizer = LazyAdam(0.1)
    for _ in range(2):
        optimizer.apply_gradients([(_sparse([1, 1, 2], [1.0, 3.0, 2.0], 3), table)])
    np.testing.assert_allclose(table.numpy().ravel(), [0.0, -0.2, -0.2], atol=1e-6)


def test_equals_adam_where_every_row_is_touched():
    rng = np.random.default_rng(0)
    initial = rng.normal(size=(5, 4)).astype(np.float32)
    lazy, dense = tf.Variable(initial), tf.Variable(initial)
    lazy_adam, adam = LazyAdam(0.01), keras.optimizers.Adam(0.01)
    for _ in range(10):
        ids = np.concatenate([np.arange(5), rng.integers(0, 5, 7)])
        values = rng.normal(size=(len(ids), 4)).astype(np.float32)
        summed = np.zeros((5, 4), np.float32)
        np.add.at(summed, ids, values)
        slices = tf.IndexedSlices(tf.constant(values), tf.constant(ids), tf.constant([5, 4]))
        lazy_adam.apply_gradients([(slices, lazy)])
        adam.apply_gradients([(tf.constant(summed), dense)])
    np.testing.assert_allclose(lazy.numpy(), dense.numpy(), atol=1e-6)


def test_rows_outside_the_batch_keep_value_and_moments():
    table = tf.Variable(tf.ones([4, 1]))
    optimizer = LazyAdam(0.1)
    optimizer.apply_gradients([(_sparse([0], [1.0], 4), table)])
    before = [weight.numpy().copy() for weight in optimizer.variables if weight.shape == (4, 1)]
    optimizer.apply_gradients([(_sparse([1, 2], [1.0, 1.0], 4), table)])
    after = [weight.numpy() for weight in optimizer.variables if weight.shape == (4, 1)]
    assert len(before) == 2
    for old, new in zip(before, after, strict=True):
        np.testing.assert_array_equal(old[[0, 3]], new[[0, 3]])
    assert table.numpy()[3, 0] == 1.0


@pytest.mark.parametrize("name", list(TABLE_OPTIMIZERS))
def test_equals_its_twin_on_repeated_and_rare_ids(name):
    """Row 5 occurs once; only Adam goes on changing it."""
    rng = np.random.default_rng(1)
    initial = rng.normal(size=(6, 3))
    table = tf.Variable(initial.astype(np.float32))
    optimizer = table_optimizer(name, 0.05)
    batches = [np.array([5, 0, 1])] + [rng.integers(0, 5, 7) for _ in range(9)]
    batches = [(ids, rng.normal(size=(len(ids), 3))) for ids in batches]
    for ids, values in batches:
        values = tf.constant(values.astype(np.float32))
        slices = tf.IndexedSlices(values, tf.constant(ids), tf.constant([6, 3]))
        optimizer.apply_gradients([(slices, table)])
    expected = getattr(twins, name)(initial, batches, rate=0.05)
    np.testing.assert_allclose(table.numpy(), expected, atol=1e-5)
    once = getattr(twins, name)(initial, batches[:1], rate=0.05)
    assert (np.abs(expected[5] - once[5]).max() > 1e-3) == (name == "adam")


def test_unknown_optimizer_is_refused():
    with pytest.raises(
        UserError, match="one of lazy_adam, adagrad, adam, found 'adagard'"
    ) as error:
        small_models.config("din", "none", "train.embedding_optimizer=adagard")
    assert "adagrad" in str(error.value)


def _gradients(monkeypatch, *settings):
    """Norms of the gradients that reach the optimisers of tables and of dense weights."""
    model = small_models.model(small_models.config("din", "none", *settings))
    small_models.randomise(model)
    norms = []
    for optimizer in (model.embedding_optimizer, model.optimizer):

        def remember(pairs, **kwargs):
            gradients = [gradient for gradient, _ in pairs if gradient is not None]
            norms.append(float(tf.linalg.global_norm(gradients)))

        monkeypatch.setattr(optimizer, "apply_gradients", remember)
    reported = float(model.main_step(small_models.batch())["gradient_norm"])
    return norms, reported


def test_tables_have_a_bound_of_their_own(monkeypatch):
    (tables, dense), whole = _gradients(monkeypatch)
    assert np.hypot(tables, dense) == pytest.approx(whole, rel=1e-5)
    bound = tables / 2
    found, reported = _gradients(monkeypatch, f"train.embedding_clip_norm={bound}")
    assert found == pytest.approx([bound, dense], rel=1e-5)
    assert reported == pytest.approx(whole, rel=1e-5)
    settings = f"train.embedding_clip_norm={bound}", f"train.clip_norm={dense / 3}"
    found, _ = _gradients(monkeypatch, *settings)
    assert found == pytest.approx([bound, dense / 3], rel=1e-5)
    found, _ = _gradients(monkeypatch, f"train.clip_norm={whole / 4}")
    assert found == pytest.approx([tables / 4, dense / 4], rel=1e-5)


def test_sum_duplicates_keeps_the_dense_gradient():
    slices = _sparse([2, 0, 2], [1.0, 5.0, 3.0], 4)
    summed = sum_duplicates(slices)
    assert sorted(summed.indices.numpy()) == [0, 2]
    np.testing.assert_allclose(
        tf.convert_to_tensor(summed).numpy().ravel(), tf.convert_to_tensor(slices).numpy().ravel()
    )
    assert sum_duplicates(None) is None


@pytest.mark.slow
def test_cost_follows_rows_touched_not_table_size():
    """A table 40 times as large may cost at most 3 times as much; stock Adam costs 40 times.

    The tables take turns, so that other processes slow down both, and the fastest turn counts.
    """

    def stepper(rows):
        table = tf.Variable(tf.zeros([rows, 16]))
        optimizer = LazyAdam(0.01)
        optimizer.build([table])
        ids = tf.constant(np.random.default_rng(0).integers(0, rows, 2000))
        values = tf.ones([2000, 16])

        @tf.function
        def step():
            slices = tf.IndexedSlices(values, ids, tf.constant([rows, 16]))
            optimizer.apply_gradients([(slices, table)])

        step()
        return step

    def seconds(step):
        start = time.perf_counter()
        step()
        return time.perf_counter() - start

    small, large = stepper(50_000), stepper(2_000_000)
    turns = [(seconds(small), seconds(large)) for _ in range(200)]
    small_seconds, large_seconds = map(min, zip(*turns, strict=True))
    assert large_seconds < 3.0 * small_seconds


@pytest.mark.parametrize("name", list(TABLE_OPTIMIZERS))
def test_a_table_with_a_factor_learns_as_at_that_share_of_the_rate(name):
    """Within one optimiser; the other table of it is changed by no bit."""
    rng = np.random.default_rng(0)
    initial = rng.normal(size=(6, 3)).astype(np.float32)
    slow, other, expected, plain = (tf.Variable(initial) for _ in range(4))
    optimizer = table_optimizer(name, 0.1)
    optimizer.build([slow, other])
    optimizer.set_factor([slow], 0.25)
    at_a_quarter, at_the_rate = table_optimizer(name, 0.025), table_optimizer(name, 0.1)
    for _ in range(5):
        ids = rng.integers(0, 5, 7)
        gradient = _sparse(ids, rng.normal(size=(7, 3)), 6)
        optimizer.apply_gradients([(gradient, slow), (gradient, other)])
        at_a_quarter.apply_gradients([(gradient, expected)])
        at_the_rate.apply_gradients([(gradient, plain)])
    np.testing.assert_allclose(slow.numpy(), expected.numpy(), atol=1e-6)
    np.testing.assert_array_equal(other.numpy(), plain.numpy())
    assert np.abs(slow.numpy() - initial)[:5].max() > 0.01
