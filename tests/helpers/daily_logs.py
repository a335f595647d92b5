"""Logs of days on which interests drift and new users and items arrive."""

import numpy as np
import pandas as pd


def write_day(path, day, rows=400, users=40):
    """Writes the log of a day as CSV; returns its path."""
    rng = np.random.default_rng(day)
    user = rng.integers(0, users + 5 * day, rows)
    item = (user * 7 + (6 * rng.random(rows) ** 2).astype(int)) % (30 + 3 * day)
    times = 1_700_000_000 + 86_400 * day + np.sort(rng.integers(0, 80_000, rows))
    table = pd.DataFrame(
        {"user_id": [f"u{u}" for u in user], "item_id": [f"i{i}" for i in item], "timestamp": times}
    )
    file = path / f"day{day}.csv"
    table.to_csv(file, index=False)
    return file
