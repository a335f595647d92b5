"""preprocessing.dataset: parsing, padding to buckets, shuffling, determinism, damaged shards."""

import re

import numpy as np
import pytest
import tensorflow as tf

from preprocessing import dataset
from preprocessing.data_dir import DataDir
from preprocessing.errors import UserError
from preprocessing.reading import cores, decoded, parts
from preprocessing.storage.tfrecord import read_records

MAX_LENGTH = 20  # of the data set in conftest.py
REQUESTS = 230


def _read(data, **kwargs):
    kwargs = {"batch_size": 16, "shuffle_seed": 1, "history_buckets": (4, 8), **kwargs}
    return list(dataset.read(data, "train", **kwargs))


def _numbers(batch):
    """The request numbers, in order."""
    return np.array([int(name[1:]) for name in batch["request_id"].numpy()])


def _check(batch):
    """Everything in a batch follows from the request numbers; see conftest.requests."""
    numbers_B = _numbers(batch)
    lengths_B, candidates_B = numbers_B % (MAX_LENGTH + 1), 1 + numbers_B % 4
    np.testing.assert_array_equal(batch["user_id"], 2 + numbers_B)
    np.testing.assert_array_equal(batch["age"], (numbers_B / 8).astype(np.float32))
    np.testing.assert_array_equal(batch["timestamp"], 1000 + numbers_B)

    N = candidates_B.max()
    place_BN = np.broadcast_to(np.arange(N), [len(numbers_B), N])
    real_BN = place_BN < candidates_B[:, None]
    np.testing.assert_array_equal(batch["candidate/item_id"], np.where(real_BN, 2 + place_BN, 0))
    np.testing.assert_array_equal(batch["candidate/brand"], np.where(real_BN, 1 + place_BN, 0))
    np.testing.assert_array_equal(batch["candidate/price"], np.where(real_BN, 1 + place_BN % 4, 0))
    np.testing.assert_array_equal(batch["candidate/weight"], np.where(real_BN, place_BN, 0))
    np.testing.assert_array_equal(batch["label"], real_BN & (place_BN == 0))

    L = batch["history/item_id"].shape[1]
    step_BL = np.broadcast_to(np.arange(L), [len(numbers_B), L])
    real_BL = step_BL < lengths_B[:, None]
    np.testing.assert_array_equal(batch["history/item_id"], np.where(real_BL, 2 + step_BL, 0))
    np.testing.assert_array_equal(batch["history/brand"], np.where(real_BL, 1 + step_BL % 11, 0))
    np.testing.assert_array_equal(batch["history/weight"], np.where(real_BL, step_BL, 0))
    return lengths_B.max(), L


@pytest.mark.parametrize("seed", [None, 1])
def test_every_request_once_right_values_and_smallest_bucket(data, seed):
    batches = _read(data, shuffle_seed=seed)
    seen = np.concatenate([_numbers(batch) for batch in batches])
    np.testing.assert_array_equal(np.sort(seen), np.arange(REQUESTS))
    for batch in batches:
        longest, L = _check(batch)
        assert min(b for b in (4, 8, MAX_LENGTH) if b >= longest) == L
    assert {batch["history/item_id"].shape[1] for batch in batches} == {4, 8, MAX_LENGTH}


def test_dtypes_and_names(data):
    (batch, *_) = _read(data)
    kinds = {name: tensor.dtype for name, tensor in batch.items()}
    assert kinds == {
        "user_id": tf.int64,
        "age": tf.float32,
        "timestamp": tf.int64,
        "request_id": tf.string,
        "label": tf.float32,
        "candidate/item_id": tf.int64,
        "candidate/brand": tf.int64,
        "candidate/price": tf.int64,
        "candidate/weight": tf.float32,
        "history/item_id": tf.int64,
        "history/brand": tf.int64,
        "history/weight": tf.float32,
    }


def _same(first, second):
    return len(first) == len(second) and all(
        bool(tf.reduce_all(a[name] == b[name])) if a[name].shape == b[name].shape else False
        for a, b in zip(first, second, strict=True)
        for name in a
    )


def test_order_is_a_function_of_the_seed(data):
    once = dataset.read(data, "train", batch_size=16, shuffle_seed=3)
    first = list(once)
    assert _same(first, list(once))
    assert _same(first, _read(data, shuffle_seed=3, history_buckets=(8, 16, 32)))
    assert not _same(first, _read(data, shuffle_seed=4, history_buckets=(8, 16, 32)))


def test_global_seed_of_0(data):
    tf.random.set_seed(0)
    assert sorted(np.concatenate([*map(_numbers, _read(data))])) == list(range(REQUESTS))


@pytest.mark.parametrize("seed", [None, 3])
def test_memory_holds_the_same_batches_in_the_same_order(data, monkeypatch, seed):
    # Several blocks, fewer shards in turns than there are, a shuffle that must read ahead.
    monkeypatch.setattr(parts, "_BATCHES_PER_BLOCK", 2)
    monkeypatch.setattr(dataset, "_SHARDS_IN_TURNS", 2)
    monkeypatch.setattr(dataset, "SHUFFLE_BUFFER", 50)
    monkeypatch.setattr(dataset, "_DECODED_AT_ONCE", 64)
    kwargs = {"shuffle_seed": seed, "first_epoch": 1, "epochs": 2}
    from_memory = _read(data, **kwargs, memory_budget=1 << 20)
    assert _same(_read(data, **kwargs), from_memory)
    for batch in from_memory:
        _check(batch)


@pytest.mark.parametrize("budget", [0, 1 << 20])
@pytest.mark.parametrize("seed", [None, 3])
def test_batches_do_not_depend_on_the_number_of_cores(data, monkeypatch, seed, budget):
    """Several blocks, the last one with fewer requests than eight cores have pieces."""
    monkeypatch.setattr(parts, "_BATCHES_PER_BLOCK", 2)
    monkeypatch.setattr(dataset, "_DECODED_AT_ONCE", 64)
    kwargs = {"batch_size": 19, "shuffle_seed": seed, "epochs": 2, "memory_budget": budget}
    read = {}
    for count in (1, 2, 4, 8):
        monkeypatch.setattr(cores, "available", lambda count=count: count)
        read[count] = _read(data, **kwargs)
    assert len(read[2]) == 2 * -(-REQUESTS // 19)
    assert all(_same(read[2], read[count]) for count in (1, 4, 8))


def test_memory_is_used_if_the_split_fits(data):
    needed = decoded.bytes_needed(data, "train")
    fits = dataset.read(data, "train", batch_size=16, shuffle_seed=1, memory_budget=needed)
    does_not = dataset.read(data, "train", batch_size=16, shuffle_seed=1, memory_budget=needed - 1)
    for shard in data.shards("train"):
        shard.unlink()
    assert len(list(fits)) == -(-REQUESTS // 16)
    with pytest.raises(tf.errors.NotFoundError):
        list(does_not)


def test_what_memory_needs_is_a_bound(data):
    # Per request: user, age, time, three lengths; 3 x 20 values of the history; 5 per candidate.
    candidates = sum(1 + i % 4 for i in range(REQUESTS))
    values = REQUESTS * (3 + 3 + 3 * MAX_LENGTH) + 5 * candidates
    assert decoded.bytes_needed(data, "train") == 8 * values + 48 * REQUESTS


def test_damaged_shard_is_named_when_it_is_decoded(data_path):
    data = DataDir.open(data_path)
    data.shards("train")[2].unlink()
    with pytest.raises(UserError, match="found no such file"):
        _read(data, memory_budget=1 << 20)


def test_requests_are_shuffled_not_batches(data):
    # With one bucket only the shuffle decides what shares a batch.
    together = [
        {frozenset(_numbers(batch)) for batch in _read(data, shuffle_seed=seed, history_buckets=())}
        for seed in (None, 1, 2)
    ]
    assert not together[0] & together[1]
    assert not together[1] & together[2]
    spread = [np.ptp(_numbers(batch)) for batch in _read(data, history_buckets=())]
    assert np.mean(spread) > 0.7 * REQUESTS  # a batch of neighbours has a spread of 15


def test_batches_of_a_block_come_in_random_order_of_length(data):
    lengths = [batch["history/item_id"].shape[1] for batch in _read(data)]
    assert lengths != sorted(lengths)


def test_without_seed_requests_keep_their_order_inside_a_bucket(data):
    batches = _read(data, shuffle_seed=None, history_buckets=())
    seen = np.concatenate([_numbers(batch) for batch in batches])
    np.testing.assert_array_equal(seen, np.arange(REQUESTS))


def test_many_blocks(data, monkeypatch):
    monkeypatch.setattr(parts, "_BATCHES_PER_BLOCK", 2)
    batches = _read(data)
    seen = np.concatenate([_numbers(batch) for batch in batches])
    np.testing.assert_array_equal(np.sort(seen), np.arange(REQUESTS))
    for batch in batches:
        _check(batch)
    assert _same(batches, _read(data))


def test_batch_size_counts_requests(data):
    sizes = [len(_numbers(batch)) for batch in _read(data, batch_size=50)]
    assert sorted(sizes) == [30] + [50] * 4


def test_every_epoch_has_an_order_of_its_own_and_can_be_the_first(data):
    per_epoch = -(-REQUESTS // 50)
    epochs = _read(data, batch_size=50, shuffle_seed=5, epochs=3)
    assert len(epochs) == 3 * per_epoch
    parts = [epochs[i : i + per_epoch] for i in range(0, len(epochs), per_epoch)]
    for part in parts:
        seen = np.concatenate([_numbers(batch) for batch in part])
        np.testing.assert_array_equal(np.sort(seen), np.arange(REQUESTS))
    assert not _same(parts[0], parts[1])
    assert _same(parts[0], _read(data, batch_size=50, shuffle_seed=5))
    assert _same(
        parts[1] + parts[2], _read(data, batch_size=50, shuffle_seed=5, first_epoch=1, epochs=2)
    )


def test_shuffle_works_beyond_its_buffer(data, monkeypatch):
    monkeypatch.setattr(dataset, "SHUFFLE_BUFFER", 10)
    batches = _read(data, history_buckets=())
    seen = np.concatenate([_numbers(batch) for batch in batches])
    np.testing.assert_array_equal(np.sort(seen), np.arange(REQUESTS))
    assert not np.array_equal(seen, np.arange(REQUESTS))
    # Several shards are read in turns: the first batch holds requests of more than one.
    assert np.ptp(_numbers(batches[0])) > REQUESTS / 3


def test_batch_larger_than_the_split(data):
    (batch,) = _read(data, batch_size=1000)
    assert _check(batch) == (MAX_LENGTH, MAX_LENGTH)


def test_options_are_deterministic_and_without_autotuning(data):
    options = dataset.read(data, "train", batch_size=8, shuffle_seed=1).options()
    assert options.deterministic is True
    assert options.autotune.enabled is False


def test_unknown_split(data):
    with pytest.raises(UserError, match="one of the splits train of .* found 'dev'"):
        dataset.read(data, "dev", batch_size=8, shuffle_seed=None)


def test_parse_takes_examples_without_labels(data):
    example = tf.train.SequenceExample.FromString(next(read_records(data.shards("train")[0])))
    for key in ("label", "timestamp", "request_id"):
        del example.context.feature[key]
    serialized = tf.constant([example.SerializeToString()] * 2)
    batch = dataset.parse(data.schema, serialized)
    np.testing.assert_array_equal(batch["label"], np.zeros(batch["candidate/item_id"].shape))
    np.testing.assert_array_equal(batch["timestamp"], [0, 0])
    assert batch["history/item_id"].shape == (2, 0)  # request 0 has no events


def test_parse_in_a_graph_of_unknown_shapes(data):
    records = [record for path in data.shards("train") for record in read_records(path)]
    parse = tf.function(
        lambda serialized_B: dataset.parse(data.schema, serialized_B),
        input_signature=[tf.TensorSpec([None], tf.string)],
    )
    batch = parse(tf.constant(records))
    assert _check(batch) == (MAX_LENGTH, MAX_LENGTH)


def test_damaged_shard_is_named_while_reading(data_path):
    data = DataDir.open(data_path)
    shard = data.shards("train")[1]
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 0xFF
    shard.write_bytes(content)
    with (
        pytest.raises(UserError, match=re.escape(f"Expected {shard} with SHA-256")),
        dataset.reading(data),
    ):
        _read(data)


def test_shard_that_vanished_is_named_while_reading(data_path):
    data = DataDir.open(data_path)
    data.shards("train")[2].unlink()
    with pytest.raises(UserError, match="found no such file"), dataset.reading(data):
        _read(data)


def test_other_errors_pass_through_while_reading(data):
    with pytest.raises(ZeroDivisionError), dataset.reading(data):
        raise ZeroDivisionError


def test_readers_are_shared_only_where_it_is_asked_for_and_only_for_the_same(data):
    options = {"batch_size": 16, "shuffle_seed": 3}
    with dataset.shared():
        once = dataset.read(data, "train", **options)
        assert dataset.read(data, "train", **options) is once
        for other in ({"batch_size": 8}, {"shuffle_seed": 4}, {"with_users": True}):
            assert dataset.read(data, "train", **options | other) is not once
    again = dataset.read(data, "train", **options)
    assert again is not once
    for first, second in zip(once, again, strict=True):
        np.testing.assert_array_equal(first["candidate/item_id"], second["candidate/item_id"])
