"""Days of a log whose users, items and genres come, go and come back, and builds of them."""

import numpy as np

from tests.helpers import days

DAY = 86_400 // 900  # in the quarter hours of `days.build`
COMMON = {
    "protocol": "day",
    "max_length": 30,
    "validation_fraction": 0.2,
    "negatives": 1,
    "expire_days": 2,
}


def _log(day, size=70):
    """Events of a day; every item, genre and user has days on which it is not seen."""
    rng = np.random.default_rng(day)
    events = []
    for time in DAY * day + np.sort(rng.integers(0, DAY, size)):
        is_old = rng.random() < 0.2
        item = int(rng.integers(30) if is_old else rng.integers(15) + 12 * (day % 5))
        user = int(rng.integers(12)) + 3 * (day // 2)
        genres = "|".join(f"g{n}" for n in {item % 3, day})
        events.append((f"u{user}", f"i{item}", int(time), f"c{item % 4}", 1.0, "p0", genres, 1.0))
    return events


LOGS = [_log(day) for day in range(7)]


def chain(directory, cuts, **arguments):
    """Data sets of days on top of each other, each of the logs from one cut to the next."""
    sets = []
    for first, last in zip(cuts[:-1], cuts[1:], strict=True):
        base = {"base": str(sets[-1].path)} if sets else {}
        parts = [(day, LOGS[day]) for day in range(first, last)]
        name = f"days{first}-{last}"
        sets.append(days.build(directory, parts, name, **(COMMON | arguments | base)))
    return sets
