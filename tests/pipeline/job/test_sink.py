import json

import pyarrow as pa

from pipeline.job.sink import WriteShard, sorted_records
from pipeline.log import tables
from pipeline.requests.encoding import KEY, RECORD
from preprocessing.data_dir import sha256_file
from preprocessing.storage.tfrecord import read_records


def _part(path, keys, records):
    arrays = [pa.array(keys, pa.uint64()), pa.array(records, pa.large_binary())]
    (reference,) = tables.write_parts(
        path, [pa.table(dict(zip((KEY, RECORD), arrays, strict=True)))]
    )
    return reference


def test_records_are_sorted_by_key_then_by_content(tmp_path):
    parts = [
        _part(tmp_path / "1", [5, 2**64 - 1], [b"e", b"z"]),
        _part(tmp_path / "2", [5, 1], [b"d", b"a"]),
    ]
    for order in (parts, parts[::-1]):
        (block,) = sorted_records(order)
        assert block.to_pylist() == [b"a", b"d", b"e", b"z"]
        blocks = [block.to_pylist() for block in sorted_records(order, block_bytes=2)]
        assert blocks == [[b"a", b"d", b"e"], [], [b"z"]]


def test_a_shard_is_written_and_reported_even_if_it_is_empty(tmp_path):
    sink = WriteShard(tmp_path, tmp_path, (2, 1, 1))
    sink.process(((0, 1), [None, _part(tmp_path / "1", [3, 2], [b"b", b"a"])]))
    sink.process(((2, 0), [None]))
    path = tmp_path / "train-00001-of-00002.tfrecord.gz"
    assert list(read_records(path)) == [b"a", b"b"]
    report = json.loads((tmp_path / f"{path.name}.json").read_text())
    assert report == {
        "split": "train",
        "file": path.name,
        "requests": 2,
        "bytes": path.stat().st_size,
        "sha256": sha256_file(path),
    }
    assert list(read_records(tmp_path / "test-00000-of-00001.tfrecord.gz")) == []
