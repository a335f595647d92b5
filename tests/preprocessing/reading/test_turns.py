"""preprocessing.reading.turns: whole batches dealt to several readers, together those of one."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from preprocessing import dataset
from preprocessing.data_dir import DataDir
from preprocessing.reading import parts, turns
from preprocessing.reading.parts import Part

REQUESTS = 230  # of the data set in conftest.py, in shards of 76, 77 and 77


def _read(data, reader, batch_size, budget=0):
    return list(
        dataset.read(
            data,
            "train",
            batch_size=batch_size,
            shuffle_seed=None,
            history_buckets=(4, 8),
            memory_budget=budget,
            with_users=True,
            turn=reader,
        )
    )


@pytest.fixture(params=[2, 32])
def blocks_of(request, monkeypatch):
    """The number of batches of a block."""
    monkeypatch.setattr(parts, "_BATCHES_PER_BLOCK", request.param)


@pytest.mark.usefixtures("blocks_of")
@pytest.mark.parametrize("budget", [0, 1 << 20])
@pytest.mark.parametrize("batch_size", [5, 64, 500])
@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_together_the_readers_give_the_batches_of_one(data, count, batch_size, budget):
    expected = _read(data, parts.WHOLE, batch_size)
    found = {}
    for index in range(count):
        taken = turns.turn(data, "train", batch_size, Part(index, count))
        batches = _read(data, Part(index, count), batch_size, budget)
        assert sum(len(batch["request_id"]) for batch in batches) == taken.scored
        found |= dict(zip(taken.batches.tolist(), batches, strict=True))
    assert sorted(found) == list(range(len(expected)))
    for number, batch in enumerate(expected):
        for name, value in batch.items():
            np.testing.assert_array_equal(found[number][name], value, err_msg=name)


def test_a_reader_opens_the_shards_of_its_blocks_alone(data_path, monkeypatch):
    monkeypatch.setattr(parts, "_BATCHES_PER_BLOCK", 2)
    data = DataDir.open(data_path)
    assert turns.turn(data, "train", 8, Part(0, 3)).shards == (0, 1)  # 80 of 230 requests
    expected = _read(data, Part(0, 3), 8)
    data.shards("train")[2].unlink()
    for ours, theirs in zip(_read(data, Part(0, 3), 8), expected, strict=True):
        np.testing.assert_array_equal(ours["request_id"], theirs["request_id"])


@given(st.integers(0, 500), st.integers(1, 40), st.integers(1, 9))
def test_every_batch_has_one_reader_and_all_have_as_many(batches, size, count):
    hands = [turns.dealt(batches, size, Part(index, count)) for index in range(count)]
    assert sorted(np.concatenate(hands).tolist()) == list(range(batches))
    lengths = [len(hand) for hand in hands]
    assert max(lengths) - min(lengths) <= 1
    assert lengths[0] >= min(batches, 1)
    assert all((np.diff(hand) > 0).all() for hand in hands)


@pytest.mark.parametrize("count", [2, 4, 8])
def test_readers_of_one_block_have_histories_of_all_lengths(count):
    """The batches of a block are sorted by length: nobody has the long ones alone."""
    means = [turns.dealt(32, 32, Part(index, count)).mean() for index in range(count)]
    assert max(means) - min(means) <= 32 / 4
