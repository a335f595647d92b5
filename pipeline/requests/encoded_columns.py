"""Encoded columns of a log, one value or a set of values per row, as values of examples.

user, context   one Feature per request: the value, or the ids of the set
candidates      one Feature per request: the values of all candidates; of sets the ids of all of
                them, beside a Feature of their numbers (`lengths_key`)
history         one Feature per event: the value, or the ids of the set

A vector, a row of a matrix here, is one value of bytes.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from preprocessing.codec import Ragged, SerializedSteps
from preprocessing.encoders import id_sets
from preprocessing.encoders.fitted import FittedEncoder
from preprocessing.encoders.id_sets import IdSets
from preprocessing.example_keys import candidate_key, lengths_key
from preprocessing.values import vectors

Encoded = np.ndarray | IdSets
"""Ids, floats or vectors of the rows of a column, or their sets of ids, indexed by rows."""


def encode(encoder: FittedEncoder, column: pa.Array) -> Encoded:
    """Encodes a column of a log, of sets if its feature has many values."""
    if encoder.feature.many is None:
        return encoder.encode(column)
    return id_sets.encode_column(encoder, column)


def of_requests(encoded_R: Encoded) -> Ragged:
    """Values of a user or context feature, one row per request."""
    if isinstance(encoded_R, IdSets):
        return Ragged(encoded_R.ids, encoded_R.row_splits)
    return Ragged.single(_values(encoded_R))


def of_candidates(name: str, encoded_C: Encoded, splits_R: np.ndarray) -> Mapping[str, Ragged]:
    """Values of an item feature by key of the example.

    Args:
        name: Name of the feature.
        encoded_C: Values of the candidates of all requests, one after another.
        splits_R: Splits of the candidates by request.
    """
    if not isinstance(encoded_C, IdSets):
        return {candidate_key(name): Ragged(_values(encoded_C), splits_R)}
    return {
        candidate_key(name): Ragged(encoded_C.ids, encoded_C.row_splits[splits_R]),
        lengths_key(name): Ragged(encoded_C.lengths, splits_R),
    }


def of_steps(encoded_E: Encoded) -> SerializedSteps:
    """Values of a history feature, one row per event."""
    if isinstance(encoded_E, IdSets):
        return SerializedSteps(of_requests(encoded_E))
    return SerializedSteps(_values(encoded_E))


def _values(encoded: np.ndarray) -> Any:
    """Single values as they are, vectors as bytes."""
    return vectors.as_bytes(encoded) if encoded.ndim == 2 else encoded
