"""A split decoded into main memory, so that reading it many times parses it only once.

Vectors stay bytes until a batch is made: so one is a single value, which is padded, sliced and
collected like any other.

Shape suffixes: R requests, B requests of a batch, X values of a row, M values of a set, D numbers
of a vector.
"""

import math
from collections.abc import Iterable, Mapping, Sequence

import tensorflow as tf

from preprocessing.data_dir import DataDir
from preprocessing.example_keys import LABEL, LABEL_WEIGHT, candidate_key, history_key
from preprocessing.features.encoder_specs import Vector
from preprocessing.features.feature import Feature
from preprocessing.schema import Schema, encoded_keys

_VALUE_BYTES, _NAME_BYTES = 8, 48
_STRING_BYTES, _NUMBER_BYTES = 48, 4  # of a vector, which is kept as bytes
_LENGTHS = 3  # of the history and of the candidates, and the start of the latter


def bytes_needed(
    data: DataDir, split: str, with_users: bool = False, part: int | None = None
) -> int:
    """Upper bound on the memory of a decoded split: as if every history had its maximum length.

    Args:
        data: The data set.
        split: `train`, `validation` or `test`.
        with_users: Whether raw users are decoded as well, see `preprocessing.dataset.parse`.
        part: Number of requests of a part of the split, as if each had as many candidates; None for
            the whole split.

    Raises:
        UserError: The data set has no such split.
    """
    schema, total = data.schema, data.num_requests(split)
    requests = total if part is None else part
    events = requests * schema.history.max_length
    candidates = int(data.manifest["splits"][split]["candidates"])
    candidates = -(-candidates * requests // max(1, total))
    labels = 1 + (schema.weight is not None)
    values = (
        requests * (_width(schema.user_features) + 1 + _LENGTHS)  # one more is the time
        + events * _width(schema.step_features)
        + candidates * (_width(schema.item_features) + labels)
    )
    return _VALUE_BYTES * values + _NAME_BYTES * (1 + with_users) * requests


def padded(rows: tf.Tensor, width: int | tf.Tensor) -> tf.Tensor:
    """Rows [B, X] or [B, X, M] with X of a given width: padded, or cut where only padding is."""
    missing = tf.maximum(width - tf.shape(rows, tf.int64)[1], 0)
    return tf.pad(rows[:, :width], [[0, 0], [0, missing], *([[0, 0]] * (rows.shape.rank - 2))])


def with_numbers(schema: Schema, features: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """Features with the numbers of vectors in place of their bytes.

    Args:
        schema: Schema of the features.
        features: Values by key of an example, those of vectors as bytes [...], empty for padding.

    Returns:
        The features, those of vectors as float32 [..., D], zeros for padding.
    """
    keys = {key: feature for key, feature in encoded_keys(schema) if feature.is_vector}
    return features | {key: _numbers(feature, features[key]) for key, feature in keys.items()}


def _numbers(feature: Feature, stored: tf.Tensor) -> tf.Tensor:
    """The numbers of bytes."""
    assert isinstance(feature.encoder, Vector)
    (size,), dtype = feature.shape, tf.dtypes.as_dtype(feature.encoder.storage)
    zeros = tf.constant(bytes(size * dtype.size))
    numbers = tf.io.decode_raw(tf.where(stored == "", zeros, stored), dtype)
    return tf.cast(tf.reshape(numbers, tf.concat([tf.shape(stored), [size]], 0)), tf.float32)


def _width(features: Iterable[Feature]) -> int:
    """Size of one row of some features, in values."""
    return sum(
        -(-(_STRING_BYTES + _NUMBER_BYTES * feature.shape[0]) // _VALUE_BYTES)
        if feature.is_vector
        else math.prod(feature.value_shape)
        for feature in features
    )


class DecodedSplit:
    """Requests in main memory.

    Histories are padded to the maximum length, so that each is copied at once. Candidates, whose
    number per request has no bound, are concatenated.

    Args:
        schema: Schema of the data set.
        blocks: Requests as `preprocessing.dataset.parse` describes them, in order; vectors are
            bytes.
    """

    def __init__(self, schema: Schema, blocks: Iterable[Mapping[str, tf.Tensor]]) -> None:
        item = schema.item_key.name
        self._histories = [history_key(feature.name) for feature in schema.step_features]
        candidates = [*(candidate_key(feature.name) for feature in schema.item_features), LABEL]
        candidates += [LABEL_WEIGHT] if schema.weight is not None else []
        parts = list(blocks)
        self._candidates = _Rows(parts, candidates, candidate_key(item))
        width = schema.history.max_length

        def column(name: str, part: Mapping[str, tf.Tensor]) -> tf.Tensor:
            return padded(part[name], width) if name in self._histories else part[name]

        self._columns = {
            name: tf.concat([column(name, part) for part in parts], 0)
            for name in parts[0]
            if name not in candidates
        }
        self._lengths_R = tf.math.count_nonzero(self._columns[history_key(item)], 1)

    def lengths(self, positions_R: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Numbers of events and of candidates of some requests, [R] int64 each.

        Args:
            positions_R: [R] int64, positions of the requests, from 0 in the order of the blocks.
        """
        return tf.gather(self._lengths_R, positions_R), self._candidates.lengths(positions_R)

    def batch(
        self, positions_B: tf.Tensor, length: tf.Tensor, candidates: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        """The requests at the given positions, in the form of the blocks.

        Args:
            positions_B: [B] int64, positions of the requests as in `lengths`.
            length: Length to which histories are padded, at least that of each.
            candidates: Number to which candidates are padded, at least that of each request.
        """
        rows = {name: tf.gather(column, positions_B) for name, column in self._columns.items()}
        rows |= {name: rows[name][:, :length] for name in self._histories}
        return rows | self._candidates.padded(positions_B, candidates)


class _Rows:
    """Ragged columns with the same row lengths, each with its rows concatenated.

    A batch takes one matrix of places, whatever the number of columns.

    Args:
        blocks: Requests, padded with 0 on the right.
        names: Names of the columns.
        key: Name of the column that is 0 at padding and nowhere else.
    """

    def __init__(
        self, blocks: Sequence[Mapping[str, tf.Tensor]], names: Sequence[str], key: str
    ) -> None:
        real = [block[key] != 0 for block in blocks]
        self._lengths_R = tf.concat([tf.math.count_nonzero(mask, 1) for mask in real], 0)
        self._starts_R = tf.cumsum(self._lengths_R, exclusive=True)
        self._total = tf.reduce_sum(self._lengths_R)
        # Padding is read from an extra value behind the last one.
        self._values = {
            name: _with_padding(
                tf.concat(
                    [
                        tf.boolean_mask(block[name], mask)
                        for block, mask in zip(blocks, real, strict=True)
                    ],
                    0,
                )
            )
            for name in names
        }

    def lengths(self, positions_R: tf.Tensor) -> tf.Tensor:
        """Lengths of the rows at the given positions."""
        return tf.gather(self._lengths_R, positions_R)

    def padded(self, positions_B: tf.Tensor, width: tf.Tensor) -> dict[str, tf.Tensor]:
        """The rows at the given positions, [B, width] or [B, width, M] per column."""
        column_X = tf.range(width)
        places_BX = tf.where(
            column_X < self.lengths(positions_B)[:, None],
            tf.gather(self._starts_R, positions_B)[:, None] + column_X,
            self._total,
        )
        return {name: tf.gather(values, places_BX) for name, values in self._values.items()}


def _with_padding(values: tf.Tensor) -> tf.Tensor:
    """Values with one more of zeros at the end."""
    return tf.pad(values, [[0, 1], *([[0, 0]] * (values.shape.rank - 1))])
