"""The scores of several processes, put together in the order of one.

Each process writes the scores of its batches into a file; the first one reads all of them. Texts
are stored once per process, since a request has as many entries as candidates.
"""

import json
import pathlib
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from models.evaluation.metrics import Scores, concatenated, of_columns, reordered, to_columns
from preprocessing.storage import files

_BATCHES = "batches"


def write(path: pathlib.Path, batches: Sequence[int], parts: Sequence[Scores]) -> None:
    """Writes the scores of a process.

    Args:
        path: File to write.
        batches: Number of each batch.
        parts: Scores of each batch; at least one.
    """
    columns = to_columns(concatenated(parts))
    arrays = {name: _array(values) for name, values in columns.items()}
    numbers = [[int(batch), len(part.label)] for batch, part in zip(batches, parts, strict=True)]
    table = pa.table(arrays).replace_schema_metadata({_BATCHES: json.dumps(numbers)})
    with files.create(path) as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)


def joined(paths: Sequence[pathlib.Path]) -> Scores:
    """The scores in files that `write` has written, in the order of their batches."""
    parts, batch_C = [], []
    for path in paths:
        with pa.OSFile(str(path)) as file, pa.ipc.open_file(file) as reader:
            table = reader.read_all()
        numbers, lengths = zip(*json.loads(table.schema.metadata[_BATCHES.encode()]), strict=True)
        batch_C.append(np.repeat(numbers, lengths))
        columns = {name: _values(table[name].combine_chunks()) for name in table.column_names}
        parts.append(of_columns(columns))
    return reordered(concatenated(parts), np.argsort(np.concatenate(batch_C), kind="stable"))


def _array(values: np.ndarray) -> pa.Array:
    array = pa.array(values)
    return array.dictionary_encode() if values.dtype == object else array


def _values(array: pa.Array) -> np.ndarray:
    """The values of a column; entries of the same text share it."""
    if isinstance(array, pa.DictionaryArray):
        texts = array.dictionary.to_numpy(zero_copy_only=False)
        return texts[array.indices.to_numpy()]
    return array.to_numpy(zero_copy_only=False)
