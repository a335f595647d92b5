"""The inputs of a model, and their permutation across all requests of some batches.

A permutation moves encoded values from valid places to valid places of the same input. Shapes,
masks and the set of values stay as they are; only what a value stands beside changes.

Shapes: B requests of a batch, R requests of all batches, N candidates, L history length, X is N or
L.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from models.keras import tf
from preprocessing.example_keys import candidate_key, history_key
from preprocessing.features.feature import PAD_ID
from preprocessing.schema import Schema

CANDIDATE, HISTORY = "candidate", "history"
"""Parts of a request beside those of the user and the context, which are named after the role."""
WHOLE_HISTORY = "whole history"
"""Name of the input of all history features together; it differs from feature names
(identifiers)."""

Batch = dict[str, tf.Tensor]


class Input(NamedTuple):
    """A part of a request that is permuted at once.

    Attributes:
        feature: Name of the feature, or `WHOLE_HISTORY`.
        part: Part of the request that has it: user, context, candidate or history.
        keys: Keys of the batch that hold its values.
        mask_key: Key [B, X] that is not `PAD_ID` where values are valid: these are permuted one by
            one. "" if there is one value or row per request: these are permuted among requests, the
            same way for all keys.
    """

    feature: str
    part: str
    keys: tuple[str, ...]
    mask_key: str


def inputs(schema: Schema) -> list[Input]:
    """All inputs of a model, in the order of the schema.

    A feature that candidates and history events have is two inputs, of which one is permuted at a
    time.

    Args:
        schema: Schema of the data set.
    """
    item = schema.item_key.name
    histories = tuple(history_key(feature.name) for feature in schema.step_features)
    return [
        *(Input(f.name, f.role.value, (f.name,), "") for f in schema.user_features),
        *(
            Input(f.name, CANDIDATE, (candidate_key(f.name),), candidate_key(item))
            for f in schema.item_features
        ),
        Input(WHOLE_HISTORY, HISTORY, histories, ""),
        *(
            Input(f.name, HISTORY, (history_key(f.name),), history_key(item))
            for f in schema.step_features
        ),
    ]


def permuted(batches: Sequence[Batch], permuted_input: Input, seed: int) -> Iterator[Batch]:
    """The batches with the values of one input permuted across all of them.

    Args:
        batches: Batches as `preprocessing.dataset.parse` describes them.
        permuted_input: Input whose values are permuted.
        seed: Seed of the permutation.

    Yields:
        Each batch with other values of the input. Histories that move as a whole are padded to the
        longest batch, everything else keeps its shape.
    """
    rng = np.random.default_rng(seed)
    if permuted_input.mask_key:
        columns = _permuted_values(batches, permuted_input, rng)
    else:
        columns = _permuted_rows(batches, permuted_input, rng)
    for number, batch in enumerate(batches):
        changed = {key: tf.constant(parts[number]) for key, parts in columns.items()}
        yield {**batch, **changed}


def _permuted_values(
    batches: Sequence[Batch], permuted_input: Input, rng: np.random.Generator
) -> dict[str, list[np.ndarray]]:
    """Columns [B, X] of each batch by key, their valid values permuted among all valid places.

    A set [B, X, M] is one value.
    """
    (key,) = permuted_input.keys
    columns_BX = [batch[key].numpy() for batch in batches]
    masks_BX = [batch[permuted_input.mask_key].numpy() != PAD_ID for batch in batches]
    values = [column[mask] for column, mask in zip(columns_BX, masks_BX, strict=True)]
    drawn = np.split(rng.permutation(np.concatenate(values)), _bounds(values))
    parts = []
    for column_BX, mask_BX, part in zip(columns_BX, masks_BX, drawn, strict=True):
        changed_BX = column_BX.copy()
        changed_BX[mask_BX] = part
        parts.append(changed_BX)
    return {key: parts}


def _permuted_rows(
    batches: Sequence[Batch], permuted_input: Input, rng: np.random.Generator
) -> dict[str, list[np.ndarray]]:
    """Columns of each batch by key, their rows permuted among all requests."""
    columns = {
        key: _of_one_width([batch[key].numpy() for batch in batches]) for key in permuted_input.keys
    }
    bounds = _bounds(columns[permuted_input.keys[0]])
    order_R = rng.permutation(sum(len(column) for column in columns[permuted_input.keys[0]]))
    return {key: np.split(np.concatenate(parts)[order_R], bounds) for key, parts in columns.items()}


def _of_one_width(columns: list[np.ndarray]) -> list[np.ndarray]:
    """Columns [B] as they are; those of histories [B, L] padded to the longest.

    Sets have one width M already, as the only ones of a user [B, M] or of an event [B, L, M].
    """
    if columns[0].ndim == 1:
        return columns
    width = max(column_BL.shape[1] for column_BL in columns)
    no_more = ((0, 0),) * (columns[0].ndim - 2)
    return [
        np.pad(column, ((0, 0), (0, width - column.shape[1]), *no_more), constant_values=PAD_ID)
        for column in columns
    ]


def _bounds(parts: list[np.ndarray]) -> np.ndarray:
    """Where to split the concatenated parts."""
    return np.cumsum([len(part) for part in parts])[:-1]
