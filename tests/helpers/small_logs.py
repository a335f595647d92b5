"""Small logs in every format."""

import gzip
import json
import pathlib

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet


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
