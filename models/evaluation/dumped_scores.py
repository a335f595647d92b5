"""Scores on disk, RUN/scores-SPLIT.parquet, with the digests of their weights and data set.

The file has a column per field of `Scores`, `weight` only if there are weights; those of
`Scores.ids` begin with "ids/", so that no feature of a user's schema can have the name of another
column.
"""

import pathlib
from collections.abc import Mapping
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from models.core import run_directory
from models.evaluation.metrics import Scores
from preprocessing.storage import files

_WEIGHT = "weight"
_FIELDS = tuple(name for name in Scores._fields if name not in ("ids", _WEIGHT))
_IDS = "ids/"


class Origin(NamedTuple):
    """The weights and the data set that scores were computed from.

    Attributes:
        weights: Digest of the weights, see `run_directory.weights_digest`.
        data: Fingerprint of the data set; "" if unknown.
    """

    weights: str
    data: str


def origin(run_dir: pathlib.Path) -> Origin:
    """The current weights and data set of a run."""
    return Origin(run_directory.weights_digest(run_dir), run_directory.data_fingerprint(run_dir))


def path(run_dir: pathlib.Path, split: str) -> pathlib.Path:
    """Path of the scores of a split."""
    return run_dir / f"scores-{split}.parquet"


def write(run_dir: pathlib.Path, split: str, scores: Scores, of: Origin) -> None:
    """Writes the scores of a split.

    Args:
        run_dir: Run directory.
        split: train, validation or test.
        scores: Scores of its candidates.
        of: Origin of the scores, determined before the weights were read.
    """
    columns = {name: getattr(scores, name) for name in _FIELDS}
    columns |= {f"{_IDS}{key}": ids for key, ids in scores.ids.items()}
    if scores.weight is not None:
        columns[_WEIGHT] = scores.weight
    table = pa.table(columns).replace_schema_metadata(of._asdict())
    with files.create(path(run_dir, split)) as file:
        pq.write_table(table, file)


def are_current(run_dir: pathlib.Path, split: str) -> bool:
    """Whether there are scores of a split for the current weights and data set of the run.

    If the weights were removed, existing scores count as current.
    """
    try:
        stored = pq.read_schema(path(run_dir, split)).metadata or {}
    except (FileNotFoundError, pa.ArrowInvalid):
        return False
    fields = {name: stored.get(name.encode(), b"").decode() for name in Origin._fields}
    return is_current(run_dir, fields)


def is_current(run_dir: pathlib.Path, stored: Mapping[str, str]) -> bool:
    """Whether a stored origin is that of the current weights and data set of the run.

    If the weights were removed, every digest of weights counts as theirs.

    Args:
        run_dir: Run directory.
        stored: The fields of an `Origin` by name, each "" if unknown.
    """
    return all(stored[key] == value for key, value in origin(run_dir)._asdict().items() if value)


def read(run_dir: pathlib.Path, split: str) -> Scores:
    """Reads the scores that `write` has written."""
    table = pq.read_table(path(run_dir, split))
    columns = {name: table[name].to_numpy() for name in table.column_names}
    ids = {
        key.removeprefix(_IDS): values for key, values in columns.items() if key.startswith(_IDS)
    }
    plain = {name: columns[name] for name in _FIELDS}
    return Scores(**plain, ids=ids, weight=columns.get(_WEIGHT))
