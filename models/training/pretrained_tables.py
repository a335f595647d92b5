"""Fills the tables of a new model with vectors from files, row by row of the vocabulary.

Values that a file lacks, and values outside of the vocabulary, get the mean of its vectors: rows
that training does not change would otherwise stay as random as they began, and rows that it does
change have no better place to begin in the space of the others.

Shapes: V values, W width of a vector.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from models.config.pretrained import SECTION, Pretrained
from models.config.run_config import RunConfig
from models.core.base import CTRModel
from models.keras import tf
from preprocessing.data_dir import DataDir, sha256_file
from preprocessing.encoders.columns import texts
from preprocessing.encoders.fitted import FittedEncoder, VocabularyEncoder
from preprocessing.errors import UserError
from preprocessing.features.feature import PAD_ID
from preprocessing.storage import files
from preprocessing.values import vector_table


def fill(model: CTRModel, data: DataDir, config: RunConfig) -> list[str]:
    """Fills the tables that `config.pretrained` names.

    Args:
        model: New model of the configuration.
        data: Data set, which has the vocabularies.
        config: Configuration of the run.

    Returns:
        A line per table: how many values have a vector, and how many vectors have no row.

    Raises:
        UserError: A file is gone, is not the one that the configuration was made with, or has
            vectors for none of the values.
    """
    return [
        f"{name}: {_fill_table(model, name, vectors, data.encoders[name])}"
        for name, vectors in config.pretrained.items()
    ]


def _fill_table(model: CTRModel, name: str, vectors: Pretrained, encoder: FittedEncoder) -> str:
    """Fills one table; returns text on its rows."""
    assert isinstance(encoder, VocabularyEncoder)
    where = f"{SECTION}.{name}"
    table = vector_table.read(vectors.file, where)
    if sha256_file(files.path(vectors.file)) != vectors.sha256:
        raise UserError(
            f"Expected the file of {where} as it was when the configuration was made (SHA-256 "
            f"{vectors.sha256}), found another one at {vectors.file}.",
            f"restore it, or name it anew with --set={where}={vectors.file}.",
        )
    rows_VW, known = rows_of(encoder, table, vectors.file)
    embedder = model.embedder
    values = embedder.tables[name]
    linear = values.shape[1] - rows_VW.shape[1]  # Linear weights begin at 0.
    values.assign(np.pad(rows_VW, [(0, 0), (0, linear)]))
    use = "trained"
    if name in embedder.projections:
        norm = np.sqrt(np.mean(np.sum(np.square(table.vectors_VW, dtype=np.float64), axis=1)))
        embedder.scales[name].assign(tf.constant(1.0 / norm if norm else 1.0, tf.float32))
        use = f"{'trained' if vectors.trainable else 'fixed'}, projected to {embedder.width}"
    vocabulary, unused = len(encoder.vocabulary), len(table.values) - known
    return (
        f"vectors of {vectors.file} (width {vectors.width}, {use}): {known:,} of {vocabulary:,} "
        f"values have one, {vocabulary - known:,} and unknown values get their mean; "
        f"{unused:,} vectors are of values that the vocabulary lacks"
    )


def rows_of(
    encoder: VocabularyEncoder, table: vector_table.VectorTable, file: str
) -> tuple[np.ndarray, int]:
    """The rows of a table by id, and the number of values that have a vector.

    Args:
        encoder: Encoder of the feature.
        table: Vectors of values.
        file: Name of their file, for error messages.

    Returns:
        float32 [ids, W], 0 for padding; number of values of the vocabulary with a vector.

    Raises:
        UserError: No value of the vocabulary has a vector.
    """
    words = texts(encoder.vocabulary)
    ranks = pc.index_in(words, value_set=table.values.cast(pa.large_string()))
    places = pc.fill_null(ranks, -1).to_numpy(zero_copy_only=False).astype(np.int64)
    known = int((places >= 0).sum())
    if not known:
        raise UserError(
            f"Expected vectors of values of {encoder.feature.name!r} in {file}, found none of "
            f"its {len(words):,} values among the {len(table.values):,} there, such as "
            f"{table.values[0].as_py()!r}; the vocabulary has values such as "
            f"{words[0].as_py() if len(words) else None!r}.",
            "give both the same ids.",
        )
    mean_W = table.vectors_VW.mean(axis=0, dtype=np.float64).astype(np.float32)
    rows_VW = np.tile(mean_W, (encoder.cardinality, 1))
    rows_VW[PAD_ID] = 0.0
    is_known = np.flatnonzero(places >= 0)
    rows_VW[1 + encoder.num_oov + is_known] = table.vectors_VW[places[is_known]]
    return rows_VW, known
