"""preprocessing.data_dir: what is refused, and what a complete data set offers."""

import hashlib
import json
import re
import subprocess
import sys

import numpy as np
import pytest

from preprocessing import data_dir
from preprocessing.data_dir import DataDir
from preprocessing.errors import UserError


def test_opens_a_complete_data_set(data_path):
    data = DataDir.open(data_path)
    assert data.path == data_path
    assert data.num_requests("train") == 230
    assert [path.name for path in data.shards("train")] == [
        f"train-0000{i}-of-00003.tfrecord.gz" for i in range(3)
    ]
    assert data.manifest["schema_hash"] == data.schema.hash()
    assert list(data.encoders) == ["user_id", "age", "item_id", "brand", "weight", "price"]
    assert data.encoders["user_id"].cardinality == 2 + 230
    np.testing.assert_allclose(data.encoders["weight"].encode([1.0, 3.0]), [-1, 1])
    np.testing.assert_array_equal(data.encoders["price"].encode([0.5, 1.0, 7.0]), [2, 3, 4])


def _edit_json(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def _remove_key(path, key):
    content = json.loads(path.read_text())
    del content[key]
    path.write_text(json.dumps(content))


def _flip_a_byte(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def _change_schema(path):
    content = json.loads(path.read_text())
    content["features"][0]["encoder"]["min_count"] = 7
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("file", "damage", "message"),
    [
        ("_COMPLETED", lambda p: p.unlink(), "Expected a complete data set in .* no _COMPLETED"),
        ("manifest.json", lambda p: p.unlink(), "Expected .*manifest.json, found no such file"),
        ("manifest.json", lambda p: p.write_text("{"), "Expected the manifest .*syntax error"),
        (
            "manifest.json",
            lambda p: _edit_json(p, format_version=99),
            "Expected format version 2 in .*manifest.json, found 99",
        ),
        (
            "manifest.json",
            lambda p: _remove_key(p, "schema_hash"),
            "Expected the key 'schema_hash' in .*manifest.json, found none",
        ),
        (
            "manifest.json",
            lambda p: _remove_key(p, "splits"),
            "Expected the key 'splits' in .*manifest.json, found none",
        ),
        (
            "manifest.json",
            lambda p: _remove_key(p, "files"),
            "Expected the key 'files' in .*manifest.json, found none",
        ),
        (
            "manifest.json",
            lambda p: p.write_text("[]"),
            "Expected the manifest .*, found list",
        ),
        ("schema.json", lambda p: p.unlink(), "Expected a schema in .*, found no such file"),
        ("schema.json", _change_schema, "the schema was changed after the build"),
        ("stats.json", lambda p: p.unlink(), "Expected the file .*stats.json of the manifest"),
        ("stats.json", lambda p: _edit_json(p, users=3), "Expected .*stats.json with SHA-256"),
        ("vocab/user_id.txt", lambda p: p.unlink(), "Expected the file .*vocab/user_id.txt of the"),
        ("vocab/user_id.txt", _flip_a_byte, "Expected .*vocab/user_id.txt with SHA-256 .* changed"),
        (
            "train-00001-of-00003.tfrecord.gz",
            _flip_a_byte,
            "Expected .*train-00001-of-00003.tfrecord.gz with SHA-256 .* is damaged or was changed",
        ),
        (
            "train-00002-of-00003.tfrecord.gz",
            lambda p: p.unlink(),
            "Expected the file .*train-00002-of-00003.tfrecord.gz of the manifest",
        ),
    ],
)
def test_refuses_what_is_not_as_its_manifest_says(data_path, file, damage, message):
    damage(data_path / file)
    with pytest.raises(UserError, match=message):
        DataDir.open(data_path)


def test_statistics_without_encoders_are_refused(data_path):
    manifest = json.loads((data_path / "manifest.json").read_text())
    del manifest["files"]["stats.json"]
    _edit_json(data_path / "manifest.json", files=manifest["files"])
    _remove_key(data_path / "stats.json", "encoders")
    with pytest.raises(UserError, match="Expected the key 'encoders' in .*stats.json, found none"):
        DataDir.open(data_path)


def test_the_fingerprint_is_that_of_the_manifest(data_path):
    before = DataDir.open(data_path).fingerprint
    assert before == hashlib.sha256((data_path / "manifest.json").read_bytes()).hexdigest()
    _edit_json(data_path / "manifest.json", arguments={"seed": 2})
    assert DataDir.open(data_path).fingerprint != before


@pytest.mark.parametrize("path", ["az://c/data", "hdfs:/data", "file:///data"])
def test_other_file_systems_are_refused(path):
    with pytest.raises(UserError, match="--data: expected a path, s3://bucket/key or"):
        DataDir.open(path)


def test_descriptions_may_change_after_the_build(data_path):
    path = data_path / "schema.json"
    content = json.loads(path.read_text())
    content["features"][0]["description"] = "who"
    path.write_text(json.dumps(content))
    assert DataDir.open(data_path).schema["user_id"].description == "who"


def test_verification_of_shards_can_wait(data_path):
    shard = data_path / "train-00001-of-00003.tfrecord.gz"
    _flip_a_byte(shard)
    data = DataDir.open(data_path, verify=False)
    with pytest.raises(UserError, match=re.escape(str(shard))):
        data.verify()


def test_missing_directory_and_split(tmp_path, data):
    with pytest.raises(UserError, match="Expected a data set, found no directory"):
        DataDir.open(tmp_path / "nowhere")
    with pytest.raises(UserError, match="one of the splits train of .* found 'test'"):
        data.shards("test")
    with pytest.raises(UserError, match="found 'validation'"):
        data.num_requests("validation")


def test_sha256_of_a_file_longer_than_a_block(tmp_path):
    content = b"0123456789abcdef" * 100_000
    (tmp_path / "file").write_bytes(content)
    assert data_dir.sha256_file(tmp_path / "file") == hashlib.sha256(content).hexdigest()


def test_write_json_is_sorted_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "stats.json"
    data_dir.write_json(path, {"old": 1})
    data_dir.write_json(path, {"b": "ü", "a": [1.5]})
    assert path.read_text(encoding="utf-8") == '{\n  "a": [\n    1.5\n  ],\n  "b": "ü"\n}\n'
    assert [p.name for p in tmp_path.iterdir()] == ["stats.json"]
    with pytest.raises(ValueError, match="not JSON compliant"):
        data_dir.write_json(path, {"a": float("nan")})


@pytest.mark.parametrize(
    "module",
    [
        "schema",
        "encoders",
        "values.farmhash",
        "codec",
        "storage.tfrecord",
        "storage.files",
        "data_dir",
    ],
)
def test_what_workers_use_needs_no_tensorflow(module):
    program = (
        "import sys; sys.modules.update(dict.fromkeys("
        "['tensorflow', 'tensorflow_io', 'tf_keras', 'apache_beam']));"
        f"import preprocessing.{module}"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
