"""Data sets read back, and rewritten."""

import json
import pathlib

import numpy as np

from preprocessing.storage.tfrecord import read_records, write_shard


def read_examples(data, split: str) -> dict[str, dict[str, list]]:
    """Request id to the features of its example: lists of values by key."""
    import tensorflow as tf

    examples = {}
    for path in data.shards(split):
        for record in read_records(path):
            example = tf.train.SequenceExample.FromString(record)
            features = {key: _values(f) for key, f in example.context.feature.items()}
            for key, steps in example.feature_lists.feature_list.items():
                features[key] = [value for step in steps.feature for value in _values(step)]
            (request,) = features.pop("request_id")
            assert request not in examples
            examples[request.decode()] = features
    return examples


def rewrite_split(data, split: str, change) -> None:
    """Applies `change` to the examples of a split with one shard; the manifest then says so."""
    import tensorflow as tf

    (path,) = data.shards(split)
    examples = [tf.train.SequenceExample.FromString(record) for record in read_records(path)]
    change(examples)
    records = [example.SerializeToString() for example in examples]
    offsets = np.cumsum([0, *map(len, records)])
    size, sha256 = write_shard(path, [(np.frombuffer(b"".join(records), np.uint8), offsets)])
    entry = data.manifest["splits"][split]
    entry["shards"][0] |= {"bytes": size, "sha256": sha256, "requests": len(records)}
    entry["requests"] = len(records)
    (data.path / "manifest.json").write_text(json.dumps(data.manifest))


def shard_bytes(path) -> dict[str, bytes]:
    """Content of the shards and vocabularies of a data directory by name."""
    path = pathlib.Path(path)
    files = [*path.glob("*.tfrecord.gz"), *path.glob("vocab/*.txt")]
    return {file.name: file.read_bytes() for file in files}


def _values(feature) -> list:
    return list(getattr(feature, feature.WhichOneof("kind")).value) if feature.ByteSize() else []
