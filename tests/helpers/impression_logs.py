"""Impression logs and what must become of them, for the tests of builds."""

import json

import numpy as np

from tests.helpers.small_data_sets import read_examples

MAX_LENGTH = 4
VOCABULARY = {"kind": "vocabulary"}


def rows_of_impressions(seed=0, users=20, items=30, requests=9, shown=5, days=60):
    """(user, item, time, request, label) in random order; ties in time, requests without clicks."""
    rng = np.random.default_rng(seed)
    rows = []
    for user in range(users):
        for number in range(rng.integers(1, requests + 1)):
            time = int(rng.integers(1, days + 1))
            for item in rng.permutation(items)[: rng.integers(1, shown + 1)]:
                late = int(rng.integers(0, 2))  # rows of a request have times of their own
                label = int(rng.random() < 0.35)
                rows.append((f"u{user}", f"i{item}", time + late, f"r{user}.{number}", label))
    return [rows[i] for i in rng.permutation(len(rows))]


def schema_file(tmp_path, without=None, label=(), time=(), more=()):
    """Writes schema.json: all roles but one, the label with further keys; returns its path.

    Args:
        tmp_path: Directory.
        without: Role to leave out.
        label: Further keys of the label.
        time: Further keys of the time.
        more: Further features.
    """
    content = {
        "features": [
            {"name": "user_id", "role": "user", "dtype": "string", "encoder": VOCABULARY},
            {"name": "item_id", "role": "item", "dtype": "string", "encoder": VOCABULARY},
            {"name": "price", "role": "item", "dtype": "int64",
             "encoder": {"kind": "bucketised", "boundaries": [3, 6]}, "default": 0},
            {"name": "hour", "role": "context", "dtype": "int64", "default": 0,
             "encoder": {"kind": "vocabulary"}},
            {"name": "time", "role": "timestamp", "dtype": "int64", **dict(time)},
            {"name": "session", "role": "request", "dtype": "string"},
            {"name": "click", "role": "label", "dtype": "int64", **dict(label)},
        ],
        "history": {"max_length": MAX_LENGTH, "features": ["item_id"]},
    }  # fmt: skip
    content["features"] += more
    content["features"] = [f for f in content["features"] if f["role"] != without]
    path = tmp_path / "schema.json"
    path.write_text(json.dumps(content))
    return str(path)


def _price(row):
    """A feature of an item that changes over time."""
    return (int(row[1][1:]) + row[2]) % 10


def columns(rows):
    """`hour` follows from the request, `price` from the row."""
    return {
        "user_id": [row[0] for row in rows],
        "item_id": [row[1] for row in rows],
        "price": [_price(row) for row in rows],
        "hour": [len(row[3]) for row in rows],
        "time": [row[2] for row in rows],
        "session": [row[3] for row in rows],
        "click": [row[4] for row in rows],
    }


def assert_built(data, rows, expected):
    """The data set holds the expected requests, counts them, and accounts for every row."""
    encode = {name: encoder.encode for name, encoder in data.encoders.items()}
    used = set()
    for split, requests in expected.items():
        examples = read_examples(data, split)
        assert examples.keys() == requests.keys()
        _assert_counted(data, split, [shown for _, _, shown, _ in requests.values()])
        for request, (user, time, shown, history) in requests.items():
            example = examples[request]
            assert example["user_id"] == encode["user_id"]([user]).tolist()
            assert example["hour"] == encode["hour"]([len(request)]).tolist()
            assert example["timestamp"] == [time]
            found = zip(
                example["candidate/item_id"],
                example["candidate/price"],
                example["label"],
                strict=True,
            )
            assert sorted(found) == sorted(
                zip(
                    encode["item_id"]([row[1] for row in shown]).tolist(),
                    encode["price"]([_price(row) for row in shown]).tolist(),
                    [row[4] for row in shown],
                    strict=True,
                )
            )
            items = encode["item_id"]([row[1] for row in history]).tolist()
            assert example["history/item_id"] == items
            assert example["history/timestamp"] == [row[2] for row in history]
            used |= {*shown, *history}
    account = data.manifest["conservation"]
    assert account["used"] == len(used)
    assert account["read"] == len(rows) == len(used) + sum(account["filtered"].values())


def _assert_counted(data, split, requests):
    stats, manifest = data.stats["splits"][split], data.manifest["splits"][split]
    labels = [[row[4] for row in shown] for shown in requests]
    assert stats["requests"] == manifest["requests"] == len(labels)
    assert stats["candidates"] == manifest["candidates"] == sum(map(len, labels))
    assert stats["positives"] == sum(map(sum, labels))
    assert stats["requests_without_positive"] == sum(not any(some) for some in labels)
