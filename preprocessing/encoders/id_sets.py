"""Sets of values as sets of ids: encoded value by value, each id once, at most `max` of a set.

The ids of a set stand in order of priority: known values first, the most frequent in front, which
is the order of their ids, then ids out of vocabulary in ascending order. A set of more than `max`
ids keeps the first ones. A hash knows nothing of frequency; its sets keep the lowest ids. Values
that share an id, such as unknown ones, count once. `transforms.RawEncoder.encode_sets` does the
same in a graph.
"""

import dataclasses
import functools

import numpy as np
import pyarrow as pa

from preprocessing.encoders.fitted import FittedEncoder
from preprocessing.values import value_sets


@dataclasses.dataclass(frozen=True)
class IdSets:
    """A column of sets of ids.

    Attributes:
        ids: [total] int64, the ids of all sets one after another; no padding among them.
        lengths: [n] int64, number of ids of each set.
    """

    ids: np.ndarray
    lengths: np.ndarray

    def __len__(self) -> int:
        return len(self.lengths)

    @functools.cached_property
    def row_splits(self) -> np.ndarray:
        """int64 [n + 1]; set i is `ids[row_splits[i]:row_splits[i + 1]]`."""
        return np.concatenate([[0], np.cumsum(self.lengths)]).astype(np.int64)

    def __getitem__(self, rows: np.ndarray) -> "IdSets":
        """The sets of some rows.

        Args:
            rows: int64, any number of rows in any order.
        """
        lengths = self.lengths[rows]
        ends = np.cumsum(lengths)
        places = np.arange(ends[-1] if len(ends) else 0)
        places += np.repeat(self.row_splits[:-1][rows] - (ends - lengths), lengths)
        return IdSets(self.ids[places], lengths)


def encode_column(encoder: FittedEncoder, column: pa.Array) -> IdSets:
    """Encodes a column of sets.

    Args:
        encoder: Encoder of a feature that has many values.
        column: [n] sets as `value_sets.join` makes them, a dictionary array or not.
    """
    encoded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    distinct = pa.concat_arrays([encoded.dictionary, pa.nulls(1, encoded.dictionary.type)])
    sets, _, _ = _kept(encoder, distinct)
    return sets[encoded.indices.fill_null(len(distinct) - 1).to_numpy().astype(np.int64)]


def keep_column(encoder: FittedEncoder, column: pa.Array) -> tuple[pa.Array, np.ndarray]:
    """The column with the values that `encode_column` keeps, one for each id.

    Args:
        encoder: Encoder of a feature that has many values.
        column: [n] sets as `value_sets.join` makes them, a dictionary array or not.

    Returns:
        The sets, of the type of the column; and the numbers of ids, beyond `max`, that each lost,
        int64 [n].
    """
    encoded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    distinct = encoded.dictionary
    sets, places, cut = _kept(encoder, distinct)
    values, _ = value_sets.split(distinct)
    row_of_id = np.repeat(np.arange(len(distinct)), sets.lengths)
    kept = value_sets.join(values.take(pa.array(places)), row_of_id, len(distinct))
    indices = encoded.indices
    cut = np.append(cut, 0)[indices.fill_null(len(distinct)).to_numpy()]
    if not pa.types.is_dictionary(column.type):
        return kept.take(indices), cut
    # Sets may have become equal, and a dictionary must not hold a value twice.
    again = kept.dictionary_encode()
    return pa.DictionaryArray.from_arrays(again.indices.take(indices), again.dictionary), cut


def _kept(encoder: FittedEncoder, sets: pa.Array) -> tuple[IdSets, np.ndarray, np.ndarray]:
    """The ids that sets keep, the place of the value of each, and how many each set lost."""
    many = encoder.feature.many
    assert many is not None
    values, sizes = value_sets.split(sets)
    ids = encoder.encode(values.dictionary_encode())
    row = np.repeat(np.arange(len(sets)), sizes)
    order = np.lexsort((np.arange(len(ids)), _priority(encoder, ids), row))
    row, in_order = row[order], ids[order]
    is_first = np.ones(len(ids), bool)
    is_first[1:] = (np.diff(row) != 0) | (np.diff(in_order) != 0)
    row, order = row[is_first], order[is_first]
    lengths = np.bincount(row, minlength=len(sets))
    rank = np.arange(len(row)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    places = order[rank < many.max]
    kept_lengths = np.minimum(lengths, many.max).astype(np.int64)
    return IdSets(ids[places], kept_lengths), places, lengths - kept_lengths


def _priority(encoder: FittedEncoder, ids: np.ndarray) -> np.ndarray:
    """Rank of ids: lower ones are kept."""
    return np.where(ids > encoder.num_oov, ids, ids + encoder.cardinality)
