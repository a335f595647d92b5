"""preprocessing.storage.tfrecord against TensorFlow, and on damaged files."""

import gzip
import hashlib
import re

import numpy as np
import pytest
import tensorflow as tf

from preprocessing.errors import UserError
from preprocessing.storage.tfrecord import frame, read_records, write_shard


def _pack(records):
    offsets = np.cumsum([0] + [len(record) for record in records])
    return np.frombuffer(b"".join(records), np.uint8), offsets


@pytest.fixture
def records():
    rng = np.random.default_rng(0)
    return [rng.bytes(size) for size in [0, 1, 7, 100, 100, 5000, *rng.integers(0, 300, 200)]]


def test_tensorflow_reads_what_is_written(tmp_path, records):
    path = tmp_path / "train.tfrecord.gz"
    size, digest = write_shard(path, [_pack(records)])
    content = path.read_bytes()
    assert size == len(content)
    assert digest == hashlib.sha256(content).hexdigest()
    dataset = tf.data.TFRecordDataset(str(path), "GZIP")
    assert list(dataset.as_numpy_iterator()) == records
    assert list(read_records(path)) == records


def test_reads_what_tensorflow_writes(tmp_path, records):
    path = str(tmp_path / "plain.tfrecord")
    with tf.io.TFRecordWriter(path) as writer:
        for record in records:
            writer.write(record)
    assert list(read_records(path)) == records
    assert (tmp_path / "plain.tfrecord").read_bytes() == frame(*_pack(records)).tobytes()


def test_equal_records_give_equal_files_without_time_and_name(tmp_path, records):
    paths = [tmp_path / "a.tfrecord.gz", tmp_path / "b.tfrecord.gz"]
    digests = {write_shard(path, [_pack(records)])[1] for path in paths}
    assert len(digests) == 1
    header = paths[0].read_bytes()[:10]
    assert header[3] == 0  # flags: neither a file name nor a comment
    assert header[4:8] == bytes(4)  # time


def test_replaces_and_leaves_no_temporary_file(tmp_path, records):
    path = tmp_path / "train.tfrecord.gz"
    write_shard(path, [_pack([b"old"])])
    write_shard(path, [_pack(records)])
    assert list(read_records(path)) == records
    assert [p.name for p in tmp_path.iterdir()] == ["train.tfrecord.gz"]


def test_no_records(tmp_path):
    path = tmp_path / "empty.tfrecord.gz"
    write_shard(path, [_pack([])])
    assert list(read_records(path)) == []
    assert list(tf.data.TFRecordDataset(str(path), "GZIP")) == []


def test_every_flipped_byte_is_found_and_its_record_named(tmp_path):
    records = [b"first", b"second", b"third"]
    content = frame(*_pack(records)).tobytes()
    path = tmp_path / "damaged.tfrecord"
    starts = np.cumsum([0] + [16 + len(record) for record in records])
    for position in range(len(content)):
        damaged = bytearray(content)
        damaged[position] ^= 0x10
        path.write_bytes(damaged)
        index = int(np.searchsorted(starts, position, side="right")) - 1
        with pytest.raises(UserError, match=rf"damaged\.tfrecord, found record {index} broken"):
            list(read_records(path))


@pytest.mark.parametrize("kept", [1, 11, 12, 14, 17, 20])
def test_a_file_cut_short_is_found(tmp_path, kept):
    path = tmp_path / "short.tfrecord"
    path.write_bytes(frame(*_pack([b"first"])).tobytes()[:kept])
    with pytest.raises(UserError, match="record 0 broken: the file ends within its"):
        list(read_records(path))


def test_damaged_gzip_is_found(tmp_path, records):
    path = tmp_path / "train.tfrecord.gz"
    write_shard(path, [_pack(records)])
    whole = path.read_bytes()
    for damaged in (whole[:-20], whole[:50] + b"\xff" + whole[51:], b"not gzip"):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=re.escape(f"Expected TFRecords in {path}")):
            list(read_records(path))
    path.write_bytes(gzip.compress(b"not a record"))
    with pytest.raises(UserError, match="record 0 broken"):
        list(read_records(path))


def test_missing_file(tmp_path):
    with pytest.raises(UserError, match="found none at"):
        list(read_records(tmp_path / "train.tfrecord.gz"))
