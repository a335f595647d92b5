"""models.core.value_bags against its NumPy twin, and what may not change its result."""

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from models.core.value_bags import combine
from models.keras import tf
from preprocessing.features.many import COMBINERS
from tests.reference import value_bags

ROWS, WIDTH = 9, 4
TABLE = np.random.default_rng(0).normal(size=(ROWS, WIDTH)).astype(np.float32)
_SETS = st.lists(
    st.lists(st.integers(1, ROWS - 1), max_size=5, unique=True), min_size=1, max_size=6
)


def _padded(sets, width=6):
    return np.array([[*ids, *[0] * (width - len(ids))] for ids in sets], np.int64)


def _combine(ids, combiner):
    variable = tf.Variable(TABLE)
    ids = tf.constant(ids, tf.int64)
    return combine(ids, combiner, lambda ids_V: tf.nn.embedding_lookup(variable, ids_V)).numpy()


@pytest.mark.parametrize("combiner", COMBINERS)
@hypothesis.given(_SETS)
@hypothesis.settings(deadline=None, max_examples=25)
def test_it_is_its_twin(combiner, sets):
    ids = _padded(sets)
    expected = value_bags.combined(TABLE, ids, combiner)
    np.testing.assert_allclose(_combine(ids, combiner), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("combiner", COMBINERS)
@hypothesis.given(_SETS, st.integers(0, 3), st.randoms(use_true_random=False))
@hypothesis.settings(deadline=None, max_examples=25)
def test_padding_anywhere_and_a_batch_cut_in_two_change_no_bit(combiner, sets, more, random):
    ids = _padded(sets)
    expected = _combine(ids, combiner)
    spread = np.zeros((len(sets), 6 + more), np.int64)
    for row, values in enumerate(sets):
        spread[row, sorted(random.sample(range(6 + more), len(values)))] = values
    np.testing.assert_array_equal(_combine(spread, combiner), expected)
    cut = random.randint(0, len(sets))
    parts = [_combine(part, combiner) for part in (ids[:cut], ids[cut:]) if len(part)]
    np.testing.assert_array_equal(np.concatenate(parts), expected)


@pytest.mark.parametrize("combiner", COMBINERS)
def test_one_value_is_its_vector_and_none_is_zero(combiner):
    ids = np.array([[[3, 0], [0, 0]], [[0, 7], [1, 0]]], np.int64)
    expected = TABLE[[[3, 0], [7, 1]]]
    expected[0, 1] = 0
    np.testing.assert_array_equal(_combine(ids, combiner), expected)


@pytest.mark.parametrize("shape", [(2, 0), (0, 3), (2, 0, 3)])
def test_sets_or_batches_of_nothing(shape):
    vectors = _combine(np.zeros(shape, np.int64), "mean")
    assert vectors.shape == (*shape[:-1], WIDTH)
    assert not vectors.any()


@pytest.mark.parametrize("combiner", COMBINERS)
def test_the_gradient_is_sparse_and_exact(combiner):
    sets = [[1, 2, 5], [5], [], [2, 5]]
    ids = _padded(sets)
    upstream = np.random.default_rng(1).normal(size=(len(sets), WIDTH)).astype(np.float32)
    variable = tf.Variable(TABLE)

    @tf.function(autograph=False)
    def gradient(ids):
        with tf.GradientTape() as tape:
            vectors = combine(ids, combiner, lambda ids_V: tf.gather(variable, ids_V))
            loss = tf.reduce_sum(vectors * upstream)
        found = tape.gradient(loss, variable)
        assert isinstance(found, tf.IndexedSlices)
        return found.indices, found.values

    rows, values = gradient(tf.constant(ids))
    assert rows.numpy().tolist() == [1, 2, 5, 5, 2, 5]
    summed = np.zeros((ROWS, WIDTH))
    np.add.at(summed, rows.numpy(), values.numpy())
    expected = np.zeros((ROWS, WIDTH))
    for ids_M, g in zip(sets, upstream, strict=True):
        scale = {"mean": len(ids_M), "sum": 1, "sqrtn": np.sqrt(len(ids_M))}[combiner]
        for one in ids_M:
            expected[one] += g / scale
    np.testing.assert_allclose(summed, expected, rtol=1e-5)
