"""A split decoded into main memory: what is read many times need not be parsed each time.

Shape suffixes: R requests of a block, N candidates, L history length.
"""

from collections.abc import Iterable, Mapping

import tensorflow as tf

from preprocessing.data_dir import DataDir
from preprocessing.schema import LABEL, Schema, candidate_key, history_key

_VALUE_BYTES, _NAME_BYTES = 8, 48


def bytes_needed(data: DataDir, split: str) -> int:
    """What a decoded split takes at most: as if every history had its maximum length.

    Args:
        data: The data set.
        split: `train`, `validation` or `test`.

    Raises:
        UserError: The data set has no such split.
    """
    schema, requests = data.schema, data.num_requests(split)
    events = requests * schema.history.max_length
    candidates = int(data.manifest["splits"][split]["candidates"])
    row_splits = len(schema.history_features) + len(schema.item_features) + 1
    values = (
        requests * (len(schema.user_features) + 1 + row_splits)  # one more is the time
        + events * len(schema.history_features)
        + candidates * (len(schema.item_features) + 1)  # one more is the label
    )
    return _VALUE_BYTES * values + _NAME_BYTES * requests


class DecodedSplit:
    """Requests in main memory, without padding.

    Args:
        schema: Of the data.
        blocks: Requests as `preprocessing.dataset.parse` describes them, in order.
    """

    def __init__(self, schema: Schema, blocks: Iterable[Mapping[str, tf.Tensor]]) -> None:
        item = schema.item_key.name
        # Each ragged column with the column whose padding tells how long its rows are.
        self._ragged = {history_key(f.name): history_key(item) for f in schema.history_features}
        self._ragged |= {candidate_key(f.name): candidate_key(item) for f in schema.item_features}
        self._ragged[LABEL] = candidate_key(item)
        parts = [
            {name: self._without_padding(name, block) for name in sorted(block)} for block in blocks
        ]
        self._columns = {name: tf.concat([part[name] for part in parts], 0) for name in parts[0]}

    def rows(self, positions_R: tf.Tensor) -> dict[str, tf.Tensor]:
        """The requests at the given positions, as `preprocessing.dataset.parse` describes them.

        Args:
            positions_R: [R] int64, counted from 0 in the order of the blocks.
        """
        chosen = {name: tf.gather(column, positions_R) for name, column in self._columns.items()}
        return {
            name: rows.to_tensor() if name in self._ragged else rows
            for name, rows in chosen.items()
        }

    def _without_padding(
        self, name: str, block: Mapping[str, tf.Tensor]
    ) -> tf.Tensor | tf.RaggedTensor:
        """A column of a block; ragged if its rows are of different lengths."""
        if name not in self._ragged:
            return block[name]
        lengths_R = tf.math.count_nonzero(block[self._ragged[name]], axis=1)
        return tf.RaggedTensor.from_tensor(block[name], lengths=lengths_R)
