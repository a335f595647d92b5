"""Begins a run with the weights of another one, whose vocabularies may differ.

A row of an embedding table belongs to a value, and values change their ids from one data set to the
next; so rows are matched by value. Values that the other run did not know keep the initial row of a
new run.
"""

import numpy as np
import pyarrow.compute as pc

from models import runs
from models.base import CTRModel
from models.config import RunConfig
from models.keras import tf
from preprocessing.data_dir import DataDir
from preprocessing.encoders import BucketisedEncoder, FittedEncoder, VocabularyEncoder
from preprocessing.errors import UserError
from preprocessing.schema import PAD_ID


def warm_start(model: CTRModel, data: DataDir, config: RunConfig) -> list[str]:
    """Copies the best weights of the run `config.warm_start` into a new model.

    Optimisers and self-supervised parts, which the best weights do not hold, begin anew.

    Args:
        model: New; of the same model settings as the run.
        data: Of the new run.
        config: Of the new run.

    Returns:
        Lines that say what was taken over, a line per embedding table and one for the rest.

    Raises:
        UserError: No finished run there, or one of another model.
    """
    run = runs.open_run(config.warm_start)
    _check_same_model(run, config)
    source = runs.load_model(run.path)
    key = model.schema.item_key.name
    pairs = [
        (name, name, source.embedder.tables.get(name), table)
        for name, table in model.embedder.tables.items()
    ]
    pairs += [
        (ours.name.partition(":")[0], key, theirs, ours)
        for theirs, ours in zip(source.backbone.tables, model.backbone.tables, strict=True)
    ]
    compressed = {*source.embedder.quotients, *model.embedder.quotients}
    lines = []
    for title, feature, theirs, ours in pairs:
        found = "all rows are new: the run does not have it"
        if feature in compressed:
            found = "all rows are new: compressed tables cannot be matched by value"
        elif theirs is not None:
            found = _copy_rows(theirs, run.data.encoders[feature], ours, data.encoders[feature])
        lines.append(f"warm start: {title}: {found}")
    rest = {id(ours) for _, _, _, ours in pairs}
    copied, new = _copy_others(source, model, rest)
    lines.append(f"warm start: {copied:,} other weights taken over, {new:,} new")
    return lines


def _check_same_model(run: runs.Run, config: RunConfig) -> None:
    """Raises `UserError` unless the run has the model, and its settings, of the new run."""
    before, after = run.config.to_json()["model"], config.to_json()["model"]
    changed = [
        f"model.{key} is {before.get(key)!r} there, {value!r} here"
        for key, value in after.items()
        if before.get(key) != value
    ]
    if changed:
        raise UserError(
            f"Expected the model of {run.path} for a warm start; {'; '.join(changed)}.",
            f"add --config={run.path / runs.CONFIG}, or choose another run.",
        )


def _copy_rows(
    theirs: tf.Variable, before: FittedEncoder, ours: tf.Variable, after: FittedEncoder
) -> str:
    """Copies the rows of values that both encoders know; says how many."""
    sources = matching_ids(before, after)
    known = sources >= 0
    rows = tf.convert_to_tensor(ours).numpy()
    rows[known] = theirs.numpy()[sources[known]]
    ours.assign(rows)
    unused = before.cardinality - len(np.unique(sources[known]))
    return (
        f"{known.sum():,} rows taken over, {(~known).sum():,} new, "
        f"{unused:,} of the run left behind"
    )


def matching_ids(before: FittedEncoder, after: FittedEncoder) -> np.ndarray:
    """For every id of `after` the id that `before` gives to the same value; -1 if there is none."""
    ids = np.full(after.cardinality, -1, np.int64)
    if isinstance(before, VocabularyEncoder) and isinstance(after, VocabularyEncoder):
        ids[PAD_ID] = PAD_ID
        if before.num_oov == after.num_oov:
            # An unknown value falls into the same bucket as before.
            ids[1 : 1 + after.num_oov] = np.arange(1, 1 + after.num_oov)
        if before.vocabulary.type == after.vocabulary.type:
            ranks = pc.index_in(after.vocabulary, value_set=before.vocabulary)
            places = pc.fill_null(ranks, -1).to_numpy(zero_copy_only=False).astype(np.int64)
            ids[1 + after.num_oov :] = np.where(places < 0, -1, places + 1 + before.num_oov)
    elif _same_ids(before, after):
        ids[:] = np.arange(after.cardinality)
    return ids


def _same_ids(before: FittedEncoder, after: FittedEncoder) -> bool:
    """Whether encoders without a vocabulary give the same ids to the same values."""
    if isinstance(before, BucketisedEncoder) and isinstance(after, BucketisedEncoder):
        return np.array_equal(before.boundaries, after.boundaries)
    return before.feature.encoder == after.feature.encoder


def _copy_others(source: CTRModel, model: CTRModel, done: set[int]) -> tuple[int, int]:
    """Copies the weights of embedder and backbone that are no tables, by place and shape.

    Returns:
        How many were copied, and how many stay as they are because their shapes differ.
    """
    copied = new = 0
    vectors = source.embedder.vectors
    pairs = [(vectors.get(name), ours) for name, ours in model.embedder.vectors.items()]
    pairs += zip(source.backbone.weights, model.backbone.weights, strict=True)
    for theirs, ours in pairs:
        if id(ours) in done:
            continue
        if theirs is None or theirs.shape != ours.shape:
            new += 1
        else:
            ours.assign(theirs)
            copied += 1
    return copied, new
