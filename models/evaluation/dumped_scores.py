"""Scores on disk, RUN/scores-SPLIT.parquet, with the weights and the data set that they are of.

A column per field of `Scores`; those of `Scores.ids` begin with "ids/", so that no feature of a
user's schema can have the name of another column.
"""

import pathlib
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from models.core import run_directory
from models.evaluation.metrics import Scores
from preprocessing.storage import files

_FIELDS = tuple(name for name in Scores._fields if name != "ids")
_IDS = "ids/"


class Origin(NamedTuple):
    """What scores are of.

    Attributes:
        weights: See `run_directory.weights_digest`.
        data: Fingerprint of the data set, "" if unknown.
    """

    weights: str
    data: str


def origin(run_dir: pathlib.Path) -> Origin:
    """What the scores of a run would be of now."""
    return Origin(run_directory.weights_digest(run_dir), run_directory.data_fingerprint(run_dir))


def path(run_dir: pathlib.Path, split: str) -> pathlib.Path:
    """Where the scores of a split are."""
    return run_dir / f"scores-{split}.parquet"


def write(run_dir: pathlib.Path, split: str, scores: Scores, of: Origin) -> None:
    """Writes the scores of a split.

    Args:
        run_dir: Of the run.
        split: train, validation or test.
        scores: Of its candidates.
        of: As `origin` was before the weights were read.
    """
    columns = {name: getattr(scores, name) for name in _FIELDS}
    columns |= {f"{_IDS}{key}": ids for key, ids in scores.ids.items()}
    table = pa.table(columns).replace_schema_metadata(of._asdict())
    with files.create(path(run_dir, split)) as file:
        pq.write_table(table, file)


def are_current(run_dir: pathlib.Path, split: str) -> bool:
    """Whether there are scores of a split, of the weights and data set that the run has now.

    Weights that are gone cannot have changed: then the scores are the last thing to know of them.
    """
    try:
        stored = pq.read_schema(path(run_dir, split)).metadata or {}
    except (FileNotFoundError, pa.ArrowInvalid):
        return False
    return all(
        stored.get(key.encode()) == value.encode()
        for key, value in origin(run_dir)._asdict().items()
        if value
    )


def read(run_dir: pathlib.Path, split: str) -> Scores:
    """Reads what `write` has written."""
    table = pq.read_table(path(run_dir, split))
    columns = {name: table[name].to_numpy() for name in table.column_names}
    ids = {
        key.removeprefix(_IDS): values for key, values in columns.items() if key.startswith(_IDS)
    }
    return Scores(**{name: columns[name] for name in _FIELDS}, ids=ids)
