"""Logs of what happened at an event: its kind, dwell time, price, and the gaps between events."""

import numpy as np

from tests.helpers import built_logs
from tests.helpers.small_logs import write_log

VOCABULARY = {"kind": "vocabulary"}
ACTION = {"name": "action", "role": "event", "dtype": "string", "encoder": VOCABULARY}
COUPON = {"name": "coupon", "role": "event", "dtype": "string", "default": "none",
          "encoder": {"kind": "hash", "buckets": 6}}  # fmt: skip
DWELL = {"name": "dwell", "role": "event", "dtype": "int64",
         "encoder": {"kind": "bucketised", "boundaries": [3, 10, 30, 100]}}  # fmt: skip
PRICE = {"name": "price", "role": "event", "dtype": "float32", "encoder": {"kind": "numeric"}}
AGE = {"name": "age", "role": "event", "from": "gap_to_request"}
PAUSE = {"name": "pause", "role": "event", "from": "gap_to_previous"}
HOUR = {"name": "hour", "role": "context", "from": "hour"}
WEEKDAY = {"name": "weekday", "role": "context", "from": "weekday"}
EVENTS = (ACTION, COUPON, DWELL, PRICE)
TIMES = (AGE, PAUSE, HOUR, WEEKDAY)


def schema(*features: dict, history: int = 6, unit: str | None = "seconds") -> dict:
    """A schema of users, items with a category, times, and further features."""
    time = {"name": "timestamp", "role": "timestamp", "dtype": "int64"}
    return {
        "features": [
            {"name": "user_id", "role": "user", "dtype": "string", "encoder": VOCABULARY},
            {"name": "item_id", "role": "item", "dtype": "string", "encoder": VOCABULARY},
            {"name": "category_id", "role": "item", "dtype": "string", "encoder": VOCABULARY},
            time if unit is None else time | {"unit": unit},
            *features,
        ],
        "history": {"max_length": history, "features": ["item_id", "category_id"]},
    }


def rows(seed: int = 0, users: int = 25, items: int = 15, longest: int = 9) -> list[dict]:
    """Rows with gaps from seconds to months, equal times, and values that are missing."""
    rng = np.random.default_rng(seed)
    log, time = [], 1_500_000_000
    for user in range(users):
        for _ in range(rng.integers(3, longest + 1)):
            time += int(rng.integers(0, 2) * 10 ** rng.uniform(0, 7))
            item = int(rng.integers(items))
            log.append({
                "user_id": f"u{user}", "item_id": f"i{item}", "category_id": f"c{item % 4}",
                "action": str(rng.choice(["view", "cart", "buy"], p=[0.7, 0.2, 0.1])),
                "coupon": None if rng.random() < 0.5 else f"k{rng.integers(20)}",
                "dwell": None if rng.random() < 0.2 else int(rng.integers(0, 200)),
                "price": None if rng.random() < 0.2 else float(rng.integers(1, 900)) / 4,
                "timestamp": time,
            })  # fmt: skip
    return log


def write(path, log: list[dict]) -> str:
    """Writes rows in the format of the file name."""
    return write_log(path, {name: [row[name] for row in log] for name in log[0]})


def write_data(path, *features: dict, log: list[dict] | None = None, **arguments):
    """A data set of a log, see `built_logs.build`."""
    path.mkdir(parents=True, exist_ok=True)
    content = arguments.pop("content", None) or schema(*(features or (*EVENTS, *TIMES)))
    source = write(path / "log.parquet", log or rows())
    return built_logs.build(path, source, content, **arguments)
