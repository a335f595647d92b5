"""Permutations move values from valid places to valid places, and nothing else."""

import collections

import numpy as np
import pytest

from models.evaluation import permutation
from tests.helpers import small_models

SCHEMA = small_models.schema()
INPUTS = permutation.inputs(SCHEMA)


def _batches(seed=0):
    """Batches of several sizes, numbers of candidates and history lengths."""
    shapes = [(6, 3, 9), (4, 5, 12), (5, 1, 4)]
    return [
        small_models.batch(*shape, seed=10 * seed + number) for number, shape in enumerate(shapes)
    ]


def _permuted(batches, chosen, seed=0):
    return list(permutation.permuted(batches, chosen, seed))


def _named(feature, part):
    (chosen,) = [one for one in INPUTS if (one.feature, one.part) == (feature, part)]
    return chosen


def _values(batches, key):
    return [value for batch in batches for value in batch[key].numpy().ravel().tolist()]


def test_every_value_that_a_model_reads_is_an_input():
    assert [(one.feature, one.part) for one in INPUTS] == [
        ("user_id", "user"),
        ("age", "user"),
        ("item_id", "candidate"),
        ("category_id", "candidate"),
        ("brand", "candidate"),
        ("whole history", "history"),
        ("item_id", "history"),
        ("category_id", "history"),
    ]
    keys = {key for one in INPUTS for key in one.keys}
    assert keys == _batches()[0].keys() - {"label"}


@pytest.mark.parametrize("chosen", INPUTS, ids=lambda one: f"{one.feature}, {one.part}")
@pytest.mark.parametrize("seed", range(5))
def test_valid_values_are_kept_as_a_multiset_and_padding_never_moves(chosen, seed):
    before = _batches(seed)
    after = _permuted(before, chosen, seed)
    moved = False
    for old, new in zip(before, after, strict=True):
        assert old.keys() == new.keys()
        for key in old.keys() - set(chosen.keys):
            assert new[key] is old[key]
        for key in chosen.keys:
            assert new[key].dtype == old[key].dtype
            assert len(new[key]) == len(old[key])
            moved = (
                moved or new[key].shape != old[key].shape or (new[key] != old[key]).numpy().any()
            )
            if chosen.mask_key:
                assert new[key].shape == old[key].shape
                np.testing.assert_array_equal(
                    new[chosen.mask_key].numpy() != 0, old[chosen.mask_key].numpy() != 0
                )
                padding = old[chosen.mask_key].numpy() == 0
                np.testing.assert_array_equal(new[key].numpy()[padding], old[key].numpy()[padding])
    assert moved
    for key in chosen.keys:
        old_values, new_values = _values(before, key), _values(after, key)
        if key.startswith("history/") and not chosen.mask_key:  # Padded to the longest batch.
            old_values = [value for value in old_values if value]
            new_values = [value for value in new_values if value]
        assert collections.Counter(old_values) == collections.Counter(new_values)


def test_whole_histories_stay_together():
    keys = _named("whole history", "history").keys

    def histories(batches):
        return collections.Counter(
            tuple(tuple(batch[key].numpy()[row][: int(length)]) for key in keys)
            for batch in batches
            for row, length in enumerate((batch["history/item_id"].numpy() != 0).sum(axis=1))
        )

    before = _batches()
    after = _permuted(before, _named("whole history", "history"))
    assert histories(before) == histories(after)
    for batch in after:
        mask = batch["history/item_id"].numpy() != 0
        assert (np.diff(mask.astype(int), axis=1) <= 0).all()  # Events first, then padding.
        assert batch["history/category_id"].shape == mask.shape


def test_values_cross_the_bounds_of_batches():
    before = _batches()
    for number, batch in enumerate(before):
        batch["age"] = np.float32(number) + 0.0 * batch["age"]
    after = _permuted(before, _named("age", "user"))
    assert any(len(set(batch["age"].numpy())) > 1 for batch in after)


def test_the_seed_decides():
    chosen = _named("item_id", "candidate")
    (key,) = chosen.keys
    first, again, other = (_values(_permuted(_batches(), chosen, seed), key) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_a_number_that_is_0_is_a_value():
    """Zeros of numeric features are told from padding by the item key."""
    chosen = permutation.Input("price", "candidate", ("candidate/price",), "candidate/item_id")
    before = _batches()
    for batch in before:
        mask = batch["candidate/item_id"].numpy() != 0
        batch["candidate/price"] = permutation.tf.constant(np.where(mask, 0.0, -1.0))
    before[0]["candidate/price"] += 7.0 * (before[0]["candidate/price"].numpy() == 0.0)
    after = _permuted(before, chosen)
    for batch in after:
        mask = batch["candidate/item_id"].numpy() != 0
        assert (batch["candidate/price"].numpy()[~mask] == -1.0).all()
        assert np.isin(batch["candidate/price"].numpy()[mask], [0.0, 7.0]).all()
    assert 7.0 in _values(after[1:], "candidate/price")
