"""A log with every kind of feature at once: the files, the schema, the pretrained vectors."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tests.helpers import built_logs

_VOCABULARY = {"kind": "vocabulary"}


def _many(most: int, combiner: str = "mean") -> dict:
    return {"max": most, "separator": "|", "combiner": combiner}


def _vector(size: int, storage: str) -> dict:
    return {"dtype": "float32", "shape": [size], "encoder": {"kind": "vector", "storage": storage}}


SCHEMA = {
    "features": [
        {"name": "user_id", "role": "user", "dtype": "string", "encoder": _VOCABULARY},
        {"name": "age", "role": "user", "dtype": "float32", "default": 40,
         "encoder": {"kind": "numeric"}},
        {"name": "languages", "role": "user", "dtype": "string", "encoder": _VOCABULARY,
         "many": _many(2, "sum")},
        {"name": "profile", "role": "user", "default": 0, **_vector(3, "float32")},
        {"name": "page", "role": "context", "dtype": "int64",
         "encoder": {"kind": "hash", "buckets": 7}},
        {"name": "search", "role": "context", **_vector(2, "float16")},
        {"name": "hour", "role": "context", "from": "hour"},
        {"name": "weekday", "role": "context", "from": "weekday"},
        {"name": "item_id", "role": "item", "dtype": "string", "encoder": _VOCABULARY},
        {"name": "genres", "role": "item", "dtype": "string", "default": "none",
         "encoder": {"kind": "vocabulary", "min_count": 2, "oov_buckets": 2},
         "many": _many(3)},
        {"name": "text", "role": "item", **_vector(4, "float16")},
        {"name": "price", "role": "item", "dtype": "float32", "default": 9,
         "encoder": {"kind": "bucketised", "boundaries": [2, 20]}},
        {"name": "action", "role": "event", "dtype": "string", "encoder": _VOCABULARY},
        {"name": "dwell", "role": "event", "dtype": "int64", "default": 1,
         "encoder": {"kind": "bucketised", "boundaries": [3, 30]}},
        {"name": "tags", "role": "event", "dtype": "string",
         "encoder": {"kind": "hash", "buckets": 9}, "many": _many(4, "sqrtn")},
        {"name": "gap", "role": "event", "from": "gap_to_request"},
        {"name": "pause", "role": "event", "from": "gap_to_previous"},
        {"name": "worth", "role": "weight", "dtype": "float32", "default": 1},
        {"name": "timestamp", "role": "timestamp", "dtype": "int64", "unit": "seconds"},
    ],
    "history": {"max_length": 5, "features": ["item_id", "genres", "text"]},
}  # fmt: skip
"""Every role, and of every role all kinds that it may have."""


def rows(seed: int = 0, users: int = 25, items: int = 15) -> list[dict]:
    """Rows whose numbers all formats write alike; what has a default is missing here and there."""
    rng = np.random.default_rng(seed)

    def numbers(size: int) -> list[float]:
        return [round(float(number), 3) for number in rng.normal(1, 2, size)]

    def some(words: str, most: int) -> list[str]:
        return [f"{words}{i}" for i in rng.zipf(1.6, rng.integers(0, most + 1)) % 12]

    genres = [some("g", 5) for _ in range(items)]
    texts = [numbers(4) for _ in range(items)]
    log, time = [], 1_500_000_000
    for user in range(users):
        of_user = {
            "user_id": f"u{user}",
            "age": None if user % 3 == 0 else float(rng.integers(18, 80)),
            "languages": some("l", 4),
            "profile": None if user % 4 == 0 else numbers(3),
        }
        for _ in range(rng.integers(3, 10)):
            time += int(10 ** rng.uniform(0, 6))
            item = int(rng.integers(items))
            log.append({
                **of_user, "page": int(rng.integers(9)), "search": numbers(2),
                "item_id": f"i{item}", "genres": genres[item], "text": texts[item],
                "price": None if item % 5 == 0 else float(rng.integers(1, 200)) / 4,
                "action": str(rng.choice(["view", "cart", "buy"])),
                "dwell": None if rng.random() < 0.3 else int(rng.integers(60)),
                "tags": some("t", 6),
                "worth": None if rng.random() < 0.5 else float(rng.integers(1, 8)) / 2,
                "timestamp": time,
            })  # fmt: skip
    return log


def write(path, log: list[dict]) -> str:
    """Writes rows in the format of the file name: .csv with texts, .jsonl and .parquet with lists.

    In texts values of sets stand between `|`, numbers of vectors between spaces.
    """
    if path.suffix == ".parquet":
        pq.write_table(pa.table({name: [row[name] for row in log] for name in log[0]}), path)
        return str(path)
    if path.suffix == ".jsonl":
        lines = [json.dumps(row) for row in log]
    else:
        lines = [",".join(log[0])] + [",".join(map(_cell, row.values())) for row in log]
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def _cell(value) -> str:
    if not isinstance(value, list):
        return "" if value is None else str(value)
    between = "|" if not value or isinstance(value[0], str) else " "
    return between.join(map(str, value))


def write_data(path, suffix: str = ".parquet", log: list[dict] | None = None, **arguments):
    """A data set of a log, see `built_logs.build`."""
    path.mkdir(parents=True, exist_ok=True)
    source = write(path / f"log{suffix}", log or rows())
    return built_logs.build(path, source, SCHEMA, **arguments)


def write_vectors(path, data, width: int = 6) -> str:
    """Pretrained vectors of most items of a data set."""
    words = data.encoders["item_id"].vocabulary.to_pylist()[2:]
    vectors = np.random.default_rng(3).normal(size=(len(words), width)).astype(np.float32)
    pq.write_table(pa.table({"value": words, "vector": list(vectors)}), path)
    return str(path)
