"""Rows of tables in an order that spreads frequent ids evenly over parameter servers.

Ids are ranked by frequency, and servers hold consecutive rows: the first of eight servers would be
asked for most rows of a batch. So the row of an id stands at place (id * m) mod n of a table of n
rows (`models.ops.spread_rows`), whatever the number of servers.

Everything but look-ups on parameter servers sees tables in the order of ids. Checkpoints tell in
which order they are, and who reads them rearranges the rows, exactly.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from models.core.base import CTRModel
from models.core.embeddings import single_variables
from models.core.optimizer_pairs import slots_by_weight
from models.keras import tf
from models.ops.spread_rows import places_of


def weights_read(model: CTRModel, is_spread: bool) -> None:
    """Rearranges the rows of the tables of a model that were read from a checkpoint.

    The tables are rearranged one by one in the main memory of this process.

    Args:
        model: Model whose order is `model.embedder.spreads`.
        is_spread: Whether the rows are in the spread order.
    """
    if is_spread != model.embedder.spreads:
        for table in _tables(model):
            _rearrange(single_variables([table]), model.embedder.spreads)


def state_read(model: CTRModel, is_spread: bool) -> None:
    """As `weights_read`, for what the optimisers of the model remember of each row as well."""
    weights_read(model, is_spread)
    if is_spread == model.embedder.spreads:
        return
    slots: dict[Any, list[tf.Variable]] = {}
    for optimizer, weights in model.optimizers():
        for weight, of_weight in zip(weights, slots_by_weight(optimizer, weights), strict=True):
            slots.setdefault(weight.ref(), []).extend(of_weight)
    for table in _tables(model):
        of_shards = [slots.get(shard.ref(), []) for shard in single_variables([table])]
        for parts in zip(*of_shards, strict=True):
            _rearrange(parts, model.embedder.spreads)


def _tables(model: CTRModel) -> list[tf.Variable]:
    return [*model.embedder.tables.values(), *model.embedder.quotients.values()]


def _rearrange(parts: Sequence[tf.Variable], spread: bool) -> None:
    """Rearranges the rows of a table that lies in consecutive parts."""
    rows = np.concatenate([part.numpy() for part in parts])
    places = places_of(np.arange(len(rows)), len(rows))
    if spread:
        rows[places] = rows.copy()
    else:
        rows = rows[places]
    first = 0
    for part in parts:
        part.assign(rows[first : first + part.shape[0]])
        first += part.shape[0]
