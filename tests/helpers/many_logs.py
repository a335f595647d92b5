"""Logs with features of several values: genres of an item, languages of a user, tags of a row."""

import json

import numpy as np

from tests.helpers import built_logs
from tests.helpers.small_logs import write_log

GENRES, LANGUAGES, TAGS = "genres", "languages", "tags"
_VOCABULARY = {"kind": "vocabulary"}


def schema(history: int = 6, separator: str | None = "|", **changes) -> dict:
    """A schema with a set of every side; `changes` replace the record "many" of a feature."""
    many = {
        GENRES: {"max": 3, "combiner": "mean"},
        LANGUAGES: {"max": 2, "combiner": "sum"},
        TAGS: {"max": 4, "combiner": "sqrtn"},
        **changes,
    }
    between = {} if separator is None else {"separator": separator}
    return {
        "features": [
            {"name": "user_id", "role": "user", "dtype": "string", "encoder": _VOCABULARY},
            {"name": LANGUAGES, "role": "user", "dtype": "int64", "encoder": _VOCABULARY,
             "many": many[LANGUAGES] | between},
            {"name": TAGS, "role": "context", "dtype": "string",
             "encoder": {"kind": "hash", "buckets": 20}, "many": many[TAGS] | between},
            {"name": "item_id", "role": "item", "dtype": "string", "encoder": _VOCABULARY},
            {"name": GENRES, "role": "item", "dtype": "string", "default": "none",
             "encoder": {"kind": "vocabulary", "min_count": 2, "oov_buckets": 2},
             "many": many[GENRES] | between},
            {"name": "timestamp", "role": "timestamp", "dtype": "int64"},
        ],
        "history": {"max_length": history, "features": ["item_id", GENRES]},
    }  # fmt: skip


def rows(seed: int = 0, users: int = 25, items: int = 15, longest: int = 9) -> list[dict]:
    """Rows whose sets have repeated values in any order; some sets are empty."""
    rng = np.random.default_rng(seed)

    def draw(words, most):
        picked = rng.zipf(1.5, rng.integers(0, most + 1)) % len(words)
        return [words[i] for i in picked]

    genres = {f"i{i}": draw([f"g{j}" for j in range(12)], 6) for i in range(items)}
    genres["i0"] = []
    languages = {f"u{u}": draw(list(range(9)), 4) for u in range(users)}
    log, time = [], 0
    for user in languages:
        for _ in range(rng.integers(3, longest + 1)):
            time += int(rng.integers(0, 3))
            item = f"i{rng.integers(items)}"
            log.append({
                "user_id": user, LANGUAGES: languages[user], "item_id": item,
                GENRES: [str(genre) for genre in rng.permutation(genres[item])],
                TAGS: draw([f"t{j}" for j in range(30)], 7), "timestamp": time,
            })  # fmt: skip
    return log


def write(path, log: list[dict], separator: str | None = None) -> str:
    """Writes rows in the format of the file name, sets as lists or as texts with a separator."""
    columns = {name: [row[name] for row in log] for name in log[0]}
    if separator is not None:
        for name in (GENRES, LANGUAGES, TAGS):
            columns[name] = [separator.join(map(str, values)) for values in columns[name]]
    return write_log(path, columns)


def write_data(path, log: list[dict] | None = None, content: dict | None = None, **arguments):
    """A data set of a log, see `built_logs.build`."""
    path.mkdir(parents=True, exist_ok=True)
    source = write(path / "log.parquet", log or rows())
    return built_logs.build(path, source, content or schema(), **arguments)


def plain(content: dict) -> dict:
    """The schema with one value per row in place of sets."""
    content = json.loads(json.dumps(content))
    for feature in content["features"]:
        feature.pop("many", None)
    return content
