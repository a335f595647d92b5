"""Starts a run with the weights of another one, whose vocabularies and features may differ.

A row of an embedding table belongs to a value, and the id of a value differs between data sets; so
rows are matched by value. Values that the other run did not know keep their initial row. Entries of
other weights are matched by feature: see `models.training.transfer`.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow.compute as pc

from models.config.run_config import RunConfig
from models.core import run_directory
from models.core.base import CTRModel
from models.keras import tf
from models.training.transfer import copy_dense, why_new
from preprocessing.data_dir import DataDir
from preprocessing.encoders.fitted import BucketisedEncoder, FittedEncoder, VocabularyEncoder
from preprocessing.encoders.vector_encoder import VectorEncoder
from preprocessing.errors import UserError
from preprocessing.features.feature import PAD_ID


def warm_start(model: CTRModel, data: DataDir, config: RunConfig) -> list[str]:
    """Copies the best weights of the run `config.warm_start` into a new model.

    Optimisers and self-supervised parts are not among the best weights, so they start afresh.

    Args:
        model: New model, with the same model settings as the run.
        data: Data set of the new run.
        config: Configuration of the new run.

    Returns:
        Lines on what was copied, see `take_over`.

    Raises:
        UserError: There is no finished run, or it has another model.
    """
    run = run_directory.open_run(config.warm_start)
    require_same_settings(run, config, "model")
    source = run_directory.load_model(run.path)
    return take_over(source, run.data.encoders, model, data.encoders)


def take_over(
    source: CTRModel,
    before: Mapping[str, FittedEncoder],
    model: CTRModel,
    after: Mapping[str, FittedEncoder],
) -> list[str]:
    """Copies the weights that two models have in common.

    Args:
        source: Trained model.
        before: Encoders of the features of `source`.
        model: New model, with the same settings.
        after: Encoders of the features of `model`.

    Returns:
        Lines on what was copied: one per embedding table, one per feature that is new, gone or of
        another kind, and one for the other weights.

    Raises:
        UserError: The layouts of the model do not fit its weights.
    """
    lines = _copy_tables(source, before, model, after)
    for feature in source.schema.encoded_features:
        if feature.name not in after:
            lines.append(f"{feature.name}: left behind, the new data set does not have it")
    ours, theirs = (each.schema.history.features for each in (model, source))
    if [name for name in ours if name in theirs] != [name for name in theirs if name in ours]:
        lines.append(
            f"history.features is {', '.join(ours)} here, {', '.join(theirs)} there: weights go "
            "with their features"
        )
    lines += _copy_event_projections(source, model)
    transfer, warnings = copy_dense(source, model)
    known = [name for name in after if why_new(name, source.schema, model.schema) is None]
    rescale_projections(before, model, after, known)
    lines += [*warnings, str(transfer)]
    if model.ssl is not None:
        lines.append(f"{len(model.ssl.weights):,} weights of self-supervision begin anew")
    return lines


def _copy_tables(
    source: CTRModel,
    before: Mapping[str, FittedEncoder],
    model: CTRModel,
    after: Mapping[str, FittedEncoder],
) -> list[str]:
    """Copies the rows of embedding tables; returns lines on their numbers and new features."""
    compressed = {*source.embedder.quotients, *model.embedder.quotients}
    key = model.schema.item_key.name
    reasons = {name: why_new(name, source.schema, model.schema) for name in after}
    tables = source.embedder.tables
    chosen = [
        (name, name, tables.get(name), table, reasons[name])
        for name, table in model.embedder.tables.items()
    ]
    other_key = None
    if source.schema.item_key.name != key:
        other_key = f"items are told by {source.schema.item_key.name} there"
    chosen += [
        (ours.name.partition(":")[0], key, theirs, ours, other_key or reasons[key])
        for theirs, ours in zip(source.backbone.tables, model.backbone.tables, strict=True)
    ]
    lines = []
    for title, feature, theirs, ours, reason in chosen:
        if title in model.embedder.fixed:
            lines.append(f"{title}: all rows stay the vectors of its file")
            continue
        if reason is None and title in tables and not _same_form(source, model, title):
            reason = "its rows are projected, or of another width, on one side only"
        if reason is None and feature in compressed:
            reason = "compressed tables cannot be matched by value"
        if theirs is None or reason is not None:
            lines.append(f"{title}: all rows are new: {reason}")
        else:
            copied = _copy_rows(theirs, before[feature], ours, after[feature])
            lines.append(f"{title}: {copied}")
    for name in model.embedder.vectors:
        if reasons[name] is not None:
            lines.append(f"{name}: its vector is new: {reasons[name]}")
    return lines


def rescale_projections(
    before: Mapping[str, FittedEncoder],
    model: CTRModel,
    after: Mapping[str, FittedEncoder],
    names: Sequence[str],
) -> None:
    """Undoes in copied projections that two data sets divide vectors by different norms.

    Args:
        before: Encoders of the features that the projections come from.
        model: Model that has them.
        after: Encoders of the features of `model`.
        names: Features whose projections were copied, and others that have none.
    """
    for name in names:
        theirs, ours = before[name], after[name]
        if isinstance(theirs, VectorEncoder) and isinstance(ours, VectorEncoder):
            projection = model.embedder.projections[name]
            projection.assign(projection * np.float32(ours.norm / theirs.norm))


def _same_form(source: CTRModel, model: CTRModel, name: str) -> bool:
    """Whether the rows of a table mean the same in two models: projected, and of one width."""
    before, after = (
        (one.embedder.tables[name].shape[1], name in one.embedder.projections)
        for one in (source, model)
    )
    return before == after


def _copy_event_projections(source: CTRModel, model: CTRModel) -> list[str]:
    """Copies what event features add to item features that both models have; returns lines."""
    old, new = (each.schema.history.features for each in (source, model))
    size = model.embedder.dims.embedding_size
    common = [
        name for name in new if name in old and not why_new(name, source.schema, model.schema)
    ]
    lines = []
    for name, ours in model.embedder.event_projections.items():
        theirs = source.embedder.event_projections.get(name)
        if theirs is None or why_new(name, source.schema, model.schema) is not None:
            lines.append(f"{name}: what it adds to events begins with nothing")
            continue
        kernel, other = (weight.numpy() for weight in (ours, theirs))
        for item in common:
            place, source_place = new.index(item) * size, old.index(item) * size
            kernel[:, place : place + size] = other[:, source_place : source_place + size]
        ours.assign(kernel)
        lines.append(f"{name}: what it adds to {', '.join(common) or 'nothing'} taken over")
    return lines


def require_same_settings(
    run: run_directory.Run, config: RunConfig, section: str, keys: Sequence[str] | None = None
) -> None:
    """Raises `UserError` unless a new run has the settings of an earlier one.

    Args:
        run: The earlier run.
        config: Configuration of the new run.
        section: Section of the settings to compare.
        keys: Settings to compare; None for all.
    """
    before, after = run.config.to_json()[section], config.to_json()[section]
    changed = [
        f"{section}.{key} is {before.get(key)!r} there, {value!r} here"
        for key, value in after.items()
        if (keys is None or key in keys) and before.get(key) != value
    ]
    if changed:
        raise UserError(
            f"Expected the settings of {run.path} to begin with its weights; {'; '.join(changed)}.",
            f"add --config={run.path / run_directory.CONFIG}, or choose another run.",
        )


def _copy_rows(
    theirs: tf.Variable, before: FittedEncoder, ours: tf.Variable, after: FittedEncoder
) -> str:
    """Copies the rows of values that both encoders know; returns text on their numbers."""
    sources = matching_ids(before, after)
    is_known = sources >= 0
    rows = tf.convert_to_tensor(ours).numpy()
    rows[is_known] = theirs.numpy()[sources[is_known]]
    ours.assign(rows)
    unused = before.cardinality - len(np.unique(sources[is_known]))
    return (
        f"{is_known.sum():,} rows taken over, {(~is_known).sum():,} new, "
        f"{unused:,} of the run left behind"
    )


def matching_ids(before: FittedEncoder, after: FittedEncoder) -> np.ndarray:
    """For each id of `after`, the id of the same value in `before`; -1 if there is none.

    A value that was expired before and is no more has none: it was out of vocabulary.
    """
    ids = np.full(after.cardinality, -1, np.int64)
    if isinstance(before, VocabularyEncoder) and isinstance(after, VocabularyEncoder):
        ids[PAD_ID] = PAD_ID
        if before.num_oov == after.num_oov:
            # An unknown value falls into the same bucket as before.
            ids[1 : 1 + after.num_oov] = np.arange(1, 1 + after.num_oov)
        if before.vocabulary.type == after.vocabulary.type:
            ranks = pc.index_in(after.vocabulary, value_set=before.vocabulary)
            places = pc.fill_null(ranks, -1).to_numpy(zero_copy_only=False).astype(np.int64)
            is_back = np.append(before.is_expired, False)[places] & ~after.is_expired
            is_new = (places < 0) | is_back
            ids[1 + after.num_oov :] = np.where(is_new, -1, places + 1 + before.num_oov)
    elif _same_ids(before, after):
        ids[:] = np.arange(after.cardinality)
    return ids


def _same_ids(before: FittedEncoder, after: FittedEncoder) -> bool:
    """Whether encoders without a vocabulary give the same ids to the same values."""
    if isinstance(before, BucketisedEncoder) and isinstance(after, BucketisedEncoder):
        return np.array_equal(before.boundaries, after.boundaries)
    return before.feature.encoder == after.feature.encoder
