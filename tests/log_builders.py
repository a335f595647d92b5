"""Small logs in every format, and data sets read back, for the tests of the pipeline."""

import gzip
import json
import pathlib

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from preprocessing.storage.tfrecord import read_records, write_shard


def random_events(
    seed: int = 0, users: int = 30, items: int = 40, days: int = 50, longest: int = 12
):
    """(user, item, timestamp) in row order, with ties in time; no user meets an item twice."""
    rng = np.random.default_rng(seed)
    events = [
        (f"u{user}", f"i{item}", int(time))
        for user in range(users)
        for count in [rng.integers(1, longest + 1)]
        for item, time in zip(
            rng.permutation(items)[:count], rng.integers(1, days + 1, count), strict=True
        )
    ]
    return [events[i] for i in rng.permutation(len(events))]


def columns(events) -> dict[str, list]:
    """Canonical columns, with a category that follows from the item."""
    return {
        "user_id": [user for user, _, _ in events],
        "item_id": [item for _, item, _ in events],
        "category_id": [category(item) for _, item, _ in events],
        "timestamp": [time for _, _, time in events],
    }


def category(item: str) -> str:
    """The category of an item of `random_events`."""
    return f"c{int(item[1:]) % 5}"


def write_log(path: pathlib.Path, log: dict[str, list]) -> str:
    """Writes columns in the format of the file name; returns the path as text."""
    table = pa.table(log)
    text = pa.BufferOutputStream()
    if ".csv" in path.name:
        pa.csv.write_csv(table, text)
    elif ".jsonl" in path.name:
        text.write("".join(json.dumps(row) + "\n" for row in table.to_pylist()).encode())
    else:
        pa.parquet.write_table(table, text, row_group_size=max(1, table.num_rows // 3))
    content = text.getvalue().to_pybytes()
    path.write_bytes(gzip.compress(content) if path.name.endswith(".gz") else content)
    return str(path)


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
