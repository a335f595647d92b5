"""Scores on disk, RUN/scores-SPLIT.parquet, with the digests of their weights and data set.

The file has the columns of `metrics.to_columns`; those of `Scores.ids` begin with "ids/", so that
no feature of a user's schema can have the name of another column. For people "values/" has the raw
values of ids in a vocabulary, null for unknown ones.
"""

import pathlib
import types
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from models.core import run_directory
from models.evaluation.metrics import Scores, of_columns, to_columns
from preprocessing.encoders.fitted import FittedEncoder, VocabularyEncoder
from preprocessing.example_keys import candidate_key
from preprocessing.storage import files

_VALUES = "values/"


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


def write(
    run_dir: pathlib.Path,
    split: str,
    scores: Scores,
    of: Origin,
    encoders: Mapping[str, FittedEncoder] = types.MappingProxyType({}),
) -> None:
    """Writes the scores of a split.

    Args:
        run_dir: Run directory.
        split: train, validation or test.
        scores: Scores of its candidates.
        of: Origin of the scores, determined before the weights were read.
        encoders: Encoders of the data set; without that of a feature its raw values are left out.
    """
    columns: dict[str, np.ndarray | pa.Array] = {**to_columns(scores)}
    for key, ids in scores.ids.items():
        encoder = encoders.get(key.removeprefix(candidate_key("")))
        if isinstance(encoder, VocabularyEncoder):
            columns[f"{_VALUES}{key}"] = _values(encoder, ids)
    table = pa.table(columns).replace_schema_metadata(of._asdict())
    with files.create(path(run_dir, split)) as file:
        pq.write_table(table, file)


def _values(encoder: VocabularyEncoder, ids: np.ndarray) -> pa.Array:
    """The values of ids, each text stored once."""
    is_known = ids > encoder.num_oov
    known, places = np.unique(ids[is_known], return_inverse=True)
    indices = np.zeros(len(ids), np.int64)
    indices[is_known] = places
    words = encoder.vocabulary.take(pa.array(known - encoder.num_oov - 1))
    return pa.DictionaryArray.from_arrays(pa.array(indices, mask=~is_known), words)


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
    names = [name for name in table.column_names if not name.startswith(_VALUES)]
    return of_columns({name: table[name].to_numpy() for name in names})
