"""preprocessing.reading.parts: every request once, from the shards of one reader alone."""

import json

import numpy as np
import pytest
import tensorflow as tf

from preprocessing import dataset
from preprocessing.data_dir import DataDir
from preprocessing.errors import UserError
from preprocessing.reading import decoded, parts
from preprocessing.reading.parts import Part

REQUESTS = 230  # of the data set in conftest.py, in shards of 76, 77 and 77


def _read(data, part, **options):
    options = {"batch_size": 16, "shuffle_seed": 1, "history_buckets": (4, 8), **options}
    return list(dataset.read(data, "train", part=part, **options))


def _numbers(batches):
    """The request numbers of each batch."""
    return [[int(name[1:]) for name in batch["request_id"].numpy()] for batch in batches]


def _same(first, second):
    return len(first) == len(second) and all(
        a[name].shape == b[name].shape and bool(tf.reduce_all(a[name] == b[name]))
        for a, b in zip(first, second, strict=True)
        for name in a
    )


@pytest.mark.parametrize("budget", [0, 1 << 20])
@pytest.mark.parametrize("seed", [None, 3])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_every_request_once_in_every_epoch(data, count, seed, budget):
    batches = -(-REQUESTS // 16)
    kwargs = {"shuffle_seed": seed, "epochs": 2, "first_epoch": 4, "memory_budget": budget}
    read = [_numbers(_read(data, Part(index, count), **kwargs)) for index in range(count)]
    assert [len(numbers) for numbers in read] == [2 * batches] * count
    for epoch in range(2):
        of_epoch = [numbers[epoch * batches : (epoch + 1) * batches] for numbers in read]
        seen = np.concatenate([batch for numbers in of_epoch for batch in numbers])
        np.testing.assert_array_equal(np.sort(seen), np.arange(REQUESTS))
        sizes = [sum(map(len, together)) for together in zip(*of_epoch, strict=True)]
        assert max(sizes) < 16 + count
        assert count == 1 or min(sizes) > REQUESTS / batches - count


def test_a_reader_needs_its_shards_alone(data_path):
    data = DataDir.open(data_path)
    expected = [_read(data, Part(index, 2)) for index in range(2)]
    hands = parts.dealt([76, 77, 77], 2)
    assert hands == [(0, 1), (2,)]
    paths = data.shards("train")
    for shard in hands[0]:
        paths[shard].unlink()
    assert _same(_read(data, Part(1, 2)), expected[1])
    assert _same(_read(data, Part(1, 2), memory_budget=1 << 20), expected[1])


def test_one_reader_of_one_reads_what_there_is_without_parts(data):
    assert _same(_read(data, Part(0, 1)), _read(data, parts.WHOLE))
    assert parts.share(data, "train", 16) == parts.Share((0, 1, 2), REQUESTS, 15, 16, False)


def test_memory_holds_the_same_batches(data, monkeypatch):
    monkeypatch.setattr(parts, "_BATCHES_PER_BLOCK", 2)
    kwargs = {"epochs": 2}
    for index in range(2):
        from_disk = _read(data, Part(index, 2), **kwargs)
        assert _same(from_disk, _read(data, Part(index, 2), memory_budget=1 << 20, **kwargs))


def test_a_part_needs_its_part_of_the_memory(data):
    whole = decoded.bytes_needed(data, "train")
    part = decoded.bytes_needed(data, "train", part=REQUESTS // 2)
    assert part == pytest.approx(whole / 2, rel=0.01)


def test_order_is_a_function_of_seed_epoch_and_number_of_readers(data):
    def first(part, **options):
        return _numbers(_read(data, part, **options))

    assert first(Part(0, 2)) == first(Part(0, 2))
    assert first(Part(0, 2)) != first(Part(0, 2), shuffle_seed=2)
    assert first(Part(0, 2)) != first(Part(0, 2), first_epoch=1)
    assert first(Part(0, 2)) != first(Part(0, 3))
    two = first(Part(0, 2), epochs=2)
    assert two == first(Part(0, 2)) + first(Part(0, 2), first_epoch=1)


def test_all_readers_have_parts_of_equal_size_in_every_batch(data, monkeypatch):
    """153 requests in 15 batches are 10 or 11 in each, however they are cut into blocks."""
    assert parts.share(data, "train", 16, Part(0, 2)) == parts.Share((0, 1), 153, 15, 11, True)
    for in_block in (1, 4, 32):
        monkeypatch.setattr(parts, "_BATCHES_PER_BLOCK", in_block)
        sizes = [len(numbers) for numbers in _numbers(_read(data, Part(0, 2)))]
        assert (sizes.count(10), sizes.count(11)) == (12, 3)


def test_parts_of_a_batch_have_histories_of_one_length(data):
    """Blocks hold as many batches for each reader, and these come in the same order."""
    lengths = [
        [batch["history/item_id"].shape[1] for batch in _read(data, Part(index, 2))]
        for index in range(2)
    ]
    assert sum(one == other for one, other in zip(*lengths, strict=True)) >= 12  # of 15


def test_options_stay_those_of_the_reader(data):
    options = dataset.read(data, "train", batch_size=16, shuffle_seed=1, part=Part(1, 2)).options()
    assert options.deterministic is True
    assert options.autotune.enabled is False


def test_too_few_shards_are_refused_with_a_number_that_is_enough(data, data_path):
    message = "a shard of 'train' for each of 4 readers in .*, found 3"
    with pytest.raises(UserError, match=message) as error:
        _read(data, Part(0, 4))
    assert "--num_shards=16" in str(error.value)
    manifest = json.loads((data_path / "manifest.json").read_text())
    manifest["splits"]["train"]["shards"][0]["requests"] = 0  # A shard without requests is none.
    (data_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match="for each of 3 readers in .*, found 2"):
        _read(DataDir.open(data_path), Part(0, 3))


def test_a_reader_without_a_request_for_every_batch_is_refused(data):
    with pytest.raises(UserError, match="for each of 115 batches of 'train' .* found 76") as error:
        _read(data, Part(0, 3), batch_size=2)
    assert "train.batch_size" in str(error.value)
    assert len(_read(data, Part(2, 3), batch_size=4)) == 58


@pytest.mark.parametrize("readers", [1, 2, 5, 16])
def test_dealing_is_fair_and_gives_every_shard_once(readers):
    random = np.random.default_rng(readers)
    sizes = [int(size) for size in random.integers(1, 1000, 40)]
    hands = parts.dealt(sizes, readers)
    assert sorted(shard for hand in hands for shard in hand) == list(range(40))
    loads = [sum(sizes[shard] for shard in hand) for hand in hands]
    assert max(loads) - min(loads) <= max(sizes)
    assert parts.dealt(sizes, readers) == hands
