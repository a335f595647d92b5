"""The same training requests as a data set of ours and as the samples that peers read.

Shapes: R requests, N candidates, L history length, S samples.
"""

import pathlib
from typing import NamedTuple

import numpy as np

from preprocessing import data_dir
from preprocessing.codec import Ragged, encode_examples
from preprocessing.example_keys import (
    LABEL,
    REQUEST_ID,
    REQUEST_USER,
    TIMESTAMP,
    candidate_key,
    history_key,
)
from preprocessing.schema import Schema
from preprocessing.storage.tfrecord import write_shard

LENGTH = 50
USERS, CATEGORIES = 5000, 500
_SHARDS = 4
_POPULARITY = 1.3  # exponent of Zipf's law


class Requests(NamedTuple):
    """Encoded requests whose histories are all full; an item has one category."""

    user_R: np.ndarray
    history_RL: np.ndarray
    candidate_RN: np.ndarray
    label_RN: np.ndarray


def draw(requests: int, candidates: int, items: int) -> Requests:
    """Requests on so many items, which repeat as in real logs.

    Args:
        requests: R.
        candidates: N.
        items: The items are spread over all ids up to this one, 0 left out.
    """
    rng = np.random.default_rng(0)

    def popular(*shape: int) -> np.ndarray:
        ranks = rng.zipf(_POPULARITY, shape) % items
        return 1 + ranks * 7_919 % items  # a prime, so that ranks and ids have nothing in common

    return Requests(
        1 + rng.integers(0, USERS, requests),
        popular(requests, LENGTH),
        popular(requests, candidates),
        rng.integers(0, 2, [requests, candidates]),
    )


def category(item: np.ndarray) -> np.ndarray:
    """The category of each item."""
    return 1 + item % CATEGORIES


def write_data_set(path: pathlib.Path, drawn: Requests, items: int) -> None:
    """Writes requests as a data set with shards as the Beam job's; to train and to validate on.

    Args:
        path: Directory to make.
        drawn: The requests.
        items: Size of the item feature.
    """
    schema = _schema(items)
    (path / data_dir.VOCABULARIES).mkdir(parents=True)
    schema.save(path / data_dir.SCHEMA)
    counts = {"candidates": drawn.label_RN.size, "positives": int(drawn.label_RN.sum())}
    splits = {"train": counts, "validation": counts}
    data_dir.write_json(path / data_dir.STATS, {"encoders": {}, "splits": splits})
    bounds = np.linspace(0, len(drawn.user_R), _SHARDS + 1).astype(int)
    shards = []
    for i, (first, last) in enumerate(zip(bounds[:-1], bounds[1:], strict=True)):
        name = f"train-{i:05d}-of-{_SHARDS:05d}.tfrecord.gz"
        part = Requests(*(column[first:last] for column in drawn))
        size, digest = write_shard(path / name, [_encode(part, first)])
        count = int(last - first)
        shards.append({"file": name, "requests": count, "sha256": digest, "bytes": size})
    split = {
        "requests": len(drawn.user_R),
        "candidates": drawn.candidate_RN.size,
        "shards": shards,
    }
    manifest = {
        "format_version": data_dir.FORMAT_VERSION,
        "schema_hash": schema.hash(),
        "files": {data_dir.STATS: data_dir.sha256_file(path / data_dir.STATS)},
        "splits": {"train": split, "validation": split},
    }
    data_dir.write_json(path / data_dir.MANIFEST, manifest)
    data_dir.finish(path)


def write_samples(path: pathlib.Path, drawn: Requests) -> None:
    """Writes a row per candidate, each with the history of its request, as peers want it.

    Args:
        path: .npz file; columns of ids, `label`.
        drawn: The requests; S = R N.
    """
    candidates = drawn.candidate_RN.shape[1]
    history_SL = np.repeat(drawn.history_RL, candidates, axis=0)
    item_S = drawn.candidate_RN.reshape(-1)
    np.savez(
        path,
        user_id=np.repeat(drawn.user_R, candidates),
        item_id=item_S,
        category_id=category(item_S),
        hist_item_id=history_SL,
        hist_category_id=category(history_SL),
        label=drawn.label_RN.reshape(-1),
    )


def _schema(items: int) -> Schema:
    def feature(name: str, role: str, buckets: int) -> dict[str, object]:
        encoder = {"kind": "hash", "buckets": buckets}
        return {"name": name, "role": role, "dtype": "string", "encoder": encoder}

    return Schema.from_json(
        {
            "features": [
                feature("user_id", "user", USERS),
                feature("item_id", "item", items),
                feature("category_id", "item", CATEGORIES),
                {"name": TIMESTAMP, "role": "timestamp", "dtype": "int64"},
            ],
            "history": {"max_length": LENGTH, "features": ["item_id", "category_id"]},
        }
    )


def _encode(drawn: Requests, first: int) -> tuple[np.ndarray, np.ndarray]:
    """Serialised examples of requests numbered from `first`."""
    requests, candidates = drawn.candidate_RN.shape
    item_S, event_E = drawn.candidate_RN.reshape(-1), drawn.history_RL.reshape(-1)
    numbers_R = np.arange(first, first + requests)

    def rows(values: np.ndarray, each: int) -> Ragged:
        return Ragged(values.astype(np.int64), np.arange(0, requests * each + 1, each))

    context = {
        "user_id": Ragged.single(drawn.user_R),
        TIMESTAMP: Ragged.single(numbers_R),
        REQUEST_ID: Ragged.single([b"%d:0" % number for number in numbers_R]),
        REQUEST_USER: Ragged.single([b"%d" % number for number in numbers_R]),
        LABEL: rows(drawn.label_RN.reshape(-1), candidates),
        candidate_key("item_id"): rows(item_S, candidates),
        candidate_key("category_id"): rows(category(item_S), candidates),
    }
    lists = {
        history_key("item_id"): rows(event_E, LENGTH),
        history_key("category_id"): rows(category(event_E), LENGTH),
    }
    return encode_examples(context, lists)
