"""A log of any length, written file by file: memory does not grow with it, and files are kept.

A hundred events per user and an item for every 25 events, as in Taobao's public log; the chance of
an item falls with its rank (exponent 1). File n holds the events of the n-th part of the time.
"""

import pathlib

import numpy as np
import pyarrow as pa
import pyarrow.csv
from tqdm import tqdm

EVENTS_PER_USER = 100
EVENTS_PER_ITEM = 25
CATEGORIES = 10_000

_FILE_EVENTS = 200_000
_FIRST_TIME, _LAST_TIME = 1_600_000_000, 1_700_000_000


def num_files(events: int) -> int:
    """Number of files of a log."""
    return -(-events // _FILE_EVENTS)


def write(directory: pathlib.Path, events: int) -> None:
    """Writes the files of a log that are not there yet."""
    directory.mkdir(parents=True, exist_ok=True)
    for number in tqdm(range(num_files(events)), "Generating", leave=False, disable=None):
        path = directory / f"{number:05d}.csv"
        if not path.exists():
            partial = path.with_suffix(".partial")
            pyarrow.csv.write_csv(_part(events, number), partial)
            partial.rename(path)


def _part(events: int, number: int) -> pa.Table:
    rng = np.random.default_rng([events, number])
    first, last = number * _FILE_EVENTS, min(events, (number + 1) * _FILE_EVENTS)
    size = last - first
    span = _LAST_TIME - _FIRST_TIME
    bounds = _FIRST_TIME + np.array([first, last]) * span // events
    items = (max(2, events // EVENTS_PER_ITEM) ** rng.random(size)).astype(np.int64)
    return pa.table(
        {
            "user_id": named("u", rng.integers(0, max(2, events // EVENTS_PER_USER), size)),
            "item_id": named("i", items),
            "category_id": named("c", items * 2_654_435_761 % CATEGORIES),
            "timestamp": np.sort(rng.integers(*bounds, size)),
        }
    )


def named(letter: str, numbers: np.ndarray) -> pa.Array:
    """Keys of users, items or categories given by number."""
    texts = pa.array(numbers).cast(pa.string())
    return pa.compute.binary_join_element_wise(letter, texts, "")
