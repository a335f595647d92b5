"""Logs of strangers: columns of other names, and what is in them."""

import numpy as np
import pyarrow as pa

from pipeline.drafting.columns import Column
from preprocessing.values.spelling import spelled

GENRES = ("Action", "Comedy", "Drama", "Horror")
NUM_ROWS = 1200


def column(name, values) -> Column:
    """A column of a sample."""
    return Column.of(name, spelled(pa.array(values)).texts)


def keys(users=20, items=30, rows=600, seed=0):
    """Row numbers of users and items, in random order: int64 [rows] each."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, users, rows), rng.integers(0, items, rows)


def ratings(seed=0, users=60, items=40) -> dict[str, list]:
    """Ratings of films: dates as texts, genres between bars, a price with gaps, age and gender."""
    rng = np.random.default_rng(seed)
    user, item = keys(users, items, NUM_ROWS, seed)
    genres = ["|".join(rng.permutation(GENRES)[: rng.integers(1, 4)]) for _ in range(items)]
    prices = rng.lognormal(3, 1, items).round(2).tolist()
    ages, genders = rng.integers(18, 70, users).tolist(), rng.choice(["F", "M"], users).tolist()
    has_price = rng.random(NUM_ROWS) < 0.9
    seconds = np.sort(rng.integers(0, 10**7, NUM_ROWS))
    times = (np.datetime64("2024-01-01T00:00:00") + seconds).astype(str)
    return {
        "memberId": [f"m{one}" for one in user],
        "movieId": (1000 + item).tolist(),
        "watched_at": [text.replace("T", " ") for text in times.tolist()],
        "stars": rng.integers(1, 6, NUM_ROWS).tolist(),
        "genres": [genres[one] for one in item],
        "price (EUR)": [
            prices[one] if here else None for one, here in zip(item, has_price, strict=True)
        ],
        "age": [ages[one] for one in user],
        "gender": [genders[one] for one in user],
        "device": rng.choice(["phone", "tv"], NUM_ROWS).tolist(),
        "review": [" ".join(rng.choice(GENRES, 8)) for _ in range(NUM_ROWS)],
        "row_uuid": [f"x{number}" for number in range(NUM_ROWS)],
        "site": ["eu"] * NUM_ROWS,
    }
