"""Logs with vectors of every side: profiles of users, words of searches, texts of items."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tests.helpers import built_logs

PROFILE, SEARCH, TEXT = "profile", "search", "text"
SIZES = {PROFILE: 3, SEARCH: 2, TEXT: 5}
_VOCABULARY = {"kind": "vocabulary"}


def schema(history: int = 6, **changes) -> dict:
    """A schema with a vector of every side; `changes` add to the record of a feature."""
    records = [
        {"name": "user_id", "role": "user", "dtype": "string", "encoder": _VOCABULARY},
        _vector(PROFILE, "user", "float32", default=0),
        _vector(SEARCH, "context", "float16"),
        {"name": "item_id", "role": "item", "dtype": "string", "encoder": _VOCABULARY},
        _vector(TEXT, "item", "float32"),
        {"name": "timestamp", "role": "timestamp", "dtype": "int64"},
    ]
    records = [record | changes.get(record["name"], {}) for record in records]
    return {"features": records,
            "history": {"max_length": history, "features": ["item_id", TEXT]}}  # fmt: skip


def _vector(name: str, role: str, storage: str, **rest) -> dict:
    return {
        "name": name,
        "role": role,
        "dtype": "float32",
        "shape": [SIZES[name]],
        "encoder": {"kind": "vector", "storage": storage},
        **rest,
    }


def rows(seed: int = 0, users: int = 25, items: int = 15, longest: int = 9) -> list[dict]:
    """Rows whose numbers CSV, JSON and Parquet write alike; some profiles are missing."""
    rng = np.random.default_rng(seed)

    def draw(size):
        return [round(float(number), 4) for number in rng.normal(1.0, 2.0, size)]

    texts = {f"i{i}": draw(SIZES[TEXT]) for i in range(items)}
    profiles = {f"u{u}": draw(SIZES[PROFILE]) if u % 4 else None for u in range(users)}
    log, time = [], 0
    for user in profiles:
        for _ in range(rng.integers(3, longest + 1)):
            time += int(rng.integers(0, 3))
            item = f"i{rng.integers(items)}"
            log.append({
                "user_id": user, PROFILE: profiles[user], SEARCH: draw(SIZES[SEARCH]),
                "item_id": item, TEXT: texts[item], "timestamp": time,
            })  # fmt: skip
    return log


def write(path, log: list[dict], form: str = "lists") -> str:
    """Writes rows in the format of the file name.

    Args:
        path: Path of the file: .parquet, .jsonl or .csv.
        log: Rows.
        form: `lists`, `fixed` (Parquet lists of one size) or what is between the numbers of a text.
    """
    columns = {name: [row[name] for row in log] for name in log[0]}
    for name, size in SIZES.items():
        vectors = columns[name]
        if form == "fixed":
            columns[name] = pa.array(vectors, pa.list_(pa.float32(), size))
        elif form != "lists":
            columns[name] = [v and form.join(map(repr, v)) for v in vectors]
    if path.suffix == ".parquet":
        pq.write_table(pa.table(columns), path)
        return str(path)
    table = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    if path.suffix == ".csv":
        lines = [",".join(columns)]
        lines += [",".join(_cell(value) for value in row.values()) for row in table]
    else:
        lines = [json.dumps(row) for row in table]
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def _cell(value) -> str:
    text = "" if value is None else str(value)
    return f'"{text}"' if "," in text else text


def write_data(path, log: list[dict] | None = None, content: dict | None = None, **arguments):
    """A data set of a log, see `built_logs.build`."""
    path.mkdir(parents=True, exist_ok=True)
    source = write(path / "log.parquet", log or rows())
    return built_logs.build(path, source, content or schema(), **arguments)
